"""Real-frame measurements and pairs: truth (made-up frames), rival (photutils), real frames."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from skyvec import store
from skyvec.prep.frames import (
    FrameError,
    background,
    embed,
    find_extended,
    find_stars,
    fwhm,
    measure_psf,
    moved,
    offset,
)
from skyvec.realbogus import frames as rb_frames
from skyvec.realbogus.frames import (
    find_pairs,
    prepare_pair,
    read_frame,
    stamps_of_folder,
    stamps_of_pair,
    subtract_pair,
)
from skyvec.schema import Stamps


def moffat(width, half=14, dx=0.0, dy=0.0, stretch=1.0):
    grid = np.arange(-half, half + 1)
    scale = width / (2 * np.sqrt(2 ** (1 / 3) - 1))
    r2 = (grid[None] - dx) ** 2 * stretch + (grid[:, None] - dy) ** 2 / stretch
    psf = (1 + r2 / scale**2) ** -3.0
    return psf / psf.sum()


def frame(
    rng, width=3.2, side=320, n=70, sky=500.0, stretch=1.0, shift=(0.0, 0.0), at=None, scale=1.0
):
    """A frame of stars with sky, a gradient and photon noise; and where its stars are."""
    if at is None:
        flux = 10 ** rng.uniform(3.3, 5.0, n)
        at = np.column_stack([rng.uniform(4, side - 5, n), rng.uniform(4, side - 5, n), flux])
    image = np.zeros((side, side))
    for there_x, there_y, flux in at:
        x, y = there_x + shift[0], there_y + shift[1]
        ix, iy = round(x), round(y)
        if not (-14 <= ix < side + 14 and -14 <= iy < side + 14):
            continue
        star = scale * flux * moffat(width, 14, x - ix, y - iy, stretch)
        low_y, low_x = iy - 14, ix - 14
        rows, columns = (
            slice(max(low_y, 0), min(iy + 15, side)),
            slice(max(low_x, 0), min(ix + 15, side)),
        )
        image[rows, columns] += star[rows.start - low_y : rows.stop - low_y,
                                     columns.start - low_x : columns.stop - low_x]  # fmt: skip
    y, x = np.mgrid[:side, :side] / side
    image += sky * (1 + 0.2 * x - 0.1 * y)
    return rng.poisson(image).astype(float), at


def test_background_and_noise_of_a_crowded_frame():
    rng = np.random.default_rng(0)
    image, _ = frame(rng, n=250)
    sky = background(image)
    y, x = np.mgrid[:320, :320] / 320
    true = 500 * (1 + 0.2 * x - 0.1 * y)
    assert abs((sky.level - true).mean()) < 0.3 * np.sqrt(500)
    assert np.abs(sky.level - true).max() < 1.5 * np.sqrt(500)
    assert abs(sky.noise / np.sqrt(525) - 1) < 0.1
    image[:, :100] = np.nan
    assert abs(background(image).noise / sky.noise - 1) < 0.1
    with pytest.raises(FrameError, match="tenth"):
        background(np.full((64, 64), np.nan))
    with pytest.raises(FrameError, match="no noise"):
        background(np.ones((64, 64)))


@pytest.fixture(scope="module")
def starry():
    image, at = frame(np.random.default_rng(1), stretch=1.15, side=400)
    sky = background(image)
    return image - sky.level, sky.noise, at


def test_stars_are_bright_alone_and_not_full(starry):
    image, noise, at = starry
    stars = find_stars(image, noise)
    assert len(stars) > 15
    away = np.hypot(at[:, 0] - stars[:, :1], at[:, 1] - stars[:, 1:])
    assert (away.min(axis=1) < 1).all()
    second = np.sort(np.where(at[:, 2] > 0.25 * at[away.argmin(1), 2][:, None], away, 99), axis=1)[
        :, 1
    ]
    assert (second > 9).all()
    full = np.median(image[stars[:, 1], stars[:, 0]])
    fewer = find_stars(image, noise, saturation=full)
    assert 0 < len(fewer) < len(stars) and (image[fewer[:, 1], fewer[:, 0]] < full).all()


@pytest.mark.parametrize(("side", "width"), [(9, 2.5), (15, 4.0), (25, 3.0), (25, 5.0)])
def test_a_width_is_that_of_the_profile_whatever_its_side(side, width):
    grid = np.arange(side) - side // 2
    psf = np.exp(-4 * np.log(2) * (grid[:, None] ** 2 + grid[None] ** 2) / width**2)
    assert fwhm(psf / psf.sum()) == pytest.approx(width, rel=0.02)


def test_the_psf_is_the_true_one(starry):
    image, noise, _ = starry
    psf = measure_psf(image, noise, find_stars(image, noise))
    true = moffat(3.2, 12, stretch=1.15)
    assert psf.shape == (25, 25) and abs(psf.sum() - 1) < 1e-9
    assert np.abs(psf - true).max() < 0.04 * true.max()
    assert abs(fwhm(psf) / fwhm(true) - 1) < 0.03
    assert np.unravel_index(psf.argmax(), psf.shape) == (12, 12)
    with pytest.raises(FrameError, match="too few"):
        measure_psf(image, noise, np.array([[50, 50]]))


@pytest.mark.slow
def test_the_psf_is_photutils(starry):
    photutils = pytest.importorskip("photutils.psf")
    from astropy.nddata import NDData
    from astropy.table import Table

    image, noise, _ = starry
    stars = find_stars(image, noise)
    ours = measure_psf(image, noise, stars)
    table = Table({"x": stars[:, 0].astype(float), "y": stars[:, 1].astype(float)})
    cuts = photutils.extract_stars(NDData(image), table, size=25)
    builder = photutils.EPSFBuilder(oversampling=1, maxiters=6, progress_bar=False)
    rival = builder(cuts)[0].data
    rival = rival[:25, :25] / rival[:25, :25].sum()
    assert np.abs(ours - rival).max() < 0.05 * ours.max()
    true = moffat(3.2, 12, stretch=1.15)
    assert np.abs(ours - true).max() <= 1.5 * np.abs(rival - true).max()


@pytest.mark.parametrize("shift", [(3.0, -7.0), (0.37, 0.62), (-41.3, 12.8)])
def test_the_shift_is_found(shift):
    rng = np.random.default_rng(2)
    reference, at = frame(rng, width=2.6)
    new, _ = frame(rng, width=3.6, at=at, shift=shift, sky=900)
    found = offset(new - background(new).level, reference - background(reference).level)
    np.testing.assert_allclose(found, shift, atol=0.12)


def test_frames_of_other_fields_have_no_shift():
    rng = np.random.default_rng(3)
    noise = [rng.normal(0, 1, (200, 200)) for _ in range(2)]
    with pytest.raises(FrameError, match="same field"):
        offset(*noise)


def test_moving_is_exact_in_whole_pixels_and_honest_at_the_edge():
    image = np.random.default_rng(4).normal(size=(40, 50))
    out = moved(image, 3, -2)
    np.testing.assert_array_equal(out[:-2, 3:], image[2:, :-3])
    assert np.isnan(out[-2:]).all() and np.isnan(out[:, :3]).all()
    x = np.arange(50.0)
    part = moved(np.tile(np.sin(x / 5), (40, 1)), 0.4, 0.0)
    np.testing.assert_allclose(part[10, 10:40], np.sin((x[10:40] - 0.4) / 5), atol=2e-3)
    image[20, 20] = np.nan
    assert np.isnan(moved(image, 0.5, 0)[20, 20:22]).all()


def test_embedded_stars_have_their_flux_and_place():
    image = embed(
        np.zeros((80, 80)), moffat(3.0), np.array([40.3]), np.array([39.6]), np.array([1e4])
    )
    y, x = np.indices(image.shape)
    assert abs(image.sum() / 1e4 - 1) < 0.01
    assert abs((image * x).sum() / image.sum() - 40.3) < 0.03
    assert abs((image * y).sum() / image.sum() - 39.6) < 0.03
    draws = [
        embed(np.zeros((80, 80)), moffat(3.0), np.array([40]), np.array([40]), np.array([1e4]),
              gain=4.0, rng=np.random.default_rng(i)).sum()
        for i in range(200)
    ]  # fmt: skip
    assert abs(np.std(draws) / np.sqrt(1e4 / 4) - 1) < 0.2
    corner = embed(
        np.zeros((30, 30)), moffat(3.0), np.array([0.0]), np.array([29.0]), np.array([100])
    )
    assert 20 < corner.sum() < 60


def test_extended_sources_are_told_from_stars():
    rng = np.random.default_rng(5)
    at = np.array([[60, 60, 3e4], [60, 240, 3e4], [240, 60, 3e4]])
    image, _ = frame(rng, at=at)
    image = image + embed(
        np.zeros((320, 320)), moffat(8.0), np.array([240]), np.array([240]), np.array([6e4])
    )
    sky = background(image)
    found = find_extended(image - sky.level, sky.noise, moffat(3.2))
    np.testing.assert_allclose(found, [[240, 240]], atol=2)


# --- pairs ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(6)
    reference, at = frame(rng, width=2.6, sky=300)
    new, _ = frame(rng, width=3.4, at=at, shift=(2.3, -1.6), sky=700, scale=1.4)
    return new, reference


def test_a_pair_is_measured(pair):
    made = prepare_pair(*pair)
    np.testing.assert_allclose(made.shift, (2.3, -1.6), atol=0.05)
    assert abs(made.scale / 1.4 - 1) < 0.03
    assert abs(made.noise[0] / np.sqrt(735) - 1) < 0.1 and abs(made.gain - 1) < 0.25
    result = subtract_pair(made)
    inner = result.score[20:-20, 20:-20]
    spread = 1.4826 * np.nanmedian(np.abs(inner - np.nanmedian(inner)))
    assert abs(spread - 1) < 0.1
    # seventy stars, some of 1e5 counts, and hardly a detection among their residuals
    assert np.nansum(inner > 5) < 40


def test_embedded_stars_are_found_and_labelled(pair):
    made = prepare_pair(*pair)
    stamps, catalog = stamps_of_pair(made, np.random.default_rng(0), embedded=60, name="field/n1")
    columns = catalog.columns
    real = columns["label"] == "real"
    assert 45 <= real.sum() <= 60
    ratio = columns["snr"][real] / columns["embedded_snr"][real]
    assert 0.75 < np.median(ratio) < 1.1
    bright = columns["embedded_snr"] > 30
    middle = np.nan_to_num(stamps.pixels[bright][:, 2, 13:16, 13:16]).max(axis=(1, 2))
    assert (middle > 3 * np.nanstd(stamps.pixels[bright][:, 2, :5], axis=(1, 2))).all()
    assert set(stamps.exposure) == {"field/n1"} and len(set(stamps.id)) == len(stamps)
    none, empty = stamps_of_pair(made, np.random.default_rng(0), embedded=0)
    assert not (empty.columns["label"] == "real").any() and len(none) < 15
    with pytest.raises(ValueError, match="ascend"):
        stamps_of_pair(made, np.random.default_rng(0), brightness=(9, 5))


def test_a_star_is_one_object_in_every_image_of_its_field(pair):
    made = prepare_pair(*pair)
    stars = made.sources[(made.sources > 20).all(axis=1) & (made.sources < 300).all(axis=1)]
    assert 30 < len(stars) < 90
    rng = np.random.default_rng(8)
    names = []
    for shift in rng.uniform(-5, 5, (8, 2)):
        # found at whole pixels, now and then at the next one
        places = np.rint(stars + shift + rng.normal(0, 0.4, stars.shape)).astype(np.int64)
        names.append(rb_frames._objects(places, replace(made, shift=tuple(shift)), "field/image"))
    assert all(np.array_equal(one, names[0]) for one in names)
    assert len(set(names[0])) == len(stars)
    far = np.array([[5.0, 5.0], [11.0, 5.0]]) + made.sources.max(axis=0) + 20
    cells = rb_frames._objects(far.astype(np.int64), made, "field/image")
    assert len(set(cells)) == 2 and not set(cells) & set(names[0])


def write(path, image):
    fits.writeto(path, image.astype(np.float32))


def test_a_folder_of_pairs_becomes_a_survey(pair, tmp_path, monkeypatch):
    new, reference = pair
    folder = tmp_path / "frames"
    folder.mkdir()
    write(folder / "a_new.fits", new)
    write(folder / "a_ref.fits", reference)
    write(folder / "b_new.fits", np.zeros((100, 100)))
    write(folder / "b_ref.fits", np.zeros((100, 100)))
    assert [work.name for work in find_pairs(folder)] == ["a/a_new", "b/b_new"]
    survey = tmp_path / "s"
    stored, refused = stamps_of_folder(folder, survey, embedded=30)
    assert stored > 15 and refused == 1
    assert stamps_of_folder(folder, survey, embedded=30) == (0, 0)
    monkeypatch.chdir(tmp_path)
    assert stamps_of_folder(folder.relative_to(tmp_path), survey, embedded=30) == (0, 0)
    parts = [(c, s) for _, c, s in store.iterate_objects(survey, Stamps)]
    assert sum(len(s) for _, s in parts) == stored
    assert {"real", "bogus"} >= set(
        np.concatenate([c.columns["label"] for c, _ in parts if len(c)])
    )
    rejects = store.read_rejects(survey)
    assert "no noise" in rejects["reason"][0].as_py()
    # a frame that was repaired is tried again, and so is one refused for an option
    (folder / "b_new.fits").unlink(), (folder / "b_ref.fits").unlink()
    write(folder / "b_new.fits", new)
    write(folder / "b_ref.fits", reference)
    again, refused = stamps_of_folder(folder, survey, embedded=30)
    assert again > 15 and refused == 0 and not len(store.read_rejects(survey))
    for options in ({"threshold": 0.0}, {"threshold": np.nan}, {"saturation": -5.0}, {"side": 30}):
        with pytest.raises(ValueError, match=str(next(iter(options.values())))):
            stamps_of_folder(folder, tmp_path / "none", **options)
    assert not (tmp_path / "none").exists()


def test_the_command_subtracts_a_folder(pair, tmp_path):
    from typer.testing import CliRunner

    from skyvec.cli import app

    folder = tmp_path / "night"
    folder.mkdir()
    write(folder / "reference.fits", pair[1])
    write(folder / "n1.fits", pair[0])
    command = ["realbogus", "frames", str(folder), "--survey", str(tmp_path / "s")]
    done = CliRunner().invoke(app, [*command, "--embed", "20", "--side", "21"])
    assert done.exit_code == 0, done.output
    assert store.survey_shape(tmp_path / "s") == (3, 21, 21)
    missing = CliRunner().invoke(app, [*command[:2], str(tmp_path / "none"), *command[3:]])
    assert missing.exit_code != 0


def test_folders_of_other_forms(pair, tmp_path):
    write(tmp_path / "reference.fits", pair[1])
    with pytest.raises(FrameError, match="holds no pairs"):
        find_pairs(tmp_path)
    write(tmp_path / "n1.fits", pair[0])
    assert [work.new.name for work in find_pairs(tmp_path)] == ["n1.fits"]
    (tmp_path / "pairs.csv").write_text("new,reference,detector\nn1.fits,reference.fits,s03\n")
    (work,) = find_pairs(tmp_path)
    assert work.detector == "s03" and work.name == "reference/n1"
    (tmp_path / "pairs.csv").write_text("new,reference\nn9.fits,reference.fits\n")
    with pytest.raises(FrameError, match=r"n9\.fits"):
        find_pairs(tmp_path)


def test_frames_that_do_not_fit_are_refused(pair, tmp_path):
    with pytest.raises(FrameError, match="differ in shape"):
        prepare_pair(pair[0], pair[1][:-1])
    write(tmp_path / "cube.fits", np.zeros((3, 80, 80)))
    with pytest.raises(FrameError, match="two axes"):
        read_frame(tmp_path / "cube.fits")


@pytest.mark.real
@pytest.mark.slow
def test_real_frames(real_data):
    folder = real_data("frames/saao_crowded")
    new, _ = read_frame(folder / "Example__Images__AKB13475I0007.fits.gz")
    reference, header = read_frame(folder / "Example__Images__AKB13475I0013.fits.gz")
    made = prepare_pair(new, reference, gain=header["GAIN"])
    stamps, catalog = stamps_of_pair(made, np.random.default_rng(0), embedded=150)
    real = catalog.columns["label"] == "real"
    assert real.sum() > 110 and (~real).sum() < 60
    due = catalog.columns["embedded_snr"]
    # a crowded field has more noise than the empty sky that the stars were measured by
    assert 0.7 < np.median(catalog.columns["snr"][real] / due[real]) < 1.1
    assert np.isfinite(stamps.pixels[real][:, 2, 14, 14]).all()
