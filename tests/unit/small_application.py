"""A small application without YAML: two tanks on one PLC, a virtual bench and hand-made ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import casadi as ca
import numpy as np
from msgspec import structs

from controller.cycle.application import (
    Application,
    Link,
    MeasuredDisturbance,
    MeasuredOutput,
    QualitySource,
    SlaveLoop,
)
from controller.cycle.guard import GuardedDevice, GuardedMv
from controller.cycle.mode import ModeRules
from controller.cycle.record import Record, digest, encode_snapshot
from controller.cycle.state import LoopState
from controller.cycle.step import step
from controller.errors import JournalError
from controller.estimation.augmented import AugmentedModel, Disturbance, augment
from controller.estimation.delayed import DelayedFilter, noise_covariance
from controller.mpc.ladder import make_ladder
from controller.mpc.problem import ControlledVariable, Horizon, ManipulatedVariable, Situation
from controller.mpc.stage import Stage, make_stage
from controller.mpc.target import TargetCalculation, target_calculation
from controller.mpc.transcription import Transcription, transcribe
from controller.ports import Messages, WriteReport
from controller.signal import (
    NS_PER_S,
    Command,
    CommandKind,
    QualityResult,
    Sample,
    Snapshot,
    Status,
    Tag,
    Value,
    WriteOutcome,
)
from plant_models.process import ProcessModel, Vector
from plant_models.variable import Variable

CYCLE_S = 10.0
START_NS = 1_700_000_000 * NS_PER_S
BUDGETS = (("sqp", 12), ("ipopt", 80))
TIME_CONSTANTS_S = (60.0, 90.0)
GAIN = np.array([[0.8, 0.2], [0.1, 0.6]])
"""degC per percent, of each tank to each heater."""


@lru_cache(maxsize=1)
def two_tanks() -> ProcessModel:
    """dT/dt = (G u + feed effect - T) / tau; T1 and T2 have probes, their mean a laboratory."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 2), ("d", 1), ("p", 0)))
    rate = (ca.mtimes(ca.DM(GAIN), u) - 5.0 * (d - 1.0) - x) / ca.DM(TIME_CONSTANTS_S)
    h = ca.vertcat(x[0], x[1], (x[0] + x[1]) / 2)
    return ProcessModel(
        "two tanks",
        x=tuple(Variable(n, "degC", 0.0, 100.0, t) for n, t in (("T1", 50.0), ("T2", 35.0))),
        u=tuple(Variable(n, "percent", 0.0, 100.0, 50.0) for n in ("Q1", "Q2")),
        d=(Variable("feed", "kg/s", 0.0, 2.0, 1.0),),
        y=tuple(
            Variable(n, "degC", 0.0, 100.0, t)
            for n, t in (("T1", 50.0), ("T2", 35.0), ("mean", 42.5))
        ),
        p=(),
        f=ca.Function("f", [x, u, d, p], [rate]),
        h=ca.Function("h", [x, u, d, p], [h]),
        source="made for the tests",
    )


DISTURBANCES = (Disturbance("Q1", "input", 20.0), Disturbance("Q2", "input", 20.0))
MVS = tuple(
    ManipulatedVariable(name, i, "percent", 0.0, 100.0, 0.5, 0.1, 0.01)
    for i, name in enumerate(("Q1", "Q2"))
)
CVS = (
    ControlledVariable("T1", 0, "degC", 0.0, 100.0, 55.0, 10.0, 10.0),
    ControlledVariable("T2", 1, "degC", 0.0, 100.0, 40.0, 10.0, 10.0),
)
HORIZON = Horizon(step_s=30.0, intervals=12, cycle_s=CYCLE_S)


@lru_cache(maxsize=1)
def augmented() -> AugmentedModel:
    return augment(two_tanks(), DISTURBANCES, CYCLE_S, HORIZON.step_s)


@lru_cache(maxsize=1)
def stage() -> Stage:
    return make_stage(augmented(), MVS, CVS, HORIZON)


@lru_cache(maxsize=1)
def transcription() -> Transcription:
    return transcribe(stage())


@lru_cache(maxsize=1)
def target() -> TargetCalculation:
    return target_calculation(augmented(), MVS, CVS)


def situation(**changes: object) -> Situation:
    """At rest at the nominal point, both setpoints 5 degC above it."""
    steady = GAIN @ np.array([50.0, 50.0])
    rest = Situation(
        x=steady,
        w=np.zeros(2),
        d=np.array([1.0]),
        u_now=np.array([50.0, 50.0]),
        mv_low=np.zeros(2),
        mv_high=np.full(2, 100.0),
        cv_low=np.zeros(2),
        cv_high=np.full(2, 100.0),
        setpoint=np.array([55.0, 40.0]),
        free=np.ones(2),
        blocked_up=np.zeros(2),
        blocked_down=np.zeros(2),
        resting=np.full(2, np.nan),
    )
    return structs.replace(rest, **changes)  # type: ignore[arg-type]


def tag(name: str, **more: object) -> Tag:
    return Tag(name, "plc", f"test:{name}", "float64", **more)  # type: ignore[arg-type]


def _tags() -> tuple[Tag, ...]:
    probes = [tag(n, unit="degC", low=-50.0, high=200.0) for n in ("T1.PV", "T2.PV")]
    words = [f"{mv.name}.{word}" for mv in MVS for word in ("SPU", "MODE", "SAT")]
    return (*probes, tag("FEED.PV", unit="kg/s", low=0.0, high=5.0), *map(tag, (*words, "HBE")))


@lru_cache(maxsize=4)
def small_application(
    rearm: str = "auto", hold_cycles: int = 3, ready_cycles: int = 3
) -> Application:
    """The whole wiring, compiled once for all tests."""
    return Application(
        name="two tanks",
        cycle_s=CYCLE_S,
        model=two_tanks(),
        tags=_tags(),
        measured=(
            MeasuredOutput(0, "T1.PV", 0.1, critical=True),
            MeasuredOutput(1, "T2.PV", 0.1, critical=True),
        ),
        disturbances=(MeasuredDisturbance(0, "FEED.PV", critical=False),),
        loops=tuple(
            SlaveLoop(m.name, f"{m.name}.SPU", f"{m.name}.MODE", f"{m.name}.SAT", None) for m in MVS
        ),
        sources={
            "lab": QualitySource(
                name="lab",
                outputs={"mean": 2},
                sigma={"mean": 0.2},
                delay_max_s=1800.0,
                gate=0.999,
                stale_after_s=3600.0,
                critical=False,
            )
        },
        links=(Link("plc", "HBE"),),
        mvs=MVS,
        cvs=CVS,
        guarded_mvs=tuple(
            GuardedMv(
                m.name, "plc", m.unit, m.low, m.high, m.rate_per_s, f"{m.name}.SP", f"{m.name}.REQ"
            )
            for m in MVS
        ),
        guarded_devices=(GuardedDevice("plc", "HB", "SEQ", "EPOCH"),),
        rules=ModeRules(ready_cycles, hold_cycles, rearm),  # type: ignore[arg-type]
        watchdog_cycles=3,
        filter=DelayedFilter(
            augmented(), noise_covariance(augmented(), {}, DISTURBANCES), CYCLE_S, 1810.0
        ),
        target=target(),
        ladder=make_ladder(stage(), BUDGETS, 3),
        epoch=7,
    )


FRAME_TAGS = frozenset({"HB", "SEQ", "EPOCH", "Q1.SP", "Q1.REQ", "Q2.SP", "Q2.REQ"})


@dataclass
class Bench:
    """The real two tanks behind a PLC that honours the handshake.

    `gain` multiplies the plant's gains, `upset` is added to its heaters, `heat` is what the PLC
    works with; `alive` False stops the echo, `remote_allowed` False keeps loops in LOCAL.
    """

    gain: Vector = field(default_factory=lambda: np.ones((2, 2)))
    upset: Vector = field(default_factory=lambda: np.zeros(2))
    feed: float = 1.0
    x: Vector = field(default_factory=lambda: GAIN @ np.array([50.0, 50.0]))
    heat: dict[str, float] = field(default_factory=lambda: {"Q1": 50.0, "Q2": 50.0})
    remote: dict[str, bool] = field(default_factory=lambda: {"Q1": False, "Q2": False})
    saturation: dict[str, int] = field(default_factory=lambda: {"Q1": 0, "Q2": 0})
    echo: int = 0
    alive: bool = True
    frames: list[dict[str, Value]] = field(default_factory=list)

    def samples(self, time_ns: int) -> dict[str, Sample]:
        values: dict[str, Value] = {
            "T1.PV": float(self.x[0]),
            "T2.PV": float(self.x[1]),
            "FEED.PV": self.feed,
            "HBE": self.echo,
        }
        for name, heat in self.heat.items():
            values[f"{name}.SPU"] = heat
            values[f"{name}.MODE"] = 3 if self.remote[name] else 2
            values[f"{name}.SAT"] = self.saturation[name]
        return {n: Sample(v, Status.GOOD, time_ns, time_ns) for n, v in values.items()}

    def take(self, frame: Mapping[str, Value]) -> WriteOutcome:
        self.frames.append(dict(frame))
        if not self.alive:
            return WriteOutcome.FAILED
        self.echo = int(frame["HB"] or 0)
        for name in self.heat:
            self.remote[name] = bool(frame[f"{name}.REQ"])
            if self.remote[name]:
                self.heat[name] = float(frame[f"{name}.SP"] or 0.0)
        return WriteOutcome.WRITTEN

    def advance(self, seconds: float = CYCLE_S) -> None:
        heat = np.array([self.heat["Q1"], self.heat["Q2"]]) + self.upset
        rest = (GAIN * self.gain) @ heat - 5.0 * (self.feed - 1.0)
        self.x = rest + (self.x - rest) * np.exp(-seconds / np.array(TIME_CONSTANTS_S))


def mode_command(text: str, number: int = 0) -> Command:
    return Command(f"c{number}{text}", CommandKind.MODE, START_NS, text=text)


Edit = Callable[[int, dict[str, Sample]], dict[str, Sample]]


@dataclass
class Run:
    """Drives `step` against the bench and keeps all snapshots, states and records."""

    application: Application
    bench: Bench = field(default_factory=Bench)
    state: LoopState = field(default_factory=LoopState)
    snapshots: list[Snapshot] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    writes: dict[str, WriteOutcome] = field(default_factory=dict)
    edit: Edit = lambda _, samples: samples

    def cycle(
        self, *commands: Command, results: Sequence[QualityResult] = (), advance: bool = True
    ) -> Record:
        number = self.state.cycle + 1
        time_ns = START_NS + round(number * CYCLE_S * NS_PER_S)
        snapshot = Snapshot(
            number,
            time_ns,
            self.edit(number, self.bench.samples(time_ns)),
            tuple(results),
            commands,
            writes=self.writes,
        )
        self.state, record = step(self.application, self.state, snapshot)
        self.snapshots.append(snapshot)
        self.records.append(record)
        self.writes = {d: self.bench.take(f) for d, f in record.move.frames.items()}
        if advance:
            self.bench.advance()
        return record

    def cycles(self, count: int) -> Record:
        for _ in range(count):
            record = self.cycle()
        return record

    def activate(self) -> Record:
        """Until ACTIVE, both loops in REMOTE."""
        record = self.cycle(mode_command("auto"))
        for _ in range(20):
            if record.mode == "ACTIVE" and set(record.mv_status.values()) == {"ON"}:
                return record
            record = self.cycle()
        raise AssertionError(f"not active after 20 cycles: {record.mode} {record.doubts}")


@dataclass
class FakeClock:
    """Time that only moves when told; `stalls` are added to the sleeps or reads, in order."""

    now_ns: int = START_NS

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns - START_NS + 1_000

    def sleep_until(self, monotonic_ns: int) -> None:
        self.now_ns = max(self.now_ns, monotonic_ns + START_NS - 1_000)

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * NS_PER_S)


@dataclass
class FakePlc:
    """The bench behind the transport port. `read_s` and `write_s` are how long it takes."""

    clock: FakeClock
    bench: Bench = field(default_factory=Bench)
    name: str = "plc"
    read_s: float = 0.1
    write_s: float = 0.1
    read_at: list[int] = field(default_factory=list)
    _last_ns: int = -1
    _outcome: WriteOutcome = WriteOutcome.NONE

    @property
    def tags(self) -> Sequence[Tag]:
        return _tags()

    def begin_read(self) -> None:
        if self._last_ns >= 0:
            self.bench.advance((self.clock.now_ns - self._last_ns) / NS_PER_S)
        self._last_ns = self.clock.now_ns
        self.read_at.append(self.clock.now_ns)

    def finish_read(self) -> Mapping[str, Sample]:
        self.clock.pass_s(self.read_s)
        return self.bench.samples(self.clock.now_ns)

    def begin_write(self, values: Mapping[str, float]) -> None:
        self._outcome = self.bench.take(values)

    def finish_write(self) -> WriteReport:
        self.clock.pass_s(self.write_s)
        return WriteReport(self._outcome)

    def close(self) -> None: ...


@dataclass
class FakeJournal:
    """Keeps everything in memory; breaks at the call `breaks_at` and ever after."""

    snapshots: list[Snapshot] = field(default_factory=list)
    records: list[tuple[int, bytes]] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    breaks_at: int | None = None
    calls: int = 0

    def _call(self) -> None:
        self.calls += 1
        if self.breaks_at is not None and self.calls >= self.breaks_at:
            raise JournalError("the disk is full", where="journal")

    def append_snapshot(self, snapshot: Snapshot) -> str:
        self._call()
        self.snapshots.append(snapshot)
        return digest(encode_snapshot(snapshot))

    def append_record(self, cycle: int, time_ns: int, record: bytes) -> None:
        self._call()
        self.records.append((cycle, record))

    def append_event(self, time_ns: int, kind: str, body: Mapping[str, object]) -> None:
        self._call()
        self.events.append(str(body.get("text")))

    def rest(self, until_ns: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class FakeInbox:
    """Delivers what is waiting, once."""

    waiting: Messages = field(default_factory=Messages)

    def poll(self, time_ns: int) -> Messages:
        now, self.waiting = self.waiting, Messages()
        return now
