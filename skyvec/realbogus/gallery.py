"""Doubtful detections for a person: three stamps side by side, a verdict each, read back.

The page is one file without a server. Verdicts are kept by the browser's own form and saved as a
CSV with the columns ``id, verdict, who, when, label, score``; :func:`read_verdicts` takes it back.
"""

import base64
import csv
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from skyvec.nn.labels import UNLABELLED
from skyvec.schema import STAMP_CHANNELS, Floats, Ints, Strings
from skyvec.store import write_text

VERDICTS = {"real": 1, "bogus": 0, "unsure": UNLABELLED}
NAMES = {1: "real", 0: "bogus", UNLABELLED: "no label"}
ENLARGE = 5


class VerdictError(ValueError):
    """A file of verdicts that cannot be believed."""


def side_by_side(stamp: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Stretch each channel of a stamp by itself and put them side by side.

    Args:
        stamp: Raw or normalised pixels, shape (3, y, x); NaN becomes red.

    Returns:
        Red, green, blue, shape (y, 3 x + 2, 3), with a white line between two channels. Black is
        the 1st percentile of a channel, white the 99.7th, the difference is stretched evenly about
        its median, so that holes are seen as well as peaks.
    """
    panels = []
    for i, channel in enumerate(stamp):
        known = np.isfinite(channel)
        values = channel[known] if known.any() else np.zeros(1)
        low, middle, high = np.percentile(values, [1, 50, 99.7])
        if STAMP_CHANNELS[i] == "difference":
            reach = max(high - middle, middle - low)
            low, high = middle - reach, middle + reach
        scaled = (np.where(known, channel, low) - low) / max(high - low, 1e-30)
        grey = (255 * np.clip(scaled, 0, 1)).astype(np.uint8)
        panel = np.repeat(grey[:, :, None], 3, axis=2)
        panel[~known] = (170, 40, 40)
        panels.append(np.pad(panel, ((0, 0), (0, 1 if i < 2 else 0), (0, 0)), constant_values=255))
    return np.concatenate(panels, axis=1)


def picture(stamp: NDArray[np.float32], *, enlarge: int = ENLARGE) -> bytes:
    """Draw a stamp as a PNG: new, reference and difference side by side.

    Args:
        stamp: As of :func:`side_by_side`.
        enlarge: Screen pixels of a pixel.
    """
    whole = side_by_side(stamp).repeat(enlarge, 0).repeat(enlarge, 1)
    file = io.BytesIO()
    Image.fromarray(whole).save(file, "PNG", optimize=True)
    return file.getvalue()


def gallery(
    path: Path,
    id: Strings,
    pixels: NDArray[np.float32],
    label: Ints,
    score: Floats,
    doubt: Floats,
    *,
    notes: Sequence[str] = (),
    title: str = "Doubtful labels",
) -> None:
    """Write the page: most doubtful first, in the order given.

    Args:
        path: The HTML file.
        id: Key of each detection, shape (n,).
        pixels: Raw stamps, shape (n, 3, y, x).
        label: The label at hand, 1, 0 or -1, shape (n,).
        score: Out-of-fold score, shape (n,).
        doubt: Log-odds that the label is wrong, shape (n,).
        notes: A line to show with each, such as detector and exposure.
        title: Of the page.
    """
    rows = []
    for i in range(len(id)):
        key = html.escape(str(id[i]), quote=True)
        image = base64.b64encode(picture(pixels[i])).decode()
        wrong = 1 / (1 + np.exp(-np.clip(doubt[i], -50, 50)))
        choices = "".join(
            f'<label><input type="radio" name="{key}" value="{verdict}"> {verdict}</label>'
            for verdict in VERDICTS
        )
        note = html.escape(notes[i]) if len(notes) else ""
        rows.append(
            f'<article data-id="{key}" data-label="{NAMES[int(label[i])]}" '
            f'data-score="{score[i]:.4f}">'
            f'<img alt="new, reference, difference" src="data:image/png;base64,{image}">'
            f"<div><b>{i + 1}. {key}</b><br>labelled <b>{NAMES[int(label[i])]}</b>, score "
            f"{score[i]:+.2f}, wrong with probability {wrong:.3f}<br><small>{note}</small><br>"
            f"{choices}</div></article>"
        )
    page = _PAGE.replace("$title", html.escape(title)).replace("$rows", "\n".join(rows))
    write_text(path, page)


def read_verdicts(path: Path, known: Strings | None = None) -> dict[str, int]:
    """Read what a person decided: 1 real, 0 bogus, -1 unsure, by id.

    Args:
        path: A CSV with at least the columns ``id`` and ``verdict``.
        known: Keys that exist; an unknown one is an error.

    Raises:
        VerdictError: No such columns, an unknown verdict or id, or two verdicts on one detection
            that contradict each other; the message names the line.
    """
    answers: dict[str, int] = {}
    names = None if known is None else set(known.tolist())
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets begin with a mark
    except UnicodeDecodeError as error:
        raise VerdictError(f"{path} is no text in UTF-8; save the verdicts as CSV") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        if not {"id", "verdict"} <= set(reader.fieldnames or ()):
            raise VerdictError(
                f"{path} has the columns {', '.join(reader.fieldnames or ()) or '(none)'}, but id "
                "and verdict are needed"
            )
        for line, row in enumerate(reader, 2):
            key, verdict = row["id"], (row["verdict"] or "").strip().lower()
            if verdict not in VERDICTS:
                raise VerdictError(
                    f"{path}, line {line}: verdict {verdict!r}; write {', '.join(VERDICTS)}"
                )
            if names is not None and key not in names:
                raise VerdictError(f"{path}, line {line}: there is no detection {key!r}")
            if answers.setdefault(key, VERDICTS[verdict]) != VERDICTS[verdict]:
                raise VerdictError(f"{path}, line {line}: {key!r} has two different verdicts")
    return answers


def decide(
    id: Strings,
    label: Ints,
    suspect: NDArray[np.bool_],
    verdicts: dict[str, int],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Let a person's verdicts stand above labels and models.

    Returns:
        Labels with the verdicts in place (unsure: unlabelled), and the suspects that nobody has
        looked at, shape (n,) each.
    """
    changed, open_ = np.asarray(label, np.int64).copy(), suspect.copy()
    for i, key in enumerate(id.tolist()):
        if key in verdicts:
            changed[i], open_[i] = verdicts[key], False
    return changed, open_


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<meta name="color-scheme" content="light dark">
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1rem; }
article { display: flex; gap: 1rem; padding: .6rem 0; border-top: 1px solid #8885; }
article label { margin-right: 1rem; }
img { image-rendering: pixelated; flex: none; }
header { position: sticky; top: 0; background: Canvas; padding: .4rem 0; z-index: 1; }
</style></head><body>
<header><h1>$title</h1>
<p>Left to right: new, reference, difference; red was not measured. Most doubtful first. Your name
<input id="who" size="12"> <button id="save">save verdicts as CSV</button> <span id="n"></span></p>
</header>
$rows
<script>
const cards = [...document.querySelectorAll("article")];
const chosen = a => a.querySelector("input:checked");
const quote = t => '"' + String(t).replaceAll('"', '""') + '"';
document.addEventListener("change", e => {
  if (e.target.type !== "radio") return;
  e.target.dataset.when = new Date().toISOString();
  document.getElementById("n").textContent =
    cards.filter(chosen).length + " of " + cards.length + " decided";
});
document.getElementById("save").addEventListener("click", () => {
  const who = document.getElementById("who").value;
  const lines = ["id,verdict,who,when,label,score"];
  for (const a of cards) {
    const c = chosen(a);
    if (c) lines.push([a.dataset.id, c.value, who, c.dataset.when, a.dataset.label,
                       a.dataset.score].map(quote).join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\\n") + "\\n"], {type: "text/csv"}));
  link.download = "verdicts.csv";
  link.click();
});
</script></body></html>
"""
