"""Rival: LSDB opens what is written here, and a cross-match over cell borders loses nothing."""

import numpy as np
import pyarrow as pa
import pytest

from skyvec.io import hats

lsdb = pytest.importorskip("lsdb", reason="HATS needs the extra `survey`")
pytestmark = pytest.mark.filterwarnings("ignore")


def grid(n, seed):
    """Positions at least about a degree apart, everywhere, borders and poles among them."""
    rng = np.random.default_rng(seed)
    k = np.arange(n) + 0.5
    ra = (k * 180 * (1 + np.sqrt(5)) + rng.normal(0, 1e-3, n)) % 360
    return ra, np.degrees(np.arcsin(1 - 2 * k / n))


def tables(ra, dec, size=700):
    def give():
        for start in range(0, len(ra), size):
            part = slice(start, start + size)
            ids = pa.array([f"o{i}" for i in range(len(ra))[part]])
            latent = np.repeat(ra[part].astype(np.float32)[:, None], 3, axis=1)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(latent.ravel()), 3)
            yield pa.table({"id": ids, "ra": ra[part], "dec": dec[part], "latent": vectors})

    return give


def test_partitions_hold_every_row_once_in_order(tmp_path):
    ra, dec = grid(3000, 1)
    ra[5] = np.nan
    assert (
        hats.write_catalog(tmp_path / "a", tables(ra, dec), name="a", rows_per_partition=99) == 1
    )
    assert hats.matches(tmp_path / "a") and not hats.matches(tmp_path)
    parts = list(hats.read_partitions(tmp_path / "a"))
    assert len(parts) > 30 and max(len(part) for part in parts) <= 99
    ids = np.concatenate([part["id"].to_numpy() for part in parts])
    assert sorted(ids) == sorted(f"o{i}" for i in range(3000) if i != 5)
    cells = np.concatenate([part["_healpix_29"].to_numpy() for part in parts])
    assert all((np.diff(part["_healpix_29"].to_numpy()) >= 0).all() for part in parts)
    assert len(np.unique(cells)) == 2999


@pytest.mark.slow
def test_lsdb_opens_it_and_a_crossmatch_across_borders_loses_nothing(tmp_path):
    ra, dec = grid(3000, 2)
    shifted = (ra + 3 / 3600 / np.cos(np.radians(dec))) % 360
    hats.write_catalog(tmp_path / "a", tables(ra, dec), name="a", rows_per_partition=40)
    hats.write_catalog(tmp_path / "b", tables(shifted, dec), name="b", rows_per_partition=200)
    a, b = lsdb.open_catalog(tmp_path / "a"), lsdb.open_catalog(tmp_path / "b")
    matched = a.crossmatch(b, radius_arcsec=5, suffixes=("_a", "_b")).compute(progress_bar=False)
    assert len(matched) == 3000
    assert (matched["id_a"] == matched["id_b"]).all()


def test_an_interrupted_writing_leaves_nothing(tmp_path):
    ra, dec = grid(100, 3)
    good = tables(ra, dec)

    def broken(calls=[]):
        calls.append(1)
        yield from good()
        if len(calls) > 1:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        hats.write_catalog(tmp_path / "a", broken, name="a")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_a_catalogue_is_refused(tmp_path):
    nowhere = np.full(3, np.nan)
    with pytest.raises(ValueError, match="no row has a position"):
        hats.write_catalog(tmp_path / "a", tables(nowhere, nowhere), name="a")
    with pytest.raises(FileExistsError, match="choose another folder"):
        hats.write_catalog(tmp_path, tables(nowhere, nowhere), name="a")
