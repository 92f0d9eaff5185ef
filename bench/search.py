"""Exact and approximate search against a Faiss flat scan: same threads, in turn, answers checked.

Ratios are Faiss seconds over ours, the lower of two: one query at a time, and a batch of 256.
"""

import argparse
import json
import os

import faiss
import numpy as np
from real_like import Source, interleaved, isotropic

from skyvec.index import kernels
from skyvec.index.certified import CertifiedIndex
from skyvec.index.probing import choose_radii, recall_of
from skyvec.index.quantised import unit

K = 5
RECALL = 0.99
"""Below it an approximate search counts for nothing."""

CHECKED = 16


def is_identical(index: CertifiedIndex, flat: faiss.Index, vectors, queries) -> bool:
    """Equal to brute force bit for bit, and to Faiss up to its own float32 rounding."""
    answer = index.search(queries, K)
    similarity, rows = flat.search(unit(queries), K)
    far = np.abs(similarity - answer.similarity) > 1e-6
    order = np.arange(len(vectors))
    same = not far.any() and bool((rows == answer.rows).mean() > 0.99)
    wide = unit(queries).astype(np.float64)
    for i in range(CHECKED):
        score = kernels.score_all(vectors, wide[i : i + 1], False)
        best = np.lexsort((order, -score))[:K]
        same &= bool((best == answer.rows[i]).all())
        same &= bool((score[best].astype(np.float32) == answer.similarity[i]).all())
    return same


def compare(codes, queries, threads, *, repeats) -> dict[str, float]:
    """Ratios of exact and approximate search to the flat scan, with the checks."""
    vectors = unit(codes)
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    index = CertifiedIndex(codes, threads=threads)
    trust = choose_radii(index, 10, np.random.default_rng(3))
    turned = unit(queries)

    def one(i):
        j = i % len(queries)
        return queries[j : j + 1], turned[j : j + 1]

    single = interleaved(
        [
            lambda i: flat.search(one(i)[1], K),
            lambda i: index.search(one(i)[0], K),
            lambda i: flat.search(one(i)[1], 10),
            lambda i: index.search(one(i)[0], 10, radii=trust.radii),
        ],
        repeats,
    )
    batch = interleaved(
        [lambda _: flat.search(turned, K), lambda _: index.search(queries, K)],
        3,
    )
    found = index.search(queries, 10, radii=trust.radii).rows
    return {
        "flat_ms": 1e3 * single[0],
        "exact_ms": 1e3 * single[1],
        "ann_ms": 1e3 * single[3],
        "single": single[0] / single[1],
        "batch": batch[0] / batch[1],
        "ann": single[2] / single[3],
        "recall": recall_of(flat.search(turned, 10)[1], found),
        "way": index.plan.way,
        "identical": is_identical(index, flat, vectors, queries),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, under 50 s")
    parser.add_argument("--most", type=int, default=10_000_000, help="leave larger sets out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    source = Source(rng, limit=400 if options.quick else 2000)
    sizes = {"40k": 40_000, "1m": 1_000_000, "10m": 10_000_000}
    if options.quick:
        sizes = {"40k": 20_000, "1m": 150_000}
    sizes = {name: n for name, n in sizes.items() if n <= options.most}
    print(f"{options.threads} threads; real-like: {source.like}")
    print(
        f"{'set':>12} {'n':>8} {'way':>7} {'flat ms':>8} {'exact ms':>9} {'single':>7} "
        f"{'batch':>6} {'approximate':>12} {'recall@10':>10} identical"
    )
    runs: dict[tuple[str, str], dict] = {}
    for name, n in sizes.items():
        for kind in ("real-like", "isotropic"):
            draw = source.draw if kind == "real-like" else isotropic
            repeats = 40 if n < 500_000 else 20
            run = compare(draw(n, rng), draw(256, rng), options.threads, repeats=repeats)
            runs[kind, name] = run
            print(
                f"{kind:>12} {n:>8} {run['way']:>7} {run['flat_ms']:>8.3f} "
                f"{run['exact_ms']:>9.3f} {run['single']:>7.1f} {run['batch']:>6.1f} "
                f"{run['ann']:>12.1f} {run['recall']:>10.4f} {run['identical']}",
                flush=True,
            )
    both = {key: min(run["single"], run["batch"]) for key, run in runs.items()}
    facts: dict[str, object] = {}
    for name in sizes:
        run = runs["real-like", name]
        facts[f"exact_vs_flat_{name}"] = round(both["real-like", name], 2)
        facts[f"ann_vs_flat_{name}"] = round(run["ann"], 1) if run["recall"] >= RECALL else 0.0
        facts[f"ann_recall_{name}"] = round(run["recall"], 4)
    facts |= {
        "worst_case_ratio": round(min(both["isotropic", name] for name in sizes), 2),
        "identical": all(run["identical"] for run in runs.values()),
        "like": source.like,
    }
    if options.quick:
        facts["quick_sizes"] = sizes
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
