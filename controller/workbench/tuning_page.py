"""One HTML file that shows a tuning: tables, what limits it, the picture, the lines to paste."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from controller.settings import Settings
from controller.workbench.suggestion import cv_rows, findings, mv_rows, yaml_lines
from controller.workbench.tuning import Tuning

_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #d0d0d0 }
pre { background: #f3f3f3; padding: .8rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
"""


def page(settings: Settings, tuning: Tuning, svg: bytes) -> str:
    """The page, complete in itself; `svg` is the picture."""
    picture = _METADATA.sub("", svg.decode())
    picture = picture[picture.index("<svg") :]
    verdict = "as wanted" if tuning.reached else "not all as wanted"
    words = "".join(f"<p>{escape(text)}</p>" for text in findings(tuning))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(settings.name)}: tuning</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(settings.name)}: tuning, {verdict}</h1>"
        f"{_table(cv_rows(tuning))}{_table(mv_rows(tuning))}"
        f"<pre>{escape(yaml_lines(settings, tuning))}</pre>{picture}{words}</body></html>\n"
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body
    )
    return f"<table><tr>{cells}</tr>{lines}</table>"
