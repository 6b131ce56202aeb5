"""The verbs of the workbench: what an engineer does to a controller before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from controller.errors import ModelError, SettingsError
from controller.terminal import Verb, json_flag, print_json, progress_bar, results

if TYPE_CHECKING:
    from controller.settings import Settings
    from controller.workbench.tuning import Tuning

_KINDS = ("png", "svg", "pdf")


def _configure_tune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="application file")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--html", type=Path, help="write a page with tables and the picture")
    shown.add_argument("--plot", type=Path, help="write the picture alone: .png, .svg or .pdf")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn plants (default: 0)")
    json_flag(parser)


def _tune(arguments: argparse.Namespace) -> int:
    from controller.app import build_application
    from controller.settings import load
    from controller.workbench.closed_loop import ClosedLoop
    from controller.workbench.suggestion import document
    from controller.workbench.tuning import tune, wanted_responses

    kind = _kind(arguments)
    settings = load(arguments.config)
    wanted_responses(settings)
    application = build_application(settings, epoch=1)
    with progress_bar() as bar:
        task = bar.add_task("tune", total=None, numbers="")
        count = 0

        def simulated() -> None:
            nonlocal count
            count += 1
            bar.update(task, numbers=f"{count} responses")

        try:
            loop = ClosedLoop(application)
            tuning = tune(settings, loop, arguments.seed, simulated)
        except ModelError as error:
            where = settings.where("controlled")
            raise SettingsError(error.what, where=where, mend=error.mend) from error
    if kind:
        from controller.workbench.tuning_page import page
        from controller.workbench.tuning_picture import draw

        picture = draw(loop, tuning, "svg" if arguments.html else kind)
        content = page(settings, tuning, picture).encode() if arguments.html else picture
        _write(arguments.html or arguments.plot, content)
    if arguments.json:
        print_json(document(settings, tuning))
    else:
        _print(settings, tuning)
    return 0 if tuning.reached else 1


def _kind(arguments: argparse.Namespace) -> str:
    """The format of the picture, empty for none; refused before anything is computed."""
    if arguments.seed < 0:
        raise SettingsError(
            f"{arguments.seed} is no seed", where="--seed", mend="Give a whole number from 0"
        )
    if arguments.html:
        return "html"
    if not arguments.plot:
        return ""
    kind = arguments.plot.suffix.removeprefix(".").lower()
    if kind not in _KINDS:
        raise SettingsError(
            f"{arguments.plot} is not the name of a picture",
            where="--plot",
            mend=f"End it in one of: {', '.join(_KINDS)}",
        )
    return kind


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise SettingsError(
            f"cannot write the file: {error.strerror}",
            where=str(path),
            mend="Check the path and the permissions",
        ) from None


def _print(settings: Settings, tuning: Tuning) -> None:
    from controller.workbench.suggestion import cv_rows, findings, mv_rows, yaml_lines

    console = results()
    for rows in (cv_rows(tuning), mv_rows(tuning)):
        console.print(_table(rows))
    console.print(yaml_lines(settings, tuning), markup=False)
    for text in findings(tuning):
        console.print(text, markup=False)


def _table(rows: Sequence[Sequence[str]]) -> Table:
    head, *body = rows
    table = Table(*head, box=None, header_style="bold", pad_edge=False)
    for row in body:
        table.add_row(*row)
    return table


WORKBENCH_VERBS = (
    Verb(
        "tune",
        "Suggest move suppressions for the response times that the CVs state; show the worst case.",
        "loopwright tune plant.yaml --html tuning.html",
        _configure_tune,
        _tune,
    ),
)
