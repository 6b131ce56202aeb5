"""The verb `hil run`: scenarios, in all their variants, run and judged."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from controller.errors import ScenarioError
from controller.terminal import Verb, json_flag, print_error, print_json
from hil.report.coverage_matrix import Coverage, coverage, coverage_html
from hil.scenario import TIERS
from hil.seeds import seeds_of
from hil.suite.jobs import Asked, jobs_of, make_directory
from hil.suite.running import Broken, Finished, run_all
from hil.suite.shown import print_results


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
        ended = run_all(jobs_of(asked, stack), arguments.jobs)
    finished = [one for one in ended if isinstance(one, Finished)]
    broken = [one for one in ended if isinstance(one, Broken)]
    if arguments.junit:
        from hil.judge.junit import TimedVerdict, write_junit

        errors = {one.name: str(one.error) for one in broken}
        timed = [TimedVerdict(f.verdict, f.elapsed_s) for f in finished]
        write_junit(timed, arguments.junit, errors)
    if len(broken) == len(ended) == 1:
        raise broken[0].error
    seen = coverage([f.covered for f in finished])
    if arguments.html:
        (arguments.html / "coverage.html").write_text(coverage_html(seen), encoding="utf-8")
    passed = not broken and all(f.verdict.passed for f in finished)
    if arguments.json:
        print_json(_document(finished, broken, seen, passed=passed))
    else:
        print_results(finished, seen, table=arguments.coverage)
    for one in broken:
        print_error(one.error, as_json=False)
    return max((one.error.exit_code for one in broken), default=0 if passed else 1)


def _check_place(junit: Path) -> None:
    """Told before the runs, which may take hours, and not after them."""
    make_directory(junit.parent)
    if junit.is_dir():
        raise ScenarioError(
            "the JUnit file would be a directory", where=str(junit), mend="Name a file in it"
        )


def _document(
    finished: Sequence[Finished], broken: Sequence[Broken], seen: Coverage, *, passed: bool
) -> dict[str, object]:
    listed = [{**f.verdict.plain(), "directory": f.directory, "bundle": f.bundle} for f in finished]
    document: dict[str, object] = {
        "passed": passed,
        "scenarios": listed,
        "coverage": seen.plain(),
    }
    if broken:
        document["errors"] = {one.name: str(one.error) for one in broken}
    return document


run = Verb(
    "run",
    "Run scenarios in all their variants, and judge them.",
    "loopwright hil run config/scenarios --tier virtual --jobs 2",
    _configure,
    _execute,
)
