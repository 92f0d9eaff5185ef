"""The published ODE-RNN autoencoder of light curves, in its own form and in an exact fast one."""

import torch
from torch import Tensor, nn

from skyvec.nn.continuous import (
    STEPS,
    OdeGru,
    Step,
    TanhNet,
    backward_steps,
    dopri5_step,
    find_stamps,
    flow_values,
    small_weight,
    union_values,
    unite,
)
from skyvec.nn.losses import curve_l1
from skyvec.nn.ragged import Ragged, random_subset

SOLVERS = (*STEPS, "dopri5")


class OdeRnn(nn.Module):
    """ODE-RNN encoder, ODE decoder, no biases: a latent without spread, trained by interpolation.

    Backwards in time, between stamps dh/dtau = f(h), at a stamp h = GRU(h, [x, m]) for the series
    that have a point there; at the first point latent = P h. Decoder: dy/dtau = g(y) from
    y(0) = latent, value = C y(tau). tau = time / span. f, g, P, C and the GRU's networks are
    linear maps with tanh between; weights start as N(0, 0.1). The loss is the mean absolute
    residual of each series, then their mean.

    Every network maps zeros to zeros, so only the mask moves the state of a constant curve: its
    latent tells its stamps and no more. Shapes: n series, N points.

    * ``form="union"`` crosses the gaps between all stamps of a batch, every series each, as
      published. ``form="gap"`` integrates dh/ds = dt f(h), s in [0, 1], over each series' own
      gaps: the same mathematics in fewer steps.
    * ``dopri5`` (of torchdiffeq, as published) has one step size for a batch, so a latent depends
      on what it is encoded with, within the tolerances. ``rk4``, ``midpoint`` and ``euler`` take
      one step a gap and do not; their decoder takes Runge-Kutta steps on a fixed grid.

    Args:
        bands: Photometric bands; each is a channel of values and one of the mask.
        latent: Width of the code.
        state: Width of a recurrent state.
        units: Hidden width of every network.
        ode_layers: Hidden layers of f and g.
        stack: Recurrent layers; layer k reads the updated states of layer k - 1.
        form: ``gap`` or ``union``.
        solver: ``rk4``, ``midpoint``, ``euler`` or ``dopri5``.
        decode_solver: ``rk4``, ``dopri5``, or ``same``: dopri5 where the encoder uses it.
        span: Unit of tau [day], fixed so that the same curve always gets the same latent. A TESS
            sector lasts 27.4 d; choose about a tenth of the baseline for surveys of years.
        max_step: Solvers with fixed steps divide longer gaps; also the decoder's grid [span].
        rtol: Relative tolerance of dopri5.
        atol: Absolute tolerance of dopri5.
        task: ``interpolation``: from a random 10 to 50 % of the points to all of them.
            ``extrapolation``: from the first half of the points to the second.

    Raises:
        ValueError: An unknown form, solver or task, or a size that is not positive.
        ModuleNotFoundError: At the first use of dopri5 where torchdiffeq is not installed.

    References:
        Rubanova, Chen & Duvenaud 2019, Latent ODEs for irregularly-sampled time series.
        https://arxiv.org/abs/1907.03907
    """

    modality = "lightcurves"

    def __init__(
        self,
        *,
        bands: int = 1,
        latent: int = 40,
        state: int = 40,
        units: int = 100,
        ode_layers: int = 2,
        stack: int = 1,
        form: str = "gap",
        solver: str = "rk4",
        decode_solver: str = "same",
        span: float = 27.4,
        max_step: float = 1 / 32,
        rtol: float = 1e-3,
        atol: float = 1e-4,
        task: str = "interpolation",
    ) -> None:
        super().__init__()
        _check_choice("form", form, ("gap", "union"))
        _check_choice("solver", solver, SOLVERS)
        _check_choice("decode_solver", decode_solver, ("same", "rk4", "dopri5"))
        _check_choice("task", task, ("interpolation", "extrapolation"))
        sizes = {"bands": bands, "latent": latent, "state": state, "units": units}
        sizes |= {"ode_layers": ode_layers, "stack": stack}
        for name, size in (sizes | {"span": span, "max_step": max_step}).items():
            if not size > 0:
                raise ValueError(f"{name} = {size} must be > 0")
        self.bands, self.latent, self.span, self.max_step = bands, latent, span, max_step
        self.form, self.solver, self.task = form, solver, task
        self.is_decoder_adaptive = "dopri5" in (decode_solver, solver) and decode_solver != "rk4"
        self.tolerance = {"rtol": rtol, "atol": atol}
        self.encoder = OdeGru(
            bands=bands, state=state, units=units, ode_layers=ode_layers, stack=stack
        )
        self.project = TanhNet(state, units, latent)
        self.field = TanhNet(latent, *[units] * ode_layers, latent)
        self.read = small_weight(latent, bands)

    def code(self, batch: Ragged) -> Tensor:
        """Encode series; all of the code is indexed, (n, latent)."""
        stamps = find_stamps(batch, self.bands)
        cut = torch.inf if self.solver == "dopri5" else self.max_step
        if self.form == "union":
            union = unite(stamps, batch.n, span=self.span, max_step=cut)
            return self.project(self.encoder.union(union, self._cross())).T
        steps = backward_steps(stamps, batch.n, span=self.span, max_step=cut)
        return self.project(self.encoder.gaps(steps, self._cross())).T

    def encode(self, batch: Ragged) -> Tensor:
        """Encode series, (n, latent)."""
        return self.code(batch)

    def decode(self, code: Tensor, times: Ragged) -> Tensor:
        """Reconstruct series (n, latent) at every point of ``times``, (N,)."""
        field = self.field.function()
        if self.is_decoder_adaptive:
            return union_values(field, self.read, code.T, times, span=self.span, **self.tolerance)
        return flow_values(field, self.read, code.T, times, span=self.span, grid=self.max_step)

    def loss(self, batch: Ragged, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the series of the mean absolute residual, in units of a curve's scatter."""
        if self.task == "extrapolation":
            is_early = _is_first_half(batch)
            given, wanted = batch.keep(is_early), batch.keep(~is_early)
        else:
            given, wanted = batch.keep(random_subset(batch, generator)), batch
        loss = curve_l1(self.decode(self.code(given), wanted), wanted)
        return loss, {"l1": loss.detach()}

    def _cross(self) -> Step:
        return dopri5_step(**self.tolerance) if self.solver == "dopri5" else STEPS[self.solver]


def _is_first_half(batch: Ragged) -> Tensor:
    """The earlier half of the points of each series, the middle one included, (N,)."""
    number = torch.arange(len(batch.time), device=batch.time.device)
    rank = number - batch.offsets[:-1][batch.curve]
    return 2 * rank < batch.lengths[batch.curve]


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; choose from {', '.join(known)}")
