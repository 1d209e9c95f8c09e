"""One self-contained web page from pictures and tables; whatever comes from data is escaped."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem;
       color: #1c1c1c; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
img { max-width: 100%; border: 1px solid #ddd }
table { border-collapse: collapse } td, th { padding: .2rem .9rem .2rem 0; text-align: left }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #161616 } }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG with a heading and a sentence."""

    heading: str
    text: str
    file: Path


@dataclass(frozen=True)
class Table:
    """Rows under headings; numbers are set right."""

    heading: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


def page(title: str, introduction: str, parts: Sequence[Picture | Table]) -> str:
    """The page, pictures and all, as one HTML document that loads nothing from anywhere."""
    body = [f"<h1>{html.escape(title)}</h1>", f"<p>{html.escape(introduction)}</p>"]
    for part in parts:
        body.append(f"<h2>{html.escape(part.heading)}</h2><p>{html.escape(part.text)}</p>")
        body.append(_picture(part) if isinstance(part, Picture) else _table(part))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(body)}</body></html>\n"
    )


def _picture(part: Picture) -> str:
    data = base64.b64encode(part.file.read_bytes()).decode()
    return f'<img alt="{html.escape(part.heading, quote=True)}" src="data:image/png;base64,{data}">'


def _table(part: Table) -> str:
    numeric = [
        bool(part.rows) and all(isinstance(row[i], (int, float)) for row in part.rows)
        for i in range(len(part.columns))
    ]
    head = "".join(
        _cell("th", each, right) for each, right in zip(part.columns, numeric, strict=True)
    )
    rows = (
        "".join(_cell("td", each, right) for each, right in zip(row, numeric, strict=True))
        for row in part.rows
    )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _cell(tag: str, value: str | int | float, right: bool) -> str:
    text = f"{value:,.1f}" if isinstance(value, float) else str(value)
    kind = ' class="number"' if right else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"
