"""Contract: what the research on real and bogus asks for and no other file of tests shows.

Its list: the golden scores of braai (test_braai), counts of weights, responses, the pair loss and
flat channels (test_classifiers, test_labels), weights of the losses and disjoint parts
(test_realbogus_train), label noise in all arms (test_realbogus_train, bench), autoScan's boxes and
deviations by hand (test_autoscan).
"""

import numpy as np
import pytest
import torch

from skyvec.models.stamps import Complex
from skyvec.nn.labels import Labelled, adversarial_direction, local_smoothness
from skyvec.prep.stamps import SENTINEL, normalise
from skyvec.realbogus.samples import faults
from skyvec.realbogus.train import Loss, Objective


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


def counts(n=6, seed=0):
    """Stamps in counts: a sky of thousands, a star."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-14:15, -14:15]
    star = np.exp(-(x**2 + y**2) / 8).astype(np.float32)
    pixels = rng.normal(5000, 70, (n, 3, 29, 29)).astype(np.float32)
    pixels[:, ::2] += 800 * star
    return pixels


@pytest.mark.parametrize("scale", ["minmax", "asinh"])
def test_smoothness_responds_whatever_the_counts_are(scale):
    torch.manual_seed(0)
    net = Complex(width=4)
    found = []
    for gain, sky in ((1.0, 0.0), (1000.0, -3e6)):
        x = torch.from_numpy(normalise((counts() * gain + sky).astype(np.float32), scale))
        r = 0.1 * adversarial_direction(net, x, net(x), torch.Generator().manual_seed(1))
        assert torch.allclose(r.flatten(1).norm(dim=1), torch.full((6,), 0.1), atol=1e-5)
        moved = (net(x + r) - net(x)).detach().abs().max()
        found.append(float(moved))
        batch = Labelled(x, torch.tensor([0, 1] * 3), torch.ones(6))
        parts = Objective(net, Loss(ce=0.5, lds=0.5)).parts(
            batch, torch.Generator().manual_seed(2)
        )
        assert float(parts["lds"].detach()) > 1e-9
    # after normalisation a step of 0.1 is the same step; on raw counts it would be nothing
    assert found[1] == pytest.approx(found[0], rel=0.1) and found[0] > 1e-4
    raw = torch.from_numpy(counts())
    assert float(local_smoothness(net, raw, torch.Generator().manual_seed(3)).detach()) < 1e-9


def test_sentinels_are_flagged_and_never_scored():
    pixels = counts(3)
    pixels[1, 1] = -3.4028235e38
    pixels[2, 1, :4] = -3.4028235e38
    assert abs(pixels[1, 1, 0, 0]) > SENTINEL
    assert faults(pixels, 29).tolist() == ["", "most of the reference is missing", ""]
    assert np.isfinite(normalise(pixels, "row_norm")).all()
