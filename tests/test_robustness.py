"""Simulated sky: a code hardly moves with the phase of its signal, and more the more is lost."""

import numpy as np
import pytest
import torch

from skyvec import checkpoint
from skyvec.report.completeness import robustness_picture
from skyvec.report.pictures import png
from skyvec.sim.lightcurves import simulate_sky
from skyvec.sim.signals import parse
from skyvec.studies.robustness import robustness

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    full = checkpoint.complete({"model": {"name": "gridconv"}}, ("T",))
    torch.manual_seed(0)
    checkpoint.save(folder, full, checkpoint.build(full).state_dict(), {})
    return checkpoint.load(folder)


@pytest.fixture(scope="module")
def curves():
    kinds = ["constant", "rotator", "delta_scuti"]
    return simulate_sky(40, np.random.default_rng(6), kinds=kinds, twice=0.0, oddities=0.0)[1]


@pytest.fixture(scope="module")
def table(model, curves):
    return robustness(
        model,
        curves,
        parse("contact_binary(period=0.4)"),
        np.random.default_rng(0),
        phases=(0.0, 0.5),
        gaps=(0.1, 0.7),
        points=(0.75, 0.05),
    )


def test_a_signal_shifted_or_interrupted_is_still_found(table):
    rows = {(row["change"], row["amount"]): row for row in table.to_pylist()}
    assert rows["phase", 0.0]["distance"] < 1e-6 and rows["phase", 0.0]["found"] == 1
    assert rows["phase", 0.5]["share"] < 0.3 and rows["phase", 0.5]["found"] > 0.9
    assert rows["gaps", 0.1]["share"] < 0.3 and rows["gaps", 0.1]["found"] > 0.9
    assert rows["gaps", 0.1]["distance"] < rows["gaps", 0.7]["distance"]
    assert rows["points", 0.75]["distance"] < rows["points", 0.05]["distance"]


def test_it_is_drawn_and_nonsense_is_refused(table, model, curves):
    assert png(robustness_picture(table, "contact binary"))[:4] == b"\x89PNG"
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="fixed period"):
        robustness(model, curves, parse("flares"), rng)
    with pytest.raises(ValueError, match="three curves"):
        robustness(model, curves.take(np.arange(2)), parse("sinusoid(period=1)"), rng)
