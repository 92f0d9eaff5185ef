"""Contract: what every row of CLASSIFIERS promises. Truth: counts of weights, slow formulas."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from skyvec.models.stamps import CLASSIFIERS, Complex, Simple, Vgg6, braai_weights
from skyvec.nn.responses import FilterResponse, SameConv, SqueezeExcite

SMALL = {"simple": {"width": 8}, "complex": {"width": 4}, "vgg6": {"side": 29, "width": 8}}
each = pytest.mark.parametrize("name", sorted(CLASSIFIERS))


@pytest.fixture(autouse=True)
def quiet(one_thread):
    """Small tensors gain nothing from threads."""


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return CLASSIFIERS[name](**{**SMALL[name], **options}).eval()


def stamps(n=6, side=29, seed=0):
    """A source in the centre of the new and difference cutouts of every other stamp."""
    rng = torch.Generator().manual_seed(seed)
    x = 0.3 * torch.rand(n, 3, side, side, generator=rng)
    y = torch.arange(side) - side // 2
    bump = torch.exp(-(y[:, None] ** 2 + y[None] ** 2) / 8)
    x[::2, 0] += 0.6 * bump
    x[::2, 2] += 0.6 * bump
    return x, (torch.arange(n) % 2 == 0).long()


def logits(model, x):
    with torch.inference_mode():
        return model(x)


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_counts_of_weights_are_the_published_ones():
    assert count(Simple(as_released=True)) == 234_242
    assert count(Simple()) == 324_354  # the same with (6, 6, 64) = 2,304 instead of 1,600
    assert count(Complex()) == count(Complex(as_released=True)) == 2_401_638
    assert count(Vgg6()) == 312_081


def test_the_last_map_of_the_complex_network_is_4_by_4_by_256():
    seen = []
    model = Complex().eval()
    model.block5.register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape)))
    logits(model, stamps(1)[0])
    assert seen == [(1, 256, 4, 4)]


@each
def test_shapes_and_odd_sizes(name):
    for side in (29, 31, 63):
        out = logits(build(name, side=side), stamps(3, side)[0])
        assert out.shape == (3, 2) and torch.isfinite(out).all()


@each
def test_the_gradient_reaches_every_parameter(name):
    model = build(name).train()
    x, label = stamps(6)
    functional.cross_entropy(model(x + 0.1 * torch.randn_like(x)), label).backward()
    idle = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@each
def test_a_score_is_the_same_alone_and_in_any_order(name):
    model, (x, _) = build(name), stamps(7)
    together = logits(model, x)
    alone = torch.cat([logits(model, one[None]) for one in x])
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert (together - alone).abs().max() < 1e-5
    assert (logits(model, x[order]) - together[order]).abs().max() < 1e-5


@each
def test_flat_and_empty_stamps_have_finite_scores(name):
    x = torch.stack([torch.zeros(3, 29, 29), torch.ones(3, 29, 29)])
    assert torch.isfinite(logits(build(name), x)).all()


@each
def test_weights_survive_a_file(name, tmp_path):
    model, (x, _) = build(name), stamps()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    other = build(name, seed=1)
    assert not torch.equal(logits(other, x), logits(model, x))
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(logits(other, x), logits(model, x))


@each
def test_eight_stamps_can_be_learnt_by_heart(name):
    model, (x, _) = build(name, **({} if name == "complex" else {"dropout": 0.0})), stamps(8)
    label = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])  # says nothing of what is in them
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), label)
        loss.backward()
        optimiser.step()
        if float(loss.detach()) < 0.05:
            break
    assert float(loss.detach()) < 0.05


@pytest.mark.parametrize("total", [False, True])
def test_filter_responses_by_hand(total):
    layer = FilterResponse(2, total=total)
    with torch.no_grad():
        layer.gamma[:] = torch.tensor([2.0, 1.0])
        layer.beta[:] = torch.tensor([0.5, -1.0])
        layer.tau[:] = torch.tensor([0.0, -0.25])
        layer.e[:] = torch.tensor([0.0, 1.5])
    x = torch.randn(3, 2, 4, 5)
    out = layer(x).detach()
    for n in range(3):
        for c, (g, b, t, e) in enumerate([(2.0, 0.5, 0.0, 0.0), (1.0, -1.0, -0.25, 1.5)]):
            values = x[n, c].flatten().tolist()
            nu2 = sum(v * v for v in values) / (1 if total else 20)
            eps = 1e-6 + math.log1p(math.exp(e))
            wanted = [max(g * v / math.sqrt(nu2 + eps) + b, t) for v in values]
            assert out[n, c].flatten().tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("total", [False, True])
def test_the_derivative_of_filter_responses_is_that_of_finite_differences(total):
    layer = FilterResponse(2, total=total).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_()
    names = [name for name, _ in layer.named_parameters()]

    def respond(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values)), x)

    x = torch.randn(2, 2, 3, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(respond, (x, *layer.parameters()))


def test_a_fresh_response_layer_damps_with_the_sum_and_not_with_the_mean():
    x = torch.randn(1, 64, 15, 15)
    mean, total = FilterResponse(64), FilterResponse(64, total=True)
    ratio = float((mean(x).norm() / total(x).norm()).detach())
    # the strength is 225 in the sum and 1 in the mean, beside 0.693 of eps
    assert ratio == pytest.approx(11.5, rel=0.05)


def test_squeeze_and_excite_by_hand():
    layer, u = SqueezeExcite(4), torch.randn(1, 4, 3, 3)
    place = torch.einsum("c,cyx->yx", layer.place.weight[0, :, 0, 0], u[0]) + layer.place.bias
    hidden = torch.relu(layer.squeeze.weight @ u[0].mean((1, 2)) + layer.squeeze.bias)
    channel = layer.excite.weight @ hidden + layer.excite.bias
    wanted = u[0] * torch.sigmoid(place) + u[0] * torch.sigmoid(channel)[:, None, None]
    assert torch.allclose(layer(u)[0], wanted, atol=1e-6)


def test_strided_convolutions_pad_the_odd_pixel_last():
    conv = SameConv(1, 1, 3, 2)
    x = torch.randn(1, 1, 8, 8)
    wanted = functional.conv2d(functional.pad(x, (0, 1, 0, 1)), conv.weight, conv.bias, stride=2)
    assert torch.equal(conv(x), wanted) and wanted.shape[2:] == (4, 4)
    assert conv(torch.randn(1, 1, 7, 7)).shape[2:] == (4, 4)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Simple, {"side": 9}),
        (Complex, {"width": 3}),
        (Vgg6, {"side": 19}),
        (Simple, {"dropout": 1}),
    ],
)
def test_sizes_that_cannot_work_are_refused(kind, options):
    with pytest.raises(ValueError, match=r"must be|needs"):
        kind(**options)


def test_weights_in_the_order_of_keras_give_the_same_scores():
    model, rng = build("vgg6"), np.random.default_rng(0)
    arrays = {}
    for name, layer in [
        ("one.0", model.one[0]), ("one.1", model.one[1]), ("two.0", model.two[0]),
        ("two.1", model.two[1]), ("dense", model.dense), ("out", model.out),
    ]:  # fmt: skip
        weight = layer.weight.detach().numpy()
        shape = weight.transpose(2, 3, 1, 0).shape if weight.ndim == 4 else weight.T.shape
        arrays[f"{name}/kernel"] = 0.2 * rng.standard_normal(shape)
        arrays[f"{name}/bias"] = 0.1 * rng.standard_normal(shape[-1])
    model.load_state_dict(braai_weights(arrays))
    x, _ = stamps(1)
    # layer by layer as Keras computes: maps are (y, x, channel), flattened in that order
    u = x[0].permute(1, 2, 0).double().numpy()
    values = list(arrays.values())
    for i, pool in enumerate((0, 2, 0, 4)):
        k, b = values[2 * i], values[2 * i + 1]
        windows = np.lib.stride_tricks.sliding_window_view(u, (3, 3), axis=(0, 1))
        u = np.maximum(np.einsum("yxcij,ijco->yxo", windows, k) + b, 0)
        if pool:
            m, c = u.shape[0] // pool, u.shape[2]
            u = u[: m * pool, : m * pool].reshape(m, pool, m, pool, c).max((1, 3))
    u = np.maximum(u.ravel() @ values[8] + values[9], 0)
    wanted = float((u @ values[10] + values[11])[0])
    out = logits(model, x)[0]
    assert float(out[0]) == 0 and float(out[1]) == pytest.approx(wanted, abs=1e-4)
    with pytest.raises(ValueError, match="braai has 12"):
        braai_weights({"one": np.zeros(3)})
