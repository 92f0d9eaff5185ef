"""Pictures, tables and the page. Kinds: contract (what is drawn is what was given), truth
(thinning keeps extremes; forms parse back)."""

import dataclasses
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from matplotlib import image

from skyvec.prep.lightcurves import prepare
from skyvec.report import charts, page, pictures, tables
from skyvec.report.folding import strongest_period
from skyvec.schema import LightCurves


def curves(lengths=(30, 20_000, 7, 300), bands=("T",), seed=0):
    rng = np.random.default_rng(seed)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    mjd = np.concatenate([59000 + np.sort(rng.uniform(0, 27, n)) for n in lengths])
    n = int(offsets[-1])
    band = rng.integers(0, len(bands), n).astype(np.int16)
    flux = rng.normal(1, 0.01, n).astype(np.float32)
    ids = np.array([f"TIC {i}/s0001" for i in range(len(lengths))])
    return LightCurves(ids, offsets, mjd, flux, np.full(n, np.nan, np.float32), band, bands)


def pixels(figure):
    return image.imread(io.BytesIO(pictures.png(figure)))


def has_colour(picture, colour):
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return bool((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).any())


def test_thinning_keeps_every_dip_and_flare():
    rng = np.random.default_rng(1)
    time = np.sort(rng.uniform(0, 27, 50_000))
    value = rng.normal(size=50_000)
    value[[77, 31_000]] = -40, 60
    kept = pictures.thin(time, value, 200)
    assert len(kept) <= 800 and (np.diff(kept) > 0).all()
    assert {0, 77, 31_000, 49_999} <= set(kept.tolist())
    column = np.minimum((time - time[0]) / (time[-1] - time[0]) * 200, 199).astype(int)
    for c in (0, 50, 199):  # a slow loop as the rival
        own = np.flatnonzero(column == c)
        assert {own[value[own].argmin()], own[value[own].argmax()]} <= set(kept.tolist())


def test_a_short_curve_is_drawn_whole():
    time = np.arange(100.0)
    assert pictures.thin(time, time, 50).tolist() == list(range(100))


def test_one_instant_is_no_division_by_zero():
    assert len(pictures.thin(np.zeros(1000), np.arange(1000.0), 10)) >= 2


def test_a_pause_breaks_the_line_and_noise_in_the_step_does_not():
    time = np.r_[np.arange(0, 10, 0.01), np.arange(20, 30, 0.01)]
    x, _ = pictures._line(time, np.sin(time), 100)
    assert np.isnan(x).sum() == 1


def test_fast_cycles_get_a_close_up_and_noise_does_not():
    time = np.r_[np.arange(0, 12, 0.02), np.arange(14, 27, 0.02)]
    begin, end = pictures.close_up(time, np.sin(2 * np.pi * time / 0.4))
    assert 5 < (end - begin) / 0.4 < 7
    assert ((time > begin) & (time < end)).sum() > 100
    assert pictures.close_up(time, np.sin(2 * np.pi * time / 4)) is None
    assert pictures.close_up(time, np.random.default_rng(0).normal(size=len(time))) is None
    assert pictures.close_up(time, np.zeros(len(time))) is None


def test_a_fast_curve_has_two_axes_with_one_scale():
    light = curves((1350,))
    fast = dataclasses.replace(light, flux=np.sin(light.mjd * 20).astype(np.float32))
    figure = pictures.curve_grid(prepare(fast, round_days=0), [0], ["fast"])
    whole, near = figure.axes
    assert np.ptp(near.get_xlim()) < 3 < np.ptp(whole.get_xlim())
    assert near.get_ylim() == whole.get_ylim()


def test_a_sparse_periodic_curve_is_drawn_against_its_phase():
    rng = np.random.default_rng(0)
    time = np.sort(rng.uniform(0, 800, 150))
    sine = np.sin(2 * np.pi * time / 0.5678)
    assert strongest_period(time, sine) == pytest.approx(0.5678, rel=1e-3)
    assert strongest_period(time, rng.normal(size=150)) is None
    assert strongest_period(time, np.zeros(150)) is None
    dense = np.arange(0, 27, 0.02)
    assert strongest_period(dense, np.sin(2 * np.pi * dense)) is None
    light = curves((150,))
    sparse = dataclasses.replace(light, mjd=59000 + time, flux=sine.astype(np.float32))
    axes = pictures.curve_grid(prepare(sparse, round_days=0), [0], ["folded"]).axes[0]
    x, y = axes.lines[0].get_data()
    assert len(x) == 300 and x.min() >= 0 and x.max() < 2
    order = np.argsort(x)
    assert np.abs(np.diff(y[order])).max() < 0.5  # a smooth curve, not a cloud
    assert "0.5678 d" in axes.get_title(loc="right")


def test_curve_grid_draws_one_panel_a_row_with_its_caption():
    prepared = prepare(curves(), round_days=0)
    figure = pictures.curve_grid(prepared, [0, 1, 3], ["a\nx", "b", "c"], across=2)
    assert len(figure.axes) == 3
    assert [len(axes.lines) for axes in figure.axes] == [1, 1, 1]
    assert len(figure.axes[0].lines[0].get_xdata()) == 30
    assert len(figure.axes[1].lines[0].get_xdata()) < 1100
    assert figure.axes[1].get_title(loc="left") == "b"
    assert "d]" in figure.get_supxlabel() and "standard deviations" in figure.get_supylabel()
    assert pixels(figure).shape[2] == 4


def test_the_query_is_red_and_the_results_are_not():
    prepared = prepare(curves(), round_days=0)
    red, ink = pictures.QUERY_COLOUR, pictures.INK
    figure = pictures.curve_grid(prepared, [0, 3], ["query", "found"], colours=[red, ink])
    assert [axes.lines[0].get_color() for axes in figure.axes] == [red, ink]
    assert has_colour(pixels(figure), red)


def test_bands_get_a_colour_each():
    prepared = prepare(curves(bands=("g", "r", "i")), round_days=0)
    figure = pictures.curve_grid(prepared, [3], ["three bands"])
    assert len({line.get_color() for line in figure.axes[0].lines}) == 3


def test_decoded_curves_lie_over_the_points():
    prepared = prepare(curves(), round_days=0)
    model = pictures.Model(prepared.time[:30], prepared.value[:30], prepared.band[:30])
    figure = pictures.curve_grid(prepared, [0], ["a"], models=[model])
    points, decoded = figure.axes[0].lines
    assert decoded.get_color() == pictures.MODEL_COLOUR
    assert decoded.get_zorder() > points.get_zorder()


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="no curves to draw"):
        pictures.curve_grid(prepare(curves()), [], [])
    with pytest.raises(ValueError, match="every object is noise"):
        pictures.cluster_samples(prepare(curves()), {}, {})


def test_cluster_samples_use_the_colours_of_the_map():
    prepared = prepare(curves(), round_days=0)
    figure = pictures.cluster_samples(prepared, {0: [0, 1], 4: [2]}, {0: 20, 4: 7})
    assert len(figure.axes) == 3
    colours = [axes.lines[0].get_color() for axes in figure.axes]
    assert colours == [pictures.cluster_colour(c) for c in (0, 0, 4)]


def test_map_draws_every_segment_once_and_noise_in_grey():
    rng = np.random.default_rng(0)
    cluster = np.repeat([-1, 0, 1, 2], (5, 40, 30, 20))
    figure = charts.map_picture(
        rng.normal(size=(95, 2)), cluster, marked=np.arange(3), placed=np.zeros((2, 2))
    )
    drawn = [len(c.get_offsets()) for c in figure.axes[0].collections]
    assert drawn == [5, 40, 30, 20, 3, 2]
    assert [t.get_text() for t in figure.axes[0].texts] == ["0", "1", "2"]
    beside = [t.get_text() for t in figure.texts if t.get_text() != "●"]
    assert beside[:3] == ["0: 40", "1: 30", "2: 20"]
    assert beside[3].splitlines() == [
        "5 in no cluster (grey)",
        "rings: the oddest",
        "red crosses: placed",
    ]
    assert has_colour(pixels(figure), pictures.cluster_colour(0))


def test_map_shows_a_curve_of_each_cluster_it_numbers():
    cluster = np.repeat(np.arange(12), 20)
    prepared = prepare(curves(), round_days=0)
    xy = np.random.default_rng(0).normal(size=(240, 2))

    def thumbnail(axes, i, colour):
        pictures.draw_curve(axes, prepared, i, colour=colour)

    figure = charts.map_picture(xy, cluster, examples=4, thumbnail=thumbnail)
    assert len(figure.axes) == 1 + 4 and len(figure.axes[0].texts) == 4
    assert figure.axes[1].lines[0].get_color() == pictures.cluster_colour(0)
    assert figure.texts[-1].get_text() == "and 8 smaller"


def test_label_map_names_the_twenty_most_frequent():
    names = np.repeat([f"class {i}" for i in range(22)], np.arange(22, 0, -1))
    figure = charts.label_map(np.random.default_rng(0).normal(size=(len(names), 2)), names)
    labels = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert labels[0] == "other or unknown: 3" and labels[1] == "class 0: 22" and len(labels) == 21


@pytest.mark.parametrize(
    ("ra", "wide"), [((358.0, 1.5, 3.0), False), ((10.0, 120.0, 250.0), True)]
)
def test_sky_knows_a_field_across_zero_from_a_whole_sky(ra, wide):
    dec = np.array([10.0, 12.0, 9.0])
    figure = charts.sky_picture(np.array([*ra, np.nan]), np.r_[dec, 0], np.array([0, 1, -1, 0]))
    assert (figure.axes[0].name == "mollweide") is wide
    assert len(figure.axes[0].collections[0].get_offsets()) == 3
    pixels(figure)


def test_number_pictures():
    step = np.arange(10.0)
    losses = charts.loss_picture({"training": (step, 1 / (1 + step)), "validation": (step, step)})
    assert [line.get_label() for line in losses.axes[0].lines] == ["training", "validation"]
    histogram = charts.similarity_histogram(np.linspace(0.5, 1, 100), np.array([0.5]), k=2)
    assert "neighbour 2" in histogram.axes[0].get_xlabel()
    assert sum(p.get_height() for p in histogram.axes[0].patches) == 100
    far = charts.distance_histogram(np.linspace(0, 9, 100), np.array([9.0]), k=2)
    assert "distance to neighbour 2" in far.axes[0].get_xlabel()


TABLE = pa.table(
    {
        "rank": [1, 2],
        "id": ["TIC 1/s0001 <b>", "[red]b"],
        "similarity": [0.25, float("nan")],
        "ra": pa.array([1.5, None]),
        "odd": [True, False],
    }
)


def test_json_parses_back_and_unknown_is_null():
    rows = json.loads(tables.render(TABLE, "json"))
    assert rows[0] == {
        "rank": 1,
        "id": "TIC 1/s0001 <b>",
        "similarity": 0.25,
        "ra": 1.5,
        "odd": True,
    }
    assert rows[1]["similarity"] is None and rows[1]["ra"] is None


def test_csv_and_parquet_parse_back():
    back = pcsv.read_csv(io.BytesIO(tables.render(TABLE, "csv")))
    assert back["id"].to_pylist() == TABLE["id"].to_pylist()
    assert back["similarity"].to_pylist() == [0.25, None]
    assert (
        pq.read_table(io.BytesIO(tables.render(TABLE, "parquet")))
        .drop(["similarity"])
        .equals(TABLE.drop(["similarity"]))
    )


def test_votable_parses_back_with_units():
    back = Table.read(io.BytesIO(tables.render(TABLE, "votable")), format="votable")
    assert list(back["id"]) == TABLE["id"].to_pylist()
    assert str(back["ra"].unit) == "deg" and back["ra"][0] == 1.5


def test_printed_table_keeps_ids_whole():
    text = tables.render(TABLE, "table", width=80).decode()
    assert "TIC 1/s0001 <b>" in text and "[red]b" in text and "ra [deg]" in text


def test_a_table_wider_than_the_page_loses_no_column():
    """Columns that do not fit were narrowed until nothing was left of them."""
    many = {"model": ["first", "pixels"]} | {f"linear_f1_{i}": [0.5 + i, 0.25] for i in range(20)}
    text = tables.render(pa.table(many), "table", width=80).decode()
    assert all(name in text for name in many) and "first   pixels" in text
    long = pa.table({name: values * 20 for name, values in many.items()})
    text = tables.render(long, "table", width=80).decode()
    assert all(name in text for name in many) and text.count("19.5000") == 20
    assert text.count("model") == text.count("─ \n") > 1
    assert max(map(len, text.splitlines())) <= 80


def test_format_follows_the_ending_and_unknown_ones_are_named(tmp_path):
    assert tables.choose_format(None, tmp_path / "a.VOT") == "votable"
    assert tables.choose_format("csv", tmp_path / "a.json") == "csv"
    with pytest.raises(ValueError, match=r"'xlsx'.*table, json, csv"):
        tables.choose_format("xlsx", None)


class Loads(HTMLParser):
    """Collect everything a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster") and value:
                self.found.append(value)


def loads(html):
    parser = Loads()
    parser.feed(html)
    styles = re.findall(r"url\(|@import", html)
    return [v for v in parser.found if not v.startswith(("data:", "#"))] + styles


def test_the_page_loads_nothing_and_escapes_what_it_is_given():
    picture = pictures.png(charts.loss_picture({"training": (np.arange(3.0), np.arange(3.0))}))
    body = (
        page.picture(picture, "a <i>caption</i>") + page.table(TABLE, own="1") + page.code("<x>")
    )
    html = page.page(
        "T & <T>", "sub", [page.Section("map", "Map", "How <to> read.", body)], "footer"
    )
    assert loads(html) == []
    assert "<i>" not in html and "<x>" not in html and "T &amp; &lt;T&gt;" in html
    assert html.count("data:image/png;base64,") == 1
    assert '<tr class="own"><td class="number">1</td>' in html


def test_the_check_for_loads_can_fail():
    assert loads('<img src="https://a.b/c.png"><style>@import "x"</style>') != []
