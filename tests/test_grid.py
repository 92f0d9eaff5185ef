"""Truth (closed forms), rival (slow loops) and simulated sky (injected periods): grids."""

import numpy as np
import pytest
import torch

from skyvec.models.gridconv import GridConv
from skyvec.nn import grid
from skyvec.nn.layers import contrast
from skyvec.nn.ragged import Ragged

F_MAX = 12.0


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch_of(curves, bands=1, error=0.1):
    """Series of (time, value) or (time, value, band), values as they are."""
    lengths = [len(curve[0]) for curve in curves]
    band = [curve[2] if len(curve) > 2 else np.zeros(len(curve[0]), int) for curve in curves]
    time, value = (np.concatenate([curve[i] for curve in curves]) for i in (0, 1))
    return Ragged(
        torch.tensor(time),
        torch.tensor(value, dtype=torch.float32),
        torch.full((len(time),), error),
        torch.tensor(np.concatenate(band)),
        torch.tensor(np.repeat(np.arange(len(curves)), lengths)),
        torch.tensor(np.r_[0, np.cumsum(lengths)]),
        torch.full((len(curves), bands), -1.0),
    )


def times(rng, n, span):
    time = np.sort(rng.uniform(0, span, n))
    return time - time[0]


def waves(rng, n, *, points, span, f_low=0.05, f_high=10.0, noise=0.3):
    """Sinusoids with a harmonic, at random times; their frequencies come along."""
    frequency = np.exp(rng.uniform(np.log(f_low), np.log(f_high), n))
    curves = []
    for f in frequency:
        time = times(rng, points, span)
        phase = 2 * np.pi * (f * time + rng.random())
        value = np.sin(phase) + 0.3 * np.sin(2 * phase + 1) + noise * rng.standard_normal(points)
        curves.append((time, (value - value.mean()) / value.std()))
    return curves, frequency


def spectra(batch, bands=1, **options):
    samples = grid.samples(batch, bands, clip=100.0)
    settings = {"f_min": 1e-2, "f_max": F_MAX, "bins": 60, "peaks": 4} | options
    return samples, grid.spectra(samples, **settings)


def test_samples_are_centred_and_weighted_by_hand():
    rng = np.random.default_rng(0)
    batch = batch_of([(np.arange(50.0), rng.normal(3, 1, 50), rng.integers(0, 2, 50))], bands=2)
    error = torch.tensor(rng.uniform(0.1, 2, 50), dtype=torch.float32)
    error[::7] = torch.nan
    samples = grid.samples(batch._replace(error=error), 2, clip=4.0)
    e, x, band = error.numpy(), batch.value.numpy(), batch.band.numpy()
    weight = np.where(np.isnan(e), 0.5, 1 / (1 + (e / np.nanmean(e)) ** 2))
    bent = 4 * np.tanh(x / 4)
    for d in (0, 1):
        bent[band == d] -= np.average(bent[band == d], weights=weight[band == d])
    assert samples.weight == pytest.approx(weight, abs=1e-5)
    assert samples.value == pytest.approx(bent, abs=1e-5)
    assert samples.square == pytest.approx([(weight * bent**2).sum()], rel=1e-4)


def test_power_is_the_share_of_the_scatter_a_sinusoid_takes_away():
    """Against least squares at the peak, and 1 for a pure sinusoid."""
    rng = np.random.default_rng(1)
    time = times(rng, 400, 90.0)
    f = 1.2345
    pure = np.sin(2 * np.pi * f * time + 0.7)
    noisy = pure + rng.standard_normal(400)
    _, spectrum = spectra(batch_of([(time, x - x.mean()) for x in (pure, noisy)]))
    assert spectrum.peaks.frequency[:, 0].numpy() == pytest.approx([f, f], abs=0.1 / 90)
    assert spectrum.peaks.power[0, 0] == pytest.approx(1, abs=0.1)
    wave = np.stack([np.sin(2 * np.pi * f * time), np.cos(2 * np.pi * f * time)], 1)
    y = noisy - noisy.mean()
    residual = np.linalg.lstsq(wave, y, rcond=None)[1][0]
    assert spectrum.peaks.power[1, 0] == pytest.approx(1 - residual / (y @ y), abs=0.05)


def test_power_of_noise_is_two_over_the_number_of_points():
    rng = np.random.default_rng(2)
    curves = [(times(rng, 200, 30.0), rng.standard_normal(200)) for _ in range(300)]
    _, spectrum = spectra(batch_of(curves), f_min=0.2, bins=240)
    # the lowest bins are narrower than 1 / span, so that each holds a single frequency
    assert float(spectrum.highest[:, :40].mean()) == pytest.approx(2 / 200, rel=0.1)


def test_bins_below_one_cycle_or_beyond_the_transform_stay_empty():
    rng = np.random.default_rng(3)
    batch = batch_of([(times(rng, 300, span), rng.standard_normal(300)) for span in (10, 3000)])
    _, spectrum = spectra(batch, longest=2**14)
    edges = np.logspace(-2, np.log10(F_MAX), 61)
    is_empty = (spectrum.highest == 0).numpy()
    assert is_empty[0, edges[1:] < 1 / 10].all() and not is_empty[0, edges[:-1] > 0.11].any()
    # 3,000 d at 3 steps a 1 / span want 2^18 cells of 1/24 d; in 2^14 a cell is 16 times wider
    cut = F_MAX / 16
    assert is_empty[1, edges[:-1] > cut].all() and not is_empty[1, edges[1:] < cut].any()


@pytest.mark.parametrize(("points", "span", "least"), [(1200, 27.0, 0.99), (150, 2500.0, 0.95)])
def test_injected_periods_are_found(points, span, least):
    rng = np.random.default_rng(4)
    curves, truth = waves(rng, 100, points=points, span=span, f_low=0.2)
    samples, spectrum = spectra(batch_of(curves), f_min=3e-4, bins=96, peaks=6)
    found, shares = grid.best_frequency(samples, spectrum.peaks)
    is_right = np.abs(found.numpy() - truth) * span < 0.25
    assert is_right.mean() >= least
    assert float(shares[torch.tensor(is_right)].min()) > 0.5


def test_bands_of_opposite_phase_are_found_together():
    rng = np.random.default_rng(5)
    time, band = times(rng, 300, 50.0), rng.integers(0, 2, 300)
    value = np.sin(2 * np.pi * 0.77 * time + np.pi * band)
    batch = batch_of([(time, value, band)], bands=2)
    _, spectrum = spectra(batch, bands=2)
    assert float(spectrum.peaks.frequency[0, 0]) == pytest.approx(0.77, abs=2e-3)
    assert float(spectrum.peaks.power[0, 0]) > 0.85


def test_folding_sums_by_phase():
    rng = np.random.default_rng(6)
    curves = [(times(rng, 80, 20.0), rng.standard_normal(80)) for _ in range(2)]
    samples = grid.samples(batch_of(curves), 1, clip=100.0)
    frequency = torch.tensor([[0.3, 1.7], [0.9, 2.5]], dtype=torch.float64)
    epoch = torch.tensor([0.4, -3.0], dtype=torch.float64)
    total, weight = grid.fold(samples, frequency, 8, epoch)
    for i in (0, 1):
        points = slice(80 * i, 80 * (i + 1))
        for j in (0, 1):
            phase = ((samples.time[points] - float(epoch[i])) * float(frequency[i, j])) % 1
            cell, w = (phase * 8).astype(int), samples.weight[points].astype(float)
            x = w * samples.value[points]
            assert total[i, j, 0].numpy() == pytest.approx(np.bincount(cell, x, 8), abs=1e-4)
            assert weight[i, j, 0].numpy() == pytest.approx(np.bincount(cell, w, 8), abs=1e-4)


def test_a_profile_that_repeats_is_explained_and_noise_is_not():
    rng = np.random.default_rng(7)
    time = times(rng, 1000, 40.0)
    dips = -1.0 * ((time * 0.5) % 1 < 0.1)
    samples = grid.samples(batch_of([(time, dips), (time, rng.standard_normal(1000))]), 1, 100.0)
    total, weight = grid.fold(samples, torch.full((2, 1), 0.5, dtype=torch.float64), 20)
    shares = grid.explained(total, weight, torch.from_numpy(samples.square))[:, 0]
    assert shares[0] > 0.8 and abs(float(shares[1])) < 0.1


def test_a_look_gathers_what_a_slow_loop_does():
    rng = np.random.default_rng(8)
    time, value, band = times(rng, 60, 5.0), rng.normal(0, 2, 60), rng.integers(0, 2, 60)
    seen = grid.look(batch_of([(time, value, band)], 2), 2, cells=10, levels=7, clip=4.0)
    cells, levels = np.zeros((3, 2, 10)), np.zeros((2, 7))
    for t, x, d in zip(time, value, band):
        place = t / time[-1] * 9
        height = (np.clip(x, -4, 4) + 4) / 8 * 6
        for k in range(10):
            share = max(0.0, 1 - abs(place - k))
            cells[:, d, k] += np.array([1, x, x * x]) * share
        for k in range(7):
            levels[d, k] += max(0.0, 1 - abs(height - k))
    assert seen.grid[0].numpy() == pytest.approx(cells, abs=1e-3)
    assert seen.levels[0].numpy() == pytest.approx(levels, abs=1e-3)
    expected = [(value**3).mean(), (value**4).mean(), (np.diff(value) ** 2).sum() / 60, 0.1]
    assert seen.moments[0].numpy() == pytest.approx(expected, rel=1e-4)


def test_views_do_not_know_where_a_cycle_begins():
    """The same star seen from another phase on: profile, spectrum and code hardly change."""
    rng = np.random.default_rng(9)
    time = times(rng, 2000, 27.0)
    codes, strange = [], []
    torch.manual_seed(0)
    model = GridConv().eval()
    for start in (0.0, 0.31, 0.74):
        turns = time / 1.7 + start
        value = np.sin(2 * np.pi * turns) + 0.5 * np.sin(4 * np.pi * turns + 1)
        other = ((turns % 1) < 0.1) - 0.1
        for curve, found in ((value, codes), (other, strange)):
            found.append((time, (curve - curve.mean()) / curve.std()))
    with torch.inference_mode():
        z = torch.nn.functional.normalize(model.encode(batch_of(codes + strange)), dim=1)
    alike, unlike = (z[:3] @ z[:3].T).min(), (z[:3] @ z[3:].T).max()
    assert alike > 0.98
    assert unlike < alike - 0.2


def test_decoding_draws_a_period_beyond_the_points_given():
    """After a little training on one star half of its points tell the other half."""
    rng = np.random.default_rng(10)
    curves, _ = waves(rng, 8, points=100, span=30.0, f_low=0.3, f_high=2.0, noise=0.05)
    batch = batch_of(curves)
    torch.manual_seed(0)
    model, generator = GridConv(width=64), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        loss, _ = model.loss(batch, generator)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    given = torch.arange(len(batch.time)) % 2 == 0
    with torch.inference_mode():
        told = model.eval().decode(model.code(batch.keep(given)), batch)
    error = (told - batch.value)[~given].abs().mean()
    assert error < 0.5 * batch.value[~given].abs().mean()


def test_contrast_is_small_for_partners_and_log_n_for_strangers():
    codes = torch.eye(8)
    assert contrast(codes, 3 * codes, 0.05) < 1e-6
    assert contrast(torch.ones(8, 4), torch.ones(8, 4), 0.3) == pytest.approx(np.log(8), abs=1e-5)
