"""The verbs of the harness: demo, hil and report, found by the entry point group."""

from __future__ import annotations

import argparse
import multiprocessing as mp
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.progress import Progress, TaskID
from rich.table import Table

from controller.errors import ScenarioError
from controller.settings.quantity import QuantityError, seconds
from controller.terminal import Verb, json_flag, messages, print_json, progress_bar, results
from hil.demo import demo_document, demo_table, run_demo
from hil.runner import Moment, run_scenario
from hil.scenario import TIERS, Scenario, load_scenario
from hil.verdict import Verdict


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except QuantityError as error:
        raise argparse.ArgumentTypeError(f"{error}; write 8h or 30 min") from error


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of jobs; write 1 or more")
    return int(text)


# --- demo ------------------------------------------------------------------------------------


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=_duration, help="simulated time, e.g. 8h")
    parser.add_argument("--out", type=Path, default=Path("loopwright-demo"), help="data directory")
    parser.add_argument("--seed", type=int, help="seed of noise, laboratory and faults")
    parser.add_argument("--tier", choices=TIERS, help="wire (real sockets) or virtual")
    json_flag(parser)


def _demo(arguments: argparse.Namespace) -> int:
    console = messages()
    with progress_bar() as bar:
        run, report, elapsed_s = run_demo(
            arguments.out,
            tier=arguments.tier,
            seed=arguments.seed,
            duration_s=arguments.duration,
            progress=_bar_of(bar, "demo"),
        )
    if arguments.json:
        print_json(demo_document(run, elapsed_s))
    else:
        results().print(demo_table(run, elapsed_s))
        results().print(f"report: {report}", markup=False, soft_wrap=True)
        results().print(f"data:   {run.directory}", markup=False, soft_wrap=True)
        for check in run.verdict.checks:
            if check.outcome != "passed":
                console.print(f"{check}", style="bold red", markup=False)
    return 0 if run.verdict.passed else 1


def _bar_of(bar: Progress, title: str) -> Any:
    tasks: dict[str, TaskID] = {}

    def show(moment: Moment) -> None:
        if moment.phase not in tasks:
            label = title if moment.phase == "run" else moment.phase
            tasks[moment.phase] = bar.add_task(label, total=moment.cycles, numbers="")
        if moment.cycle % 10 == 0 or moment.cycle == moment.cycles:
            numbers = moment.numbers
            bar.update(tasks[moment.phase], completed=moment.cycle, numbers=numbers)

    return show


# --- hil run ---------------------------------------------------------------------------------


def _configure_hil(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser(
        "run",
        help="run scenarios and judge them",
        epilog="example:\n  loopwright hil run config/scenarios --tier wire --junit out.xml",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("scenario", nargs="+", type=Path, help="scenario files or directories")
    run.add_argument("--tier", choices=TIERS, help="instead of the scenario's own")
    run.add_argument("--seed", type=int, help="instead of the scenario's own")
    run.add_argument("--jobs", type=_jobs, default=1, help="scenarios at once")
    run.add_argument("--tag", help="only scenarios with this tag")
    run.add_argument("--out", type=Path, default=Path("out/hil"), help="directory for the data")
    run.add_argument("--junit", type=Path, help="write JUnit XML")
    run.add_argument("--html", type=Path, help="directory for one HTML report per scenario")
    json_flag(run)


def _hil(arguments: argparse.Namespace) -> int:
    paths = _scenario_files(arguments.scenario)
    scenarios = [load_scenario(path) for path in paths]
    if arguments.tag:
        scenarios = [s for s in scenarios if arguments.tag in s.tags]
    if not scenarios:
        raise ScenarioError(
            "no scenario to run",
            where=", ".join(map(str, arguments.scenario)),
            mend="Name scenario files, or a directory that holds some",
        )
    twice = sorted({s.id for s in scenarios if sum(t.id == s.id for t in scenarios) > 1})
    if twice:
        raise ScenarioError(
            f"several scenarios have the id {', '.join(twice)}",
            where=", ".join(str(s.path) for s in scenarios if s.id in twice),
            mend="Give each an id of its own",
        )
    finished = _run_all(scenarios, arguments)
    verdicts = [(verdict, elapsed_s) for verdict, elapsed_s in finished]
    if arguments.junit:
        from hil.junit import TimedVerdict, write_junit

        write_junit([TimedVerdict(v, elapsed_s) for v, elapsed_s in verdicts], arguments.junit)
    passed = all(verdict.passed for verdict, _ in verdicts)
    if arguments.json:
        print_json({"passed": passed, "scenarios": [v.plain() for v, _ in verdicts]})
    else:
        results().print(_verdict_table(verdicts))
        for verdict, _ in verdicts:
            for check in verdict.checks:
                if check.outcome != "passed":
                    results().print(f"{verdict.scenario}: {check}", markup=False)
    return 0 if passed else 1


def _scenario_files(named: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        else:
            found.append(path)
    return found


def _run_all(
    scenarios: Sequence[Scenario], arguments: argparse.Namespace
) -> list[tuple[Verdict, float]]:
    jobs = [
        (
            str(s.path),
            str(_fresh(arguments.out / s.id)),
            arguments.tier,
            arguments.seed,
            str(arguments.html) if arguments.html else "",
        )
        for s in scenarios
    ]
    if arguments.jobs > 1 and len(jobs) > 1:
        context = mp.get_context("spawn")
        with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
            return list(pool.map(_run_one, *zip(*jobs, strict=True)))
    finished: list[tuple[Verdict, float]] = []
    with progress_bar() as bar:
        for scenario, job in zip(scenarios, jobs, strict=True):
            finished.append(_run_one(*job, progress=_bar_of(bar, scenario.id)))
    return finished


def _run_one(
    path: str, directory: str, tier: Any, seed: int | None, html: str, progress: Any = None
) -> tuple[Verdict, float]:
    begun = perf_counter()
    run = run_scenario(
        load_scenario(path), Path(directory), tier=tier, seed=seed, progress=progress
    )
    if html:
        from hil.report import write_report

        Path(html).mkdir(parents=True, exist_ok=True)
        write_report(run.directory, Path(html) / f"{run.verdict.scenario}.html")
    return run.verdict, perf_counter() - begun


def _fresh(directory: Path) -> Path:
    """The directory, or the first numbered one beside it that does not exist: nothing is lost."""
    candidate, number = directory, 1
    while candidate.exists():
        number += 1
        candidate = directory.with_name(f"{directory.name}-{number}")
    return candidate


def _verdict_table(verdicts: Sequence[tuple[Verdict, float]]) -> Table:
    table = Table(title="HIL verdicts")
    for column in ("scenario", "tier", "seed", "verdict", "checks", "cycles", "time"):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for verdict, elapsed_s in verdicts:
        good = sum(c.outcome == "passed" for c in verdict.checks)
        table.add_row(
            verdict.scenario,
            verdict.tier,
            str(verdict.seed),
            "passed" if verdict.passed else "FAILED",
            f"{good}/{len(verdict.checks)}",
            f"{verdict.kpis.get('cycles', 0):.0f}",
            f"{elapsed_s:.1f} s",
        )
    return table


# --- report ----------------------------------------------------------------------------------


def _configure_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data directory of a run")
    parser.add_argument("--out", type=Path, help="HTML file (default: report.html beside the data)")
    json_flag(parser)


def _report(arguments: argparse.Namespace) -> int:
    from hil.report import write_report

    path = write_report(arguments.data, arguments.out)
    if arguments.json:
        print_json({"report": str(path)})
    else:
        results().print(f"report: {path}", markup=False, soft_wrap=True)
    return 0


demo = Verb(
    "demo",
    "One simulated day of a self-optimizing reactor over real S7 and Modbus sockets.",
    "loopwright demo",
    _configure_demo,
    _demo,
)
hil = Verb(
    "hil",
    "Run hardware-in-the-loop scenarios against a simulated plant behind real sockets.",
    "loopwright hil run config/scenarios --tier wire --junit out.xml",
    _configure_hil,
    _hil,
)
report = Verb(
    "report",
    "Write one self-contained HTML report of a run.",
    "loopwright report loopwright-demo",
    _configure_report,
    _report,
)
