"""Runs a scenario: the production loop, journal and optimizer against a world in lock-step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from controller.advice import Advice
from controller.app import build_advice, build_application, open_devices
from controller.cycle.application import Application
from controller.cycle.record import Record
from controller.errors import ScenarioError
from controller.historian.journal import SqliteJournal, open_journal
from controller.loop import Loop
from controller.mpc.instance import Instance
from controller.mpc.solvers import Answer, Solver, Trajectory
from controller.optimizer.expression import Expression, compile_expression
from controller.ports import Clock, Transport
from controller.replay import Replayed
from controller.settings import ModbusRtuDevice, S7Device, Settings, changed
from controller.signal import Snapshot, WriteOutcome
from controller.wiring import typed_tags
from hil.faults import FaultSchedule, FaultyLink
from hil.follower import Follower
from hil.history import History, variable_texts
from hil.kpi import kpis
from hil.lab import VirtualLab
from hil.plc_memory import DeviceMemory
from hil.proxy import FaultProxy
from hil.scenario import Scenario, Tier
from hil.servers import ModbusServer, S7Server
from hil.solver_faults import AnnouncingInbox, SolverFaults, told
from hil.verdict import Verdict, judge
from hil.virtual_plc import VirtualPlc
from hil.virtual_transport import MemoryTransport
from hil.wire_frames import Driver
from hil.wire_watch import WireWatch, permits_of
from hil.world import START_NS, LockstepClock, World, make_plc

VERDICT_FILE = "verdict.json"
HISTORY_FILE = "history.npz"
SCENARIO_FILE = "scenario.yaml"

Progress = Callable[["Moment"], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """How a run stands, for progress displays."""

    cycle: int
    cycles: int
    phase: str = "run"
    numbers: str = ""


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
class _Stopwatch:
    """Times the solvers from outside: the pure part must not know the time."""

    elapsed_ms: float = 0.0

    def around(self, solver: Solver) -> Solver:
        def timed(instance: Instance, begin: Trajectory) -> Answer:
            begun = perf_counter()
            try:
                return solver(instance, begin)
            finally:
                self.elapsed_ms += 1e3 * (perf_counter() - begun)

        return timed

    def take(self) -> float:
        elapsed, self.elapsed_ms = self.elapsed_ms, 0.0
        return elapsed


@dataclass(slots=True)
class _Witness:
    """Writes the true history down after every cycle, and runs the slow layer beside the loop."""

    world: World
    solver_faults: SolverFaults
    history: History
    stopwatch: _Stopwatch
    advice: Advice | None
    journal: SqliteJournal
    progress: Progress | None
    cycles: int
    profit: Expression | None = None
    begun_s: float = field(default_factory=perf_counter)
    lab: dict[str, dict[str, float]] = field(default_factory=lambda: dict[str, dict[str, float]]())

    def __call__(self, snapshot: Snapshot, record: Record) -> None:
        plc, scenario = self.world.plc, self.world.scenario
        numbers = {"time_s": (snapshot.time_ns - START_NS) / 1e9}
        numbers |= {f"y.{k}": v for k, v in plc.outputs().items()}
        numbers |= {f"u.{k}": v for k, v in plc.inputs().items()}
        for mv in scenario.settings.manipulated:
            numbers[f"sp.{mv.name}"] = plc.setpoint_in_use(mv.setpoint)
        numbers |= {f"cv.{k}": v for k, v in record.cv_value.items()} or {
            f"cv.{cv.output}": float("nan") for cv in scenario.settings.controlled
        }
        numbers |= {f"wanted.{name}": value for name, value in record.setpoints.items()}
        now_s = perf_counter()
        numbers["cycle_ms"], self.begun_s = 1e3 * (now_s - self.begun_s), now_s
        numbers["solve_ms"] = self.stopwatch.take()
        texts = {
            "mode": record.mode,
            "rung": record.plan.rung if record.plan is not None else "",
            "faults": "; ".join(self._faults()),
            **variable_texts(record),
        }
        numbers["late_writes"] = sum(w is WriteOutcome.LATE for w in snapshot.writes.values())
        self.history.append(numbers, texts)
        for result in snapshot.quality_results:
            time_s = (result.time_ns - START_NS) / 1e9
            self.lab[result.result_id] = {**result.values, "time_s": time_s}
        if self.advice is not None:
            proposal = self.advice.consider(snapshot, record.mode, record.readings)
            if proposal is not None:
                self.journal.events.add_proposal(proposal)
        if self.progress is not None:
            self.progress(Moment(len(self.history), self.cycles, numbers=self._numbers(record)))

    def _numbers(self, record: Record) -> str:
        """The numbers that matter, for a progress display."""
        parts = [f"{self.history.columns['time_s'][-1] / 3600:.1f} h", f"{record.mode:6}"]
        if self.profit is not None:
            row = {**self.world.plc.inputs(), **self.world.plc.outputs()}
            parts.append(f"profit {self.profit(row):.1f}")
        parts += [f"{name} {value:.4g}" for name, value in record.move.values.items()]
        return "  ".join([*parts, "; ".join(self._faults())]).rstrip()

    def _faults(self) -> list[str]:
        """What is broken now, in words."""
        world = [f"{fault.type} {fault.target}" for fault in self.world.active_faults]
        return [*world, *map(str, self.solver_faults.active)]


def run_scenario(
    scenario: Scenario,
    directory: Path,
    *,
    tier: Tier | None = None,
    seed: int | None = None,
    duration_s: float | None = None,
    check_replay: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Run a scenario into `directory`, which must not hold a journal yet, and judge it.

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
    directory.mkdir(parents=True, exist_ok=True)
    (directory / SCENARIO_FILE).write_text(scenario.text, encoding="utf-8")
    history = History()
    with ExitStack() as stack:
        memory = _memory(scenario)
        plc = make_plc(scenario, memory)
        clock = LockstepClock(lambda time_ns: world.run_until(time_ns))
        watch = _watch(scenario, plc, clock.time_ns)
        settings, devices, links = _connect(stack, scenario, memory, watch, clock)
        labs = tuple(
            VirtualLab(lab, START_NS, scenario.seed + 10 + i) for i, lab in enumerate(scenario.labs)
        )
        world = World(scenario, plc, FaultSchedule(scenario.faults, plc, plc.sensors, links), labs)
        journal = stack.enter_context(
            open_journal(
                directory,
                start_ns=START_NS,
                settings_text=settings.text,
                settings_path=settings.path,
                overrides=dict(scenario.settings.overrides),
                seed=scenario.seed,
            )
        )
        faults = SolverFaults(scenario.solver_faults, START_NS, clock)
        if scenario.solver_faults:
            body = {"text": told(scenario.solver_faults)}
            journal.append_event(START_NS, "scenario", body)
        application = faults.inside(build_application(settings, journal.epoch))
        follower = Follower(directory, scenario.solver_faults, START_NS) if check_replay else None
        if follower is not None:
            stack.enter_context(_cancelled_on_error(follower))
        world.mail = journal.events
        stopwatch = _Stopwatch()
        application = _timed(application, stopwatch)
        witness = _Witness(
            world,
            faults,
            history,
            stopwatch,
            build_advice(settings),
            journal,
            progress,
            scenario.cycles,
            None if scenario.economics is None else compile_expression(scenario.economics.profit),
        )
        inbox = AnnouncingInbox(journal.inbox(), faults)
        loop = Loop(application, devices, journal, inbox, clock, observers=(witness,))
        loop.run(scenario.cycles)
        journal.flush()
        found = kpis(
            scenario, history, plc.statistics, witness.lab, watch.writes, len(watch.violations)
        )
    replayed = None
    if follower is not None:
        replayed = follower.finish(_replay_progress(progress, scenario.cycles))
        found["replayed_cycles"] = float(replayed.cycles)
        found["replay_identical"] = float(replayed.passed)
    verdict = judge(scenario, scenario.assertions, found, version("loopwright"))
    history.save(directory / HISTORY_FILE)
    report: dict[str, Any] = {
        **verdict.plain(),
        "violations": [str(v) for v in watch.violations],
        "scenario_path": scenario.path.name,
    }
    (directory / VERDICT_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    unit = scenario.economics.unit if scenario.economics is not None else ""
    return Run(verdict, history, directory, replayed, scenario.settings.cycle_s, unit)


def _memory(scenario: Scenario) -> dict[str, DeviceMemory]:
    tags = typed_tags(scenario.settings)
    return {name: DeviceMemory(name, tags.values()) for name in scenario.settings.devices}


def _watch(scenario: Scenario, plc: VirtualPlc, now_ns: Callable[[], int]) -> WireWatch:
    drivers: dict[str, Driver] = {
        device.name: "s7" if isinstance(device, S7Device) else "modbus"
        for device in scenario.settings.devices.values()
    }
    settings = replace(scenario.settings, tags=typed_tags(scenario.settings))
    return WireWatch(drivers, permits_of(settings), now_ns=now_ns, in_use=plc.setpoint_in_use)


def _connect(
    stack: ExitStack,
    scenario: Scenario,
    memory: Mapping[str, DeviceMemory],
    watch: WireWatch,
    clock: Clock,
) -> tuple[Settings, list[Transport], dict[str, FaultyLink]]:
    """Settings with the addresses to dial, the transports, and what link faults act on.

    In the wire tier: a server and a proxy per device, dialled by the production drivers.
    """
    transports: list[Transport] = []
    links: dict[str, FaultyLink] = {}
    if scenario.tier == "virtual":
        tags = typed_tags(scenario.settings)
        for name, area in memory.items():
            own = [tag for tag in tags.values() if tag.device == name]
            device = MemoryTransport(area, own, clock, watch.check)
            transports.append(device)
            links[name] = device
        return scenario.settings, transports, links
    addresses: dict[str, object] = {}
    for number, device in enumerate(scenario.settings.devices.values()):
        if isinstance(device, ModbusRtuDevice):
            raise ScenarioError(
                f"{device.name} is on a serial line, which the wire tier does not serve",
                where=str(scenario.path),
                mend="Use a modbus device, or the virtual tier",
            )
        area = memory[device.name]
        driver: Driver = "s7" if isinstance(device, S7Device) else "modbus"
        server = S7Server(area) if isinstance(device, S7Device) else ModbusServer(area, device.unit)
        stack.enter_context(server)
        proxy = FaultProxy(
            driver,
            server.port,
            seed=scenario.seed + 100 + number,
            on_frame=watch.listener(device.name),
        )
        links[device.name] = stack.enter_context(proxy)
        addresses[f"devices.{device.name}.host"] = "127.0.0.1"
        addresses[f"devices.{device.name}.port"] = proxy.port
    settings = changed(scenario.settings, addresses)
    for transport in open_devices(settings, clock, scenario.seed):
        stack.callback(transport.close)
        transports.append(transport)
    return settings, transports, links


def _timed(application: Application, stopwatch: _Stopwatch) -> Application:
    solvers = tuple((name, stopwatch.around(s)) for name, s in application.ladder.solvers)
    return replace(application, ladder=replace(application.ladder, solvers=solvers))


@contextmanager
def _cancelled_on_error(follower: Follower) -> Generator[None]:
    try:
        yield
    except BaseException:
        follower.cancel()
        raise


def _replay_progress(progress: Progress | None, cycles: int) -> Callable[[Replayed], None] | None:
    if progress is None:
        return None
    return lambda done: progress(
        Moment(done.cycles, cycles, "replay", f"{done.identical} identical")
    )
