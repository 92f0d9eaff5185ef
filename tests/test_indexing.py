"""Rival and contract: the index on disk against search in memory; kills, appends, filters."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import small_surveys
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skyvec import store
from skyvec.analysis import filters, neighbours
from skyvec.index.certified import CertifiedIndex
from skyvec.index.segments import SegmentedIndex
from skyvec.indexing import disk, survey
from skyvec.indexing.check import CheckError, check
from skyvec.schema import Latents

WIDTH = 12


def latents(n, seed, *, first=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, WIDTH)) + 3 * rng.normal(size=(5, WIDTH))[rng.integers(0, 5, n)]
    vectors[:2] = 0
    vectors[2:5] = vectors[5]
    ids = np.array([f"star {(first + i) // 2}/{(first + i) % 2}" for i in range(n)])
    ra = rng.uniform(0, 360, n)
    dec = np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra[7] = dec[7] = np.nan
    return Latents(
        ids,
        np.array([name.split("/")[0] for name in ids]),
        vectors.astype(np.float32),
        "m",
        "hash",
        ra,
        dec,
        np.full(n, np.nan, np.float32),
    )


def add(folder, n, seed, *, first=0):
    """One more shard of objects and of their latents."""
    made = latents(n, seed, first=first)
    small_surveys.add(folder, made.id.tolist(), [3] * n, made.target.tolist())
    shard = store.object_shards(folder)[-1]
    store.write_latents(folder, shard["file"], made, shard["sha256"])


@pytest.fixture
def three(tmp_path):
    """A survey of three shards of latents."""
    folder = tmp_path / "survey"
    for i, n in enumerate((300, 11, 150)):
        add(folder, n, i, first=1000 * i)
    return folder


def same(found, truth):
    assert_array_equal(found.rows, truth.rows)
    for name in ("query", "rank", "id", "target"):
        assert_array_equal(getattr(found, name), getattr(truth, name))
    assert_allclose(found.similarity, truth.similarity, atol=1e-6)
    assert_array_equal(found.ra, truth.ra)


def test_answers_as_the_search_in_memory(three):
    assert survey.build(three, "m") == 461
    assert survey.build(three, "m") == 0
    assert survey.is_there(three, "m")
    opened = survey.open_index(three, "m", threads=1)
    whole = store.read_latents(three, "m")
    rng = np.random.default_rng(0)
    mask = rng.random(461) < 0.3
    vectors = rng.normal(size=(4, WIDTH)).astype(np.float32)
    for queries in (["star 20/1"], ["star 503", "star 3/0"], vectors):
        for options in (
            {},
            {"combine": "mean"},
            {"combine": "best"},
            {"exclude_same_target": False},
            {"among": mask},
            {"exclude_targets": ["star 30"]},
        ):
            found = opened.search(queries, 9, **options)
            same(found, neighbours.search(whole, queries, 9, **options))


def test_a_night_is_appended_and_answers_as_a_rebuild_does(three):
    survey.build(three, "m")
    add(three, 70, 9, first=5000)
    assert not survey.is_there(three, "m")
    assert survey.build(three, "m") == 70
    grown = survey.open_index(three, "m", threads=1)
    assert len(grown.index.segments) == 2 and len(grown) == 531
    ids = ["star 2500/1", "star 12/0", "star 500/1"]
    before = grown.search(ids, 12)
    assert survey.build(three, "m", anew=True) == 531
    rebuilt = survey.open_index(three, "m", threads=1)
    assert len(rebuilt.index.segments) == 1
    same(rebuilt.search(ids, 12), before)


def test_deleted_rows_answer_no_more_until_the_index_is_built_anew(three):
    survey.build(three, "m")
    opened = survey.open_index(three, "m")
    nearest = str(opened.search(["star 40/0"], 1).target[0])
    assert survey.delete(three, "m", [nearest]) == len(opened.rows_named(nearest))
    assert survey.delete(three, "m", [nearest]) == 0
    after = survey.open_index(three, "m").search(["star 40/0"], 460)
    assert nearest not in after.target
    assert len(after) == 461 - 2 - len(opened.rows_named(nearest))
    survey.build(three, "m", anew=True)
    assert nearest in survey.open_index(three, "m").search(["star 40/0"], 1).target
    with pytest.raises(KeyError, match="no segment or target"):
        survey.delete(three, "m", ["star 99999"])


class Killed(BaseException):
    """Ends a build as a kill would: nothing catches it."""


def test_a_build_killed_anywhere_goes_on_and_ends_in_the_same_bytes(three, monkeypatch, tmp_path):
    monkeypatch.setattr(disk, "CHECKPOINT", 1)
    monkeypatch.setattr("skyvec.index.quantised.GROUP_ROWS", 40)
    monkeypatch.setattr("skyvec.index.quantised.CELL", 30)
    write = store.write_atomic
    survey.build(three, "m", threads=1)
    folder = store.index_folder(three, "m")

    def content():
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    truth = content()
    written = []

    def four_at_most(path, make):
        if len(written) == 4:
            raise Killed
        write(path, make)
        written.append(path)

    survey.shutil.rmtree(folder)
    monkeypatch.setattr(store, "write_atomic", four_at_most)
    monkeypatch.setattr(store.files, "write_atomic", four_at_most)
    for kills in range(100):
        written.clear()
        try:
            survey.build(three, "m", threads=1)
        except Killed:
            continue
        break
    assert kills > 5
    assert {k: v for k, v in content().items() if k.suffix != ".npz"} == {
        k: v for k, v in truth.items() if k.suffix != ".npz"
    }


def test_filters_choose_the_rows_that_the_catalogue_would(three, tmp_path):
    survey.build(three, "m")
    opened = survey.open_index(three, "m")
    whole = store.read_latents(three, "m")
    catalog = dataclasses.replace(
        store.read_catalog(three), ra=whole.ra, dec=whole.dec, columns={}
    )
    for cone in ((10.0, 20.0, 30.0), (0.0, 90.0, 5.0), (359.9, -40.0, 0.5), (100.0, 0.0, 179.0)):
        assert_array_equal(opened.cone(*cone), filters.cone(catalog, *cone))
    corners = np.array([[10, 10], [80, 0], [60, 60]])
    assert_array_equal(opened.polygon(corners), filters.polygon(catalog, corners))
    condition = "target == 'star 40' or id in ('star 3/1', 'star 500/0')"
    assert_array_equal(opened.where(condition), filters.where(catalog, condition))
    assert opened.where(condition).sum() == 4
    with pytest.raises(store.StoreError, match="no column 'tmag'"):
        opened.where("tmag < 3")
    mocpy = pytest.importorskip("mocpy")
    from astropy import units as u

    area = mocpy.MOC.from_cone(30 * u.deg, 10 * u.deg, radius=25 * u.deg, max_depth=8)
    path = tmp_path / "area.fits"
    area.save(path)
    assert_array_equal(opened.moc(path), filters.moc(catalog, path))
    assert 0 < opened.moc(path).sum() < 461


def test_not_within_some_degrees_of_the_query(three):
    survey.build(three, "m")
    opened = survey.open_index(three, "m")
    far = opened.search(["star 20/1"], 461, apart=40.0)
    whole = store.read_latents(three, "m")
    row = whole.rows(["star 20/1"])[0]
    near = filters.cone(
        dataclasses.replace(store.read_catalog(three), ra=whole.ra, dec=whole.dec, columns={}),
        float(whole.ra[row]),
        float(whole.dec[row]),
        40.0,
    )
    assert not np.isin(np.flatnonzero(near), far.rows).any()
    assert len(far) == 461 - len(set(np.flatnonzero(near)) | set(opened.rows_named("star 20")))


def test_check_measures_and_notices_damage(three):
    survey.build(three, "m")
    opened = survey.open_index(three, "m")
    opened.facts["way"] = "approximate"
    rows = list(check(opened, np.random.default_rng(0), queries=30))
    assert rows[0].way == "exact" and rows[0].recall == 1
    names = [row.filter.split()[0] for row in rows]
    assert {"none", "random", "cone", "MOC"} <= set(names)
    assert all(0.9 <= row.recall <= 1 and row.p50_ms > 0 for row in rows)
    opened.index.segments[0].store.vectors[:] *= -1
    with pytest.raises(CheckError, match="brute force"):
        list(check(opened, np.random.default_rng(0), queries=30))


def test_what_is_refused(three):
    with pytest.raises(store.StoreError, match="skyvec index build"):
        survey.open_index(three, "m")
    survey.build(three, "m")
    changed = latents(11, 77, first=1000)
    shard = store.object_shards(three)[1]
    store.write_latents(three, shard["file"], changed, shard["sha256"])
    with pytest.raises(store.StoreError, match="--anew"):
        survey.build(three, "m")
    opened = survey.open_index(three, "m")
    for queries, k, message in (
        ([], 3, "no query"),
        (np.full((1, WIDTH), np.nan), 3, "finite"),
        (np.ones((1, 3)), 3, "numbers"),
        (["star 1"], 0, "k must"),
    ):
        with pytest.raises(ValueError, match=message):
            opened.search(queries, k)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(("cosine", "l2")),
    st.lists(st.integers(1, 200), min_size=1, max_size=4),
    st.integers(1, 60),
    st.floats(0, 1),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_segments_with_filters_equal_brute_force(metric, sizes, k, share, by_target, seed):
    rng = np.random.default_rng(seed)
    n = sum(sizes)
    x = rng.integers(-2, 3, (n, 5)).astype(np.float32)
    target = rng.integers(0, max(1, n // 3), n)
    allowed, deleted = rng.random(n) < share, rng.random(n) < 0.2
    edges = np.cumsum([0, *sizes])
    segments = [
        CertifiedIndex(x[a:b], metric=metric, target=target[a:b], threads=1)
        for a, b in pairwise(edges)
    ]
    index = SegmentedIndex(segments, deleted)
    query, own = x[:1], target[:1]
    found = index.search(query, k, excluded=own, allowed=allowed, by_target=by_target)
    one = CertifiedIndex(x, metric=metric, target=target, threads=1)
    whole = one.search(query, n, excluded=own)
    keep = [r for r in whole.rows[0] if r >= 0 and allowed[r] and not deleted[r]]
    if by_target:
        _, first = np.unique(target[keep], return_index=True)
        keep = [keep[i] for i in np.sort(first)]
    expected = np.full(k, -1)
    expected[: len(keep[:k])] = keep[:k]
    assert_array_equal(found.rows[0], expected)


def test_a_plan_and_a_store_from_files_search_as_the_index_they_came_from(tmp_path):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3000, 21)).astype(np.float32)
    target = np.arange(3000) // 2
    for metric in ("cosine", "l2"):
        folder = tmp_path / metric
        disk.write_segment(
            folder,
            [1000, 500, 1500],
            lambda i: x[[0, 1000, 1500][i] : [1000, 1500, 3000][i]],
            lambda i: target[[0, 1000, 1500][i] : [1000, 1500, 3000][i]],
            metric,
            threads=2,
        )
        opened = disk.open_segment(folder, threads=1)
        memory = CertifiedIndex(x, metric=metric, target=target, threads=1)
        assert (opened.n, opened.n_targets, opened.n_cells) == (3000, 1500, memory.n_cells)
        truth = memory.search(x[:40], 7, excluded=target[:40])
        found = opened.search(x[:40], 7, excluded=target[:40])
        assert_array_equal(found.rows, truth.rows)
        assert_array_equal(found.similarity, truth.similarity)


@pytest.mark.parametrize("share", [0.002, 0.3])
def test_threads_share_a_filtered_query(monkeypatch, share):
    monkeypatch.setattr("skyvec.index.certified.SPLIT", 10)
    monkeypatch.setattr("skyvec.index.certified.FEW", 3)
    rng = np.random.default_rng(8)
    x = rng.normal(size=(4000, 9)).astype(np.float32)
    mask = rng.random(4000) < share
    mask[:2] = True
    both = CertifiedIndex(x, threads=2)
    allowed = both.allow(mask)
    assert (allowed.places is None) == (share > 0.1)
    found = both.search(x[7:8], 12, allowed=allowed)
    score = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ x[7]
    order = np.argsort(-np.where(mask, score, -np.inf))[: min(12, mask.sum())]
    assert_array_equal(found.rows[0][: len(order)], order)
    assert (found.rows[0][len(order) :] == -1).all()
