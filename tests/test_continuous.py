"""Truth and rival: solvers against closed forms; the gap form of the ODE-RNN against the union."""

import builtins
import math

import numpy as np
import pytest
import torch

from skyvec.models.ode_rnn import OdeRnn
from skyvec.nn.continuous import (
    STEPS,
    TanhNet,
    backward_steps,
    dopri5,
    dopri5_step,
    find_stamps,
    flow_values,
    side_by_side,
    unite,
)
from skyvec.nn.ragged import Ragged

TURN = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decay(h):
    return -h


def oscillator(h):
    return TURN @ h


def series(times, *, values=None, band=None, bands=1):
    """A batch of curves from lists of times."""
    lengths = [len(t) for t in times]
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))
    time = torch.tensor(np.concatenate([np.zeros(0), *times]))
    rng = np.random.default_rng(len(time))
    if values is None:
        values = rng.standard_normal(len(time))
    return Ragged(
        time,
        torch.as_tensor(values, dtype=torch.float32),
        torch.full((len(time),), torch.nan),
        torch.zeros(len(time), dtype=torch.long) if band is None else torch.as_tensor(band),
        torch.repeat_interleave(torch.tensor(lengths)),
        offsets,
        torch.zeros(len(lengths), bands),
    )


def irregular(n, seed=0, *, low=3, high=40, span=25.0, bands=1):
    """Curves on rounded stamps that begin at 0, of lengths from ``low`` to ``high``."""
    rng = np.random.default_rng(seed)
    times = []
    for k in rng.integers(low, high, n):
        t = np.sort(rng.choice(int(span * 100), k, replace=False)) / 100
        times.append(t - t[0])
    count = sum(map(len, times))
    return series(
        times, values=rng.standard_normal(count), band=rng.integers(0, bands, count), bands=bands
    )


def model(seed=0, **options):
    torch.manual_seed(seed)
    return OdeRnn(**{"latent": 8, "state": 8, "units": 16, **options}).eval()


def twin(other, **options):
    """The same weights in another form."""
    new = model(**options)
    new.load_state_dict(other.state_dict())
    return new


def codes(net, batch):
    with torch.inference_mode():
        return net.encode(batch)


# --- solvers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@pytest.mark.parametrize("field", [decay, oscillator])
def test_a_fixed_step_converges_with_its_order_to_the_closed_solution(name, order, field):
    start = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
    matrix = -torch.eye(2, dtype=torch.float64) if field is decay else TURN
    errors = []
    for pieces in (16, 32):
        h = start
        for _ in range(pieces):
            h = STEPS[name](field, h, torch.tensor(2.0 / pieces, dtype=torch.float64))
        errors.append((h - torch.linalg.matrix_exp(2.0 * matrix) @ start).norm())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


def test_each_column_crosses_its_own_gap():
    dt = torch.tensor([0.1, -0.3, 0.0])
    h = torch.ones(2, 3)
    expected = torch.exp(-dt).expand(2, 3)
    assert torch.allclose(STEPS["rk4"](decay, h, dt), expected, atol=3e-5)
    adaptive = dopri5_step(rtol=1e-6, atol=1e-7)
    assert torch.allclose(adaptive(decay, h, dt), expected, atol=1e-6)
    assert torch.allclose(adaptive(decay, h, dt[0]), torch.exp(-dt[0]).expand(2, 3), atol=1e-6)


def test_dopri5_follows_the_oscillator():
    times = torch.linspace(0, 2 * math.pi, 9, dtype=torch.float64)
    start = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    path = dopri5(oscillator, start, times, rtol=1e-8, atol=1e-10)
    expected = torch.stack([times.cos(), -times.sin()], 1)[:, :, None]
    assert torch.allclose(path, expected, atol=1e-7)


def test_without_torchdiffeq_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "torchdiffeq":
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"pip install skyvec\[reference\]"):
        codes(model(solver="dopri5"), irregular(2))


# --- reading out a flow -----------------------------------------------------------------------


def test_a_flow_is_read_out_at_any_time_of_any_series():
    times = series([[0.0, 0.333, 7.1], [], [-0.05, 0.0, 2.9, 3.0]])
    start = torch.tensor([[1.0, 9.0, 0.0], [0.0, 9.0, 2.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    found = flow_values(oscillator, weight, start, times, span=1.0, grid=1 / 16)
    t = times.time
    expected = torch.where(times.curve == 0, t.cos(), 2 * t.sin())
    assert torch.allclose(found, expected, atol=5e-6)
    with pytest.raises(ValueError, match=r"0\.05 d before the start"):
        flow_values(oscillator, weight, start, times, span=1.0, grid=0.04)


def test_a_read_out_depends_neither_on_other_times_nor_on_other_series():
    net, few = model(), irregular(4, high=12)
    code = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = net.decode(code, few)
        some = (few.curve != 2) & (torch.arange(len(few.time)) % 2 == 0)
        part = net.decode(code, few.keep(some))
    assert torch.allclose(part, whole[some], atol=1e-7)


def test_the_adaptive_decoder_agrees_with_the_grid_on_both_sides_of_the_start():
    net = model(decode_solver="dopri5", rtol=1e-6, atol=1e-8)
    times = series([[-0.5, 0.0, 4.0, 30.0], [1.0, 2.5], []])
    code = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        adaptive = net.decode(code, times)
        grid = twin(net, decode_solver="rk4").decode(code, times)
    assert torch.allclose(adaptive, grid, atol=2e-6)
    assert grid.abs().max() > 0.01


# --- stamps -----------------------------------------------------------------------------------


def test_steps_run_backwards_over_the_analytic_gaps():
    """The regression test of the published loop: run forwards, its gaps are wrong."""
    batch = series([[0.0, 1.0, 1.5], [0.0, 4.0], [2.0], []], values=[1, 2, 3, 4, 5, 6])
    steps = backward_steps(find_stamps(batch, 1), 4, span=1.0, max_step=100.0)
    assert steps.order.tolist() == [0, 1, 2, 3]
    assert steps.sizes == [3, 3, 1]
    gaps, values, seen = (
        column.flatten().split(steps.sizes) for column in (steps.dt, steps.x[0], steps.is_seen)
    )
    assert [g.tolist() for g in gaps] == [[0, 0, 0], [-0.5, -4, -2], [-1]]
    assert [v.tolist() for v in values] == [[3, 5, 6], [2, 4, 0], [1]]
    # the third curve's only point lies 2 d after its time 0, where the latent belongs
    assert [s.tolist() for s in seen] == [[True] * 3, [True, True, False], [True]]
    assert steps.is_whole == [True, False, True]


def test_long_gaps_are_cut_and_sum_to_the_same():
    batch = irregular(6)
    stamps = find_stamps(batch, 1)
    steps = backward_steps(stamps, 6, span=27.4, max_step=0.01)
    assert steps.dt.max() <= 0 and steps.dt.min() >= -0.01 - 1e-7
    total = torch.zeros(6)
    for n, dt in zip(steps.sizes, steps.dt.split(steps.sizes)):
        total[steps.order[:n]] -= dt
    last = batch.time[batch.offsets[1:] - 1]
    assert torch.allclose(total, (last / 27.4).float(), atol=1e-5)
    assert int(steps.is_seen.sum()) == len(batch.time)
    union = unite(stamps, 6, span=27.4, max_step=0.01)
    assert union.dt.min() >= -0.01 - 1e-7
    assert union.dt.sum() == pytest.approx(-float(last.max()) / 27.4, abs=1e-5)
    assert int(union.x[:, 1].sum()) == len(batch.time)


def test_points_of_one_stamp_come_together():
    batch = series(
        [[0.0, 0.0, 0.01, 0.01 + 1e-9]], values=[1, 2, 3, 5], band=[0, 1, 1, 1], bands=2
    )
    stamps = find_stamps(batch, 2)
    assert stamps.tick.tolist() == [0, 10_000]
    assert stamps.x.T.tolist() == [[1, 2, 1, 1], [0, 4, 0, 1]]


def test_columns_lie_side_by_side():
    columns = side_by_side(torch.tensor([1, 3, 0, 2]))
    assert columns.order.tolist() == [1, 3, 0, 2]
    assert columns.sizes.tolist() == [3, 2, 1]
    assert columns.begin.tolist() == [0, 3, 5]


# --- gap form against union form --------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"stack": 2}, {"bands": 2}], ids=str)
@pytest.mark.parametrize("solver", ["rk4", "dopri5"])
def test_the_gap_form_equals_the_union_form(solver, options):
    batch = irregular(8, bands=options.get("bands", 1), high=25)
    union = model(form="union", solver=solver, **options)
    gap = twin(union, form="gap", solver=solver, **options)
    expected = codes(union, batch)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(codes(gap, batch), expected, atol=1e-4)


def test_every_solver_equals_the_published_form_at_full_size():
    batch = irregular(6, low=20, high=40)
    union = model(form="union", solver="dopri5", latent=40, state=40, units=100)
    expected = codes(union, batch)
    size = {"latent": 40, "state": 40, "units": 100}
    for solver in ("midpoint", "rk4", "dopri5"):
        assert torch.allclose(
            codes(twin(union, solver=solver, **size), batch), expected, atol=1e-4
        )


def test_a_subset_is_encoded_alike_in_both_forms():
    """Without its first point a series still has its latent at the time of that point."""
    batch = irregular(8)
    part = batch.keep(torch.arange(len(batch.time)) % 3 == 1)
    union = model(form="union")
    assert torch.allclose(codes(twin(union, form="gap"), part), codes(union, part), atol=1e-4)


def test_fixed_steps_keep_curves_apart_and_dopri5_does_not():
    """One step size serves a batch of dopri5: the leak stays within its tolerance."""
    batch = irregular(12, high=20)
    first = batch.keep(batch.curve == 0)
    alone = Ragged(*first[:5], first.offsets[:2], first.amplitude[:1])
    net = model(span=0.5)  # gaps long enough for an adaptive solver to have work
    assert (codes(net, batch)[:1] - codes(net, alone)).abs().max() <= 1e-6
    adaptive = twin(net, solver="dopri5", span=0.5)
    leak = (codes(adaptive, batch)[:1] - codes(adaptive, alone)).abs().max()
    assert 1e-7 < leak < 1e-3


# --- no biases --------------------------------------------------------------------------------


def test_zero_stays_zero():
    assert not TanhNet(4, 7, 7, 4)(torch.zeros(4, 3)).any()
    net, batch = model(), irregular(5)
    flat = batch._replace(value=torch.zeros_like(batch.value))
    stamps_only = codes(net, flat)
    assert torch.isfinite(stamps_only).all()
    # the mask is all that moves the state of a curve of zeros
    with torch.no_grad():
        net.encoder.updates[0].gates[:, -1] = 0
        net.encoder.updates[0].candidate.weights[0][:, -1] = 0
    assert not codes(net, flat).any()
    assert codes(net, batch).any() and stamps_only.any()


def test_weights_start_as_published():
    torch.manual_seed(0)
    net = OdeRnn()
    sizes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    assert sum(math.prod(s) for s in sizes.values()) == 68_640
    assert not [name for name in sizes if "bias" in name]
    for parameter in net.parameters():
        assert float(parameter.detach().std()) == pytest.approx(0.1, rel=0.35)


def test_a_wrong_choice_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown solver 'rk5'; choose from euler, midpoint"):
        OdeRnn(solver="rk5")
    with pytest.raises(ValueError, match="unknown form"):
        OdeRnn(form="both")
    with pytest.raises(ValueError, match="span = 0 must be > 0"):
        OdeRnn(span=0)
