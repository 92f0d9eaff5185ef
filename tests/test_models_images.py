"""Contract of every model of images, truth of the published one and of the log-polar views."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from skyvec.models import MODELS
from skyvec.models.logpolar import LogPolar
from skyvec.models.vae import Vae
from skyvec.nn.frames import Frames
from skyvec.nn.polar import on_rings, ring_radii, ring_waves, spiral_waves

OF_IMAGES = sorted(name for name, kind in MODELS.items() if kind.modality == "images")
SMALL = {"residual_vae": {"width": 8}, "logpolar": {"width": 32, "angles": 32}}

pytestmark = pytest.mark.usefixtures("one_thread")
each_model = pytest.mark.parametrize("name", OF_IMAGES)
each_number_of_bands = pytest.mark.parametrize("bands", [1, 3])


def build(name, *, bands=3, size=64, seed=0, **options):
    torch.manual_seed(seed)
    return MODELS[name](bands=bands, latent=6, size=size, **SMALL.get(name, {}), **options).eval()


def galaxies(n, *, bands=3, size=64, seed=0, noise=0.02):
    """Elongated blobs with spiral arms, everything measured."""
    rng = np.random.default_rng(seed)
    y, x = (np.indices((size, size)) - (size - 1) / 2) / size
    pixels = np.empty((n, bands, size, size), np.float32)
    for i in range(n):
        angle, axis, width = rng.uniform(0, np.pi), rng.uniform(0.3, 1), rng.uniform(0.05, 0.15)
        u = x * np.cos(angle) + y * np.sin(angle)
        v = (y * np.cos(angle) - x * np.sin(angle)) / axis
        r, theta = np.hypot(u, v) + 1e-3, np.arctan2(v, u)
        light = np.exp(-r / width) * (1 + 0.6 * np.cos(2 * theta + rng.uniform(-6, 6) * np.log(r)))
        for band in range(bands):
            pixels[i, band] = light * rng.uniform(0.5, 1) + noise * rng.normal(size=(size, size))
    return whole(torch.tensor(pixels))


def whole(pixels):
    return Frames(pixels, torch.ones_like(pixels, dtype=torch.bool))


def holed(frames, seed=0, share=0.1):
    mask = torch.rand(frames.pixels.shape, generator=generator(seed)) > share
    return Frames(frames.pixels * mask, mask)


def encode(model, batch):
    with torch.inference_mode():
        return model.encode(batch)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def is_finite(*tensors):
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def test_there_are_images_to_test():
    assert {"vae", "residual_vae", "logpolar"} <= set(OF_IMAGES)


@each_model
@each_number_of_bands
def test_shapes(name, bands):
    model, batch = build(name, bands=bands), galaxies(5, bands=bands)
    with torch.inference_mode():
        code = model.code(batch)
        loss, parts = model.loss(batch, generator())
        assert model.latent == 6 and code.shape[1] >= 6 and len(code) == 5
        assert torch.equal(model.encode(batch), code[:, :6])
        if hasattr(model, "decode"):
            drawn = model.decode(code)
            assert drawn.shape == batch.pixels.shape and is_finite(drawn)
    assert loss.shape == () and is_finite(code, loss)
    assert parts and all(isinstance(key, str) and is_finite(part) for key, part in parts.items())


@each_model
def test_a_model_is_made_for_its_size(name):
    model, batch = build(name, size=128), galaxies(2, size=128)
    assert encode(model, batch).shape == (2, 6)


@each_model
def test_different_galaxies_have_different_latents(name):
    assert torch.pdist(encode(build(name), galaxies(6))).min() > 1e-5


@each_model
@each_number_of_bands
def test_the_gradient_reaches_every_parameter(name, bands):
    model = build(name, bands=bands).train()
    model.loss(galaxies(6, bands=bands), generator())[0].backward()
    idle = [
        key
        for key, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


@each_model
def test_a_latent_is_the_same_alone_and_in_any_batch_and_order(name):
    model, batch = build(name).train(), galaxies(7)
    together = encode(model, batch)
    alone = torch.cat([encode(model, batch.take(torch.tensor([i]))) for i in range(7)])
    order = torch.randperm(7, generator=generator())
    assert (together - alone).abs().max() <= 1e-5
    assert (together[order] - encode(model, batch.take(order))).abs().max() <= 1e-5


@each_model
def test_a_whole_image_is_the_same_beside_one_with_holes(name):
    model, one, other = build(name), galaxies(2), holed(galaxies(2, seed=1))
    both = Frames(*(torch.cat(pair) for pair in zip(one, other)))
    assert (encode(model, both)[:2] - encode(model, one)).abs().max() <= 1e-5


@each_model
def test_what_is_masked_is_not_read(name):
    model, batch = build(name), holed(galaxies(4))
    moved = batch._replace(pixels=torch.where(batch.mask, batch.pixels, 77.0))
    assert not batch.mask.all()
    assert torch.equal(encode(model, batch), encode(model, moved))
    with torch.inference_mode():
        losses = [float(model.loss(frames, generator())[0]) for frames in (batch, moved)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@each_model
def test_a_band_or_an_image_without_a_pixel_is_no_obstacle(name):
    batch = galaxies(3)
    batch.mask[0], batch.mask[1, 1] = False, False
    batch.pixels[~batch.mask] = 0
    model = build(name).train()
    loss, _ = model.loss(batch, generator())
    loss.backward()
    assert is_finite(encode(model, batch), loss, *(p.grad for p in model.parameters()))


@each_model
@pytest.mark.parametrize("value", [0.0, 1.0, 300.0])
def test_constant_images_stay_finite(name, value):
    model, batch = build(name).train(), whole(torch.full((2, 3, 64, 64), value))
    loss, _ = model.loss(batch, generator())
    loss.backward()
    assert is_finite(encode(model, batch), loss, *(p.grad for p in model.parameters()))


@each_model
def test_weights_saved_and_loaded_give_the_same(name):
    model, batch = build(name), galaxies(3)
    other = build(name, seed=1)
    assert not torch.equal(encode(other, batch), encode(model, batch))
    other.load_state_dict(load(save(model.state_dict())))
    assert torch.equal(encode(other, batch), encode(model, batch))


@each_model
def test_the_loss_is_random_through_its_generator_alone(name):
    model, batch = build(name), galaxies(5)
    with torch.inference_mode():
        first, second, other = (float(model.loss(batch, generator(s))[0]) for s in (3, 3, 4))
    assert first == second != other


@each_model
def test_eight_galaxies_can_be_learnt(name):
    model, batch = build(name).train(), galaxies(8, noise=0.0)
    rate = {"vae": 3e-3, "residual_vae": 1e-2, "logpolar": 1e-2}[name]
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for step in range(25):
        loss, parts = model.loss(batch, generator(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float((parts.get("nll", loss)).detach()))
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    # a likelihood has no zero: half a nat a pixel is a squared residual 2.7 times smaller
    assert last < (first - 0.5 if "nll" in parts else 0.75 * first)


# --- the published VAE ------------------------------------------------------------------------


def test_the_published_vae_has_the_published_size():
    model = Vae(bands=3, latent=40, size=256)
    weights = {name: sum(p.numel() for p in m.parameters()) for name, m in model.named_children()}
    assert weights["encoder"] == 896 + 18_496 + 73_856  # 9 c_in c_out + c_out each
    assert weights["to_mean"] == weights["to_log_variance"] == 2048 * 40 + 40
    assert weights["from_latent"] == 40 * 2048 + 2048
    assert weights["decoder"] == 73_792 + 18_464 + 9_248 + 867
    assert sum(weights.values()) == 443_507
    images = whole(torch.zeros(2, 3, 256, 256))
    assert model.encoder(images.pixels).shape == (2, 128, 4, 4)
    assert model.decode(model.encode(images)).shape == (2, 3, 256, 256)
    layers = [type(layer).__name__ for layer in model.encoder]
    assert layers == ["Conv2d", "MaxPool2d", "LeakyReLU"] * 3
    assert [type(layer).__name__ for layer in model.decoder] == [
        *["Upsample", "ConvTranspose2d", "LeakyReLU"] * 3, "Conv2d",
    ]  # fmt: skip


def test_the_published_loss_is_summed_squares_and_kl():
    model, batch = build("vae"), galaxies(3)
    with torch.inference_mode():
        mean, log_variance = model.moments(batch)
        noise = torch.randn(mean.shape, generator=generator(5))
        drawn = model.decode(mean + torch.exp(0.5 * log_variance) * noise)
        loss, _ = model.loss(batch, generator(5))
    squares = ((drawn - batch.pixels) ** 2).sum() / 3
    kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum() / 3
    assert float(loss) == pytest.approx(float(squares + kl), rel=1e-5)
    assert (drawn >= 0).all()


@pytest.mark.parametrize("error", ["mse", "l1", "ssim"])
def test_every_error_of_the_vae_has_a_gradient(error):
    model = build("vae", error=error).train()
    loss, parts = model.loss(galaxies(2), generator())
    loss.backward()
    assert error in parts and is_finite(*(p.grad for p in model.parameters()))


def test_kl_warms_up_in_training_only():
    model, batch = build("vae", warm_up=10), galaxies(2)
    with torch.no_grad():
        full = float(model.loss(batch, generator())[0])
        model.train()
        cold = [float(model.loss(batch, generator())[0]) for _ in range(12)]
        kl = float(model.loss(batch, generator())[1]["kl"])
    assert cold[0] == pytest.approx(full - kl, rel=1e-5)
    assert cold[5] == pytest.approx(full - kl / 2, rel=1e-5)
    assert cold[11] == pytest.approx(full, rel=1e-6)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        Vae(size=96)
    with pytest.raises(ValueError, match="unknown error"):
        Vae(error="huber")
    with pytest.raises(ValueError, match="multiple of 16"):
        MODELS["residual_vae"](size=50)


# --- log-polar views --------------------------------------------------------------------------


def spiral(handedness, *, arms=2, size=64, turn=0.0):
    y, x = (np.indices((size, size)) - (size - 1) / 2) / size
    r, theta = np.hypot(x, y) + 1e-3, np.arctan2(y, x) - turn
    light = np.exp(-r / 0.1) * (1 + 0.8 * np.cos(arms * theta + handedness * 8 * np.log(r)))
    return torch.tensor(np.repeat(light[None, None], 3, axis=1).astype(np.float32))


def test_the_code_of_a_turned_galaxy_is_the_same():
    torch.manual_seed(0)
    model = LogPolar().eval()
    codes = encode(model, whole(torch.cat([spiral(1, turn=t) for t in (0.0, 0.4, 1.9)])))
    mirrored = encode(model, whole(spiral(1).flip(3)))
    turned = (codes[1:] - codes[0]).norm(dim=1).max()
    assert turned < 0.5 * (mirrored - codes[0]).norm()


def test_a_quarter_turn_changes_nothing_at_all():
    model, batch = build("logpolar"), galaxies(3)
    turned = whole(torch.rot90(batch.pixels, 1, (2, 3)))
    assert (encode(model, batch) - encode(model, turned)).abs().max() < 1e-4


def test_a_mirror_image_exchanges_the_senses_of_winding():
    model = LogPolar()
    views = [model.views(whole(x)).spirals.view(25, 6) for x in (spiral(1), spiral(1).flip(3))]
    assert torch.allclose(views[0], views[1].flip(0), atol=0.02)
    two_arms = views[0][:, 1]
    assert abs(int(two_arms.argmax()) - 12) >= 2


@pytest.mark.parametrize("arms", [1, 2, 3, 4])
def test_the_waves_count_the_arms(arms):
    rings = on_rings(whole(spiral(1, arms=arms)), ring_radii(16, first=0.05, last=0.4), 64)
    structure = rings.mean(1) - rings.mean((1, 3))[..., None]
    assert int(ring_waves(structure, 6).mean((0, 1)).argmax()) == arms - 1
    assert int(spiral_waves(structure, 6, 8).amax((0, 1)).argmax()) == arms - 1


def test_the_reading_matrix_begins_orthonormal_and_smooth():
    read = LogPolar(latent=40).read.detach()
    assert torch.allclose(read @ read.T, torch.eye(40), atol=1e-5)
    with pytest.raises(ValueError, match="must be at most"):
        LogPolar(latent=400)


def test_the_centre_is_the_mean_of_the_views_in_training_and_changes_nothing_later():
    model, batch = build("logpolar").train(), galaxies(6)
    for step in range(3):
        model.loss(batch, generator(step))
    views = [
        model.see_again(batch, made).flat for made in map(generator, range(3)) for _ in (0, 1)
    ]
    assert torch.allclose(model.centre, torch.stack(views).mean((0, 1)), atol=1e-4)
    before = model.eval().centre.clone()
    model.loss(batch, generator())
    assert torch.equal(model.centre, before)


@pytest.mark.parametrize("side", [50, 65, 69, 107])
def test_rings_lie_about_the_middle_whatever_the_side(side):
    y, x = (np.indices((side, side)) - (side - 1) / 2) / side
    slope = torch.tensor((1 + 2 * x + 3 * y)[None, None].astype(np.float32))
    radii = ring_radii(24, first=0.015, last=0.4)  # the outer ones are read from averaged pixels
    angle = np.arange(8) * np.pi / 4
    wanted = 1 + radii.numpy()[:, None] * (2 * np.cos(angle) + 3 * np.sin(angle))
    assert on_rings(whole(slope), radii, 8)[0, 0].numpy() == pytest.approx(wanted, abs=1e-4)


def test_rings_read_a_gradient_exactly_and_fill_holes_with_their_ring():
    y, x = (np.indices((64, 64)) - 31.5) / 64
    slope = torch.tensor((1 + 2 * x + 3 * y)[None, None].astype(np.float32))
    radii = ring_radii(5, first=0.1, last=0.4)
    angle = np.arange(8) * np.pi / 4
    wanted = 1 + radii.numpy()[:, None] * (2 * np.cos(angle) + 3 * np.sin(angle))
    got = on_rings(whole(slope), radii, 8)[0, 0].numpy()
    assert got == pytest.approx(wanted, abs=1e-4)
    flat = Frames(torch.ones(1, 1, 64, 64), torch.ones(1, 1, 64, 64, dtype=torch.bool))
    flat.mask[:, :, 10:40, 35:60] = False
    assert torch.allclose(on_rings(flat, radii, 8), torch.ones(1, 1, 5, 8), atol=1e-5)
