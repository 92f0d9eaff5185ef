"""Contract and truth: images come in from every format, whole and labelled, or say why not."""

import io

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from skyvec import ingest, store
from skyvec.io import images
from skyvec.io.cutouts import Cutout, named_place
from skyvec.report.facts import survey_facts
from skyvec.schema import Images, Reject


def scene(bands=3, side=20, seed=0):
    return np.random.default_rng(seed).normal(10, 2, (bands, side, side)).astype(np.float32)


def header(side, ra=150.0, dec=2.0, scale=0.262):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(side + 1) / 2, (side + 1) / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs.to_header()


def picture(path, pixels):
    array = np.moveaxis(np.clip(pixels, 0, 255).astype(np.uint8), 0, 2)
    Image.fromarray(array.squeeze()).save(path)


def only(path, **options):
    (item,) = images.read(path, **options)
    return item


def test_a_fits_cutout_with_planes_weights_and_coordinates(tmp_path):
    pixels, ivar = scene(), np.full((3, 20, 20), 4.0, np.float32)
    ivar[1, 3, 4] = 0
    pixels[2, 5, 6] = np.inf
    head = header(20)
    head["BANDS"] = "grz"
    head["BUNIT"] = "nanomaggy"
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU(pixels, head), fits.ImageHDU(ivar, name="INVVAR")]
    fits.HDUList(hdus).writeto(path)
    got = only(path)
    assert isinstance(got, Cutout) and got.id == got.target == "a"
    assert got.bands == ("g", "r", "z") and got.flux_unit == "nanomaggy"
    assert got.pixel_scale == pytest.approx(0.262, rel=1e-4)
    assert (got.ra, got.dec) == (pytest.approx(150), pytest.approx(2))
    missing = np.zeros((3, 20, 20), bool)
    missing[1, 3, 4] = missing[2, 5, 6] = True
    assert_array_equal(np.isnan(got.pixels), missing)
    assert_array_equal(got.pixels[~missing], pixels[~missing])
    assert_allclose(got.flux_err[~missing], 0.5)
    assert np.isnan(got.flux_err[1, 3, 4]) and got.columns["n_missing"] == 2


def test_bands_in_extensions_and_a_mask(tmp_path):
    pixels = scene(2)
    mask = np.zeros((20, 20), np.uint8)
    mask[7, 8] = 4
    hdus = [fits.ImageHDU(plane, name=name) for plane, name in zip(pixels, "gr")]
    path = tmp_path / "b.fits.gz"
    fits.HDUList([fits.PrimaryHDU(), *hdus, fits.ImageHDU(mask, name="MASK")]).writeto(path)
    assert images.matches(path)
    got = only(path, size=10)
    assert got.bands == ("G", "R") and got.pixels.shape == (2, 10, 10)
    assert np.isnan(got.pixels[:, 2, 3]).all() and np.isnan(got.pixels).sum() == 2
    assert np.isnan(got.ra) and np.isnan(got.pixel_scale)


def in_files(folder, name, planes, *, mark="-", bands="grz", ra=150.0):
    folder.mkdir(exist_ok=True)
    side = planes.shape[1]
    for band, plane in zip(bands, planes):
        fits.PrimaryHDU(plane, header(side, ra)).writeto(folder / f"{name}{mark}{band}.fits")


@pytest.mark.parametrize("mark", ["-", "_", "."])
def test_bands_in_files_of_their_own_are_one_object(tmp_path, mark):
    folder, pixels = tmp_path / "in", scene(3)
    in_files(folder, "J1+2", pixels, mark=mark)
    in_files(folder, "K3", scene(3, seed=1), mark=mark)
    (folder / "labels.csv").write_text("id,label\nJ1+2,spiral\nK3,disc\n")
    for band in "gz":  # any of them stands for the whole, blue first
        got = only(folder / f"J1+2{mark}{band}.fits")
        assert (got.id, got.bands) == ("J1+2", ("g", "r", "z"))
        assert_array_equal(got.pixels, pixels)
        assert got.columns["label"] == "spiral" and got.ra == pytest.approx(150)
    chosen = only(folder / f"J1+2{mark}r.fits", bands=("z", "r"))
    assert_array_equal(chosen.pixels, pixels[[2, 1]])
    counts = ingest.ingest(tmp_path / "out", [folder, folder / f"K3{mark}r.fits"])
    assert (counts.items, counts.segments, counts.rejects) == (2, 2, 0)
    assert store.read_catalog(tmp_path / "out").columns["label"].tolist() == ["spiral", "disc"]
    assert store.survey_bands(tmp_path / "out") == ("g", "r", "z")


def test_bands_that_do_not_lie_on_each_other_are_refused(tmp_path):
    def reason(name, **options):
        (item,) = images.read(tmp_path / f"{name}_r.fits", **options)
        assert isinstance(item, Reject)
        return item.reason

    in_files(tmp_path, "moved", scene(1), mark="_", bands="g")
    in_files(tmp_path, "moved", scene(1), mark="_", bands="r", ra=150.0001)
    assert "of moved lie at different places" in reason("moved")
    in_files(tmp_path, "small", scene(1), mark="_", bands="g")
    in_files(tmp_path, "small", scene(1, side=18), mark="_", bands="r")
    assert "differ in size: r has 18 x 18 pixels, g has 20 x 20" in reason("small")
    assert "has no file of z among g, r" in reason("small", bands=("r", "z"))
    # a name that ends like a band, alone, is a name
    in_files(tmp_path, "alone", scene(1), mark="_", bands="r")
    assert only(tmp_path / "alone_r.fits").id == "alone_r"


def test_objects_are_cut_out_of_mosaics_of_a_band_each(tmp_path):
    planes = scene(2, side=60)
    in_files(tmp_path, "field", planes, bands="gr")
    (tmp_path / "catalog.csv").write_text("id,ra,dec\nmid,150.0,2.0\n")
    options = {"cut": True, "size": 8, "catalog": str(tmp_path / "catalog.csv")}
    got = only(tmp_path / "field-r.fits", **options)
    assert got.id == "mid" and got.bands == ("g", "r")
    assert_array_equal(got.pixels, planes[:, 26:34, 26:34])


def test_a_picture_is_taken_as_bytes_and_said_not_to_be_linear(tmp_path):
    pixels = np.round(scene(3) * 10)
    picture(tmp_path / "J004735.97-005410.2.png", pixels)
    got = only(tmp_path / "J004735.97-005410.2.png")
    assert_array_equal(got.pixels, pixels)
    assert got.bands == ("red", "green", "blue") and "not linear" in got.columns["value_kind"]
    assert got.ra == pytest.approx(15 * (47 / 60 + 35.97 / 3600))
    assert got.dec == pytest.approx(-(54 / 60 + 10.2 / 3600))
    clear = np.dstack([np.moveaxis(pixels, 0, 2), np.full((20, 20), 255)]).astype(np.uint8)
    clear[0, 0, 3] = 0
    Image.fromarray(clear).save(tmp_path / "c.png")
    assert np.isnan(only(tmp_path / "c.png").pixels[:, 0, 0]).all()


def test_names_hold_positions():
    assert named_place("SDSS J120000.00+010000.0") == (180.0, 1.0)
    for name in ("J126000.00+010000.0", "galaxy 12", "J120000+01"):
        assert np.isnan(named_place(name)).all()


def bad_files(folder):
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.png").write_text("no picture")
    whole = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8) + 7).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[:-300])
    picture(folder / "black.png", np.zeros((3, 8, 8)))
    fits.PrimaryHDU(np.full((8, 8), np.nan, np.float32)).writeto(folder / "blank.fits")
    fits.PrimaryHDU(scene()).writeto(folder / "broken.fits")
    raw = (folder / "broken.fits").read_bytes()
    (folder / "broken.fits").write_bytes(raw[: len(raw) // 2])
    return {
        "empty": "the file is empty",
        "text": "no jpeg or png picture",
        "cut": "truncated",
        "black": "an empty image: every pixel is 0",
        "blank": "no pixel was measured",
        "broken": "cut short: less than the 20 x 20 x 3 pixels",
    }


def test_what_cannot_be_read_is_a_reject_with_its_reason(tmp_path):
    reasons = bad_files(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        got = only(path)
        assert isinstance(got, Reject), path
        assert reasons[path.stem] in got.reason.lower(), got.reason


def mosaic(path, side=100):
    pixels = scene(2, side)
    pixels[:, :40, :40] = np.nan
    fits.PrimaryHDU(pixels, header(side)).writeto(path)
    return pixels, WCS(header(side))


def test_objects_are_cut_out_of_a_mosaic_where_they_are_whole(tmp_path):
    pixels, wcs = mosaic(tmp_path / "m.fits")
    x, y = np.array([60.0, 3.0, 20.0, 400.0]), np.array([70.0, 50.0, 20.0, 50.0])
    ra, dec = wcs.all_pix2world(x, y, 0)
    rows = ["id,ra,dec,label"] + [f"o{i},{a},{d},spiral" for i, (a, d) in enumerate(zip(ra, dec))]
    (tmp_path / "cat.csv").write_text("\n".join(rows) + "\n")
    options = {"catalog": str(tmp_path / "cat.csv"), "size": 11, "cut": True}
    whole, edge, hole = images.read(tmp_path / "m.fits", **options)
    assert_array_equal(whole.pixels, pixels[:, 65:76, 55:66])
    assert whole.id == "o0" and whole.columns["label"] == "spiral"
    assert whole.ra == pytest.approx(ra[0]) and whole.columns["mosaic"] == "m.fits"
    assert edge.id == "o1" and "edge of the mosaic cuts" in edge.reason
    assert hole.id == "o2" and "no pixel was measured" in hole.reason


def test_objects_of_the_catalogue_outside_of_every_mosaic_are_counted(tmp_path):
    _, wcs = mosaic(tmp_path / "m.fits")
    ra, dec = wcs.all_pix2world([60.0, 3.0], [70.0, 50.0], 0)
    rows = ["id,ra,dec", *(f"o{i},{a},{d}" for i, (a, d) in enumerate(zip(ra, dec)))]
    rows += ["far,10,-40", "lost,,"]
    (tmp_path / "sky.csv").write_text("\n".join(rows) + "\n")
    found = ingest.ingest(
        *(tmp_path / "s", [tmp_path / "m.fits"]),
        **{"catalog": tmp_path / "sky.csv", "size": 11, "cut": True, "prefix": "{file} "},
    )
    assert (found.items, found.segments, found.rejects, found.outside) == (2, 1, 1, 2)


def test_a_mosaic_with_distortions_is_cut_though_its_catalogue_covers_the_sky(tmp_path):
    """Far from the image the distortion has no inverse, which is no reason to stop."""
    side = 600
    head = header(side)
    head["CTYPE1"], head["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    head["A_ORDER"] = head["B_ORDER"] = 3
    head["A_2_0"] = head["B_0_2"] = 1e-6
    head["A_3_0"] = head["B_0_3"] = head["A_1_2"] = 1e-7
    fits.PrimaryHDU(scene(1, side)[0], head).writeto(tmp_path / "m.fits")
    (tmp_path / "cat.csv").write_text(
        "id,ra,dec\nhere,150.001,2.001\nfar,10,-40\nopposite,330,-2\nnear,150.5,2.3\nlost,,\n"
    )
    options = {"catalog": str(tmp_path / "cat.csv"), "size": 15, "cut": True}
    cutout = only(tmp_path / "m.fits", **options)
    assert cutout.id == "here" and cutout.pixels.shape == (1, 15, 15)


def test_images_in_another_unit_are_no_part_of_a_survey(tmp_path):
    """The scaling of pixels is one for the survey, so janskys among nanomaggies are nonsense."""
    (tmp_path / "in").mkdir()
    for i, unit in enumerate(["nanomaggy", "nanomaggy", "Jy"]):
        made = fits.PrimaryHDU(scene(seed=i))
        made.header["BUNIT"] = unit
        made.writeto(tmp_path / "in" / f"{i}.fits")
    found = ingest.ingest(tmp_path / "s", [tmp_path / "in"])
    assert (found.segments, found.rejects) == (2, 1)
    (reason,) = store.read_rejects(tmp_path / "s")["reason"].to_pylist()
    assert "[Jy]" in reason and "the survey holds" in reason and "[nanomaggy]" in reason


@pytest.mark.parametrize("form", ["tensor", "lists", "picture", "h5"])
def test_tensors_come_from_parquet_and_hdf5(tmp_path, form):
    stack = np.stack([np.round(scene(seed=i) * 10) for i in range(3)])
    facts = {"object_id": [2**60 + i for i in range(3)], "label": ["a", "b", "c"]}
    path = tmp_path / ("x.h5" if form == "h5" else "x.parquet")
    if form == "h5":
        with h5py.File(path, "w") as file:
            file["images"] = np.moveaxis(stack, 1, 3).astype(np.uint8)
            file["label"] = facts["label"]
            file["object_id"] = facts["object_id"]
    else:
        pictures = []
        for image in stack:
            raw = io.BytesIO()
            Image.fromarray(np.moveaxis(image, 0, 2).astype(np.uint8)).save(raw, "PNG")
            pictures.append({"bytes": raw.getvalue(), "path": "p"})
        column = {
            "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(stack),
            "lists": pa.array(stack.tolist()),
            "picture": pa.array(pictures),
        }[form]
        pq.write_table(pa.table({"image": column, **facts}), path)
    assert images.matches(path) and images.count_items(path) == 3
    got = list(images.read(path))
    assert [item.id for item in got] == [str(2**60 + i) for i in range(3)]
    assert [item.columns["label"] for item in got] == ["a", "b", "c"]
    assert_array_equal(np.stack([item.pixels for item in got]), stack)


def folder_of_pictures(folder, n=5):
    (folder / "images").mkdir(parents=True)
    for i in range(n):
        picture(folder / "images" / f"9{i:017d}.png", np.round(scene(seed=i) * 10))
    rows = ["objid,label,p"] + [f"9{i:017d},{'ab'[i % 2]},{i / 10}" for i in range(n - 1)]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def test_a_folder_is_ingested_with_the_labels_beside_it(tmp_path):
    folder_of_pictures(tmp_path / "in")
    (tmp_path / "in" / "images" / "bad.jpg").write_bytes(b"")
    picture(tmp_path / "in" / "images" / "small.png", np.round(scene(side=12) * 10))
    survey = tmp_path / "out"
    counts = ingest.ingest(survey, [tmp_path / "in"], shard_pixels=3 * 400 * 2)
    assert (counts.items, counts.segments, counts.rejects) == (7, 5, 2)
    catalog = store.read_catalog(survey)
    assert catalog.columns["label"].tolist() == ["a", "b", "a", "b", ""]
    assert_array_equal(catalog.columns["p"], [0, 0.1, 0.2, 0.3, np.nan])
    assert len(store.object_shards(survey)) == 3
    reasons = store.read_rejects(survey)["reason"].to_pylist()
    assert reasons[0] == "the file is empty"
    assert reasons[1].startswith("another form: images of 3 x 12 x 12 in red, green, blue [")
    pixels = store.find_images(survey, catalog.id.tolist()).pixels
    assert_array_equal(pixels[3], np.round(scene(seed=3) * 10))
    again = ingest.ingest(survey, [tmp_path / "in"], shard_pixels=3 * 400 * 2)
    assert again.new_segments == again.new_rejects == 0 and again.items == 7


def test_a_folder_that_began_with_rejects_alone_takes_its_images_later(tmp_path):
    survey, source = tmp_path / "out", tmp_path / "in"
    source.mkdir()
    (source / "a.png").write_bytes(b"no picture")
    assert ingest.ingest(survey, [source]).rejects == 1
    for name in "ab":
        picture(source / f"{name}.png", np.round(scene() * 10))
    counts = ingest.ingest(survey, [source])
    assert (counts.items, counts.segments, counts.rejects) == (2, 2, 0)
    facts = survey_facts(survey)
    assert (facts["kind"], facts["bands"]) == ("images", ["red", "green", "blue"])
    assert len(facts["flux_units"]) == 1 and store.survey_shape(survey) == (3, 20, 20)
    sizes = [len(part) for _, _, part in store.iterate_objects(survey, Images)]
    assert sizes == [0, 2]


def test_a_stopped_ingest_goes_on_to_the_same_shards(tmp_path):
    folder_of_pictures(tmp_path / "in", 9)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    how = {"shard_pixels": 3 * 400 * 2}
    ingest.ingest(whole, [tmp_path / "in"], **how)

    def stop(done, total, note):
        if store.object_shards(stopped):
            raise KeyboardInterrupt

    real, ingest.stage._Report.step = (
        ingest.stage._Report.step,
        lambda self, shard: stop(0, 0, "") or real(self, shard),
    )
    try:
        with pytest.raises(KeyboardInterrupt):
            ingest.ingest(stopped, [tmp_path / "in"], **how)
    finally:
        ingest.stage._Report.step = real
    assert 0 < len(store.object_shards(stopped)) < len(store.object_shards(whole))
    ingest.ingest(stopped, [tmp_path / "in"], **how)
    assert store.object_shards(stopped) == store.object_shards(whole)


def test_options_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"catalogue .* does not exist"):
        images.check(catalog=str(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match="cutting needs a catalogue of positions and a size"):
        images.check(cut=True)
    (tmp_path / "c.csv").write_text("id,label\na,b\n")
    with pytest.raises(ValueError, match="has no columns of ra and dec"):
        images.check(cut=True, size=8, catalog=str(tmp_path / "c.csv"))
    (tmp_path / "d.csv").write_text("id,label\na,b\na,c\n")
    with pytest.raises(ValueError, match="names 'a' twice"):
        images.check(catalog=str(tmp_path / "d.csv"))


def test_real_galaxies_come_in_with_their_classes(real_data, tmp_path):
    folder = real_data("galaxies/decals_rings")
    counts = ingest.ingest(tmp_path / "out", [folder], size=64)
    assert counts.segments == counts.items == 165 and counts.rejects == 0
    catalog = store.read_catalog(tmp_path / "out")
    assert set(catalog.columns["ring"]) == {0, 1} and np.isfinite(catalog.ra).all()
    _, _, first = next(store.iterate_objects(tmp_path / "out", Images))
    assert first.pixels.shape[1:] == (3, 64, 64)
