"""The command line: finds the verbs, runs one, turns every error into one clear message.

Verbs of this package are listed here; other packages bring theirs by the entry point group
`loopwright.commands`. Exit: 0 fine, 1 a verdict failed, 2 bad input, 3 it broke while running.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import cast

import controller.blas  # noqa: F401  # pyright: ignore[reportUnusedImport]  (before numpy)
from controller.entry_verbs import ENTRY_VERBS
from controller.errors import LoopwrightError
from controller.replay_verb import REPLAY_VERBS
from controller.terminal import Verb, print_error
from controller.verbs import CORE_VERBS
from controller.workbench_verbs import WORKBENCH_VERBS

GROUP = "loopwright.commands"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.execute(parsed))
    except LoopwrightError as error:
        print_error(error, as_json=bool(getattr(parsed, "json", False)))
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): not an error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _verbs() -> list[Verb]:
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    brought = (cast("Verb", point.load()) for point in points)
    return [*CORE_VERBS, *REPLAY_VERBS, *ENTRY_VERBS, *WORKBENCH_VERBS, *brought]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loopwright",
        description="Closed-loop, self-optimizing process controller above the PLCs of a plant.",
        epilog="Start with: loopwright demo",
    )
    parser.add_argument("--version", action="version", version=version("loopwright"))
    sections = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _verbs():
        section = sections.add_parser(
            verb.name,
            help=verb.summary,
            description=verb.summary,
            epilog=f"example:\n  {verb.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.configure(section)
        section.set_defaults(execute=verb.execute)
    return parser


if __name__ == "__main__":
    sys.exit(main())
