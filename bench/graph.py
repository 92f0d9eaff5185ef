"""The neighbour graph: seconds with its index, peak memory, and recall against a flat scan."""

import argparse
import json
import os
import resource
import time

import faiss
import numpy as np
from real_like import Source

from skyvec.index.certified import CertifiedIndex
from skyvec.index.graph import knn_graph
from skyvec.index.probing import recall_of
from skyvec.index.quantised import unit

K = 15
CHECKED = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller set, under 50 s")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    source = Source(rng, limit=400 if options.quick else 2000)
    n = 60_000 if options.quick else 1_000_000
    codes = source.draw(n, rng)
    knn_graph(CertifiedIndex(codes[:1000], threads=options.threads), 3, rng)  # compiles
    start = time.perf_counter()
    index = CertifiedIndex(codes, threads=options.threads)
    built = time.perf_counter()
    graph = knn_graph(index, K, rng)
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    vectors = unit(codes)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    rows = np.sort(rng.choice(n, CHECKED, replace=False))
    truth = flat.search(vectors[rows], K + 1)[1]
    others = np.array([row[row != own][:K] for row, own in zip(truth, rows)])
    recall = recall_of(others, graph.rows[rows])
    print(f"{options.threads} threads; real-like: {source.like}")
    print(f"{'n':>8} {'k':>3} {'build s':>8} {'graph s':>8} {'recall':>7} {'peak GiB':>9}")
    print(f"{n:>8} {K:>3} {built - start:>8.1f} {end - built:>8.1f} {recall:>7.4f} {peak:>9.2f}")
    facts: dict[str, object] = {
        "recall": round(recall, 4),
        "seconds_1m": round(end - start, 1),
        "peak_gib": round(peak, 2),
        "like": source.like,
    }
    if options.quick:
        facts["quick_sizes"] = {"1m": n}
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
