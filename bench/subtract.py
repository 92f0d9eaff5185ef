"""How well subtraction finds what is new, and how fast stamps are simulated.

1. Theory: stars of known flux in pairs with known point-spread functions and white noise; the
   share with a score of at least 5 against Phi(s - 5), the score's scatter in the background.
2. The same pairs through the Alard-Lupton kernel and, if installed, SFFT with the same matched
   filter, and a plain cut at 5 sigma of a pixel of the difference: found, and false per frame.
3. Frames of the simulated survey, everything measured from the pair itself (``prep.frames``): the
   share of new stars found against what was due, detections of nothing per frame.
4. Stamps simulated a second and thread.

    python bench/subtract.py [--quick]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree
from scipy.special import ndtr

from skyvec.prep.frames import FrameError
from skyvec.prep.subtract import alard_lupton, detect, fit_kernel, matched_filter, zogy
from skyvec.realbogus.frames import prepare_pair, subtract_pair
from skyvec.sim.stamps import simulate_stamps
from skyvec.sim.visits import visits

SIDE = 384
NOISE = {"noise_new": 10.0, "noise_reference": 4.0}


def moffat(fwhm: float, stretch: float = 1.0) -> np.ndarray:
    grid = np.arange(-12, 13)
    width = fwhm / (2 * np.sqrt(2 ** (1 / 3) - 1))
    psf = (1 + (grid[None] ** 2 * stretch + grid[:, None] ** 2 / stretch) / width**2) ** -3.0
    return np.asarray(psf / psf.sum())


PSF_NEW, PSF_REFERENCE = moffat(3.0, 1.1), moffat(2.2)


def flux_error() -> float:
    empty = np.zeros((128, 128))
    return float(zogy(empty, empty, PSF_NEW, PSF_REFERENCE, **NOISE).flux_err[64, 64])


def make(rng: np.random.Generator, error: float) -> tuple[np.ndarray, ...]:
    sky = np.zeros((SIDE, SIDE))
    sky[rng.integers(0, SIDE, 100), rng.integers(0, SIDE, 100)] = 10 ** rng.uniform(2.5, 4.5, 100)
    grid = np.arange(24, SIDE - 20, 20)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    due = rng.uniform(3, 9, len(x))
    added = np.zeros_like(sky)
    added[y, x] = due * error
    new = fftconvolve(sky + added, PSF_NEW, "same") + rng.normal(0, 10, sky.shape)
    reference = fftconvolve(sky, PSF_REFERENCE, "same") + rng.normal(0, 4, sky.shape)
    return new, reference, x, y, due


def found(score: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, int]:
    """Which stars are detected, and how many detections are of none."""
    places = detect(score)
    if not len(places):
        return np.zeros(len(x), bool), 0
    here = cKDTree(places).query(np.column_stack([x, y]))[0] < 2
    alone = cKDTree(np.column_stack([x, y])).query(places)[0] >= 3
    return here, int(alone.sum())


def sfft_difference(new: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    try:
        from sfft.CustomizedPacket import Customized_Packet
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        names = {name: f"{folder}/{name}.fits" for name in ("new", "reference", "difference")}
        fits.writeto(names["new"], new.T)
        fits.writeto(names["reference"], reference.T)
        stdout, sys.stdout = sys.stdout, sys.stderr
        try:
            Customized_Packet.CP(
                FITS_REF=names["reference"], FITS_SCI=names["new"],
                FITS_mREF=names["reference"], FITS_mSCI=names["new"], ForceConv="REF", GKerHW=6,
                FITS_DIFF=names["difference"], FITS_Solution=None, KerPolyOrder=0,
                BGPolyOrder=0, ConstPhotRatio=True, BACKEND_4SUBTRACT="Numpy",
                CUDA_DEVICE_4SUBTRACT="0", NUM_CPU_THREADS_4SUBTRACT=1,
            )  # fmt: skip
        finally:
            sys.stdout = stdout
        return np.asarray(fits.getdata(names["difference"]).T)


def theory(frames: int) -> dict[str, float]:
    error = flux_error()
    due, score, background, spent = [], [], [], 0.0
    for i in range(frames):
        new, reference, x, y, snr = make(np.random.default_rng(i), error)
        began = time.process_time()
        result = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
        spent += time.process_time() - began
        due.append(snr)
        score.append(result.score[y, x])
        mask = np.ones(new.shape, bool)
        for px, py in zip(x, y):
            mask[py - 8 : py + 9, px - 8 : px + 9] = False
        background.append(result.score[mask & np.isfinite(result.score)])
    snr, s, b = (np.concatenate(part) for part in (due, score, background))
    worst = 0.0
    for low in np.arange(3, 9, 0.5):
        rows = (snr >= low) & (snr < low + 0.5)
        seen, expected = np.mean(s[rows] >= 5), ndtr(snr[rows] - 5).mean()
        worst = max(worst, abs(seen - expected))
        print(f"  due {low:.1f} to {low + 0.5:.1f}: {seen:.3f} found, {expected:.3f} by theory")
    print(f"  background of the score: mean {b.mean():+.3f}, deviation {b.std():.3f}")
    print(f"  {SIDE * SIDE * frames / spent / 1e6:.1f} million pixels a second")
    assert worst < 0.05 + 3 * 0.5 / np.sqrt(len(s) / 12), worst
    assert abs(b.std() - 1) < 0.03
    return {"worst": worst, "deviation": float(b.std())}


def peers(frames: int) -> dict[str, float]:
    error = flux_error()
    shares: dict[str, list[float]] = {}
    false: dict[str, list[int]] = {}
    for i in range(frames):
        new, reference, x, y, _ = make(np.random.default_rng([7, i]), error)
        proper = zogy(new, reference, PSF_NEW, PSF_REFERENCE, **NOISE)
        kernel = fit_kernel(new, reference, noise=10.0)
        fitted = alard_lupton(new, reference, PSF_NEW, kernel, **NOISE)
        plain = proper.difference / np.nanstd(proper.difference)
        scores = {"proper": proper.score, "alard_lupton": fitted.score, "pixels": plain}
        rival = sfft_difference(new, reference)
        if rival is not None:
            score = matched_filter(rival, PSF_NEW, 100.0)[0]
            scores["sfft"] = score / (1.4826 * np.nanmedian(np.abs(score)))
        for name, score in scores.items():
            here, alone = found(score, x, y)
            shares.setdefault(name, []).append(float(here.mean()))
            false.setdefault(name, []).append(alone)
    for name, share in shares.items():
        print(f"  {name}: {np.mean(share):.3f} found, {np.mean(false[name]):.1f} false a frame")
    return {name: float(np.mean(share)) for name, share in shares.items()}


def survey(frames: int) -> dict[str, float]:
    due, seen, false, refused = [], [], [], 0
    for visit in visits(np.random.default_rng(3), n=frames, n_new=60):
        try:
            full = 0.98 * visit.detector.saturation
            pair = prepare_pair(visit.new, visit.reference, saturation=full, gain=1.0)
        except FrameError as error:
            refused += 1
            print(f"  refused: {error}")
            continue
        result = subtract_pair(pair)
        here, alone = found(result.score, visit.sources.x, visit.sources.y)
        due.append(visit.expected)
        seen.append(here)
        false.append(alone)
    snr, share = np.concatenate(due), np.concatenate(seen)
    report = {}
    for low, high in ((4, 6), (6, 9), (9, 15), (15, 40), (40, 1e9)):
        rows = (snr >= low) & (snr < high)
        report[f"{low}"] = float(share[rows].mean())
        print(f"  due {low} to {high:g}: {share[rows].mean():.3f} of {rows.sum()} found")
    print(f"  {np.mean(false):.0f} detections of nothing a frame; {refused} of {frames} refused")
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    frames = 8 if options.quick else 40
    result: dict[str, object] = {}
    print("score against theory")
    result["theory"] = theory(frames)
    print("peers on the same pairs, stars due 3 to 9 sigma")
    result["peers"] = peers(1 if options.quick else 5)
    print("frames of the simulated survey, all measured from the pair")
    result["survey"] = survey(4 if options.quick else 20)
    n = 1000 if options.quick else 10_000
    simulate_stamps(1, 50, np.random.default_rng(0))
    began = time.process_time()
    simulate_stamps(n // 20, n, np.random.default_rng(1))
    rate = 1.05 * n / (time.process_time() - began)
    print(f"{rate:.0f} stamps simulated a second and thread")
    result["stamps_per_s"] = rate
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
