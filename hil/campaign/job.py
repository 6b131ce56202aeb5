"""One job of a campaign: a scenario with its changes, run in a temporary directory, as one row."""

from __future__ import annotations

import multiprocessing as mp
import threading
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from controller.app import build_application
from controller.cycle.application import Application
from controller.errors import LoopwrightError, ScenarioError
from hil.campaign.code_version import code_version
from hil.campaign.order import KPI, Order, Row, failure
from hil.campaign.parcel import scratch, unpack
from hil.judge.verdict import Check, Verdict
from hil.runner import run_scenario
from hil.scenario import Scenario, load_scenario

NO_PROCESS = "this worker may start no process, and a replay needs one"
MEND_NO_PROCESS = "Start Dask workers with --no-nanny, or leave replay_every out"

_REPLAY = ("replay_identical", "replayed_cycles")


class _Applications:
    """The last application built in this process: compiled once, used by job after job.

    One job at a time: solvers keep work space, which two threads must not share.
    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._key: tuple[object, ...] | None = None
        self._built: Application | None = None

    def of(self, scenario: Scenario) -> Application:
        settings = scenario.settings
        key = (settings.text, str(settings.path), repr(sorted(settings.overrides.items())))
        if self._built is None or key != self._key:
            self._built, self._key = build_application(settings, epoch=1), key
        return self._built


_applications = _Applications()


def execute(order: Order) -> Row:
    """Run a job. Whatever breaks inside it is a row that failed, with the error in words.

    Raises:
        ScenarioError: this process runs other code than the campaign was started with.
    """
    if order.code != code_version():
        raise ScenarioError(
            f"a worker runs Loopwright {code_version()}, the campaign {order.code}",
            where="campaign worker",
            mend="Install the same version everywhere, and restart the workers",
        )
    with _applications.turn:
        begun = perf_counter()
        try:
            verdict = _verdict(order)
        except Exception as error:  # noqa: BLE001  (a plant is foreign code: it raises what it likes)
            row = failure(order, _words(error))
        else:
            row = _row(order, verdict)
        return {**row, "wall_s": perf_counter() - begun}


def _row(order: Order, verdict: Verdict) -> Row:
    failed = failed_checks(verdict.checks, replayed=order.replay)
    kept = {
        f"{KPI}{name}": float(value) if isfinite(value) else None
        for name, value in verdict.kpis.items()
        if any(fnmatchcase(name, pattern) for pattern in order.kpis)
    }
    words = "; ".join(f"{check.name} {check.outcome}" for check in failed)
    return order.frame | {"passed": not failed, "failed": words, "error": "", **kept}


def failed_checks(checks: Sequence[Check], *, replayed: bool) -> list[Check]:
    """Checks of severity `fail` that did not pass. What only a replay could tell counts when there
    was one: campaigns replay a sample."""
    return [
        check
        for check in checks
        if check.severity == "fail"
        and check.outcome != "passed"
        and (replayed or check.name not in _REPLAY)
    ]


def _verdict(order: Order) -> Verdict:
    if order.replay and mp.current_process().daemon:
        raise ScenarioError(NO_PROCESS, where="replay_every", mend=MEND_NO_PROCESS)
    scenario = load_scenario(
        unpack(order.parcel), {**order.changes, **order.values}, variant=order.variant
    )
    # A golden run is that of one plant and one seed, of which a campaign has many.
    scenario = replace(scenario, golden=None)
    with TemporaryDirectory(dir=scratch(), prefix="job-") as folder:
        run = run_scenario(
            scenario,
            Path(folder) / "data",
            tier=order.tier,
            seed=order.seed,
            duration_s=order.duration_s,
            check_replay=order.replay,
            application=_applications.of(scenario),
        )
    return run.verdict


def _words(error: Exception) -> str:
    if isinstance(error, LoopwrightError):
        # Where this machine keeps its temporary files is nobody's concern.
        return f"{type(error).__name__}: {error}".replace(f"{scratch()}/", "")
    return f"{type(error).__name__}: {error}"
