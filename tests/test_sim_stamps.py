"""A simulated survey of stamps: truth (closed forms, statistics), rival (GalSim), contract."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from skyvec.sim import frames
from skyvec.sim.detections import cut, detect, tell, turned
from skyvec.sim.frames import (
    BOGUS_KINDS,
    CAUSES,
    MARGIN,
    PIXEL_SCALE,
    REAL_KINDS,
    Artefacts,
    Sources,
)
from skyvec.sim.stamps import flip_labels, simulate_stamps
from skyvec.sim.visits import ON_STAR, draw_field, make_visit, visits

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def survey():
    return simulate_stamps(60, 600, RNG(1))


def quiet_detector():
    made = frames.make_detectors(1)[0]
    none = np.zeros((0, 3))
    return replace(
        made, ellipticity=np.zeros(2), ellipticity_slope=np.zeros((2, 2)), focus=1.0,
        focus_slope=np.zeros(2), hot=none, columns=none[:, :2], dead=np.zeros(0, np.int64),
        pattern=0.0, step=0.0, crosstalk=0.0, colour=0.0, gain=1.0,
    )  # fmt: skip


# --- drawing ----------------------------------------------------------------------------------


def canvas(sources, psf, side=64):
    image = np.zeros((side + 2 * MARGIN, side + 2 * MARGIN), np.float32)
    frames.paint(image, sources, psf)
    return image[MARGIN:-MARGIN, MARGIN:-MARGIN]


@pytest.mark.parametrize(("fwhm", "e1", "e2"), [(2.0, 0.0, 0.0), (3.1, 0.2, -0.1), (4.5, 0, 0.4)])
def test_a_star_is_galsims_moffat(fwhm, e1, e2):
    galsim = pytest.importorskip("galsim")
    at = np.array([31.3]), np.array([30.8])
    drawn = canvas(
        frames.stars(*at, np.array([1e6])),
        frames.shape_matrix(np.array([fwhm]), np.array([e1]), np.array([e2])),
    )
    star = galsim.Moffat(beta=3.0, fwhm=fwhm).shear(e1=e1, e2=e2)
    offset = at[0][0] - 31.5, at[1][0] - 31.5
    rival = star.drawImage(nx=64, ny=64, scale=1.0, offset=offset).array * 1e6
    assert np.abs(drawn - rival).max() < 0.03 * rival.max()
    inner = np.s_[22:40, 22:41]
    assert abs(drawn[inner].sum() / rival[inner].sum() - 1) < 0.02


@pytest.mark.parametrize("index", [1, 4])
def test_a_galaxy_is_galsims_sersic(index):
    galsim = pytest.importorskip("galsim")
    one = np.ones(1)
    sources = Sources(
        31.4 * one, 32.2 * one, 3e4 * one, 3.0 * one, np.array([index]), np.array([[0.3, 0.1]])
    )
    drawn = canvas(sources, frames.shape_matrix(2.5 * one, 0 * one, 0 * one))
    galaxy = galsim.Sersic(n=index, half_light_radius=3.0).shear(e1=0.3, e2=0.1)
    seen = galsim.Convolve(galaxy, galsim.Moffat(beta=3.0, fwhm=2.5))
    rival = seen.drawImage(nx=64, ny=64, scale=1.0, offset=(-0.1, 0.7)).array * 3e4
    assert np.abs(drawn - rival).max() < (0.05 if index == 1 else 0.1) * rival.max()
    assert abs(drawn.sum() / rival[17:48, 17:48].sum() - 1) < 0.08


def test_drawing_by_recursion_is_the_closed_form():
    rng = RNG(3)
    n = 30
    sources = frames.stars(rng.uniform(0, 64, n), rng.uniform(0, 64, n), np.full(n, 1e4))
    psf = frames.shape_matrix(
        rng.uniform(1.6, 5, n), rng.uniform(-0.6, 0.6, n), rng.uniform(-0.5, 0.5, n)
    )
    weight, covariance = frames.mixtures(sources, psf)
    y, x = np.indices((64, 64))
    plain = np.zeros((64, 64))
    for i in range(n):
        dx, dy = x - sources.x[i], y - sources.y[i]
        inside = (np.abs(x - np.rint(sources.x[i])) <= 15) & (
            np.abs(y - np.rint(sources.y[i])) <= 15
        )
        for w, (xx, xy, yy) in zip(weight[i], covariance[i]):
            d = xx * yy - xy**2
            q = (yy * dx**2 - 2 * xy * dx * dy + xx * dy**2) / d
            plain += inside * 1e4 * w * np.exp(-q / 2) / (2 * np.pi * np.sqrt(d))
    np.testing.assert_allclose(canvas(sources, psf), plain, rtol=2e-4, atol=1e-3)


def test_magnitudes_and_electrons_are_inverse():
    m = np.array([9.0, 18.0, 20.5])
    np.testing.assert_allclose(frames.magnitude(frames.electrons(m)), m)
    assert np.isnan(frames.magnitude(np.array([-1.0, 0.0]))).all()
    drawn = frames.rising(RNG(0), 200_000, 0.3, 14, 18)
    counts = np.histogram(drawn, [14, 15, 16, 17, 18])[0]
    np.testing.assert_allclose(np.diff(np.log10(counts)), 0.3, atol=0.03)


# --- artefacts --------------------------------------------------------------------------------


def test_every_artefact_leaves_light_and_its_name():
    detector = frames.make_detectors(40)[5]
    rng = RNG(0)
    image = np.zeros((256 + 2 * MARGIN, 256 + 2 * MARGIN), np.float32)
    art = Artefacts(image, 20.0)
    detector = replace(
        detector, hot=np.array([[20.0, 30.0, 5e3]] * 5), columns=np.array([[50.0, 90.0]]),
        pattern=3.0, amplifiers=4, crosstalk=1e-2, saturation=3e4,
    )  # fmt: skip
    bright = frames.stars(np.array([120.0]), np.array([120.0]), np.array([2e6]))
    for _ in range(12):
        art.around(bright, detector, rng)
        art.pattern(detector, rng)
        art.trail(rng, 1.5)
    art.edge(rng)
    art.cosmic_rays(20, rng)
    art.hot_pixels(detector, rng)
    art.columns(detector, rng)
    image[MARGIN + 100, MARGIN + 70] = 2e5
    full = art.saturate(detector.saturation)
    found = {BOGUS_KINDS[code - 1] for code in np.unique(art.cause) if code}
    assert {"spike", "halo", "ghost", "pattern", "trail", "cosmic_ray", "hot_pixel", "column",
            "saturated"} <= found  # fmt: skip
    assert image.max() <= detector.saturation and full[MARGIN + 100, MARGIN + 70]
    # what does not fit into a pixel runs along its column
    assert full[MARGIN + 95 : MARGIN + 106, MARGIN + 70].sum() == 5
    assert art.cause[MARGIN + 30, MARGIN + 20] == CAUSES["hot_pixel"]


def test_a_patch_beyond_the_frame_is_cut_off():
    art = Artefacts(np.zeros((64 + 2 * MARGIN, 64 + 2 * MARGIN), np.float32), 1.0)
    art.add("ghost", np.ones((300, 300), np.float32), -100, -100)
    art.add("ghost", np.ones((5, 5), np.float32), 4000, 3)
    assert art.image.sum() == art.image.size


def test_detectors_are_the_same_every_night_and_differ():
    first, second = frames.make_detectors(6), frames.make_detectors(6)
    for a, b in zip(first, second):
        assert a.name == b.name and a.gain == b.gain
        np.testing.assert_array_equal(a.hot, b.hot)
    assert len({d.gain for d in first}) == 6
    assert frames.make_detectors(6, seed=1)[0].gain != first[0].gain


# --- the survey's pipeline --------------------------------------------------------------------


def test_the_score_of_a_quiet_sensor_is_what_was_due():
    rng = RNG(4)
    pulls, found = [], []
    for i in range(6):
        field = draw_field(rng, f"f{i}")
        visit = make_visit(
            field, quiet_detector(), rng, n_new=60, magnitudes=(15.5, 17.5), near_galaxies=0.0
        )
        background = visit.score[visit.cause == 0]
        assert abs(np.nanmedian(background)) < 0.2
        places = detect(visit)
        assert (visit.score[places[:, 1], places[:, 0]] > 5).all()
        away, near = cKDTree(places).query(np.column_stack([visit.sources.x, visit.sources.y]))
        bright = visit.expected > 9
        found.append(away[bright] < 2)
        hit = bright & (away < 1)
        score = visit.score[places[near[hit], 1], places[near[hit], 0]]
        pulls.append(score / visit.expected[hit])
    assert np.mean(np.concatenate(found)) > 0.85
    # stars on top of others have more noise than that of empty sky
    assert abs(np.median(np.concatenate(pulls)) - 1) < 0.1


def test_new_stars_near_galaxies_are_there():
    field = draw_field(RNG(6), "f")
    visit = make_visit(field, quiet_detector(), RNG(7), n_new=200, near_galaxies=1.0)
    host = field.galaxies.take(visit.hosts)
    away = np.hypot(visit.sources.x - host.x, visit.sources.y - host.y)
    assert (visit.hosts >= 0).all() and (away <= 4.01 * host.radius + 3).all()
    alone = make_visit(field, quiet_detector(), RNG(7), n_new=50, near_galaxies=0.0)
    assert (alone.hosts == -1).all()


def test_variables_are_stars_of_the_field_with_new_light():
    field = draw_field(RNG(6), "f")
    visit = make_visit(
        field, quiet_detector(), RNG(7), n_new=200, near_galaxies=0.3, variables=0.5
    )
    on = visit.hosts == ON_STAR
    assert 20 < on.sum() <= 100 and (visit.hosts >= 0).sum() > 30
    at = np.column_stack([visit.sources.x[on], visit.sources.y[on]])
    stars = np.column_stack([field.stars.x, field.stars.y])
    away = np.linalg.norm(at[:, None] - stars, axis=2)
    share = visit.sources.flux[on] / field.stars.flux[away.argmin(1)]
    assert away.min(1).max() < 1e-9 and len(set(away.argmin(1))) == on.sum()
    assert share.max() < 2.01 and np.median(share) < 1.5
    told = tell(visit, detect(visit))
    kinds = told["kind"][told["is_real"]]
    assert {"variable", "near_galaxy", "field"} == set(kinds)
    true = told["kind"] == "variable"
    assert np.nanmax(told["star_distance"][true]) < 2.5 * PIXEL_SCALE
    assert all("-star" in name for name in told["object"][true])


def test_peaks_are_apart_and_strongest_first():
    (visit,) = visits(RNG(2), n=1)
    places = detect(visit, apart=4.0)
    score = visit.score[places[:, 1], places[:, 0]]
    assert (np.diff(score) <= 0).all() and len(places) > 5
    assert len(cKDTree(places).query_pairs(3.99)) == 0


def test_truth_asks_for_half_of_the_light():
    (visit,) = visits(RNG(3), n=1, n_new=40)
    places = detect(visit)
    truth = tell(visit, places)
    assert truth["is_real"].sum() > 10
    # a hundred times fainter, the same stars explain none of the same detections
    faint = replace(visit, expected=visit.expected / 100)
    assert tell(faint, places)["is_real"].sum() == 0


def test_stamps_show_the_frame_at_the_detection():
    (visit,) = visits(RNG(5), n=1)
    places = detect(visit)[:20]
    stamps = cut(visit, places, 29)
    for stamp, (x, y) in zip(stamps, places):
        np.testing.assert_allclose(
            stamp[2, 14, 14] * visit.detector.gain, visit.difference[y, x], rtol=1e-5
        )
        np.testing.assert_array_equal(stamp[1, 14, 14], visit.reference[y, x])
    corner = cut(visit, np.array([[0, 0]]), 29)[0]
    assert np.isnan(corner[:, :14]).all() and np.isnan(corner[:, :, :14]).all()


# --- simulate_stamps --------------------------------------------------------------------------


def test_counts_columns_and_kinds(survey):
    stamps, truth = survey
    columns = truth.columns
    real = columns["is_real"]
    assert real.sum() == 60 and (~real).sum() == 600
    assert stamps.pixels.shape == (660, 3, 29, 29) and stamps.pixels.dtype == np.float32
    assert len(set(stamps.id.tolist())) == 660
    assert set(columns["kind"][real]) <= set(REAL_KINDS)
    bogus = set(columns["kind"][~real])
    assert bogus <= set(BOGUS_KINDS) and len(bogus) >= 8
    assert (columns["snr"] > 5).all() and np.isnan(columns["true_magnitude"][~real]).all()
    np.testing.assert_array_equal(stamps.exposure, columns["exposure"])
    assert len(set(stamps.detector.tolist())) > 5
    error = columns["magnitude"][real] - columns["true_magnitude"][real]
    assert abs(np.nanmedian(error)) < 0.1


def test_the_source_is_in_the_middle(survey):
    stamps, truth = survey
    real = truth.columns["is_real"] & (truth.columns["snr"] > 15)
    difference = np.nan_to_num(stamps.pixels[real][:, 2])
    near = difference[:, 12:17, 12:17].max(axis=(1, 2))
    far = np.median(difference, axis=(1, 2))
    assert (near > far).all()
    profile = np.median(difference / near[:, None, None], axis=0)
    assert np.unravel_index(profile.argmax(), profile.shape) == (14, 14)


def test_the_same_seed_gives_the_same_survey():
    one, two, other = (simulate_stamps(5, 40, RNG(seed)) for seed in (9, 9, 10))
    np.testing.assert_array_equal(one[0].pixels, two[0].pixels)
    np.testing.assert_array_equal(one[0].id, two[0].id)
    assert one[0].pixels.tobytes() != other[0].pixels.tobytes()
    named = simulate_stamps(5, 40, RNG(9), name="night")
    assert not set(named[0].object.tolist()) & set(one[0].object.tolist())


@pytest.mark.parametrize(("n_real", "n_bogus"), [(0, 30), (30, 0), (1, 50)])
def test_classes_may_be_as_unequal_as_they_are(n_real, n_bogus):
    stamps, truth = simulate_stamps(n_real, n_bogus, RNG(0), size=21, observed=True)
    assert truth.columns["is_real"].sum() == n_real and len(stamps) == n_real + n_bogus
    assert stamps.pixels.shape[2:] == (21, 21)


def test_what_is_learnable_is_not_given_away(survey):
    # neither the exposure nor the detector nor the place on the frame tells the class
    _, truth = survey
    real = truth.columns["is_real"]
    for name in ("x", "y", "seeing"):
        values = truth.columns[name]
        rank = values.argsort().argsort()
        auc = (rank[real].mean() - (real.sum() - 1) / 2) / (~real).sum()
        assert 0.3 < auc < 0.7
    shared = set(truth.columns["exposure"][real]) & set(truth.columns["exposure"][~real])
    assert len(shared) > 0.8 * len(set(truth.columns["exposure"][real]))


def test_flipped_labels_are_an_exact_share_of_each_class():
    real = np.arange(1000) < 200
    labels = flip_labels(real, 0.1, 0.05, RNG(0))
    assert (labels[real] != real[real]).sum() == 20 and (labels[~real] != real[~real]).sum() == 40
    np.testing.assert_array_equal(flip_labels(real, 0, 0, RNG(0)), real)
    assert (labels != flip_labels(real, 0.1, 0.05, RNG(1))).any()
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        flip_labels(real, 1.2, 0, RNG(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_real": -1}, ">= 0"),
        ({"size": 30}, "odd"),
        ({"magnitudes": (18, 15)}, "bright, faint"),
        ({"magnitudes": (19, 21)}, "never detected"),
        ({"near_galaxies": 2}, "share"),
        ({"variables": -0.1}, "share"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        simulate_stamps(**{"n_real": 2, "n_bogus": 2, "rng": RNG(0), **options})


# --- the command ------------------------------------------------------------------------------


def run(*arguments):
    from typer.testing import CliRunner

    from skyvec.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_makes_a_survey_and_goes_on_where_it_was(tmp_path, monkeypatch):
    from skyvec import simulate, store
    from skyvec.schema import Stamps

    monkeypatch.setattr(simulate, "STAMPS", 60)
    options = ("-n", 150, "--set", "reals=0.2", "--set", "noise=0.1", "--seed", 3)
    assert run("simulate", "stamps", "--survey", tmp_path / "s", *options).exit_code == 0
    parts = list(store.iterate_objects(tmp_path / "s", Stamps))
    assert [len(stamps) for _, _, stamps in parts] == [60, 60, 30]
    real = np.concatenate([c.columns["is_real"] for _, c, _ in parts]).astype(bool)
    label = np.concatenate([c.columns["label"] for _, c, _ in parts])
    assert real.sum() == 30 and 10 <= ((label == "real") != real).sum() <= 20
    before = [s["file"] for s in store.object_shards(tmp_path / "s")]
    again = run("simulate", "stamps", "--survey", tmp_path / "s", *options)
    assert (
        again.exit_code == 0 and [s["file"] for s in store.object_shards(tmp_path / "s")] == before
    )
    other = run("simulate", "stamps", "--survey", tmp_path / "s", "-n", 150)
    assert other.exit_code != 0


def test_another_camera_has_stars_as_many_times_wider(tmp_path):
    from skyvec import store
    from skyvec.schema import Stamps

    core, names = {}, {}
    for focus in (1, 3):
        options = ("-n", 70, "--set", "reals=0.9", "--set", f"focus={focus}")
        folder = tmp_path / str(focus)
        assert run("simulate", "stamps", "--survey", folder, *options).exit_code == 0
        ((_, catalog, stamps),) = store.iterate_objects(folder, Stamps)
        good = (catalog.columns["kind"] == "field") & (catalog.columns["snr"] > 20)
        light = np.nan_to_num(stamps.pixels[good, 2])
        middle, all_of_it = light[:, 13:16, 13:16].sum((1, 2)), light[:, 2:-2, 2:-2].sum((1, 2))
        core[focus], names[focus] = np.median(middle / all_of_it), set(stamps.exposure)
        assert good.sum() > 8
    # of a Moffat profile of 2.7 px the middle nine pixels hold two fifths, of 8 px a tenth
    assert core[1] > 0.33 and core[3] < 0.15 and not names[1] & names[3]


def test_an_exposure_on_which_nothing_is_found():
    field = draw_field(RNG(0), "f", side=256)
    visit = make_visit(field, frames.make_detectors(1, side=256)[0], RNG(1), side=256)
    blank = replace(visit, score=np.zeros_like(visit.score))
    for one in (blank, turned(blank)):
        places = detect(one)
        assert places.shape == (0, 2) and cut(one, places, 29).shape == (0, 3, 29, 29)
        assert {len(column) for column in tell(one, places).values()} == {0}


def test_what_has_faded_is_detected_with_the_difference_turned_round():
    stamps, truth = simulate_stamps(120, 240, RNG(4), variables=1.0, near_galaxies=0.2,
                                    negative=True)  # fmt: skip
    column = truth.columns
    sign, real = column["sign"], column["is_real"]
    variable = column["kind"] == "variable"
    assert (sign[real] == -1).sum() > 20 < (sign[real] == 1).sum()
    assert (column["kind"][real & (sign == -1)] == "variable").all()  # nothing new is dark
    assert (sign[~real] == -1).sum() > 40 and np.isfinite(column["true_magnitude"][real]).all()
    middle = np.nanmean(stamps.pixels[:, :, 13:16, 13:16], axis=(2, 3))
    middle -= np.nanmedian(stamps.pixels, axis=(2, 3))
    bright = real & variable & (column["snr"] > 15)
    assert (middle[bright, 2] > 0).all()
    # against the reference what has faded is fainter now than what has brightened
    ratio = middle[:, 0] / middle[:, 1]
    gain = {d: np.median(middle[bright & (sign == d), 2] / middle[bright & (sign == d), 0])
            for d in (1, -1)}  # fmt: skip
    assert np.median(ratio[bright & (sign == -1)]) < np.median(ratio[bright & (sign == 1)])
    assert gain[1] < 1 and len(set(stamps.id)) == 360
    # what is not asked for changes nothing
    plain, again = (simulate_stamps(5, 40, RNG(9), negative=n)[1] for n in (False, False))
    assert "sign" not in plain.columns and np.array_equal(plain.id, again.id)


def test_the_command_refuses_what_makes_no_sense(tmp_path):
    assert run("simulate", "stamps").exit_code != 0
    for wrong in ("reals=2", "real=0.1", "noise=x", "focus=9", "focus=-1"):
        found = run("simulate", "stamps", "--survey", tmp_path / wrong, "-n", 9, "--set", wrong)
        assert found.exit_code != 0


def test_parts_of_a_survey_share_the_bad_pixels_of_the_camera():
    detectors = frames.make_detectors(1)
    parts = [
        simulate_stamps(1, 250, RNG(i), detectors=detectors, name=f"sim.{i}")[1] for i in range(2)
    ]
    hot = [set(part.target[part.columns["kind"] == "hot_pixel"]) for part in parts]
    rest = [
        set(part.target[~np.isin(part.columns["kind"], ["hot_pixel", "column"])]) for part in parts
    ]
    assert hot[0] & hot[1] and not rest[0] & rest[1]
