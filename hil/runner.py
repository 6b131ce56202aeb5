"""Runs a scenario: production loop and journal against a world, in whatever tier, and judges it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec

from controller.app import open_devices
from controller.cycle.application import Application
from controller.errors import ScenarioError
from controller.historian.events import EventStore
from controller.historian.journal import SqliteJournal
from controller.historian.writer import LossBound
from controller.loop import Loop
from controller.optimizer.expression import compile_expression
from controller.ports import Transport
from controller.replay import Replayed
from controller.settings import Settings, changed
from hil.control.side import Account, Assignment, Tell, control
from hil.faults.kinds import check_tier
from hil.follower import Follower
from hil.history import History
from hil.judge.judgement import check_signals, judged
from hil.judge.verdict import Verdict
from hil.kpi.kpis import kpis
from hil.rig import Rig, build_rig
from hil.scenario.parts import Scenario, Tier
from hil.witness import Moment, Progress, Witness
from hil.world import START_NS, LockstepClock

if TYPE_CHECKING:
    from hil.control.host import ControlHost
    from hil.control.supervisor import Supervisor

VERDICT_FILE = "verdict.json"
HISTORY_FILE = "history.npz"
SCENARIO_FILE = "scenario.yaml"
_MAIL_BUSY_S = 0.1
_CYCLES_A_COMMIT = 100
"""Where the controller shares this process: nothing can end it alone, so little is to be lost."""


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run: the verdict and where its data lie."""

    verdict: Verdict
    history: History
    directory: Path
    replayed: Replayed | None
    cycle_s: float
    unit: str


@dataclass(slots=True)
class _Checking:
    """The replay beside the run; begins with the first cycle, when there is a journal."""

    scenario: Scenario
    directory: Path
    wanted: bool
    follower: Follower | None = None

    def begin(self) -> None:
        if self.wanted and self.follower is None:
            self.follower = Follower(self.directory, self.scenario.solver_faults, START_NS)

    def cancel(self) -> None:
        if self.follower is not None:
            self.follower.cancel()

    def finish(self, progress: Progress | None) -> Replayed | None:
        follower, self.follower = self.follower, None
        if follower is None:
            return None
        cycles = self.scenario.cycles
        if progress is None:
            return follower.finish()
        return follower.finish(
            lambda done: progress(
                Moment(done.cycles, cycles, "replay", lambda: f"{done.identical} identical")
            )
        )


def run_scenario(
    scenario: Scenario,
    directory: Path,
    *,
    tier: Tier | None = None,
    seed: int | None = None,
    duration_s: float | None = None,
    check_replay: bool = True,
    progress: Progress | None = None,
    application: Application | None = None,
) -> Run:
    """Run a scenario into `directory`, which must not hold a journal yet, and judge it.

    Args:
        application: built before for the same settings; used where the controller runs in this
            process, to save the time.

    Raises:
        ScenarioError, SettingsError: the scenario or its application cannot be run.
        JournalError: the directory cannot be written.
    """
    scenario = replace(
        scenario,
        tier=tier or scenario.tier,
        seed=scenario.seed if seed is None else seed,
        duration_s=duration_s or scenario.duration_s,
    )
    check_tier(scenario.faults, scenario.tier)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SCENARIO_FILE).write_text(scenario.text, encoding="utf-8")
    begun_s = perf_counter()
    with ExitStack() as stack:
        checking = _Checking(scenario, directory, check_replay)
        stack.callback(checking.cancel)
        clock = LockstepClock(lambda time_ns: rig.world.run_until(time_ns))
        host = _host(stack, scenario)
        rig = build_rig(stack, scenario, clock, host)
        check_signals(scenario, rig.plc.outputs(), rig.plc.inputs())
        witness = _witness(scenario, rig, progress)
        found: dict[str, float] = {}
        endings: list[str] = []

        def tell(account: Account) -> None:
            checking.begin()
            witness(account)

        if host is None:
            _run_here(stack, scenario, rig, clock, directory, tell, application)
        else:
            supervisor = _run_apart(stack, scenario, rig, host, directory, tell)
            endings = supervisor.endings
            found |= {
                "control_starts": float(supervisor.starts),
                "control_endings": float(len(endings)),
                "control_unready": float(supervisor.unready),
            }
        if not witness.history.columns:
            raise ScenarioError(
                "the controller made no cycle, so there is nothing to judge",
                where=str(scenario.path),
                mend="Let the run last longer, or the faults of the controller begin later",
            )
        found |= kpis(
            scenario,
            witness.history,
            rig.plc.statistics,
            witness.lab,
            rig.watch.writes,
            len(rig.watch.violations),
        )
        replayed = checking.finish(progress)
    if replayed is not None:
        found["replayed_cycles"] = float(replayed.cycles)
        # Of a journal that was lost whole, nothing can be said.
        found["replay_identical"] = float(replayed.passed) if replayed.cycles else nan
    found["invariant_violations"] = float(len(witness.invariants.violations))
    found["wall_s"] = perf_counter() - begun_s
    return _finished(scenario, directory, rig, witness, found, replayed, endings)


def _finished(
    scenario: Scenario,
    directory: Path,
    rig: Rig,
    witness: Witness,
    found: dict[str, float],
    replayed: Replayed | None,
    endings: Sequence[str],
) -> Run:
    """The verdict, and everything written down.

    Args:
        endings: of the control process, each with its time.
    """
    history = witness.history
    verdict = judged(scenario, history, found, version("loopwright"))
    history.save(directory / HISTORY_FILE)
    report: dict[str, Any] = {
        **verdict.plain(),
        "violations": [
            *map(str, rig.watch.violations),
            *map(str, witness.invariants.violations),
        ],
        "control_endings": list(endings),
        "duration_s": scenario.duration_s,
        "faults": _faults(scenario),
        "scenario_path": scenario.path.name,
        "scenario_folder": os.path.relpath(scenario.path.resolve().parent, directory.resolve()),
    }
    (directory / VERDICT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    unit = scenario.economics.unit if scenario.economics is not None else ""
    return Run(verdict, history, directory, replayed, scenario.settings.cycle_s, unit)


def _faults(scenario: Scenario) -> list[dict[str, object]]:
    """What was broken when, also where no cycle felt it; seconds of scenario time."""
    spans = [(f.at_s, f.until_s, f"{f.type} {f.target}") for f in scenario.faults]
    spans += [(f.at_s, f.until_s, str(f)) for f in scenario.solver_faults]
    return [
        {"begin_s": begin_s, "end_s": min(end_s, scenario.duration_s), "what": what}
        for begin_s, end_s, what in sorted(spans)
        if begin_s < scenario.duration_s
    ]


def _witness(scenario: Scenario, rig: Rig, progress: Progress | None) -> Witness:
    economics = scenario.economics
    return Witness(
        rig.world,
        scenario,
        History(),
        rig.invariants,
        progress,
        None if economics is None else compile_expression(economics.profit),
    )


def _host(stack: ExitStack, scenario: Scenario) -> ControlHost | None:
    """A process for the controller where it must be one."""
    if scenario.tier != "realtime" and not scenario.has_host_faults:
        return None
    from hil.control.host import ControlHost

    host = ControlHost()
    stack.callback(host.close)
    return host


def _assignment(scenario: Scenario, rig: Rig, directory: Path) -> Assignment:
    settings = scenario.settings
    return Assignment(
        directory=directory,
        settings_text=settings.text,
        settings_path=settings.path,
        overrides=dict(settings.overrides),
        addresses=rig.addresses,
        seed=scenario.seed,
        solver_faults=scenario.solver_faults,
        own_optimizer=scenario.tier == "realtime",
    )


def _run_here(
    stack: ExitStack,
    scenario: Scenario,
    rig: Rig,
    clock: LockstepClock,
    directory: Path,
    tell: Tell,
    application: Application | None,
) -> None:
    """The controller in this process, in lock-step with the world."""
    settings, devices = scenario.settings, rig.transports
    if rig.addresses:
        settings = changed(settings, rig.addresses)
        devices = _dialled(stack, settings, clock, scenario.seed)

    def started(_: Loop, journal: SqliteJournal) -> None:
        rig.world.mail = journal.events

    control(
        _assignment(scenario, rig, directory),
        settings,
        devices,
        clock,
        tell,
        application=application,
        cycles=scenario.cycles,
        started=started,
        loss_bound=LossBound(seconds=_CYCLES_A_COMMIT * settings.cycle_s),
    )


def _dialled(
    stack: ExitStack, settings: Settings, clock: LockstepClock, seed: int
) -> tuple[Transport, ...]:
    opened = open_devices(settings, clock, seed)
    for transport in opened:
        stack.callback(transport.close)
    return opened


def _run_apart(
    stack: ExitStack,
    scenario: Scenario,
    rig: Rig,
    host: ControlHost,
    directory: Path,
    tell: Tell,
) -> Supervisor:
    """The controller in a process of its own; what has become of it."""
    from hil.control.clocks import SharedTime
    from hil.control.mail import PatientMail
    from hil.control.supervisor import Supervisor

    store = stack.enter_context(EventStore(directory, busy_timeout_s=_MAIL_BUSY_S))
    rig.world.mail = mail = PatientMail(store)
    scratch = stack.enter_context(TemporaryDirectory(dir=directory, prefix="scratch-"))
    end_ns = START_NS + scenario.cycles * round(scenario.settings.cycle_s * 1e9)
    supervisor = Supervisor(
        rig.world,
        host,
        _assignment(scenario, rig, directory),
        tell,
        rig.invariants.restarted,
        mail,
        Path(scratch),
        end_ns,
    )
    if scenario.tier == "realtime":
        supervisor.run_realtime(SharedTime(START_NS, scenario.speed))
    else:
        supervisor.run_lockstep()
    return supervisor
