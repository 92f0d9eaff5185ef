"""The index on disk at survey scale: time and memory to build, recall and latency to ask.

Latents like real ones are written as the shards of a survey; `skyvec index build` and `skyvec
index check` then run as a user would run them, each in a process of its own whose peak memory the
kernel reports. The check compares exact answers with brute force before it measures anything.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from real_like import Source

from skyvec import store
from skyvec.schema import Latents

SHARD = 500_000


def make_survey(folder: Path, n: int, source: Source, rng: np.random.Generator) -> None:
    """Latents of one model, spread over the sky; without light curves, which nobody asks for."""
    store.create_survey(folder)
    for number, first in enumerate(range(0, n, SHARD)):
        m = min(SHARD, n - first)
        ids = np.array([f"S{i:09d}" for i in range(first, first + m)])
        dec = np.degrees(np.arcsin(rng.uniform(-1, 1, m)))
        nothing = np.full(m, np.nan, np.float32)
        codes = source.draw(m, rng)
        latents = Latents(ids, ids, codes, "big", "made", rng.uniform(0, 360, m), dec, nothing)
        store.write_latents(folder, store.shard_name(number), latents, "none")


def run(*arguments: str) -> tuple[float, float, str]:
    """Seconds, peak memory [GiB] and output of one command in a process of its own."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, text=True, check=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "sys.stdout.write(f'{peak}\\n{done.stdout}')\n"
    )
    start = time.perf_counter()
    made = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = time.perf_counter() - start
    peak, output = made.stdout.split("\n", 1)
    return seconds, int(peak) / 2**20, output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200,000 vectors, under a minute")
    parser.add_argument("--n", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path, help="make the survey here and leave it there")
    options = parser.parse_args()
    n = 200_000 if options.quick else options.n
    rng = np.random.default_rng(0)
    source = Source(rng, limit=400 if options.quick else 2000)
    folder = options.keep or Path(tempfile.mkdtemp(prefix="skyvec-index-"))
    try:
        if not (folder / "survey.toml").exists():
            make_survey(folder, n, source, rng)
        skyvec = [sys.executable, "-c", "from skyvec.cli import main; main()", "index"]
        where = ["--survey", str(folder), "--model", "big"]
        build_s, build_gib, _ = run(*skyvec, "build", "--anew", *where)
        _, check_gib, text = run(*skyvec, "check", *where, "--format", "json")
        rows = json.loads(text)
    finally:
        if options.keep is None:
            shutil.rmtree(folder)
    print(f"{n:,} vectors; real-like: {source.like}")
    print(f"build {build_s:.0f} s, {build_gib:.2f} GiB; check {check_gib:.2f} GiB")
    for row in rows:
        print(
            f"{row['way']:>12} {row['filter']:>16} {row['rows']:>10,} rows  "
            f"recall {row['recall']:.4f}  p50 {row['p50_ms']:.2f} ms  p90 {row['p90_ms']:.2f} ms"
        )
    plain = [row for row in rows if row["filter"] == "none"][-1]
    filtered = [row for row in rows if row["filter"] != "none"]
    facts = {
        "n": n,
        "build_seconds": round(build_s, 1),
        "build_gib": round(build_gib, 2),
        "recall": round(plain["recall"], 4),
        "p50_ms": round(plain["p50_ms"], 2),
        "filtered_recall": round(min(row["recall"] for row in filtered), 4),
        "filtered_p50_ms": round(max(row["p50_ms"] for row in filtered), 2),
        "peak_gib_here": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "like": source.like,
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
