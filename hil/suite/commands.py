"""The verb `hil run`: scenarios, in all their variants, run and judged."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from controller.errors import JournalError, LoopwrightError, ScenarioError
from controller.terminal import Verb, json_flag, print_error, print_json
from hil.report.coverage_matrix import Coverage, coverage, coverage_html
from hil.scenario import TIERS, LeftOut
from hil.seeds import seeds_of
from hil.suite.jobs import Asked, make_directory, suite_of
from hil.suite.outcome import Broken, Finished
from hil.suite.running import run_all
from hil.suite.shown import print_results
from hil.whole_file import write_whole


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of jobs; write 1 or more")
    return int(text)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="+", type=Path, help="scenario files, directories, or a bundle"
    )
    parser.add_argument("--tier", choices=TIERS, help="instead of the scenario's own")
    parser.add_argument(
        "--seed", type=seeds_of, default=(), help="instead of the scenario's own: 4, 1-5, 1,4,9"
    )
    parser.add_argument("--jobs", type=_jobs, default=1, help="scenarios at once")
    parser.add_argument("--tag", default="", help="only scenarios with this tag")
    parser.add_argument("--out", type=Path, default=Path("out/hil"), help="directory for the data")
    parser.add_argument("--junit", type=Path, help="write JUnit XML")
    parser.add_argument("--html", type=Path, help="directory for one HTML report per run")
    parser.add_argument(
        "--update-golden", action="store_true", help="make these runs the golden ones"
    )
    parser.add_argument(
        "--coverage", action="store_true", help="table of fault types by mode and plant"
    )
    json_flag(parser)


def _execute(arguments: argparse.Namespace) -> int:
    asked = Asked(
        paths=tuple(arguments.scenario),
        out=arguments.out,
        tier=arguments.tier,
        seeds=arguments.seed,
        tag=arguments.tag,
        html=arguments.html,
        update_golden=arguments.update_golden,
    )
    if arguments.junit:
        _check_place(arguments.junit)
    with ExitStack() as stack:
        suite = suite_of(asked, stack)
        ended = run_all(suite.jobs, arguments.jobs)
    finished = [one for one in ended if isinstance(one, Finished)]
    broken = [one for one in ended if isinstance(one, Broken)]
    told = Told(finished, broken, suite.left_out, coverage([f.covered for f in finished]))
    alone = len(broken) == len(ended) == 1 and not suite.left_out
    if not alone and arguments.json:
        print_json(told.document())
    elif not alone:
        print_results(finished, suite.left_out, told.seen, table=arguments.coverage)
    # What was found stands on the screen before anything else may fail.
    wrong = [one.error for one in broken]
    wrong += [one.unwritten for one in finished if one.unwritten is not None]
    wrong += _written(told, arguments.junit, arguments.html)
    for error in wrong[alone:]:
        print_error(error, as_json=False)
    if alone:
        raise wrong[0]
    return max((error.exit_code for error in wrong), default=0 if told.passed else 1)


@dataclass(frozen=True, slots=True)
class Told:
    """All that a suite has shown."""

    finished: Sequence[Finished]
    broken: Sequence[Broken]
    left_out: Sequence[LeftOut]
    seen: Coverage

    @property
    def passed(self) -> bool:
        return not self.broken and all(f.verdict.passed for f in self.finished)

    @property
    def errors(self) -> dict[str, str]:
        """By run, why it came to no verdict."""
        return {one.name: str(one.error) for one in self.broken}

    @property
    def reasons(self) -> dict[str, str]:
        """By run that was left out, why."""
        several = Counter(one.scenario.name for one in self.left_out)
        return {
            s.name + (f" (seed {s.seed})" if several[s.name] > 1 else ""): one.reason
            for one in self.left_out
            for s in [one.scenario]
        }

    def document(self) -> dict[str, object]:
        listed = [
            {**f.verdict.plain(), "directory": f.directory, "bundle": f.bundle}
            for f in self.finished
        ]
        document: dict[str, object] = {
            "passed": self.passed,
            "scenarios": listed,
            "coverage": self.seen.plain(),
        }
        if self.broken:
            document["errors"] = self.errors
        if self.left_out:
            document["left_out"] = self.reasons
        return document


def _written(told: Told, junit: Path | None, html: Path | None) -> list[LoopwrightError]:
    """Write what is asked for of the whole suite; what could not be written."""
    wrong: list[LoopwrightError] = []
    if junit is not None:
        from hil.judge.junit import TimedVerdict, write_junit

        timed = [TimedVerdict(f.verdict, f.elapsed_s) for f in told.finished]
        try:
            write_junit(timed, junit, told.errors, told.reasons)
        except LoopwrightError as error:
            wrong.append(error)
    if html is not None:
        page = html / "coverage.html"
        try:
            write_whole(page, coverage_html(told.seen).encode())
        except OSError as error:
            wrong.append(
                JournalError(
                    f"the table of faults cannot be written: {error.strerror}",
                    where=str(page),
                    mend="Make room, and run it again",
                )
            )
    return wrong


def _check_place(junit: Path) -> None:
    """Told before the runs, which may take hours, and not after them."""
    make_directory(junit.parent)
    if junit.is_dir():
        raise ScenarioError(
            "the JUnit file would be a directory", where=str(junit), mend="Name a file in it"
        )


run = Verb(
    "run",
    "Run scenarios in all their variants, and judge them.",
    "loopwright hil run config/scenarios --tier virtual --jobs 2",
    _configure,
    _execute,
)
