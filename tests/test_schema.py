"""Contract and truth: the types refuse what they do not promise, and ragged indexing is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyvec.schema import (
    Catalog,
    Images,
    Latents,
    LightCurves,
    SchemaError,
    Stamps,
    take_ragged,
)


def curves(**changes):
    fields = {
        "id": np.array(["a", "b"]),
        "offsets": np.array([0, 2, 5]),
        "mjd": np.array([58000.0, 58001.0, 57000.0, 57000.5, 57002.0]),
        "flux": np.ones(5, np.float32),
        "flux_err": np.full(5, np.nan, np.float32),
        "band": np.zeros(5, np.int16),
        "bands": ("r",),
    }
    return LightCurves(**(fields | changes))


def test_good_curves_pass_and_time_may_restart_between_curves():
    assert len(curves()) == 2
    assert curves().lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": np.array([1, 2])}, "ids never pass through a number"),
        ({"offsets": np.array([0, 3, 2])}, "ascend"),
        ({"offsets": np.array([0, 2])}, "offsets must be int64"),
        ({"mjd": np.array([2458000.5, 2458001, 2457000, 2457001, 2457002])}, "is it JD"),
        ({"mjd": np.array([58001.0, 58000, 57000, 57000.5, 57002])}, "must ascend"),
        ({"mjd": np.array([np.nan, 58000, 57000, 57000.5, 57002])}, "outside"),
        ({"flux": np.ones(5)}, "float32"),
        ({"flux": np.array([1, np.nan, 1, 1, 1], np.float32)}, "finite"),
        ({"flux_err": np.zeros(5, np.float32)}, "flux_err must be > 0"),
        ({"flux_err": np.full(5, np.inf, np.float32)}, "flux_err must be > 0"),
        ({"band": np.full(5, 3, np.int16)}, "there are 1 bands"),
        ({"bands": ()}, "there are 0 bands"),
    ],
)
def test_bad_curves_are_refused(changes, message):
    with pytest.raises(SchemaError, match=message):
        curves(**changes)


def test_empty_curves_anywhere_do_not_hide_unsorted_times():
    with pytest.raises(SchemaError, match="ascend"):
        curves(
            id=np.array(["a", "b", "c", "d"]),
            offsets=np.array([0, 0, 2, 5, 5]),
            mjd=np.array([58001.0, 58000, 57000, 57000.5, 57002]),
        )
    assert len(curves(id=np.array(["a", "b", "c", "d"]), offsets=np.array([0, 0, 2, 5, 5]))) == 4


@pytest.mark.parametrize(
    ("ra", "dec", "message"), [(360.0, 0.0, "ra"), (-1.0, 0.0, "ra"), (0.0, 90.5, "dec")]
)
def test_coordinates_are_checked(ra, dec, message):
    with pytest.raises(SchemaError, match=message):
        Catalog(np.array(["a"]), np.array(["a"]), np.array([ra]), np.array([dec]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_take_ragged_equals_a_loop(lengths, data):
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.array(data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=10)), np.int64)
    points, new = take_ragged(offsets, rows)
    expected = [np.arange(offsets[r], offsets[r + 1]) for r in rows]
    assert points.tolist() == [int(p) for part in expected for p in part]
    assert np.diff(new).tolist() == [len(part) for part in expected]


def test_take_keeps_each_curve_with_its_own_points():
    taken = curves().take(np.array([1, 0]))
    assert taken.id.tolist() == ["b", "a"]
    assert taken.mjd.tolist() == [57000.0, 57000.5, 57002.0, 58000.0, 58001.0]


def latents(vectors):
    n = len(vectors)
    ids = np.array([f"o{i}" for i in range(n)])
    nan = np.full(n, np.nan)
    return Latents(ids, ids, vectors, "m", "h", nan, nan, nan)


def test_latents_refuse_what_is_not_finite_and_find_rows_by_id():
    good = latents(np.eye(3, dtype=np.float32))
    assert good.rows(["o2", "o0"]).tolist() == [2, 0]
    with pytest.raises(KeyError, match="no object 'x' among 3"):
        good.rows(["o1", "x"])
    with pytest.raises(SchemaError, match="finite"):
        latents(np.full((1, 2), np.nan, np.float32))
    with pytest.raises(SchemaError, match="float32"):
        latents(np.eye(2))


def images(**changes):
    pixels = np.zeros((2, 3, 5, 4), np.float32)
    parts = {"id": np.array(["a", "b"]), "pixels": pixels, "bands": ("g", "r", "z")}
    return Images(**{**parts, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands": ("g", "r")}, "shape"),
        ({"pixels": np.zeros((2, 3, 5, 4))}, "float32"),
        ({"pixels": np.full((2, 3, 5, 4), np.inf, np.float32)}, "NaN where masked"),
        ({"pixel_scale": 0.0}, "pixel_scale"),
        ({"flux_err": np.zeros((2, 3, 5, 4), np.float32)}, "flux_err must be > 0"),
        ({"flux_err": np.ones((2, 3, 5), np.float32)}, "flux_err must be float32"),
    ],
)
def test_images_are_checked_at_the_door(changes, message):
    assert len(images().take(np.array([1]))) == 1
    with pytest.raises(SchemaError, match=message):
        images(**changes)


def stamps(**changes):
    names = np.array(["a", "b"])
    parts = {"pixels": np.full((2, 3, 29, 29), np.nan, np.float32), "id": names}
    return Stamps(**{**parts, "detector": names, "exposure": names, "object": names, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": np.zeros((2, 3, 28, 29), np.float32)}, "odd"),
        ({"pixels": np.zeros((2, 2, 29, 29), np.float32)}, "shape"),
        ({"pixels": np.full((2, 3, 29, 29), np.inf, np.float32)}, "finite"),
        ({"detector": np.array([1, 2])}, "detector must be strings"),
        ({"exposure": np.array(["a"])}, "exposure must have shape"),
    ],
)
def test_stamps_are_checked_at_the_door(changes, message):
    assert stamps().take(np.array([1])).id.tolist() == ["b"]
    with pytest.raises(SchemaError, match=message):
        stamps(**changes)
