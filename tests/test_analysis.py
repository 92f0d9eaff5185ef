"""Questions to latents: truth (planted structure is found), rival (plain loops, scikit-learn).

The rest are contracts: same-target exclusion, ties, copies, zeros, refusals.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from sklearn.cluster import HDBSCAN
from sklearn.manifold import trustworthiness
from sklearn.metrics import adjusted_rand_score

from skyvec.analysis import clusters, maps, neighbours, outliers
from skyvec.analysis.spanning import spanning_tree
from skyvec.index.certified import CertifiedIndex
from skyvec.index.exact import ExactIndex, unit
from skyvec.index.graph import knn_graph
from skyvec.schema import Latents


def make_latents(vectors, targets=None):
    n = len(vectors)
    target = np.array([f"TIC {i}" for i in range(n)] if targets is None else targets, np.str_)
    ids = np.array([f"{t}/s{i:04d}" for i, t in enumerate(target)], np.str_).reshape(n)
    sky = np.linspace(0, 80, n)
    nan = np.full(n, np.nan)
    return Latents(ids, target, np.asarray(vectors, np.float32), "m", "h", sky, sky, nan)


def cosines(latents):
    wide = unit(latents.vectors).astype(float)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    wide /= np.where(length > 0, length, 1)
    return wide @ wide.T


def planted_groups(rng, sizes, *, width=10, noise=0.05):
    """Groups around orthogonal-like directions; label of each segment, and the latents."""
    centres = rng.normal(size=(len(sizes), width))
    label = np.repeat(np.arange(len(sizes)), sizes)
    vectors = centres[label] + noise * rng.normal(size=(len(label), width))
    return label, vectors


# --- neighbours -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30), st.integers(2, 12), st.booleans())
def test_search_equals_a_plain_loop(seed, k, n_targets, exclude):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, size=(25, 3))  # copies, zeros and ties
    latents = make_latents(vectors, [f"T{i}" for i in rng.integers(n_targets, size=25)])
    found = neighbours.search(latents, [latents.id[4]], k, exclude_same_target=exclude)
    similarity = ExactIndex(latents.vectors).search(latents.vectors[4:5], 25)
    wanted = [
        row
        for row in similarity[1][0]
        if row != 4 and not (exclude and latents.target[row] == latents.target[4])
    ][:k]
    assert found.rows.tolist() == wanted
    assert found.id.tolist() == latents.id[wanted].tolist()
    assert found.rank.tolist() == list(range(1, len(wanted) + 1))
    assert found.similarity == pytest.approx(cosines(latents)[4, wanted], abs=1e-6)
    assert found.distance == pytest.approx(np.sqrt(2 - 2 * found.similarity), abs=1e-9)


def test_the_same_star_a_month_later_is_no_answer_unless_asked_for():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 6))
    vectors[:20] = vectors[0] + 0.001 * rng.normal(size=(20, 6))  # 20 sectors of one star
    latents = make_latents(vectors, ["TIC 1"] * 20 + [f"TIC {i}" for i in range(2, 22)])
    found = neighbours.search(latents, [latents.id[3]], 20)
    assert len(found) == 20
    assert "TIC 1" not in found.target
    found = neighbours.search(latents, [latents.id[3]], 20, exclude_same_target=False)
    assert (found.target[:19] == "TIC 1").all()
    assert latents.id[3] not in found.id


def test_a_target_stands_for_all_its_segments():
    latents = make_latents(np.eye(4), ["A", "B", "A", "C"])
    found = neighbours.search(latents, ["A"], 5)
    assert found.query.tolist() == [latents.id[0]] * 2 + [latents.id[2]] * 2
    assert set(found.target) == {"B", "C"}


def test_queries_combine():
    vectors = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0.1], [1, 0, 0.2], [0, 0.1, 1]], float)
    latents = make_latents(vectors)
    pair = [latents.id[0], latents.id[1]]
    mean = neighbours.search(latents, pair, 3, combine="mean")
    best = neighbours.search(latents, pair, 3, combine="best")
    assert mean.rows.tolist() == [2, 3, 4]  # between the two
    assert best.rows.tolist() == [3, 2, 4]  # beside one of them
    assert best.similarity == pytest.approx(cosines(latents)[:2][:, [3, 2, 4]].max(axis=0))
    assert set(best.query) == {" + ".join(pair)}
    each = neighbours.search(latents, pair, 1, combine="each")
    assert each.query.tolist() == pair


def test_vectors_from_elsewhere_may_name_whom_not_to_find():
    latents = make_latents(np.eye(3), ["A", "B", "C"])
    query = np.array([3.0, 2.0, 1.0])
    assert neighbours.search(latents, query, 2).target.tolist() == ["A", "B"]
    found = neighbours.search(latents, query, 2, exclude_targets=["A"])
    assert found.target.tolist() == ["B", "C"]
    assert set(found.query) == {"vector 0"}


def test_search_among_some():
    rng = np.random.default_rng(2)
    latents = make_latents(rng.normal(size=(50, 4)))
    among = np.arange(50) % 3 == 0
    found = neighbours.search(
        latents, [latents.id[1]], 50, among=among, index=ExactIndex(latents.vectors)
    )
    assert sorted(found.rows) == np.flatnonzero(among).tolist()
    wanted = [row for row in np.argsort(-cosines(latents)[1], kind="stable") if among[row]]
    assert found.rows.tolist() == wanted


def test_an_unknown_name_names_some_alike():
    latents = make_latents(np.eye(3), ["TIC 29779873", "TIC 471015233", "KIC 8462852"])
    with pytest.raises(KeyError, match=r"no segment or target 'TIC 2977987'.*'TIC 29779873'"):
        neighbours.search(latents, ["TIC 2977987"])
    with pytest.raises(KeyError, match="'KIC 8462852'"):
        neighbours.search(latents, ["kic8462852"])


def test_what_cannot_be_searched_is_refused():
    latents = make_latents(np.eye(3))
    with pytest.raises(ValueError, match="choose from each, mean, best"):
        neighbours.search(latents, [latents.id[0]], combine="sum")
    with pytest.raises(ValueError, match="k must be at least 1"):
        neighbours.search(latents, [latents.id[0]], 0)
    with pytest.raises(ValueError, match="must be finite"):
        neighbours.search(latents, np.array([np.nan, 0, 0]))
    with pytest.raises(ValueError, match="no query"):
        neighbours.search(latents, [])
    with pytest.raises(ValueError, match=r"among must have shape \(3,\)"):
        neighbours.search(latents, [latents.id[0]], among=np.ones(2, bool))


# --- outliers ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(6, 20))
def test_outliers_equal_a_plain_loop(seed, k, n_targets):
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, size=(40, 4))
    target = np.array(
        [
            f"T{i}"
            for i in np.r_[np.arange(n_targets), rng.integers(n_targets, size=40 - n_targets)]
        ]
    )
    latents = make_latents(vectors, target)
    found = outliers.outliers(latents, None, k, per="segment")
    similarity = cosines(latents)
    wanted = np.empty((40, k))
    for i in range(40):
        others = [t for t in np.unique(target) if t != target[i]]
        wanted[i] = sorted((similarity[i, target == t].max() for t in others), reverse=True)[:k]
    assert found.similarity == pytest.approx(wanted[found.rows, -1], abs=1e-6)
    assert found.density == pytest.approx(wanted[found.rows].mean(axis=1), abs=1e-6)
    ranks = list(zip(found.similarity.tolist(), found.rows.tolist()))
    assert ranks == sorted(ranks)
    assert sorted(found.rows) == list(range(40))


def test_planted_oddities_are_the_oddest():
    rng = np.random.default_rng(3)
    _, vectors = planted_groups(rng, [60, 60, 60], width=20)
    odd = 10 * rng.normal(size=(4, 20))
    latents = make_latents(np.r_[vectors, odd])
    found = outliers.outliers(latents, 4)
    assert sorted(found.rows) == [180, 181, 182, 183]
    assert (found.density_ratio < 0.7).all()
    rest = outliers.outliers(latents, None)
    assert np.median(rest.density_ratio) == pytest.approx(1, abs=0.1)


def test_an_odd_star_seen_in_many_sectors_is_still_odd_and_listed_once():
    rng = np.random.default_rng(4)
    _, vectors = planted_groups(rng, [80], width=8)
    star = -vectors[0] + 0.01 * rng.normal(size=(12, 8))
    latents = make_latents(np.r_[vectors, star], [f"T{i}" for i in range(80)] + ["ODD"] * 12)
    found = outliers.outliers(latents, 3)
    assert found.target[0] == "ODD"
    assert (found.target == "ODD").sum() == 1
    assert found.segments[0] == 12
    assert found.similarity_ordinary[0] < -0.9  # odd in every sector
    every = outliers.outliers(latents, 12, per="segment")
    assert set(every.target) == {"ODD"}


def test_a_glitch_in_one_sector_shows_by_its_ordinary_siblings():
    rng = np.random.default_rng(5)
    _, vectors = planted_groups(rng, [80], width=8)
    vectors[7] = -vectors[7]
    latents = make_latents(vectors, [f"T{i // 2}" for i in range(80)])
    found = outliers.outliers(latents, 1)
    assert found.rows[0] == 7
    assert found.similarity_ordinary[0] > 0.9


def test_a_pair_alike_hides_from_its_nearest_but_not_from_its_fifth():
    rng = np.random.default_rng(6)
    _, vectors = planted_groups(rng, [80], width=8)
    vectors[3] = -vectors[3]
    vectors[9] = vectors[3] * 1.01
    latents = make_latents(vectors)
    assert 3 not in outliers.outliers(latents, 2, k=1).rows
    assert sorted(outliers.outliers(latents, 2, k=5).rows) == [3, 9]


def test_outliers_refuse_what_they_cannot_rank():
    latents = make_latents(np.eye(4), ["A", "A", "B", "C"])
    assert len(outliers.outliers(latents, k=2)) == 3
    with pytest.raises(ValueError, match="k must be between 1 and 2"):
        outliers.outliers(latents, k=3)
    with pytest.raises(ValueError, match="per must be"):
        outliers.outliers(latents, k=1, per="sector")


# --- clusters ---------------------------------------------------------------------------------


def mutual_reachability(latents, min_samples):
    far = np.sqrt(np.maximum(2 - 2 * cosines(latents), 0))
    np.fill_diagonal(far, 0)
    core = np.sort(far, axis=1)[:, min_samples]
    return np.maximum(far, np.maximum(core[:, None], core))


@pytest.mark.parametrize("kind", ["spread", "groups", "copies"])
def test_the_spanning_tree_is_the_shortest(kind):
    rng = np.random.default_rng(7)
    if kind == "spread":
        vectors = rng.normal(size=(200, 5))
    elif kind == "groups":  # far more members than neighbours are remembered
        vectors = planted_groups(rng, [90, 70, 60, 1, 1], noise=0.01)[1]
    else:
        vectors = np.repeat(rng.normal(size=(12, 5)), [60] * 3 + [1] * 9, axis=0)
    latents = make_latents(vectors)
    n = len(latents)
    reach = mutual_reachability(latents, 4)
    # a matrix's zeros are no edges: lift all by 1, n - 1 edges by n - 1
    wanted = minimum_spanning_tree(np.triu(reach + 1, 1)).sum() - (n - 1)
    tree = spanning_tree(latents.vectors, 4)
    assert len(tree) == n - 1
    assert (np.diff(tree[:, 2]) >= 0).all()
    assert tree[:, 2].sum() == pytest.approx(wanted, abs=n * 4e-4)  # float32 near 0
    joined = np.arange(n)
    for p, q in tree[:, :2].astype(int):
        assert joined[p] != joined[q]
        joined[joined == joined[q]] = joined[p]


def test_planted_clusters_are_recovered_and_noise_stays_noise():
    rng = np.random.default_rng(8)
    label, vectors = planted_groups(rng, [70, 50, 30, 15], width=40)
    vectors = np.r_[vectors, rng.normal(size=(12, 40))]
    order = rng.permutation(len(vectors))
    truth = np.r_[label, np.full(12, -1)][order]
    latents = make_latents(vectors[order], [f"T{i // 2}" for i in range(len(order))])
    found = clusters.cluster(latents)
    assert len(found.size) == 4
    planted = truth >= 0
    assert found.label[planted].tolist() == truth[planted].tolist()  # numbered by size
    # a stray point may hang on to a cluster from afar, and then says so
    stray = ~planted & (found.label >= 0)
    assert stray.sum() <= 6
    assert found.n_noise == 12 - stray.sum()
    assert found.probability[stray].max(initial=0) < 0.3 < found.probability[planted].min()
    assert (found.probability[found.label == -1] == 0).all()
    assert (found.label[found.medoid] == np.arange(4)).all()
    assert planted[found.medoid].all()
    assert (found.compactness > 0.8).all()
    share = found.size[3] / len(order)
    assert found.rarity[found.label == 3] == pytest.approx(-np.log10(share))
    assert np.isnan(found.rarity[found.label == -1]).all()
    own = [len(set(latents.target[found.label == i])) for i in range(4)]
    assert found.targets.tolist() == own


@pytest.mark.parametrize("selection", ["eom", "leaf"])
def test_clusters_agree_with_scikit_learn(selection):
    rng = np.random.default_rng(9)
    _, vectors = planted_groups(rng, [60] * 6, noise=0.2)
    latents = make_latents(np.r_[vectors, rng.normal(size=(80, 10))])
    found = clusters.cluster(latents, selection=selection, min_samples=8)
    # there the point itself is the first of its neighbours
    rival = HDBSCAN(
        min_cluster_size=10, min_samples=9, cluster_selection_method=selection, copy=True
    ).fit(unit(latents.vectors).astype(float))
    assert len(found.size) == rival.labels_.max() + 1
    assert adjusted_rand_score(found.label, rival.labels_) > 0.97


def test_clusters_do_not_depend_on_the_lengths_or_the_call():
    rng = np.random.default_rng(10)
    _, vectors = planted_groups(rng, [40, 30], noise=0.2)
    one = clusters.cluster(make_latents(vectors))
    scaled = vectors * rng.choice([0.25, 1, 8], size=(70, 1))
    assert clusters.cluster(make_latents(scaled)).label.tolist() == one.label.tolist()
    assert clusters.cluster(make_latents(vectors)).probability.tolist() == one.probability.tolist()


def test_copies_and_a_few_segments_are_no_error():
    rng = np.random.default_rng(11)
    copies = np.repeat(rng.normal(size=(3, 5)), 20, axis=0)
    assert clusters.cluster(make_latents(copies)).size.tolist() == [20, 20, 20]
    for n in (0, 1, 2, 9):
        found = clusters.cluster(make_latents(rng.normal(size=(n, 5))))
        assert found.label.tolist() == [-1] * n
        assert len(found.size) == 0


def test_representatives_are_other_targets_near_the_medoid():
    rng = np.random.default_rng(12)
    _, vectors = planted_groups(rng, [40, 20])
    latents = make_latents(vectors, [f"T{i // 2}" for i in range(60)])
    found = clusters.cluster(latents)
    shown = clusters.representatives(found, latents, 4)
    for i, rows in shown.items():
        assert rows[0] == found.medoid[i]
        assert (found.label[rows] == i).all()
        assert len(set(latents.target[rows])) == 4


def test_clusters_refuse_arguments_without_sense():
    latents = make_latents(np.eye(4))
    for wrong in (
        {"min_cluster_size": 1},
        {"min_samples": 0},
        {"selection": "best"},
        {"epsilon": -0.1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            clusters.cluster(latents, **wrong)


# --- maps -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped():
    rng = np.random.default_rng(13)
    label, vectors = planted_groups(rng, [60, 50, 40], noise=0.1)
    latents = make_latents(vectors)
    return label, latents, maps.tsne_map(latents, rng=np.random.default_rng(0), iterations=250)


def test_the_map_keeps_neighbours_together(mapped):
    label, latents, xy = mapped
    far = np.sqrt(np.maximum(2 - 2 * cosines(latents), 0))
    np.fill_diagonal(far, 0)
    assert xy.shape == (150, 2)
    assert trustworthiness(far, xy, n_neighbors=5, metric="precomputed") > 0.9
    for i in range(150):
        near = np.argsort(np.linalg.norm(xy - xy[i], axis=1))[1:6]
        assert (label[near] == label[i]).all()


def test_the_same_generator_gives_the_same_map(mapped):
    _, latents, xy = mapped
    again = maps.tsne_map(latents, rng=np.random.default_rng(0), iterations=250)
    assert again.tolist() == xy.tolist()


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_large_map_is_laid_out_from_a_sample_of_it(monkeypatch, cut_off):
    rng = np.random.default_rng(15)
    label, vectors = planted_groups(rng, [150, 100, 50], noise=0.1)
    latents = make_latents(vectors)
    graph = None
    if cut_off:  # five that only know each other, of whom the sample may hold none
        index = CertifiedIndex(vectors, threads=1)
        graph = knn_graph(index, 5, rng)
        graph.rows[:6] = (np.arange(6)[:, None] + np.arange(1, 6)) % 6
        graph.rows[6:][graph.rows[6:] < 6] = 7
    monkeypatch.setattr(maps, "LARGE", 80)
    xy = maps.tsne_map(latents, rng=np.random.default_rng(0), iterations=100, graph=graph)
    assert np.isfinite(xy).all()
    same = 0.0
    for i in range(6, 300):
        near = np.argsort(np.linalg.norm(xy - xy[i], axis=1))[1:6]
        same += (label[near] == label[i]).mean() / 294
    assert same > 0.95
    if not cut_off:
        again = maps.tsne_map(latents, rng=np.random.default_rng(0), iterations=100)
        assert again.tolist() == xy.tolist()


def test_new_vectors_land_among_their_own_and_the_map_stays(mapped):
    label, latents, xy = mapped
    before = xy.copy()
    rng = np.random.default_rng(14)
    own = np.array([3, 70, 140])
    new = latents.vectors[own] + 0.02 * rng.normal(size=(3, 10))
    placed = maps.place(latents, xy + 50, new) - 50
    assert xy.tolist() == before.tolist()
    for point, source in zip(placed, own):
        near = np.argsort(np.linalg.norm(xy - point, axis=1))[:5]
        assert (label[near] == label[source]).all()
    alone = maps.place(latents, xy, new[1:2])
    assert alone[0] == pytest.approx(placed[1], abs=1e-6)


def test_maps_of_copies_and_of_few_are_finite():
    for n in (0, 1, 2, 5, 12):
        xy = maps.tsne_map(make_latents(np.ones((n, 3))), rng=np.random.default_rng(1))
        assert xy.shape == (n, 2)
        assert np.isfinite(xy).all()
    few = make_latents(np.eye(3))
    xy = maps.tsne_map(few, rng=np.random.default_rng(1))
    assert maps.place(few, xy, np.eye(3)[1:2]).tolist() == [xy[1].tolist()]


def test_maps_refuse_what_does_not_fit(mapped):
    _, latents, xy = mapped
    with pytest.raises(ValueError, match="perplexity must be at least 1"):
        maps.tsne_map(latents, rng=np.random.default_rng(0), perplexity=0.5)
    with pytest.raises(ValueError, match=r"shape \(150, 2\)"):
        maps.place(latents, xy[:-1], latents.vectors[:1])
    with pytest.raises(ValueError, match="made by the same model"):
        maps.place(latents, xy, np.ones((1, 3)))


def test_distance_to_the_class_centre_is_in_units_of_the_class():
    rng = np.random.default_rng(3)
    wide, tight = rng.normal(size=(200, 3)) * 10, rng.normal(size=(200, 3)) + 50
    vectors = np.concatenate([wide, tight, [[50.0, 50.0, 90.0]], [[0.0, 0.0, 0.0]]])
    labels = np.array(["w"] * 200 + ["t"] * 201 + [""])
    far = outliers.class_distances(vectors, labels)
    assert np.isnan(far[-1])
    for rows in (slice(0, 200), slice(200, 401)):
        assert np.median(far[rows]) == pytest.approx(1.0)
    assert np.argmax(far[:-1]) == 400
    centre = np.median(tight, axis=0)  # one more member hardly moves it
    away = np.linalg.norm(vectors[400] - centre)
    usual = np.median(np.linalg.norm(tight - centre, axis=1))
    assert far[400] == pytest.approx(away / usual, rel=0.05)
    assert np.isnan(outliers.class_distances(np.zeros((4, 2)), np.array(["a"] * 4))).all()


def test_the_far_are_those_of_a_plain_loop():
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(40, 4)).astype(np.float32)
    target = np.array([f"t{i % 17}" for i in range(40)])
    nan = np.full(40, np.nan)
    latents = Latents(
        np.array([f"s{i}" for i in range(40)]), target, vectors, "m", "h", *[nan] * 3
    )
    found = outliers.far_from_others(latents, 3)
    for i in range(40):
        away = np.linalg.norm(vectors - vectors[i], axis=1)
        others = sorted(away[target == t].min() for t in set(target) if t != target[i])
        assert found[i] == pytest.approx(others[2], rel=1e-5)
    with pytest.raises(ValueError, match="k must be between 1 and 16, not 17"):
        outliers.far_from_others(latents, 17)


@pytest.mark.parametrize("n_targets", [300, 900])
def test_the_first_are_those_of_a_ranking_of_all(n_targets):
    rng = np.random.default_rng(n_targets)
    vectors = rng.normal(size=(900, 6)).astype(np.float32) ** 3
    vectors[::7] *= 20
    vectors[:3] = vectors[3]  # copies
    target = np.array([f"t{i % n_targets}" for i in rng.permutation(900)])
    nan = np.full(900, np.nan)
    latents = Latents(
        np.array([f"s{i}" for i in range(900)]), target, vectors, "m", "h", *[nan] * 3
    )
    for k in (1, 4):
        every = outliers.outliers(latents, 25, k)
        first, proof = outliers.first_outliers(latents, 25, k)
        assert first.id.tolist() == every.id.tolist()
        for name in ("similarity", "density", "density_ratio", "similarity_ordinary"):
            assert getattr(first, name) == pytest.approx(getattr(every, name), abs=1e-6)
        assert first.segments.tolist() == every.segments.tolist()
        assert proof.n_verified < 900 and not proof.next_bound < first.similarity[-1] - 1e-6
        far = outliers.far_from_others(latents, k)
        by_target = {t: far[target == t].max() for t in set(target)}
        rows, distance, _ = outliers.first_far(latents, 25, k)
        assert distance == pytest.approx(sorted(by_target.values())[::-1][:25], rel=1e-6)
        assert distance == pytest.approx(far[rows], rel=1e-6) and len(set(target[rows])) == 25
    with pytest.raises(ValueError, match="needs more than"):
        outliers.first_far(latents, 25, n_targets)
