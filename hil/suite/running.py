"""Runs the jobs of a suite, on several processes if wanted; one that breaks costs no other."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from controller.errors import JournalError, LoopwrightError, ProcessLost
from controller.terminal import progress_bar
from hil.bundle import SUFFIX, reproduced, write_bundle
from hil.judge.judgement import judged, update_golden
from hil.report.coverage_matrix import covered
from hil.runner import Run, run_scenario
from hil.scenario import Scenario, load_scenario
from hil.suite.jobs import Job
from hil.suite.outcome import Broken, Finished
from hil.suite.shown import bar_of
from hil.witness import Progress
from hil.workers import in_turn

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def run_all(jobs: Sequence[Job], at_once: int) -> list[Finished | Broken]:
    """What became of each job, in their order, with a progress bar on a terminal."""
    if at_once == 1 or len(jobs) == 1:
        with progress_bar() as bar:
            return [_attempt(job, bar_of(bar, job.name)) for job in jobs]
    ended: list[Finished | Broken] = []
    with closing(in_turn(_attempt, jobs, at_once)) as outcomes, progress_bar() as bar:
        task = bar.add_task("scenarios", total=len(jobs), numbers="")
        for job, one in zip(jobs, outcomes, strict=True):
            if isinstance(one, ProcessLost):
                one.where = job.name
                ended.append(Broken(job.name, one))
            else:
                ended.append(one)
            bar.update(task, completed=len(ended), numbers=job.name)
    return ended


def _attempt(job: Job, progress: Progress | None = None) -> Finished | Broken:
    try:
        return _run_one(job, progress)
    except LoopwrightError as error:
        return Broken(job.name, error)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        full = JournalError(
            f"the data of the run cannot be written: {error.strerror}",
            where=job.directory,
            mend="Make room, and run it again",
        )
        return Broken(job.name, full)


def _run_one(job: Job, progress: Progress | None = None) -> Finished:
    begun = perf_counter()
    scenario = load_scenario(job.path, job.changes, variant=job.variant)
    # A golden run that is to be replaced, perhaps because it is damaged, is no judge.
    asked = replace(scenario, golden=None) if job.update_golden else scenario
    run = run_scenario(asked, Path(job.directory), progress=progress)
    verdict, golden = run.verdict, ""
    if job.update_golden and verdict.passed:
        golden = update_golden(scenario, run.history, verdict.kpis)
        verdict = judged(scenario, run.history, verdict.kpis, verdict.version)
    elif job.update_golden and scenario.golden is not None:
        golden = f"{scenario.golden.file}: not updated, for this run is no example"
    if job.bundle is not None:
        verdict = verdict.with_check(reproduced(job.bundle, run.directory))
    finished = Finished(
        verdict, perf_counter() - begun, str(run.directory), covered(scenario, run.history), golden
    )
    return _kept(finished, job, scenario, run)


def _kept(finished: Finished, job: Job, scenario: Scenario, run: Run) -> Finished:
    """With its page, and its bundle if it failed; without them the verdict stands all the same."""
    try:
        if job.html:
            from hil.report.write import write_report

            write_report(run.directory, Path(job.html) / f"{run.directory.name}.html")
        if not finished.verdict.passed and job.bundle is None:
            finished = replace(finished, bundle=_packed(scenario, run))
    except LoopwrightError as error:
        return replace(finished, unwritten=error)
    return finished


def _packed(scenario: Scenario, run: Run) -> str:
    """A bundle of a run that failed, beside its directory."""
    path = run.directory.with_name(run.directory.name + SUFFIX)
    wrong = [str(check) for check in run.verdict.checks if check.outcome != "passed"]
    return str(write_bundle(path, scenario, run.directory, wrong))
