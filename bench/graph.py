"""One neighbour graph and what is made of it: seconds, peak memory, growth with n, recall.

Each step runs in a process of its own, so its peak memory is its own: the index with the graph,
then the oddest objects, clusters (HDBSCAN) and a map (t-SNE) from the graph on disk.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from real_like import Source

SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
QUICK = (500, 2_000)
STEPS = ("graph", "outliers", "clusters", "map")
K = 15
CHECKED = 300
LEFT_OUT = {"seconds": float("nan"), "peak": float("nan")}
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "growth.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sets, under two minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="leave larger sets out")
    parser.add_argument("--map-most", type=int, default=SIZES[-1], help="no map of larger sets")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--n", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        one_step(options)
        return
    sizes = QUICK if options.quick else [n for n in SIZES if n <= options.most]
    print(f"{options.threads} threads, k = {K}; seconds and peak memory [GiB] of each step alone")
    print(f"{'n':>9} {'recall':>7}" + "".join(f"{step:>19}" for step in STEPS))
    rows = []
    for n in sizes:
        row: dict[str, dict[str, float]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                row[step] = dict(LEFT_OUT)
                if step != "map" or n <= options.map_most:
                    row[step] = in_own_process(step, n, folder, options)
        rows.append(row)
        cells = "".join(f"{row[s]['seconds']:>10.1f} {row[s]['peak']:>8.2f}" for s in STEPS)
        print(f"{n:>9} {row['graph']['recall']:>7.4f}{cells}", flush=True)
    last = rows[-1]
    if not options.quick:
        draw(list(sizes), rows)
    facts: dict[str, object] = {
        "recall": round(last["graph"]["recall"], 4),
        "seconds_1m": round(last["graph"]["seconds"], 1),
        "peak_gib": round(np.nanmax([row[s]["peak"] for row in rows for s in STEPS]), 2),
        "seconds": {
            step: [round(row[step]["seconds"], 1) for row in rows if row[step]["seconds"] > 0]
            for step in STEPS
        },
        "n": list(sizes),
    }
    if sizes[-1] != SIZES[-1]:
        facts["quick_sizes"] = {"1m": sizes[-1]}
    print(json.dumps(facts))


def in_own_process(
    step: str, n: int, folder: str, options: argparse.Namespace
) -> dict[str, float]:
    command = [sys.executable, __file__, "--step", step, "--n", str(n), "--folder", folder]
    command += ["--threads", str(options.threads), *(["--quick"] if options.quick else [])]
    # threads that wait sleep instead of spinning: other programs may want the same cores
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def one_step(options: argparse.Namespace) -> None:
    facts = make_graph(options) if options.step == "graph" else make_product(options)
    print(json.dumps(facts))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make_graph(options: argparse.Namespace) -> dict[str, float]:
    import faiss

    from skyvec.index.certified import CertifiedIndex
    from skyvec.index.graph import knn_graph
    from skyvec.index.probing import recall_of
    from skyvec.index.quantised import unit

    rng = np.random.default_rng(0)
    n = options.n
    codes = Source(rng, limit=400 if options.quick else 2000).draw(n, rng)
    knn_graph(CertifiedIndex(codes[:1000], threads=options.threads), 3, rng)  # compiles
    start = time.perf_counter()
    index = CertifiedIndex(codes, threads=options.threads)
    graph = knn_graph(index, K, rng)
    seconds, height = time.perf_counter() - start, peak()
    for name, array in (("codes", codes), ("rows", graph.rows), ("near", graph.similarity)):
        np.save(options.folder / f"{name}.npy", array)
    faiss.omp_set_num_threads(options.threads)
    vectors = unit(codes)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    asked = np.sort(rng.choice(n, CHECKED, replace=False))
    truth = flat.search(vectors[asked], K + 1)[1]
    others = np.array([row[row != own][:K] for row, own in zip(truth, asked)])
    return {"seconds": seconds, "peak": height, "recall": recall_of(others, graph.rows[asked])}


def make_product(options: argparse.Namespace) -> dict[str, float]:
    from skyvec.analysis import clusters, maps, outliers
    from skyvec.index.graph import Graph
    from skyvec.schema import Latents

    codes, rows, near = (
        np.load(options.folder / f"{name}.npy") for name in ("codes", "rows", "near")
    )

    def ask(m: int, graph: Graph) -> None:
        names, nowhere = np.arange(m).astype(np.str_), np.full(m, np.nan)
        latents = Latents(names, names, codes[:m], "m", "", nowhere, nowhere, nowhere)
        if options.step == "outliers":
            outliers.outliers(latents, None, 5, graph=graph)
        elif options.step == "clusters":
            clusters.cluster(latents, graph=graph)
        else:
            rng = np.random.default_rng(0)
            jobs = options.threads if m > maps.SMALL else 1  # few gain nothing from threads
            xy = maps.tsne_map(latents, rng=rng, graph=graph, jobs=jobs)
            assert np.isfinite(xy).all() and (xy.std(axis=0) > 1).all()

    ring = (np.arange(200)[:, None] + np.arange(1, K + 1)) % 200
    if options.step == "clusters":  # compiles
        ask(200, Graph(ring.astype(np.int32), near[:200], "cosine", 1.0))
    start = time.perf_counter()
    ask(options.n, Graph(rows, near, "cosine", 1.0))
    return {"seconds": time.perf_counter() - start, "peak": peak()}


def draw(sizes: list[int], rows: list[dict[str, dict[str, float]]]) -> None:
    """Seconds and memory of each step against n, on logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, what, name in zip(panels, ("seconds", "peak"), ("time [s]", "peak memory [GiB]")):
        for step in STEPS:
            panel.loglog(sizes, [row[step][what] for row in rows], "o-", label=step)
        panel.set_xlabel("vectors")
        panel.set_ylabel(name)
        panel.grid(alpha=0.3)
    panels[1].axhline(6, color="grey", ls="--", lw=1)
    panels[0].legend(frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
