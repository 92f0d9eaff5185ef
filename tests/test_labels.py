"""Truth: losses of doubtful labels against closed forms and slow double loops."""

import math

import pytest
import torch

from skyvec.nn.labels import (
    UNLABELLED,
    adversarial_direction,
    cross_entropy,
    divergence,
    domain_distance,
    exp_cross_hinge,
    local_smoothness,
    target_share,
)


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def scores(n=40, seed=0, scale=3.0):
    rng = generator(seed)
    label = torch.randint(-1, 2, (n,), generator=rng)
    return scale * torch.randn(n, generator=rng, dtype=torch.float64), label


def test_cross_entropy_is_the_weighted_mean_over_the_labelled():
    logits = torch.tensor([[0.0, math.log(3)], [0.0, 0.0], [5.0, -5.0]])
    label = torch.tensor([1, 0, UNLABELLED])
    each = [math.log(4 / 3), math.log(2)]
    assert float(cross_entropy(logits, label)) == pytest.approx(sum(each) / 2, rel=1e-6)
    weight = torch.tensor([3.0, 1.0, 100.0])
    wanted = (3 * each[0] + each[1]) / 4
    assert float(cross_entropy(logits, label, weight)) == pytest.approx(wanted, rel=1e-6)


def test_nothing_labelled_costs_nothing_and_has_a_gradient():
    logits = torch.zeros(3, 2, requires_grad=True)
    none = torch.full((3,), UNLABELLED)
    loss = cross_entropy(logits, none) + exp_cross_hinge(logits[:, 1] - logits[:, 0], none)
    loss.backward()
    assert float(loss.detach()) == 0 and not logits.grad.any()


@pytest.mark.parametrize("cap", [None, 2.0])
def test_exp_cross_hinge_equals_a_double_loop(cap):
    score, label = scores()
    total, pairs = 0.0, 0
    for i in range(len(score)):
        for j in range(len(score)):
            if label[i] == 1 and label[j] == 0:
                z = max(float(score[j] - score[i]) + 0.25, 0)
                total += math.exp(z if cap is None else min(z, cap))
                pairs += 1
    assert float(exp_cross_hinge(score, label, cap=cap)) == pytest.approx(total / pairs, rel=1e-12)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_exp_cross_hinge_has_the_derivative_of_its_value(cap):
    score, label = scores(12, seed=3)
    assert torch.autograd.gradcheck(
        lambda s: exp_cross_hinge(s, label, cap=cap), score.requires_grad_()
    )


def test_exp_cross_hinge_in_blocks_is_the_same(monkeypatch):
    score, label = scores(60)
    whole = exp_cross_hinge(score.requires_grad_(), label)
    (slope,) = torch.autograd.grad(whole, score)
    monkeypatch.setattr("skyvec.nn.labels.PAIRS", 7)
    parts = exp_cross_hinge(score, label)
    assert float(parts.detach()) == pytest.approx(float(whole.detach()), rel=1e-12)
    assert torch.allclose(torch.autograd.grad(parts, score)[0], slope, rtol=1e-12, atol=0)


def test_exp_cross_hinge_bounds_the_area_missed():
    score, label = scores(400)
    ones, zeros = score[label == 1], score[label == 0]
    missed = (ones[:, None] <= zeros[None]).double().mean()
    assert float(exp_cross_hinge(score, label)) >= float(missed) + 1 - 1e-9
    apart = torch.tensor([-5.0, 5.0])
    assert float(exp_cross_hinge(apart, torch.tensor([0, 1]))) == 1.0
    # float32 scores whose difference float32 could not raise e to
    far = torch.tensor([60.0, -60.0], requires_grad=True)
    loss = exp_cross_hinge(far.double(), torch.tensor([0, 1]))
    assert float(loss.detach()) == pytest.approx(math.exp(120.25), rel=1e-9)


def line(weight):
    """Logits (0, w.x): the most sensitive direction is w itself."""

    def network(x):
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), x.flatten(1) @ weight], 1)

    return network


def test_the_adversarial_direction_of_a_line_is_its_gradient():
    weight = torch.randn(12, generator=generator(1), dtype=torch.float64)
    x = torch.randn(5, 3, 2, 2, generator=generator(2), dtype=torch.float64)
    network = line(weight)
    found = adversarial_direction(network, x, network(x), generator(), reach=1e-3)
    cosine = (found.flatten(1) @ weight) / weight.norm()
    assert torch.allclose(cosine.abs(), torch.ones(5, dtype=torch.float64), atol=1e-9)


def test_smoothness_of_a_line_in_closed_form():
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64)
    x = torch.tensor([[0.3, -0.1]], dtype=torch.float64)
    network = line(weight)
    z = float(x[0] @ weight)
    p = 1 / (1 + math.exp(-z))
    closed = []
    for sign in (-1, 1):
        q = 1 / (1 + math.exp(-(z + sign * 0.1 * 5)))  # |w| = 5, length 0.1
        closed.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    loss = float(local_smoothness(network, x, generator(), length=0.1))
    assert min(abs(loss - value) for value in closed) < 1e-12
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    released = float(local_smoothness(network, x, generator(), length=0.1, entropy=True))
    assert released == pytest.approx(loss + entropy, rel=1e-9)


def test_power_iteration_finds_the_leading_eigenvector_of_the_hessian():
    torch.manual_seed(0)
    first, last = torch.nn.Linear(4, 9).double(), torch.nn.Linear(9, 2).double()

    def network(x):
        return last(torch.tanh(first(x)))

    x = torch.randn(1, 4, dtype=torch.float64)
    clean = network(x).detach()
    hessian = torch.autograd.functional.hessian(
        lambda r: divergence(clean, network(x + r)).sum(), torch.zeros(1, 4, dtype=torch.float64)
    )[0, :, 0]
    leading = torch.linalg.eigh(hessian).eigenvectors[:, -1]
    found = adversarial_direction(network, x, clean, generator(), reach=1e-4, iterations=60)
    assert abs(float(found[0] @ leading)) == pytest.approx(1, abs=1e-4)


def test_confident_and_constant_networks_leave_a_unit_direction():
    x = torch.randn(4, 3, 5, 5, generator=generator(3))
    for network in (
        line(1e3 * torch.ones(75)),
        lambda r: torch.zeros(len(r), 2) + 0 * r.flatten(1)[:, :2],
    ):
        found = adversarial_direction(network, x, network(x), generator())
        assert torch.allclose(found.flatten(1).norm(dim=1), torch.ones(4), atol=1e-5)
        assert torch.isfinite(local_smoothness(network, x, generator()))


def two_domains(share, seed=0, n=400, shift=0.0):
    """Features of two classes 3 apart, and the log-odds of the second domain under even shares."""
    rng = generator(seed)
    label = (torch.arange(n) < n // 2).long()
    one = torch.randn(n, 2, generator=rng) + 3.0 * label[:, None]
    of_other = torch.arange(n) < round(share * n)
    other = torch.randn(n, 2, generator=rng) + 3.0 * of_other[:, None]
    # log N(x | 3) - log N(x | 0) of the sum of both, known where nothing is shifted
    return one, label, other + shift, 3 * other.sum(1) - 9


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
def test_the_share_of_ones_is_told_by_the_scores(share):
    _, _, _, score = two_domains(share, n=2000)
    assert float(target_share(score, 0.5)) == pytest.approx(share, abs=0.015)
    # learnt under another share, the log-odds are higher by its own
    moved = score + math.log(0.8 / 0.2)
    assert float(target_share(moved, 0.8)) == pytest.approx(share, abs=0.015)
    assert 0 < float(target_share(torch.full((10,), -50.0), 0.5)) <= 0.05 + 1e-9


def test_only_a_distance_that_knows_of_shares_is_zero_where_shares_alone_differ():
    found = {match: [] for match in ("class", "share", "whole")}
    for seed in range(8):
        for match, values in found.items():
            one, label, other, score = two_domains(0.1, seed)
            values.append(float(domain_distance(one, label, other, score, match=match)))
    mean = {match: sum(values) / 8 for match, values in found.items()}
    assert abs(mean["class"]) < 0.01 and abs(mean["share"]) < 0.01 < 0.2 < mean["whole"]
    # and all see that the other instrument shifts everything
    one, label, other, score = two_domains(0.1, shift=1.0)
    for match in found:
        assert float(domain_distance(one, label, other, score, match=match)) > 0.1


def test_a_distance_of_what_is_not_there_is_zero():
    one, label, other, score = two_domains(0.5, n=8)
    assert float(domain_distance(one, torch.zeros(8).long(), other, score)) == 0
    assert float(domain_distance(one, torch.full((8,), UNLABELLED), other, score)) == 0
    assert float(domain_distance(one, label, other[:1], score[:1])) == 0
    # nothing in the other domain looks like a one: the ones are left alone
    x = one.clone().requires_grad_()
    domain_distance(x, label, other - 40, torch.full((8,), -60.0)).backward()
    assert not x.grad[label == 1].any() and x.grad[label == 0].any()
