"""The verb `hil run`: scenarios, in all their variants, run and judged."""

from __future__ import annotations

import argparse
import multiprocessing as mp
import re
import signal
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

from rich.progress import Progress, TaskID
from rich.table import Table

from controller.errors import LoopwrightError, ScenarioError
from controller.terminal import (
    Verb,
    json_flag,
    print_error,
    print_json,
    progress_bar,
    results,
)
from hil.bundle import SUFFIX, Bundle, open_bundle, reproduced, write_bundle
from hil.judge.judgement import judged, update_golden
from hil.judge.verdict import Verdict
from hil.report.coverage_matrix import (
    Coverage,
    Covered,
    coverage,
    coverage_html,
    coverage_table,
    covered,
)
from hil.runner import Run, run_scenario
from hil.scenario import TIERS, Scenario, load_scenario, variants
from hil.witness import Moment


@dataclass(frozen=True, slots=True)
class _Job:
    """One run, as it can be told to another process."""

    path: str
    changes: Mapping[str, object]
    variant: str
    directory: str
    html: str
    update_golden: bool
    bundle: Bundle | None


@dataclass(frozen=True, slots=True)
class Finished:
    """What is left of a run when it is over.

    Attributes:
        golden: what became of the golden run, in words.
        bundle: where everything lies that reproduces a failure.
    """

    verdict: Verdict
    elapsed_s: float
    directory: str
    covered: Covered
    golden: str = ""
    bundle: str = ""


@dataclass(frozen=True, slots=True)
class _Broken:
    """A run that came to no verdict; the others go on."""

    name: str
    error: LoopwrightError


def end_in_order() -> None:
    """SIGTERM, as of a CI server at its time limit, ends every process of a run as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def _seeds(text: str) -> tuple[int, ...]:
    """`4`, `1-5` or `1,4,9`."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"{text} is no seed; write 4, 1-5 or 1,4,9")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} holds no seed")
    return tuple(dict.fromkeys(found))


def _jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of jobs; write 1 or more")
    return int(text)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenario", nargs="+", type=Path, help="scenario files, directories, or a bundle"
    )
    parser.add_argument("--tier", choices=TIERS, help="instead of the scenario's own")
    parser.add_argument("--seed", type=_seeds, help="instead of the scenario's own: 4, 1-5, 1,4,9")
    parser.add_argument("--jobs", type=_jobs, default=1, help="scenarios at once")
    parser.add_argument("--tag", help="only scenarios with this tag")
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


def _run(arguments: argparse.Namespace) -> int:
    with ExitStack() as stack:
        scenarios, bundle = _chosen(arguments, stack)
        ended = _run_all(_made_jobs(scenarios, bundle, arguments), arguments.jobs)
    finished = [one for one in ended if isinstance(one, Finished)]
    broken = [one for one in ended if isinstance(one, _Broken)]
    if arguments.junit:
        from hil.judge.junit import TimedVerdict, write_junit

        errors = {one.name: str(one.error) for one in broken}
        timed = [TimedVerdict(f.verdict, f.elapsed_s) for f in finished]
        write_junit(timed, arguments.junit, errors)
    if broken and not finished:
        raise broken[0].error
    seen = coverage([f.covered for f in finished])
    if arguments.html:
        (arguments.html / "coverage.html").write_text(coverage_html(seen), encoding="utf-8")
    passed = not broken and all(f.verdict.passed for f in finished)
    status = max((one.error.exit_code for one in broken), default=0 if passed else 1)
    if arguments.json:
        listed = [
            {**f.verdict.plain(), "directory": f.directory, "bundle": f.bundle} for f in finished
        ]
        errors = {one.name: str(one.error) for one in broken}
        document = {"passed": passed, "scenarios": listed, "coverage": seen.plain()}
        print_json(document | ({"errors": errors} if errors else {}))
        return status
    _print_results(finished, seen, table=arguments.coverage)
    for one in broken:
        print_error(one.error, as_json=False)
    return status


def _print_results(finished: Sequence[Finished], seen: Coverage, *, table: bool) -> None:
    results().print(verdict_table(finished))
    for one in finished:
        for check in one.verdict.checks:
            if check.outcome != "passed":
                results().print(f"{one.verdict.scenario}: {check}", markup=False, soft_wrap=True)
        if one.golden:
            results().print(one.golden, markup=False, soft_wrap=True)
        if one.bundle:
            results().print(
                f"{one.verdict.scenario}: reproduce it with loopwright hil run {one.bundle}",
                markup=False,
                soft_wrap=True,
            )
    if seen.faults and table:
        results().print(coverage_table(seen))
    elif seen.faults:
        results().print(f"coverage: {seen}; --coverage tells which in which mode", markup=False)


# --- which runs ------------------------------------------------------------------------------


def _chosen(
    arguments: argparse.Namespace, stack: ExitStack
) -> tuple[list[Scenario], Bundle | None]:
    """Every variant of every scenario that is meant; the bundle, where one is to be run again.

    Raises:
        ScenarioError: there is none, or two could not be told apart.
    """
    paths: list[Path] = list(arguments.scenario)
    bundle: Bundle | None = None
    changes: dict[str, object] = {}
    if any(path.name.endswith(SUFFIX) for path in paths):
        if len(paths) > 1:
            raise ScenarioError(
                "a bundle is run by itself",
                where=", ".join(map(str, paths)),
                mend="Name the bundle only",
            )
        bundle = stack.enter_context(open_bundle(paths[0]))
        paths = [bundle.scenario]
        changes = {"tier": bundle.index.tier, "seed": bundle.index.seed}
    if arguments.tier:
        changes["tier"] = arguments.tier
    found: list[Scenario] = []
    for path in _files(paths):
        for seed in arguments.seed or (None,):
            own = changes if seed is None else {**changes, "seed": seed}
            found += variants(path, own)
    if arguments.tag:
        found = [s for s in found if arguments.tag in s.tags]
    if not found:
        raise ScenarioError(
            "no scenario to run",
            where=", ".join(map(str, arguments.scenario)),
            mend="Name scenario files, or a directory that holds some",
        )
    count = Counter((s.name, s.seed, s.tier) for s in found)
    twice = sorted({s.name for s in found if count[s.name, s.seed, s.tier] > 1})
    if twice:
        raise ScenarioError(
            f"several scenarios have the id {', '.join(twice)}",
            where=", ".join(sorted({str(s.path) for s in found if s.name in twice})),
            mend="Give each an id of its own",
        )
    return found, bundle


def _files(named: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += sorted([*path.glob("*.yaml"), *path.glob("*.yml")])
        else:
            found.append(path)
    return found


def _made_jobs(
    scenarios: Sequence[Scenario], bundle: Bundle | None, arguments: argparse.Namespace
) -> list[_Job]:
    if arguments.update_golden:
        _check_golden_files(scenarios)
    several = Counter(s.name for s in scenarios)
    tiers = Counter((s.name, s.seed) for s in scenarios)
    html = ""
    if arguments.html:
        _made(arguments.html)
        html = str(arguments.html)
    jobs: list[_Job] = []
    for s in scenarios:
        name = s.name
        if several[s.name] > 1:
            name += f"-seed{s.seed}"
        if tiers[s.name, s.seed] > 1:
            name += f"-{s.tier}"
        directory = _fresh(arguments.out / re.sub(r"[^\w.=,+-]+", "-", name).strip("-"))
        _made(directory)
        jobs.append(
            _Job(
                str(s.path),
                dict(s.changes),
                s.variant,
                str(directory),
                html,
                arguments.update_golden,
                bundle,
            )
        )
    return jobs


def _check_golden_files(scenarios: Sequence[Scenario]) -> None:
    """Of several runs only one can be the golden one."""
    count = Counter(s.golden.file for s in scenarios if s.golden is not None)
    for file, runs in count.items():
        if runs > 1:
            raise ScenarioError(
                f"{runs} runs would be written to the same golden file",
                where=str(file),
                mend="Update it with one seed, one tier and one variant of the matrix",
            )


def _made(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ScenarioError(
            f"the directory cannot be made: {error.strerror}",
            where=str(directory),
            mend="Name a place that can be written",
        ) from error


def _fresh(directory: Path) -> Path:
    """The directory, or the first numbered one beside it that does not exist: nothing is lost."""
    candidate, number = directory, 1
    while candidate.exists():
        number += 1
        candidate = directory.with_name(f"{directory.name}-{number}")
    return candidate


# --- running them ----------------------------------------------------------------------------


def _run_all(jobs: Sequence[_Job], at_once: int) -> list[Finished | _Broken]:
    if at_once > 1 and len(jobs) > 1:
        context = mp.get_context("spawn")
        ended: list[Finished | _Broken] = []
        with (
            ProcessPoolExecutor(at_once, mp_context=context, initializer=end_in_order) as pool,
            _workers_end_too(),
            progress_bar() as bar,
        ):
            task = bar.add_task("scenarios", total=len(jobs), numbers="")
            for one in pool.map(_attempt, jobs):
                ended.append(one)
                name = Path(jobs[len(ended) - 1].directory).name
                bar.update(task, completed=len(ended), numbers=name)
        return ended
    ended = []
    with progress_bar() as bar:
        for job in jobs:
            ended.append(_attempt(job, bar_of(bar, Path(job.directory).name)))
    return ended


@contextmanager
def _workers_end_too() -> Generator[None]:
    """Where this process is told to end, so are those that run its scenarios."""
    try:
        yield
    except BaseException:
        for worker in mp.active_children():
            worker.terminate()
        raise


def _attempt(job: _Job, progress: Any = None) -> Finished | _Broken:
    try:
        return _run_one(job, progress)
    except LoopwrightError as error:
        return _Broken(Path(job.directory).name, error)


def _run_one(job: _Job, progress: Any = None) -> Finished:
    begun = perf_counter()
    scenario = load_scenario(job.path, job.changes, variant=job.variant)
    # A golden run that is to be replaced, perhaps because it is damaged, is no judge.
    asked = replace(scenario, golden=None) if job.update_golden else scenario
    run = run_scenario(asked, Path(job.directory), progress=progress)
    verdict, golden = run.verdict, ""
    if job.update_golden:
        golden = update_golden(scenario, run.history, verdict.kpis)
        verdict = judged(scenario, run.history, verdict.kpis, verdict.version)
    if job.bundle is not None:
        again = reproduced(job.bundle, run.directory)
        verdict = verdict.with_check(again)
    if job.html:
        from hil.report.write import write_report

        write_report(run.directory, Path(job.html) / f"{run.directory.name}.html")
    return Finished(
        verdict,
        perf_counter() - begun,
        str(run.directory),
        covered(scenario, run.history),
        golden,
        "" if verdict.passed or job.bundle is not None else _packed(scenario, run),
    )


def _packed(scenario: Scenario, run: Run) -> str:
    """A bundle of a run that failed, beside its directory."""
    path = run.directory.with_name(run.directory.name + SUFFIX)
    wrong = [str(check) for check in run.verdict.checks if check.outcome != "passed"]
    return str(write_bundle(path, scenario, run.directory, wrong))


def bar_of(bar: Progress, title: str) -> Any:
    """Shows the moments of a run on a progress bar."""
    tasks: dict[str, TaskID] = {}

    def show(moment: Moment) -> None:
        if moment.phase not in tasks:
            label = title if moment.phase == "run" else moment.phase
            tasks[moment.phase] = bar.add_task(label, total=moment.cycles, numbers="")
        if moment.cycle % 10 == 0 or moment.cycle == moment.cycles:
            numbers = moment.numbers
            bar.update(tasks[moment.phase], completed=moment.cycle, numbers=numbers)

    return show


def verdict_table(finished: Sequence[Finished]) -> Table:
    table = Table(title="HIL verdicts")
    for column in ("scenario", "tier", "seed", "verdict", "checks", "cycles", "time"):
        table.add_column(column, justify="left" if column == "scenario" else "right")
    for one in finished:
        verdict = one.verdict
        good = sum(c.outcome == "passed" for c in verdict.checks)
        table.add_row(
            verdict.scenario,
            verdict.tier,
            str(verdict.seed),
            verdict.word,
            f"{good}/{len(verdict.checks)}",
            f"{verdict.kpis.get('cycles', 0):.0f}",
            f"{one.elapsed_s:.1f} s",
        )
    return table


run = Verb(
    "run",
    "Run scenarios and judge them.",
    "loopwright hil run config/scenarios --tier wire --junit out.xml",
    _configure,
    _run,
)
