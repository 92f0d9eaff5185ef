"""How many transits a second the simulator draws, and how far they are from batman.

Each curve has 1,000 points, a planet, an impact parameter and a limb darkening of its own, at the
default pitch, so that nothing can be reused from one to the next. The target is 1,000 curves in
2 s on two cores. The deviation is the largest over planets, impacts and limb darkenings.
"""

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from skyvec.sim.silhouettes import disc, louver, triangle
from skyvec.sim.transits import transit

POINTS = 1000


def draw(seed: int, n: int, shape: str) -> float:
    """Draw n transits of a shape over 27 days; gives the processor's seconds it took."""
    rng = np.random.default_rng(seed)
    stamps = np.linspace(0, 27, POINTS)
    start = time.process_time()
    for _ in range(n):
        body = {
            "disc": lambda: disc(rng.uniform(0.05, 0.15)),
            "triangle": lambda: triangle(rng.uniform(0.15, 0.3), rng.uniform(0, 120)),
            "louver": lambda: louver(6, rng.uniform(0.02, 0.05), rng.uniform(0.1, 0.25)),
        }[shape]()
        period = np.exp(rng.uniform(0, np.log(13)))
        flux = transit(
            stamps,
            body,
            period=period,
            t0=rng.uniform(0, period),
            a_over_r=4.2 * period ** (2 / 3),
            impact=rng.uniform(0, 0.7),
            u=(rng.uniform(0.2, 0.6), rng.uniform(0, 0.4)),
        )
        if not (flux.min() < 1 and flux.max() <= 1 + 1e-9):
            raise AssertionError("a transit that does not darken")
    return time.process_time() - start


def deviation(n: int) -> float:
    """Largest difference from batman [ppm] over n planets."""
    import batman

    rng = np.random.default_rng(1)
    stamps = np.linspace(-0.2, 0.2, POINTS)
    worst = 0.0
    for _ in range(n):
        impact, u = rng.uniform(0, 0.9), (rng.uniform(0.2, 0.6), rng.uniform(0, 0.4))
        p = batman.TransitParams()
        p.t0, p.per, p.rp, p.a, p.ecc, p.w = 0.0, 3.2, 0.1, 10.0, 0.0, 90.0
        p.inc, p.u, p.limb_dark = np.degrees(np.arccos(impact / 10)), list(u), "quadratic"
        theirs = batman.TransitModel(p, stamps, max_err=0.1).light_curve(p)
        ours = transit(stamps, disc(0.1), period=3.2, impact=impact, u=u)
        worst = max(worst, float(np.abs(ours - theirs).max()))
    return 1e6 * worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer curves, under 20 s")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    n = 1000 if options.quick else 5000
    rates, cost = {}, {}
    with ProcessPoolExecutor(options.cores) as pool:
        list(pool.map(draw, range(options.cores), [3] * options.cores, ["disc"] * options.cores))
        for shape in ("disc", "triangle", "louver"):
            start = time.perf_counter()
            share = [n // options.cores] * options.cores
            busy = list(pool.map(draw, range(options.cores), share, [shape] * options.cores))
            rates[shape] = sum(share) / (time.perf_counter() - start)
            cost[shape] = 1e3 * sum(busy) / sum(share)
            print(
                f"{shape:>9} {rates[shape]:8.0f} curves/s on {options.cores} cores, "
                f"{cost[shape]:.2f} ms of one core each",
                flush=True,
            )
    ppm = deviation(20 if options.quick else 100)
    print(f"  against batman: {ppm:.1f} ppm at most")
    print(
        json.dumps(
            {
                "transits_per_s": round(rates["disc"]),
                "louvers_per_s": round(rates["louver"]),
                "seconds_per_1000": round(1000 / rates["disc"], 3),
                "core_ms_per_transit": round(cost["disc"], 2),
                "ppm_vs_batman": round(ppm, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
