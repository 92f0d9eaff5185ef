"""Rival and contract: HATS catalogues encoded here, under LSDB, and by workers that die."""

import os
import signal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_surveys import light
from typer.testing import CliRunner

from skyvec import catalogues, checkpoint, encode, publish, store
from skyvec.cli import app
from skyvec.io import hats
from skyvec.schema import Catalog

lsdb = pytest.importorskip("lsdb", reason="HATS needs the extra `survey`")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("one_thread"),
]


def make_survey(folder, n, points):
    """A survey of curves all over the sky, with a model."""
    store.create_survey(folder)
    rng = np.random.default_rng(0)
    curves = light([f"o{i}" for i in range(n)], rng.integers(2, points, n).tolist())
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    catalog = Catalog(curves.id, np.array([f"t{i // 2}" for i in range(n)]), ra, dec)
    store.append_objects(folder, catalog, curves, np.full(n, "here"))
    full = checkpoint.complete({"model": {"name": "gridconv", "latent": 8}}, ("g", "r"))
    torch.manual_seed(0)
    checkpoint.save(store.model_folder(folder, "m"), full, checkpoint.build(full).state_dict(), {})
    return store.model_folder(folder, "m")


def rows_by_id(folder):
    table = pa.concat_tables(list(hats.read_partitions(folder)))
    order = np.argsort(table["id"].to_numpy(zero_copy_only=False))
    return table.take(pa.array(order))


def vectors(table):
    return np.array(table["latent"].to_pylist(), np.float32)


def test_a_catalogue_is_encoded_as_the_survey_it_came_from_and_goes_on(tmp_path, monkeypatch):
    survey = tmp_path / "sky"
    model = make_survey(survey, 60, 40)
    publish.publish_objects(survey, tmp_path / "objects", rows_per_partition=15)
    n_parts = len(hats.partition_files(tmp_path / "objects"))
    encode_file, calls = catalogues._encode_file, []

    def third_fails(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError("no space left on device")
        return encode_file(*arguments)

    monkeypatch.setattr(catalogues, "_encode_file", third_fails)
    with pytest.raises(OSError, match="no space"):
        catalogues.encode_hats(model, tmp_path / "objects", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert catalogues.encode_hats(model, tmp_path / "objects", tmp_path / "out") == (60, 0)
    assert len(calls) == n_parts + 1
    assert not list(tmp_path.glob(".encoding*"))
    made = rows_by_id(tmp_path / "out")
    encode.encode(survey, "m", threads=1)
    latents = store.read_latents(survey, "m")
    order = np.argsort(latents.id)
    assert made["id"].to_pylist() == latents.id[order].tolist()
    assert made["target"].to_pylist() == latents.target[order].tolist()
    assert_allclose(vectors(made), latents.vectors[order], atol=1e-5)
    assert_allclose(made["error"].to_numpy(), latents.error[order], atol=1e-4)
    with pytest.raises(FileExistsError, match="choose another folder"):
        catalogues.encode_hats(model, tmp_path / "objects", tmp_path / "out")


def test_chunks_are_bounded_and_refused_rows_are_told(tmp_path, monkeypatch):
    survey = tmp_path / "sky"
    model = checkpoint.load(make_survey(survey, 30, 40))
    publish.publish_objects(survey, tmp_path / "objects")
    table = pa.concat_tables(list(hats.read_partitions(tmp_path / "objects")))
    flux = table["flux"].to_pylist()
    flux[4] = [float("nan")] * len(flux[4])
    place = table.column_names.index("flux")
    table = table.set_column(place, "flux", pa.array(flux, pa.list_(pa.float32())))
    whole = catalogues.encode_table(table, model)
    reasons = whole["reject"].to_pylist()
    assert "no usable point" in reasons[4] and sum(map(bool, reasons)) == 1
    assert not vectors(whole)[4].any() and np.isnan(whole["error"][4].as_py())
    assert whole["ra"][4] == table["ra"][4] and whole.num_rows == 30
    monkeypatch.setattr(catalogues, "CHUNK_POINTS", 60)
    seen, encode_curves = [], catalogues.encode_curves
    monkeypatch.setattr(
        catalogues,
        "encode_curves",
        lambda model, curves: seen.append(len(curves.mjd)) or encode_curves(model, curves),
    )
    parts = catalogues.encode_table(table, model)
    assert len(seen) > 5 and max(seen) <= 60
    assert_allclose(vectors(parts), vectors(whole), atol=1e-5)
    assert catalogues.encode_table(table.slice(0, 0), model).num_rows == 0
    with pytest.raises(ValueError, match="no column of time"):
        catalogues.encode_table(table.rename_columns([f"x{n}" for n in table.column_names]), model)
    long = pa.table({"id": ["a", "a"], "mjd": [1.0, 2.0], "flux": [1.0, 2.0], "band": ["g", "r"]})
    with pytest.raises(ValueError, match="a row must be an object"):
        catalogues.encode_table(long, model)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_lsdb_on_a_cluster_that_loses_a_worker_gives_the_same_bits(tmp_path):
    distributed = pytest.importorskip("distributed")
    survey = tmp_path / "sky"
    model = make_survey(survey, 500, 200)
    publish.publish_objects(survey, tmp_path / "objects", rows_per_partition=40)
    files = hats.partition_files(tmp_path / "objects")
    assert len(files) > 12
    catalogues.encode_hats(model, tmp_path / "objects", tmp_path / "local")
    local = rows_by_id(tmp_path / "local")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        encoded = catalogues.encode_catalog(lsdb.open_catalog(tmp_path / "objects"), model)
        assert list(encoded.columns) == catalogues.SCHEMA.names
        frame = encoded.compute(progress_bar=False).sort_values("id")
        assert frame["id"].tolist() == local["id"].to_pylist()
        bits = np.array([list(v) for v in frame["latent"]], np.float32)
        assert_array_equal(bits, vectors(local))
        victim = next(iter(cluster.workers.values())).pid
        killed = []

        def kill_after_the_first_partition(done, total):
            if not killed:
                killed.append(len(list((tmp_path / ".encoding-spread").glob("part-*"))))
                os.kill(victim, signal.SIGKILL)

        spread = tmp_path / "spread"
        options = {"progress": kill_after_the_first_partition}
        options |= {"scheduler": cluster.scheduler_address}
        counts = catalogues.encode_hats(model, tmp_path / "objects", spread, **options)
        assert counts == (500, 0)
    assert killed == [1]
    assert_array_equal(vectors(rows_by_id(spread)), vectors(local))
    pairs = zip(hats.partition_files(spread), hats.partition_files(tmp_path / "local"))
    assert all(pq.read_table(a).equals(pq.read_table(b)) for a, b in pairs)
    assert len(lsdb.open_catalog(spread).compute(progress_bar=False)) == 500


def test_the_commands_read_and_write_catalogues(tmp_path):
    survey = tmp_path / "sky"
    make_survey(survey, 20, 20)
    publish.publish_objects(survey, tmp_path / "objects")
    runner, sky = CliRunner(), str(survey)
    source, out = str(tmp_path / "objects"), str(tmp_path / "out")
    asked = ["encode", "m", "-s", sky, "--hats", source]
    done = runner.invoke(app, [*asked, "-o", out])
    assert done.exit_code == 0 and "20 rows in" in done.stderr
    assert len(rows_by_id(tmp_path / "out")) == 20
    assert runner.invoke(app, asked).exit_code == 1
    encode.encode(survey, "m", threads=1)
    for command in ("build", "graph"):
        done = runner.invoke(app, ["index", command, "-s", sky, "-m", "m"])
        assert done.exit_code == 0
    assert "the 15 nearest of each of 20 vectors" in done.stderr
