"""The parts of a self-contained HTML page: no script, no link that loads anything."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

import pyarrow as pa

from skyvec.report.tables import UNITS, cell

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Section:
    """One section of a page.

    Args:
        anchor: Name within the page, such as ``map``.
        title: Heading.
        intro: One or two plain sentences on what is shown and how to read it.
        body: HTML, already escaped.
    """

    anchor: str
    title: str
    intro: str
    body: str


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
    """Put sections together to one HTML document; texts are escaped here, bodies are not."""
    contents = " ".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    body = "\n".join(
        f'<section id="{s.anchor}">\n<h2>{escape(s.title)}</h2>\n'
        f'<p class="intro">{escape(s.intro)}</p>\n{s.body}\n</section>'
        for s in sections
    )
    return Template((FOLDER / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        contents=contents,
        body=body,
        footer=escape(footer),
    )


def picture(content: bytes, text: str, *, width: int = 0) -> str:
    """Give a PNG as an inline figure.

    Args:
        content: Bytes of the PNG.
        text: Caption, and what is read out where the picture cannot be seen.
        width: Widest it may be shown [CSS pixels]; 0 = as wide as it is.
    """
    code = b64encode(content).decode()
    limit = f' style="width:{width}px"' if width else ""
    return (
        f'<figure><img alt="{escape(text)}"{limit} src="data:image/png;base64,{code}">'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def counts(numbers: Mapping[str, object]) -> str:
    """Give the headline numbers, each with its name."""
    boxes = "".join(
        f"<div><b>{escape(cell(value))}</b><span>{escape(name)}</span></div>"
        for name, value in numbers.items()
    )
    return f'<div class="counts">{boxes}</div>'


def table(content: pa.Table, *, own: str = "") -> str:
    """Give a table as HTML; the row whose first column is ``own`` stands out."""
    numeric = [
        not (pa.types.is_string(kind) or pa.types.is_large_string(kind))
        for kind in content.schema.types
    ]

    def row(values: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="number">{escape(v)}</{tag}>' if n else f"<{tag}>{escape(v)}</{tag}>"
            for v, n in zip(values, numeric)
        )

    names = [f"{n} [{UNITS[n]}]" if n in UNITS else n for n in content.column_names]
    lines = [f"<tr>{row(names, 'th')}</tr>"]
    for record in content.to_pylist():
        values = [cell(value) for value in record.values()]
        mark = ' class="own"' if own and values[0] == own else ""
        lines.append(f"<tr{mark}>{row(values, 'td')}</tr>")
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def code(text: str) -> str:
    """Give a text as it stands, such as a recipe."""
    return f"<pre>{escape(text.strip())}</pre>"
