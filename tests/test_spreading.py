"""Classes for all from the few. Kinds: truth (planted groups, planted wrong labels), contract."""

import numpy as np
import pytest
import small_surveys

from skyvec import store
from skyvec.report.spreading import doubtful, spread
from skyvec.schema import Catalog, Latents

N = 240


def planted(folder, label):
    """Three groups, two segments a target, and their column ``kind``."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(N // 2) % 3, 2)
    vectors = np.eye(3, 12)[group] + 0.1 * rng.normal(size=(N, 12))
    vectors[N - 1] = 0  # without points in the model's bands
    names = np.array([f"s{i}" for i in range(N)], np.str_)
    target = np.array([f"t{i // 2}" for i in range(N)], np.str_)
    nan = np.full(N, np.nan)
    store.create_survey(folder)
    store.append_objects(
        folder,
        Catalog(names, target, nan, nan, {"kind": np.array(label(group), np.str_)}),
        small_surveys.light(names.tolist(), [1] * N),
        np.full(N, "here"),
    )
    shard = store.object_shards(folder)[-1]
    latents = Latents(names, target, vectors.astype(np.float32), "m", "", nan, nan, nan)
    store.write_latents(folder, shard["file"], latents, shard["sha256"])
    return np.array(["eb", "rr", "sn"])[group]


def test_the_few_name_the_many_and_a_wrong_label_shows(tmp_path):
    def few(group):
        kind = np.where(np.arange(N) % 8 < 2, np.array(["eb", "rr", "sn"])[group], "")
        kind[[8, 9]] = "sn" if group[8] != 2 else "eb"
        return kind

    truth = planted(tmp_path / "survey", few)
    answer = spread(tmp_path / "survey", "m", label="kind")
    facts, table = answer.facts, answer.table
    found = np.array(table["found"].to_pylist())
    assert (found[:-1] == truth[:-1]).mean() > 0.95
    assert (facts["labelled"], facts["named"], facts["unreached"]) == (N // 4, N - N // 4 - 1, 1)
    assert table["found"][-1].as_py() == "" and np.isnan(table["confidence"][-1].as_py())
    assert 0.9 < facts["right"] < 1
    assert set(doubtful(table)["id"].to_pylist()[:2]) == {"s8", "s9"}
    again = spread(tmp_path / "survey", "m", label="kind").table
    assert again["confidence"][:-1].to_pylist() == table["confidence"][:-1].to_pylist()


def test_one_class_or_none_is_refused(tmp_path):
    planted(tmp_path / "one", lambda group: np.where(group == 0, "eb", ""))
    with pytest.raises(ValueError, match="names 1 class; two at least"):
        spread(tmp_path / "one", "m", label="kind")
    with pytest.raises(ValueError, match="no column of classes"):
        spread(tmp_path / "one", "m")
