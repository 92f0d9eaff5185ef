"""How fast neighbours and oddities are found among 40,000 vectors of 40 numbers.

Peers: the same questions asked with plain NumPy (a product of matrices, then a partial sort). The
article's figures on a laptop: top 5 in 0.76 ms, top 1,000 in 1.41 ms, the oddest in 1.1 s.

Answers checked against brute force in float64, ties by row: rows of single searches and of a
sample of all pairs must be identical, the oddest as well.

    python bench/neighbours.py [--quick]
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from skyvec.analysis import neighbours, outliers
from skyvec.index.certified import CertifiedIndex
from skyvec.index.exact import ExactIndex, unit
from skyvec.index.oddest import oddest
from skyvec.schema import Latents

N, WIDTH = 40_000, 40
ODDEST = 20


def make_latents(n: int, rng: np.random.Generator) -> Latents:
    """A mixture of 300 groups of very different sizes, some noise, some targets seen twice."""
    group = rng.choice(300, n, p=rng.dirichlet(np.full(300, 0.5)))
    vectors = rng.normal(size=(300, WIDTH))[group] + 0.4 * rng.normal(size=(n, WIDTH))
    vectors[: n // 50] = rng.normal(size=(n // 50, WIDTH))
    vectors = rng.permutation(vectors).astype(np.float32)
    target = np.array([f"TIC {i}" for i in rng.integers(10 * n, size=n)])
    ids = np.array([f"{t}/{i}" for i, t in enumerate(target)])
    nan = np.full(n, np.nan)
    return Latents(ids, target, vectors, "mixture", "0", nan, nan, nan)


def exact_similarity(latents: Latents, rows: np.ndarray) -> np.ndarray:
    """Cosine of some rows with all, float64, each sum in the same order."""
    wide = unit(latents.vectors).astype(np.float64)
    inverse = 1 / np.sqrt((wide**2).sum(axis=1))
    found = [(wide[row] * wide).sum(axis=1) * inverse[row] * inverse for row in rows]
    return np.clip(found, -1, 1)


def brute_force(latents: Latents, rows: np.ndarray, k: int) -> np.ndarray:
    """The k most similar rows of each, ties by row."""
    order = np.argsort(-exact_similarity(latents, rows), axis=1, kind="stable")
    return order[:, :k]


def kth_other_target(latents: Latents, rows: np.ndarray, k: int) -> np.ndarray:
    """Similarity of each row to its k-th nearest other target, by a plain loop."""
    result = []
    for row, similarity in zip(rows, exact_similarity(latents, rows)):
        seen: set[str] = {str(latents.target[row])}
        for other in np.argsort(-similarity, kind="stable"):
            if str(latents.target[other]) not in seen:
                seen.add(str(latents.target[other]))
                if len(seen) == k + 1:
                    result.append(similarity[other])
                    break
    return np.array(result)


def times_ms(ask: Callable[[int], object], queries: np.ndarray) -> tuple[float, float]:
    """Median and best wall time of a question over many queries [ms]."""
    taken = []
    for query in queries:
        start = time.perf_counter()
        ask(int(query))
        taken.append(time.perf_counter() - start)
    return 1e3 * float(np.median(taken)), 1e3 * min(taken)


def numpy_search(vectors: np.ndarray, query: int, k: int) -> np.ndarray:
    """The peer: one product, one partial sort, one sort."""
    score = vectors @ vectors[query]
    best = np.argpartition(-score, k)[:k]
    return best[np.argsort(-score[best])]


def numpy_all_pairs(vectors: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """The peer of the oddest: similarity to the k-th nearest other row."""
    kth = [
        -np.partition(-(vectors[rows[i : i + 500]] @ vectors.T), k, axis=1)[:, k]
        for i in range(0, len(rows), 500)
    ]
    return np.concatenate(kth)


def certified_oddest(
    latents: Latents, wanted: np.ndarray, figures: dict[str, float | bool]
) -> bool:
    """Time the proof that certain vectors are the oddest, without comparing all with all."""
    targets = np.unique(latents.target, return_inverse=True)[1]
    start = time.perf_counter()
    index = CertifiedIndex(latents.vectors, target=targets)
    build = time.perf_counter() - start
    oddest(index, n=ODDEST, k=1)  # compiles
    start = time.perf_counter(), time.process_time()
    found = oddest(index, n=ODDEST, k=1)
    wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
    figures |= {"certified_build_s": build, "certified_oddest_s": wall}
    print(
        f"{'the same, certified':28}{wall:8.2f} s{processor:6.2f} cpu s  "
        f"{found.proof.n_verified} of {N:,} searched exactly; index built in {build:.1f} s"
    )
    return bool((found.rows == wanted).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, smaller checks")
    quick = parser.parse_args().quick
    rng = np.random.default_rng(0)
    latents = make_latents(N, rng)
    vectors = unit(latents.vectors)
    queries = rng.choice(N, 60 if quick else 400, replace=False)
    checked = rng.choice(N, 40 if quick else 400, replace=False)

    start = time.perf_counter()
    index = ExactIndex(latents.vectors)
    build = time.perf_counter() - start
    figures: dict[str, float | bool] = {"build_ms": 1e3 * build}
    identical = True
    print(f"{N:,} vectors of {WIDTH}; index built in {1e3 * build:.0f} ms")
    print(f"{'question':28}{'median':>10}{'best':>10}{'NumPy':>10}{'ratio':>8}")
    for k in (5, 1000):
        ours, best = times_ms(lambda i, k=k: index.search(latents.vectors[i : i + 1], k), queries)
        by_id, _ = times_ms(
            lambda i, k=k: neighbours.search(latents, [str(latents.id[i])], k, index=index),
            queries,
        )
        peer, _ = times_ms(lambda i, k=k: numpy_search(vectors, i, k), queries)
        wanted = brute_force(latents, checked, k)
        alone = [index.search(latents.vectors[i : i + 1], k)[1][0] for i in checked]
        together = index.search(latents.vectors[checked], k)[1]
        identical &= bool((alone == wanted).all() and (together == wanted).all())
        figures |= {
            f"top{k}_ms": ours,
            f"top{k}_by_id_ms": by_id,
            f"top{k}_numpy_ratio": peer / ours,
        }
        print(f"{f'top {k}':28}{ours:7.3f} ms{best:7.3f} ms{peer:7.3f} ms{peer / ours:8.2f}")
        print(f"{f'top {k} by id, as an answer':28}{by_id:7.3f} ms")

    for k in (1,) if quick else (1, 5):
        start = time.perf_counter(), time.process_time()
        found = outliers.outliers(latents, None, k, per="segment", index=index)
        wall, processor = time.perf_counter() - start[0], time.process_time() - start[1]
        part = rng.choice(N, N // 40, replace=False)
        start = time.perf_counter(), time.process_time()
        numpy_all_pairs(vectors, part, k)
        peer_wall = 40 * (time.perf_counter() - start[0])
        rows = np.r_[found.rows[:ODDEST], checked]
        similarity = np.empty(N)
        similarity[found.rows] = found.similarity
        identical &= bool((similarity[rows] == kth_other_target(latents, rows, k)).all())
        identical &= bool((np.diff(found.similarity) >= 0).all())
        if k == 1:
            identical &= certified_oddest(latents, found.rows[:ODDEST], figures)
        name = "allpairs_s" if k == 1 else f"allpairs_k{k}_s"
        figures |= {name: wall, name.replace("_s", "_cpu_s"): processor}
        figures[name.replace("_s", "_numpy_ratio")] = peer_wall / wall
        print(
            f"{f'oddest of all, k = {k}':28}{wall:8.2f} s{processor:6.2f} cpu s"
            f"{peer_wall:8.2f} s{peer_wall / wall:8.2f}"
        )
    figures["identical"] = identical
    assert identical, "an answer differs from brute force"
    print(json.dumps({k: v if isinstance(v, bool) else round(v, 4) for k, v in figures.items()}))


if __name__ == "__main__":
    main()
