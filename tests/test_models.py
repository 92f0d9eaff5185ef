"""Contract: what every row of MODELS promises, whatever is inside it; here, of light curves."""

import numpy as np
import pytest
import torch

from skyvec.models import MODELS
from skyvec.nn.ragged import Ragged

SMALL = {"ode_rnn": {"state": 12, "units": 24}}
"""Sizes that keep the tests quick; a model without a line here is built with its own."""

OF_CURVES = sorted(name for name, kind in MODELS.items() if kind.modality == "lightcurves")
each_model = pytest.mark.parametrize("name", OF_CURVES)
each_number_of_bands = pytest.mark.parametrize("bands", [1, 2])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Small tensors gain nothing from threads, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def build(name, *, bands=1, seed=0, **options):
    torch.manual_seed(seed)
    return MODELS[name](bands=bands, latent=6, **SMALL.get(name, {}), **options).eval()


def join(curves, *, bands=1, error=None):
    """A batch of (time, value, band) curves, normalised as preparation leaves them."""
    lengths = [len(t) for t, _, _ in curves]
    time, value, band = (np.concatenate([np.zeros(0), *column]) for column in zip(*curves))
    n_points = len(time)
    curve = np.repeat(np.arange(len(curves)), lengths)
    has_points = np.zeros((len(curves), bands), bool)
    has_points[curve, band.astype(int)] = True
    return Ragged(
        torch.tensor(time),
        torch.tensor(value, dtype=torch.float32),
        torch.full((n_points,), torch.nan if error is None else error),
        torch.tensor(band.astype(np.int64)),
        torch.tensor(curve),
        torch.tensor(np.concatenate([[0], np.cumsum(lengths)])),
        torch.tensor(np.where(has_points, -1.5, np.nan), dtype=torch.float32),
    )


def waves(n, *, bands=1, seed=0, low=12, high=60, noise=0.2, periods=(2, 12)):
    """Sinusoids of different periods at irregular times."""
    rng = np.random.default_rng(seed)
    curves = []
    for k in rng.integers(low, high, n):
        time = np.sort(rng.choice(2500, k, replace=False)) / 100
        time -= time[0]
        value = np.sin(2 * np.pi * (time / rng.uniform(*periods) + rng.uniform()))
        value = value + noise * rng.standard_normal(k)
        curves.append((time, (value - value.mean()) / value.std(), rng.integers(0, bands, k)))
    return curves


def encode(model, batch):
    with torch.inference_mode():
        return model.encode(batch)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def is_finite(*tensors):
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@each_model
@each_number_of_bands
def test_shapes(name, bands):
    model = build(name, bands=bands)
    batch, times = (join(waves(5, bands=bands, seed=s), bands=bands) for s in (0, 1))
    with torch.inference_mode():
        code = model.code(batch)
        assert model.latent == 6
        assert code.ndim == 2 and len(code) == 5 and code.shape[1] >= 6
        assert torch.equal(model.encode(batch), code[:, :6])
        decoded = model.decode(code, times)
        assert decoded.shape == times.time.shape and is_finite(code, decoded)
        loss, parts = model.loss(batch, generator())
    assert loss.shape == () and is_finite(loss)
    assert parts and all(isinstance(key, str) and is_finite(part) for key, part in parts.items())


@each_model
def test_different_curves_have_different_latents(name):
    latents = encode(build(name), join(waves(6)))
    assert torch.pdist(latents).min() > 1e-4


@each_model
@each_number_of_bands
def test_the_gradient_reaches_every_parameter(name, bands):
    model = build(name, bands=bands).train()
    model.loss(join(waves(6, bands=bands), bands=bands), generator())[0].backward()
    idle = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


@each_model
@each_number_of_bands
def test_a_latent_is_the_same_alone_and_in_any_batch_and_order(name, bands):
    model, curves = build(name, bands=bands), waves(9, bands=bands, low=2)
    together = encode(model, join(curves, bands=bands))
    alone = torch.cat([encode(model, join([curve], bands=bands)) for curve in curves])
    order = np.random.default_rng(1).permutation(9)
    mixed = encode(model, join([curves[i] for i in order], bands=bands))
    assert (together - alone).abs().max() <= 1e-5
    assert (together[order] - mixed).abs().max() <= 1e-5


@each_model
def test_decoding_reads_neither_the_values_nor_the_company(name):
    model, batch = build(name), join(waves(4))
    blank = batch._replace(value=torch.full_like(batch.value, torch.nan))
    with torch.inference_mode():
        code = model.code(batch)
        decoded = model.decode(code, batch)
        assert torch.equal(model.decode(code, blank), decoded)
        third = model.decode(code[2:3], join([waves(4)[2]]))
    assert torch.allclose(third, decoded[batch.curve == 2], atol=1e-5)


@each_model
def test_a_point_belongs_to_its_band(name):
    model = build(name, bands=2)
    time, value, _ = waves(1)[0]
    blue = join([(time, value, np.zeros(len(time)))], bands=2)
    red = join([(time, value, np.ones(len(time)))], bands=2)
    first, second = encode(model, blue), encode(model, red)
    assert is_finite(first, second)
    assert (first - second).abs().max() > 1e-4
    with torch.inference_mode():
        code = model.code(blue)
        same_band, other_band = model.decode(code, blue), model.decode(code, red)
    assert is_finite(other_band)
    assert (same_band - other_band).abs().max() > 1e-4


@each_model
def test_a_band_without_points_is_masked(name):
    """What is unknown of an absent band, its amplitude, is not read."""
    model, batch = build(name, bands=2), join(waves(4), bands=2)
    assert batch.amplitude[:, 1].isnan().all()
    assert is_finite(encode(model, batch), model.loss(batch, generator())[0])


@each_model
@pytest.mark.parametrize(
    "curve",
    [
        ([0.0], [0.0]),
        ([0.0, 0.5], [-1.0, 1.0]),
        (np.arange(20) * 0.1, np.zeros(20)),
        ([0.0, 1e-5, 300.0], [1.0, -2.0, 1.0]),
        (np.arange(30) * 0.02, np.r_[300.0, np.zeros(29)]),
    ],
    ids=["one point", "two points", "constant", "long gap", "outlier"],
)
def test_odd_curves_stay_finite_and_harm_no_other(name, curve):
    time, value = map(np.asarray, curve)
    model, company = build(name), waves(2)
    batch = join([company[0], (time, value, np.zeros(len(time))), company[1]])
    with torch.inference_mode():
        code = model.code(batch)
        assert is_finite(code, model.decode(code, batch))
    model.train()
    loss, _ = model.loss(batch, generator())
    loss.backward()
    assert is_finite(loss, *(p.grad for p in model.parameters()))
    assert (code[[0, 2], :6] - encode(model.eval(), join(company))).abs().max() <= 1e-5


@each_model
def test_unknown_errors_and_amplitudes_are_no_obstacle(name):
    batch = join(waves(4))
    batch = batch._replace(amplitude=torch.full_like(batch.amplitude, torch.nan))
    model = build(name)
    assert batch.error.isnan().all()
    assert is_finite(encode(model, batch), model.loss(batch, generator())[0])
    known = join(waves(4), error=0.1)
    assert is_finite(encode(model, known), model.loss(known, generator())[0])


@each_model
def test_the_state_dict_holds_all_of_a_model(name):
    model, batch = build(name), join(waves(3))
    other = build(name, seed=1)
    assert not torch.equal(encode(other, batch), encode(model, batch))
    other.load_state_dict(model.state_dict())
    with torch.inference_mode():
        assert torch.equal(other.code(batch), model.code(batch))
        code = model.code(batch)
        assert torch.equal(other.decode(code, batch), model.decode(code, batch))


@each_model
def test_the_loss_is_random_through_its_generator_alone(name):
    model, batch = build(name), join(waves(5))
    with torch.inference_mode():
        first, second, other = (float(model.loss(batch, generator(s))[0]) for s in (3, 3, 4))
    assert first == second != other


def overfitted(model, *, steps, lr):
    """Mean loss of the first and of the last ten steps on eight curves."""
    batch = join(waves(8, low=16, high=24, noise=0.0, periods=(30, 60)))
    optimiser = torch.optim.Adam(model.train().parameters(), lr=lr)
    losses = []
    for step in range(steps):
        optimiser.zero_grad()
        loss, _ = model.loss(batch, generator(step))
        loss.backward()
        optimiser.step()
        losses.append(loss.detach())
    return float(torch.stack(losses[:10]).mean()), float(torch.stack(losses[-10:]).mean())


@each_model
def test_eight_curves_can_be_learnt(name):
    first, last = overfitted(build(name), steps=90, lr=1e-2)
    assert last < 0.75 * first


def test_ode_rnn_extrapolates_from_the_first_half():
    model, batch = build("ode_rnn", task="extrapolation"), join(waves(4))
    with torch.inference_mode():
        loss, _ = model.loss(batch, generator())
        again, _ = model.loss(batch, generator(5))
    half = [2 * i < n for n in batch.lengths.tolist() for i in range(n)]
    wanted = ~torch.tensor(half)
    late = batch._replace(value=torch.where(wanted, batch.value + 100, batch.value))
    with torch.inference_mode():
        moved, _ = model.loss(late, generator())
    # the second half is not given, only asked for
    assert float(moved - loss) == pytest.approx(100, abs=2)
    assert torch.equal(again, loss)
