"""The page of a report: one HTML file that needs nothing but itself, on screen and on paper."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from hil.report.canvas import Chart

# Not allowed in HTML, and unprintable anyway.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_CSS = """
:root { color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f5f3; --ink: #1c1d1e; --muted: #6a6c6e; --grid: #dcddde;
  --fill: #c9cbcc; --fill-dark: #a4a7a9;
  --truth: #1f6fb2; --target: #0b7a5c; --lab: #7a4a00; --fan: #7b3fb0;
  --warn: #b8720a; --bad: #c22727; --fault: #9fb6c6; --good: #2c6e49; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #17191b; --panel: #1f2225; --ink: #e8e8e6; --muted: #9a9da0; --grid: #34383b;
  --fill: #4b5054; --fill-dark: #6b7176;
  --truth: #6db3ee; --target: #4fc3a1; --lab: #e0ac5e; --fan: #c79bf0;
  --warn: #e0a040; --bad: #ff6b62; --fault: #4a6478; --good: #7cc79b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 3rem; max-width: 1180px; background: var(--paper);
  color: var(--ink); font: 15px/1.45 system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .3rem 0; } .muted, figcaption { color: var(--muted); font-size: .87rem; }
.verdict { display: flex; gap: 1rem; align-items: center; padding: .8rem 1rem; margin: 1rem 0;
  border: 2px solid var(--muted); border-radius: 6px; background: var(--panel); }
.verdict.passed { border-color: var(--good); } .verdict.failed { border: 3px double var(--bad); }
.verdict .shape { font-size: 1.9rem; line-height: 1; } .verdict strong { font-size: 1.15rem; }
.passed .shape { color: var(--good); } .failed .shape { color: var(--bad); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--grid);
  vertical-align: top; overflow-wrap: break-word; }
th { font-weight: 600; color: var(--muted); font-size: .83rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
td.fixed { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.words { min-width: 12rem; }
table.matrix td, table.matrix th { padding: .2rem .55rem; border: 1px solid var(--grid); }
table.matrix td.number.none { color: var(--muted); } td.covered { background: var(--panel); }
table.narrow { width: auto; min-width: min(100%, 36rem); }
tr.abnormal td { color: var(--bad); font-weight: 600; }
figure { margin: 1.3rem 0 0; break-inside: avoid; } figure svg { width: 100%; height: auto;
  display: block; } figure svg text { font-family: inherit !important; }
code, pre { font: .9em ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--panel); padding: .7rem .9rem; overflow-x: auto; border-radius: 4px; }
@media print { :root { color-scheme: light;
  --paper: #ffffff; --panel: #ffffff; --ink: #000000; --muted: #555555; --grid: #cccccc;
  --fill: #cccccc; --fill-dark: #999999;
  --truth: #1f6fb2; --target: #0b7a5c; --lab: #7a4a00; --fan: #7b3fb0;
  --warn: #a86400; --bad: #b81f1f; --fault: #9fb6c6; --good: #2c6e49; }
  body { max-width: none; padding: 0; font-size: 10pt; } tr, .verdict { break-inside: avoid; }
  h2, h3 { break-after: avoid; } details { display: none; } }
"""


class Raw(str):
    """Markup that is already safe; everything else is escaped on its way into the page."""

    __slots__ = ()


class Cell(NamedTuple):
    """A table cell with a CSS class: `number` right-aligned, `fixed` never wrapped, `words` wide
    enough for some."""

    text: str
    kind: str


def safe(text: object) -> Raw:
    """Any text as markup that shows just that text."""
    return Raw(escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text))))


def table(
    header: Sequence[str | Cell],
    rows: Iterable[Sequence[str | Cell]],
    abnormal: Sequence[bool] = (),
    *,
    narrow: bool = False,
) -> Raw:
    """A table, `narrow` if it should not fill the page.

    Rows marked `abnormal` stand out by colour; their text must say so, too.
    """
    head = "".join(_cell("th", cell) for cell in header)
    lines: list[str] = []
    for i, row in enumerate(rows):
        mark = ' class="abnormal"' if i < len(abnormal) and abnormal[i] else ""
        lines.append(f"<tr{mark}>{''.join(_cell('td', cell) for cell in row)}</tr>")
    body = "\n".join(lines)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    kind = ' class="narrow"' if narrow else ""
    return Raw(f'<div class="scroll"><table{kind}>{top}<tbody>\n{body}\n</tbody></table></div>')


def _cell(element: str, cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        return f'<{element} class="{cell.kind}">{safe(cell.text)}</{element}>'
    return f"<{element}>{safe(cell)}</{element}>"


def section(title: str, *parts: Raw) -> Raw:
    return Raw(f"<section>\n<h2>{safe(title)}</h2>\n" + "\n".join(parts) + "\n</section>")


def paragraph(text: str, kind: str = "") -> Raw:
    mark = f' class="{kind}"' if kind else ""
    return Raw(f"<p{mark}>{safe(text)}</p>")


def code(text: str) -> Raw:
    return Raw(f"<pre>{safe(text)}</pre>")


def details(title: str, inside: Raw) -> Raw:
    return Raw(f"<details><summary>{safe(title)}</summary>\n{inside}\n</details>")


def banner(outcome: str, words: str, comment: str) -> Raw:
    """The verdict by shape, word and colour; outcome is `passed`, `failed` or `recorded`."""
    shape = {"passed": "✔", "failed": "✘"}.get(outcome, "●")
    return Raw(
        f'<div class="verdict {outcome}" role="status"><span class="shape" aria-hidden="true">'
        f"{shape}</span><div><strong>{safe(words)}</strong><p>{safe(comment)}</p></div></div>"
    )


def picture(chart: Chart) -> Raw:
    label = safe(f"{chart.title}. {chart.caption}")
    # The SVG comes from the drawing library, which escapes the text in it.
    svg = chart.svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
    return Raw(
        f'<figure id="chart-{chart.name}"><h3>{safe(chart.title)}</h3>\n{svg}\n'
        f"<figcaption>{safe(chart.caption)}</figcaption></figure>"
    )


def page(title: str, *parts: Raw) -> str:
    """The whole document."""
    inside = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{inside}\n</main>\n</body>\n</html>\n"
    )
