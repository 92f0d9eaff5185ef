"""Networks in continuous time: fields without biases, solvers, and the ODE-GRU over ragged series.

A field f has no time in it, so the flow over a gap dt is that of dh/ds = dt f(h), s in [0, 1], and
every series can cross its own gaps: a batch needs no common time stamps.

States are (d, n), a column a series: products of small matrices with wide ones are the fast ones.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from skyvec.nn.ragged import Ragged

Function = Callable[[Tensor], Tensor]
Update = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[Function, Tensor, Tensor], Tensor]

TICK = 1e-6
"""Stamps closer than this are one stamp [day]: rounded stamps differ by float noise only."""


# --- solvers ----------------------------------------------------------------------------------


def euler(f: Function, h: Tensor, dt: Tensor) -> Tensor:
    """Take one explicit Euler step, order 1: h (d, n) over dt (n,) or ()."""
    return torch.addcmul(h, f(h), dt)


def midpoint(f: Function, h: Tensor, dt: Tensor) -> Tensor:
    """Take one step of the midpoint rule, order 2: h (d, n) over dt (n,) or ()."""
    k = f(torch.addcmul(h, f(h), dt, value=0.5))
    return torch.addcmul(h, k, dt)


def rk4(f: Function, h: Tensor, dt: Tensor) -> Tensor:
    """Take one step of the classical Runge-Kutta rule, order 4: h (d, n) over dt (n,) or ()."""
    k1 = f(h)
    k2 = f(torch.addcmul(h, k1, dt, value=0.5))
    k3 = f(torch.addcmul(h, k2, dt, value=0.5))
    k4 = f(torch.addcmul(h, k3, dt))
    slope = k1.add(k4).add(k2.add(k3), alpha=2)
    return torch.addcmul(h, slope, dt, value=1 / 6)


STEPS: dict[str, Step] = {"euler": euler, "midpoint": midpoint, "rk4": rk4}


def dopri5(f: Function, h: Tensor, times: Tensor, *, rtol: float, atol: float) -> Tensor:
    """Integrate dh/dt = f(h) with the adaptive Dormand-Prince pair of torchdiffeq.

    One step size serves the whole batch, so what else is in it changes an answer within the
    tolerance.

    Args:
        f: The field.
        h: State at ``times[0]``, (d, n).
        times: Strictly monotonic, float64, (T,).
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        State at every time, (T, d, n).

    Raises:
        ModuleNotFoundError: torchdiffeq is not installed.

    References:
        Chen et al. 2018, Neural Ordinary Differential Equations. https://arxiv.org/abs/1806.07366
    """
    try:
        from torchdiffeq import odeint
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "dopri5 is the solver of torchdiffeq, which is not installed; "
            "pip install skyvec[reference], or choose solver = rk4"
        ) from error
    return odeint(lambda _, y: f(y), h, times, method="dopri5", rtol=rtol, atol=atol)


def dopri5_step(*, rtol: float, atol: float) -> Step:
    """Make a step that crosses gaps adaptively, one a series (n,) or one for all ()."""

    def step(f: Function, h: Tensor, dt: Tensor) -> Tensor:
        if dt.dim():
            unit = torch.tensor([0.0, 1.0], dtype=torch.float64, device=h.device)
            return dopri5(lambda y: dt * f(y), h, unit, rtol=rtol, atol=atol)[-1]
        times = torch.stack([torch.zeros_like(dt), dt]).double()
        return dopri5(f, h, times, rtol=rtol, atol=atol)[-1]

    return step


# --- networks ---------------------------------------------------------------------------------


def small_weight(inputs: int, outputs: int) -> nn.Parameter:
    """Weights of a linear map (out, in), each N(0, 0.1) as in the reference implementation."""
    return nn.Parameter(torch.randn(outputs, inputs) * 0.1)


class TanhNet(nn.Module):
    """Linear maps without bias and tanh between them, so that 0 maps to 0: (in, n) -> (out, n).

    Args:
        sizes: Widths from input to output.
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(map(small_weight, sizes[:-1], sizes[1:]))

    def function(self) -> Function:
        """Give the network as a function that looks up no module: a loop calls it often."""
        *hidden, last = self.weights

        def f(x: Tensor) -> Tensor:
            for w in hidden:
                x = torch.mm(w, x).tanh_()
            return torch.mm(last, x)

        return f

    def forward(self, x: Tensor) -> Tensor:
        """Map (in, n) to (out, n)."""
        return self.function()(x)


class Gru(nn.Module):
    """The gated update of the reference ODE-RNN, without spread and without biases.

    c = [h, x];  u = sigmoid(U2 tanh(U1 c));  r = sigmoid(R2 tanh(R1 c));
    n = N2 tanh(N1 [r h, x]);  h' = (1 - u) n + u h.

    Args:
        inputs: Width of x.
        state: Width of h.
        units: Hidden width of each of the three networks.

    References:
        Rubanova, Chen & Duvenaud 2019, Latent ODEs. https://arxiv.org/abs/1907.03907
    """

    def __init__(self, *, inputs: int, state: int, units: int) -> None:
        super().__init__()
        self.units = units
        # U1 and R1 side by side: one product instead of two
        self.gates = small_weight(state + inputs, 2 * units)
        self.update = small_weight(units, state)
        self.reset = small_weight(units, state)
        self.candidate = TanhNet(state + inputs, units, state)

    def function(self) -> Update:
        """Give the update as a function of h (d, n) and x (inputs, n)."""
        gates, update, reset, units = self.gates, self.update, self.reset, self.units
        candidate = self.candidate.function()

        def f(h: Tensor, x: Tensor) -> Tensor:
            hidden = torch.mm(gates, torch.cat([h, x])).tanh_()
            u = torch.mm(update, hidden[:units]).sigmoid_()
            r = torch.mm(reset, hidden[units:]).sigmoid_()
            return torch.lerp(candidate(torch.cat([r * h, x])), h, u)

        return f

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        """Update (d, n) with (inputs, n)."""
        return self.function()(h, x)


class OdeGru(nn.Module):
    """Stacked layers that each flow between stamps and update at them.

    Layer k > 1 reads the updated state of layer k - 1 and the mask.

    Args:
        bands: Channels of the values, and of the mask.
        state: Width of a layer's state.
        units: Width of the hidden layers.
        ode_layers: Hidden layers of a field.
        stack: Number of layers.
    """

    def __init__(self, *, bands: int, state: int, units: int, ode_layers: int, stack: int) -> None:
        super().__init__()
        self.bands, self.state, self.stack = bands, state, stack
        self.fields = nn.ModuleList(
            TanhNet(state, *[units] * ode_layers, state) for _ in range(stack)
        )
        self.updates = nn.ModuleList(
            Gru(inputs=(state if k else bands) + bands, state=state, units=units)
            for k in range(stack)
        )

    def gaps(self, steps: "Steps", cross: Step) -> Tensor:
        """Cross each series' own gaps, all series of a batch side by side.

        Args:
            steps: Of the batch.
            cross: Solver of one gap.

        Returns:
            State of the last layer at the time 0, 0 for a series without stamps, (d, n).
        """
        layers, state = self._start(len(steps.order))
        finished: list[Tensor] = []
        sizes = steps.sizes
        columns = (torch.split(c, sizes, -1) for c in (steps.dt, steps.x, steps.is_seen))
        for n, is_whole, dt, x, is_seen in zip(sizes, steps.is_whole, *columns, strict=True):
            if n < state[0].shape[1]:
                finished.append(state[-1][:, n:])
                state = [h[:, :n] for h in state]
            flown = [cross(field, h, dt) for (field, _), h in zip(layers, state, strict=True)]
            state = self._update(layers, flown, x, None if is_whole else is_seen)
        ordered = torch.cat([state[-1], *reversed(finished)], 1)
        return ordered[:, torch.argsort(steps.order)]

    def union(self, grid: "Union", cross: Step) -> Tensor:
        """Go through the union of a batch's stamps from the last to the first, as published.

        Args:
            grid: The union.
            cross: Solver of one gap, the same for all series.

        Returns:
            State of the last layer at the time 0, (d, n).
        """
        layers, state = self._start(grid.x.shape[2])
        for u, (gap, x) in enumerate(zip(grid.dt, grid.x, strict=True)):
            if u:  # all is 0 before the last stamp
                state = [cross(field, h, gap) for (field, _), h in zip(layers, state, strict=True)]
            is_seen = (x[self.bands :] > 0).any(0)
            state = self._update(layers, state, x, is_seen)
        return state[-1]

    def _start(self, n: int) -> tuple[list[tuple[Function, Update]], list[Tensor]]:
        layers = [
            (cast(TanhNet, field).function(), cast(Gru, update).function())
            for field, update in zip(self.fields, self.updates, strict=True)
        ]
        weight = next(self.parameters())
        return layers, [weight.new_zeros(self.state, n) for _ in layers]

    def _update(
        self,
        layers: list[tuple[Function, Update]],
        state: list[Tensor],
        x: Tensor,
        is_seen: Tensor | None,
    ) -> list[Tensor]:
        """Update the layers one above the other, but not where a series has no point."""
        below, after = x, []
        for k, ((_, update), h) in enumerate(zip(layers, state, strict=True), 1):
            new = update(h, below)
            after.append(new if is_seen is None else torch.where(is_seen, new, h))
            if k < len(layers):
                below = torch.cat([after[-1], x[self.bands :]])
        return after


# --- stamps of a batch ------------------------------------------------------------------------


class Stamps(NamedTuple):
    """The distinct time stamps of each series, M of them in all, and where there is none at 0.

    Args:
        tick: Time in units of ``TICK``, int64, ascending within a series, (M,).
        curve: Which series, ascending, (M,).
        x: Value of each band, then 1 where the band has a point and else 0, (2 D, M).
    """

    tick: Tensor
    curve: Tensor
    x: Tensor


class Steps(NamedTuple):
    """The gaps of all series, step by step: first those of every series' first step.

    Series stand in descending order of their number of steps, so those still running are always
    the first ``sizes[s]``. M steps in all, S at most in one series, n series.

    Args:
        dt: Gap to cross before the stamp, negative as time runs backwards, (M,).
        x: As in :class:`Stamps`, (2 D, M).
        is_seen: A point lies at the end of the step, bool, (M,).
        sizes: Series that take part in each step, descending, S numbers.
        is_whole: All that take part have a point at the end of the step, S truths.
        order: Which series stands where, (n,).
    """

    dt: Tensor
    x: Tensor
    is_seen: Tensor
    sizes: list[int]
    is_whole: list[bool]
    order: Tensor


class Union(NamedTuple):
    """All stamps of a batch and the time 0, last first, U of them.

    Args:
        dt: Gap to cross before the stamp, 0 before the last and then negative, (U,).
        x: As in :class:`Stamps`, 0 where a series has no point, (U, 2 D, n).
    """

    dt: Tensor
    x: Tensor


class Columns(NamedTuple):
    """Series of different lengths side by side, the longest first, stored row by row.

    Element s of series c is number ``begin[s] + rank[c]``.

    Args:
        order: Which series stands where, (n,).
        rank: Where each series stands, (n,).
        begin: Where each row begins, (S,).
        sizes: Series that reach each row, (S,).
    """

    order: Tensor
    rank: Tensor
    begin: Tensor
    sizes: Tensor


def side_by_side(count: Tensor) -> Columns:
    """Lay out series of ``count`` (n,) elements."""
    order = torch.argsort(count, descending=True, stable=True)
    sizes = len(count) - torch.bincount(count).cumsum(0)[:-1]
    return Columns(order, torch.argsort(order), sizes.cumsum(0) - sizes, sizes)


def find_stamps(batch: Ragged, bands: int) -> Stamps:
    """Bring the points of one series and time together; points of one band are averaged."""
    tick = (batch.time / TICK).round().long()
    is_new = torch.ones_like(tick, dtype=torch.bool)
    is_new[1:] = (batch.curve.diff() != 0) | (tick.diff() != 0)
    index = (is_new.long().cumsum(0) - 1) * bands + batch.band
    tick, curve = tick[is_new], batch.curve[is_new]
    empty = batch.value.new_zeros(len(tick) * bands)
    count = empty.index_add(0, index, torch.ones_like(batch.value))
    mean = empty.index_add(0, index, batch.value) / count.clamp(min=1)
    seen = (count > 0).to(mean.dtype)
    x = torch.cat([mean.view(-1, bands).T, seen.view(-1, bands).T])
    # a subset may lack the first point of its series, but time 0 is where the latent belongs
    is_first = torch.ones_like(curve, dtype=torch.bool)
    is_first[1:] = curve.diff() != 0
    late = curve[is_first & (tick > 0)]
    curve = torch.cat([late, curve])
    tick = torch.cat([torch.zeros_like(late), tick])
    order = torch.argsort(curve, stable=True)
    x = torch.cat([x.new_zeros(2 * bands, len(late)), x], 1)
    return Stamps(tick[order], curve[order], x[:, order])


def backward_steps(stamps: Stamps, n: int, *, span: float, max_step: float) -> Steps:
    """List each series' gaps from its last stamp to the time 0.

    Args:
        stamps: Of n series.
        n: Number of series.
        span: Unit of time of the flow [day].
        max_step: A longer gap is crossed in equal steps no longer than this [span].
    """
    # descending in series and in time
    tick, curve, x = (column.flip(-1) for column in stamps)
    same = curve.diff() == 0
    source, is_last, dt = _cut(torch.where(same, tick.diff(), 0) * (TICK / span), max_step)
    bands = len(x) // 2
    is_seen = (x[bands:, source] > 0).any(0) & is_last
    curve = curve[source]
    count = torch.bincount(curve, minlength=n)
    begin = len(curve) - count.cumsum(0)
    number = torch.arange(len(curve), device=curve.device)
    row = number - begin[curve]
    columns = side_by_side(count)
    place = columns.begin[row] + columns.rank[curve]
    taken = torch.empty_like(place).index_copy_(0, place, number)
    n_seen = torch.zeros_like(columns.sizes).index_add_(0, row, is_seen.long())
    return Steps(
        dt[taken].to(x.dtype),
        x[:, source[taken]],
        is_seen[taken],
        columns.sizes.tolist(),
        (n_seen == columns.sizes).tolist(),
        columns.order,
    )


def unite(stamps: Stamps, n: int, *, span: float, max_step: float = math.inf) -> Union:
    """Lay n series on the union of their stamps.

    Args:
        stamps: Of n series.
        n: Number of series.
        span: Unit of time of the flow [day].
        max_step: A longer gap gets stamps without points in between [span].
    """
    ticks, row = torch.unique(stamps.tick, return_inverse=True)
    source, is_last, dt = _cut(ticks.flip(0).diff() * (TICK / span), max_step)
    last = torch.nonzero(is_last)[:, 0].flip(0)  # where each of the ticks has come to lie
    x = stamps.x.new_zeros(len(source), len(stamps.x), n)
    x[last[row], :, stamps.curve] = stamps.x.T
    return Union(dt.to(x.dtype), x)


def _cut(gap: Tensor, max_step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the gaps (M - 1,) between stamps (M,) into pieces no longer than ``max_step``.

    Returns, for every piece, the stamp it leads to, whether it reaches it, and its length.
    """
    gap = torch.cat([gap.new_zeros(1), gap])[: len(gap) + 1]
    pieces = (gap.abs() / max_step - 1e-9).ceil().clamp(min=1).long()
    source = torch.repeat_interleave(pieces)
    is_last = torch.ones_like(source, dtype=torch.bool)
    is_last[:-1] = source.diff() != 0
    return source, is_last, (gap / pieces)[source]


# --- decoding ---------------------------------------------------------------------------------


def flow_values(
    field: Function, weight: Tensor, start: Tensor, times: Ragged, *, span: float, grid: float
) -> Tensor:
    """Follow dh/dt = f(h) from time 0 and read out w h at every point of some series.

    Runge-Kutta steps of one fixed length, the same for every series, and cubic Hermite
    interpolation between them: a value depends neither on other series nor on other times.

    Args:
        field: f.
        weight: One readout a band, (D, d).
        start: State of each series at the time 0, (d, n).
        times: Where to read out; negative times within one step are extrapolated.
        span: Unit of time of the flow [day].
        grid: Length of a step [span].

    Returns:
        Values at the points of ``times``, (N,).
    """
    if not len(times.time):
        return start.new_zeros(0)
    position = times.time / (span * grid)
    if position.min() < -1:
        raise ValueError(
            f"times reach {-times.time.min():.3g} d before the start of their series; count the "
            "times of a series from its first point"
        )
    cell = position.floor().clamp(min=0).long()
    count = torch.zeros(times.n, dtype=torch.long, device=cell.device)
    count.scatter_reduce_(0, times.curve, cell + 2, "amax")
    columns = side_by_side(count)
    h, dt = start[:, columns.order], start.new_tensor(grid)
    rows: list[Tensor] = []
    for n in columns.sizes.tolist():
        h = rk4(field, h[:, :n], dt) if rows else h[:, :n]
        rows.append(torch.stack([weight @ h, weight @ field(h)]))
    nodes = torch.cat(rows, 2)  # value and slope (2, D, nodes)
    left, right = (
        nodes[:, times.band, columns.begin[cell + side] + columns.rank[times.curve]]
        for side in (0, 1)
    )
    return _hermite((position - cell).to(left.dtype), left, right, grid)


def _hermite(a: Tensor, left: Tensor, right: Tensor, width: float) -> Tensor:
    """Cubic with given values and slopes at both ends (2, N), at the fraction a (N,)."""
    (p, m), (q, k) = left, right
    m, k = m * width, k * width
    return p + a * (m + a * (3 * (q - p) - 2 * m - k + a * (2 * (p - q) + m + k)))


def union_values(
    field: Function,
    weight: Tensor,
    start: Tensor,
    times: Ragged,
    *,
    span: float,
    rtol: float,
    atol: float,
) -> Tensor:
    """Follow dh/dt = f(h) over the union of all times with dopri5, as published.

    Args:
        field: f.
        weight: One readout a band, (D, d).
        start: State of each series at the time 0, (d, n).
        times: Where to read out.
        span: Unit of time of the flow [day].
        rtol: Relative tolerance.
        atol: Absolute tolerance.

    Returns:
        Values at the points of ``times``, (N,).
    """
    ticks = (times.time / TICK).round().long()
    stamps = torch.unique(torch.cat([ticks.new_zeros(1), ticks]))
    origin = int(torch.searchsorted(stamps, 0))
    tau = stamps * (TICK / span)
    states = []
    if origin:
        back = dopri5(field, start, tau[: origin + 1].flip(0), rtol=rtol, atol=atol)
        states.append(back[1:].flip(0))
    states.append(start[None])
    if origin + 1 < len(tau):
        states.append(dopri5(field, start, tau[origin:], rtol=rtol, atol=atol)[1:])
    values = torch.cat([weight @ h for h in states])  # (U, D, n)
    return values[torch.searchsorted(stamps, ticks), times.band, times.curve]
