"""How fast curves become latents: the published ODE-RNN, its gap form, and the default encoder.

One thread, the same curves for all: the cadence of TESS full frames with barycentric offsets, a
gap in the middle of the sector and lost points, times rounded to 0.01 d. Rates are curves a second
of processor time, so that a busy machine changes them little. The published form is the union of
the batch's stamps with dopri5 (rtol 1e-3, atol 1e-4), batch 512; all weights are as first drawn.

Answers checked: every form of the ODE-RNN gives the published latents to 1e-4; a latent is the
same alone and in any batch to 1e-5; encoding a survey stays below 2 GiB.

    python bench/encode.py [--quick] [--curves N]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from skyvec import checkpoint, store
from skyvec.batches import ragged
from skyvec.encode import encode
from skyvec.models import MODELS
from skyvec.models.ode_rnn import OdeRnn
from skyvec.nn.ragged import Ragged
from skyvec.prep.lightcurves import prepare
from skyvec.schema import Catalog, LightCurves

DEFAULT = "gridconv"
SECTOR = 27.4
PUBLISHED = {"form": "union", "solver": "dopri5"}
GAPS = {
    "gap, Runge-Kutta 4": {"solver": "rk4"},
    "gap, midpoint": {"solver": "midpoint"},
    "gap, Euler": {"solver": "euler"},
}
HEADLINE = "gap, midpoint"
"""The cheapest of the fixed steps whose error still falls with the square of the gap."""


def sky(n: int, points: int, seed: int) -> LightCurves:
    """Sinusoids with one harmonic and noise, as a TESS sector would see them, about ``points``."""
    rng = np.random.default_rng(seed)
    cadence = np.arange(0, SECTOR, SECTOR / (1.07 * points))
    is_gap = (cadence > 13.2) & (cadence < 14.2)
    cadence = cadence[~is_gap]
    is_kept = rng.random((n, len(cadence))) > 0.03
    curve, stamp = np.nonzero(is_kept)
    # light takes up to 8 minutes longer or shorter to the Sun's centre, star by star
    mjd = 58738.0 + cadence[stamp] + rng.uniform(-0.0055, 0.0055, n)[curve]
    period, amplitude = 10 ** rng.uniform(-0.5, 1, n), 10 ** rng.uniform(-3, -1, n)
    phase = 2 * np.pi * (mjd / period[curve] + rng.random(n)[curve])
    signal = np.sin(phase) + rng.uniform(-0.5, 0.5, n)[curve] * np.sin(2 * phase)
    flux = 1 + amplitude[curve] * signal + 0.002 * rng.standard_normal(len(mjd))
    return LightCurves(
        np.array([f"s{seed}-{i}" for i in range(n)]),
        np.concatenate([[0], np.cumsum(is_kept.sum(axis=1))]).astype(np.int64),
        mjd,
        flux.astype(np.float32),
        np.full(len(mjd), 0.002, np.float32),
        np.zeros(len(mjd), np.int16),
        ("TESS",),
    )


def row(title: str, rate: float, note: str = "") -> None:
    print(f"{title:<30}{rate:>10.1f}  {note}", flush=True)


def batch_of(n: int, points: int, seed: int = 0) -> Ragged:
    return ragged(prepare(sky(n, points, seed)))


def part(batch: Ragged, rows: Tensor) -> Ragged:
    """The series asked for, in ascending order, as a batch of their own."""
    kept = batch.keep(torch.isin(batch.curve, rows))
    lengths = batch.lengths[rows]
    return kept._replace(
        curve=torch.repeat_interleave(lengths),
        offsets=torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)]),
        amplitude=batch.amplitude[rows],
    )


def timed(work: Callable[[], Tensor], repeats: int) -> tuple[float, Tensor]:
    """Least processor time of some repeats [s], and the answer."""
    best, answer = float("inf"), torch.empty(0)
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.process_time()
            answer = work()
            best = min(best, time.process_time() - start)
    return best, answer


def ode_rnn(weights: dict[str, Tensor], **options: str) -> OdeRnn:
    model = OdeRnn(**options)
    model.load_state_dict(weights)
    return model.eval()


def compare_ode_rnn(batch: Ragged) -> tuple[float, dict[str, float]]:
    """Rate of the published form [1/s], and the gap forms' rates in units of it."""
    torch.manual_seed(0)
    weights = OdeRnn().state_dict()
    n_stamps = len(torch.unique((batch.time * 100).round()))
    published = ode_rnn(weights, **PUBLISHED)
    seconds, expected = timed(lambda: published.encode(batch), 1)
    rate = batch.n / seconds
    scale = float(expected.abs().mean())
    row("ode_rnn as published", rate, f"union of {n_stamps} stamps")
    ratios = {}
    for title, options in GAPS.items():
        model = ode_rnn(weights, **options)
        seconds, latents = timed(lambda model=model: model.encode(batch), 2)
        difference = float((latents - expected).abs().max())
        assert difference <= 1e-4, f"{title} differs from the published form by {difference}"
        assert difference <= 1e-3 * scale, f"{title} differs by {difference} of {scale}"
        ratios[title] = batch.n / seconds / rate
        note = f"{ratios[title]:.1f} x published; differs by {difference:.0e} of {scale:.3f}"
        row(f"ode_rnn, {title}", batch.n / seconds, note)
    return rate, ratios


def largest_difference(model: torch.nn.Module, batch: Ragged, alone: int) -> float:
    """Greatest change of a latent when its curve is encoded alone, or among half of the others."""
    with torch.inference_mode():
        together = model.encode(batch)
        half = torch.arange(0, batch.n, 2)
        change = [(model.encode(part(batch, half)) - together[half]).abs().max()]
        for i in range(0, batch.n, max(1, batch.n // alone)):
            one = part(batch, torch.tensor([i]))
            change.append((model.encode(one)[0] - together[i]).abs().max())
    return float(torch.stack(change).max())


def stream(survey: Path) -> None:
    """Encode a survey and print the curves, the seconds and the peak memory of this process."""
    torch.set_num_threads(1)
    start = time.process_time()
    n = encode(survey, DEFAULT, threads=1)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    print(json.dumps({"curves": n, "seconds": seconds, "peak_gib": peak}))


def encode_survey(n: int, points: int) -> dict[str, float]:
    """Make a survey of n curves on disk and encode it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        survey = Path(folder) / "survey"
        store.create_survey(survey)
        chunk = min(n, 20_000)
        for first in range(0, n, chunk):
            curves = sky(min(chunk, n - first), points, seed=first)
            unknown = np.full(len(curves), np.nan)
            catalog = Catalog(curves.id, curves.id, unknown, unknown)
            store.append_objects(survey, catalog, curves, np.full(len(curves), "simulated"))
        recipe = checkpoint.complete({"model": {"name": DEFAULT}}, ["TESS"])
        weights = checkpoint.build(recipe).state_dict()
        checkpoint.save(store.model_folder(survey, DEFAULT), recipe, weights, {})
        command = [sys.executable, __file__, "--stream", str(survey)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        vectors = store.read_latents(survey, DEFAULT).vectors
        assert vectors.shape[0] == n and np.isfinite(vectors).all()
        return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer curves in the stream")
    parser.add_argument("--curves", type=int, help="curves of the stream (one million)")
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stream:
        stream(options.stream)
        return
    torch.set_num_threads(1)
    began = time.perf_counter()
    batch = batch_of(512, 1300)
    lengths = batch.lengths.double()
    print(f"{batch.n} curves, {lengths.mean():.0f} points each; curves a second of one core")

    published, ratios = compare_ode_rnn(batch)
    torch.manual_seed(0)
    default = MODELS[DEFAULT]().eval()
    rates = {}
    for points in (200, 1300, 2000):
        curves = batch if points == 1300 else batch_of(512, points)
        seconds, latents = timed(lambda curves=curves: default.encode(curves), 5)
        assert torch.isfinite(latents).all()
        rates[points] = curves.n / seconds
        note = f"{rates[points] / published:.0f} x published" if curves is batch else ""
        row(f"{DEFAULT}, {points} points", rates[points], note)
    changes = {
        DEFAULT: largest_difference(default, batch, 64),
        "ode_rnn": largest_difference(OdeRnn(solver="midpoint").eval(), batch_of(64, 300), 8),
    }
    for name, change in changes.items():
        print(f"{name}: alone or in another batch a latent changes by {change:.1e} at most")
        assert change <= 1e-5, f"a latent of {name} depends on its batch: {change}"
    streamed = encode_survey(options.curves or (10_000 if options.quick else 1_000_000), 100)
    row(
        f"{DEFAULT}, {streamed['curves']} from disk",
        streamed["curves"] / streamed["seconds"],
        f"prepared, encoded, checked, stored; peak {streamed['peak_gib']:.2f} GiB",
    )
    assert streamed["peak_gib"] < 2, f"encoding held {streamed['peak_gib']:.2f} GiB"
    result = {
        "default_vs_published": rates[1300] / published,
        "curves_per_s_core": min(rates.values()),
        "gap_vs_union": ratios[HEADLINE],
        "max_diff_batch": changes[DEFAULT],
        "gap_solver": HEADLINE,
        "gap_rk4_vs_union": ratios["gap, Runge-Kutta 4"],
        "published_curves_per_s_core": published,
        "curves_per_s_core_by_points": rates,
        "max_diff_batch_ode_rnn": changes["ode_rnn"],
        "streamed_curves": streamed["curves"],
        "streamed_peak_gib": streamed["peak_gib"],
        "seconds": time.perf_counter() - began,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
