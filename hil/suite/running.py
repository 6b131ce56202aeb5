"""Runs the jobs of a suite, on several processes if wanted; one that breaks costs no other."""

from __future__ import annotations

import multiprocessing as mp
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from types import FrameType

from controller.errors import LoopwrightError
from controller.terminal import progress_bar
from hil.bundle import SUFFIX, reproduced, write_bundle
from hil.interrupts import interrupts_held
from hil.judge.judgement import judged, update_golden
from hil.judge.verdict import Verdict
from hil.report.coverage_matrix import Covered, covered
from hil.runner import Run, run_scenario
from hil.scenario import Scenario, load_scenario
from hil.suite.jobs import Job
from hil.suite.shown import bar_of
from hil.witness import Progress


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
class Broken:
    """A run that came to no verdict; the others go on."""

    name: str
    error: LoopwrightError


def end_in_order() -> None:
    """SIGTERM, as of a CI server at its time limit, ends every process of a run as Ctrl-C does."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def run_all(jobs: Sequence[Job], at_once: int) -> list[Finished | Broken]:
    """What became of each job, in their order, with a progress bar on a terminal."""
    if at_once == 1 or len(jobs) == 1:
        with progress_bar() as bar:
            return [_attempt(job, bar_of(bar, job.name)) for job in jobs]
    context = mp.get_context("spawn")
    workers = min(at_once, len(jobs))
    ended: list[Finished | Broken] = []
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=end_in_order) as pool,
        _workers_end_too(),
        progress_bar() as bar,
    ):
        task = bar.add_task("scenarios", total=len(jobs), numbers="")
        with interrupts_held():
            outcomes = pool.map(_attempt, jobs)
        for job, one in zip(jobs, outcomes, strict=True):
            ended.append(one)
            bar.update(task, completed=len(ended), numbers=job.name)
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


def _attempt(job: Job, progress: Progress | None = None) -> Finished | Broken:
    try:
        return _run_one(job, progress)
    except LoopwrightError as error:
        return Broken(job.name, error)


def _run_one(job: Job, progress: Progress | None = None) -> Finished:
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
        verdict = verdict.with_check(reproduced(job.bundle, run.directory))
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
