"""Writes the true history down after every cycle: what the controller thought, and what was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from math import nan

from controller.optimizer.expression import Expression
from controller.signal import WriteOutcome
from hil.control.side import Account
from hil.history import History, refused_commands, variable_texts
from hil.invariants.judge import Invariants
from hil.plc.external import ExternalPlc
from hil.scenario.parts import Scenario
from hil.world import START_NS, World

Progress = Callable[["Moment"], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """How a run stands, for progress displays.

    Attributes:
        numbers: those that matter, in words; to be asked for at once or not at all.
    """

    cycle: int
    cycles: int
    phase: str = "run"
    numbers: Callable[[], str] = str


@dataclass(slots=True)
class Witness:
    """Hears the account of every cycle, and holds the invariants against it.

    Attributes:
        lab: measured values per result id, with the sample's `time_s`.
    """

    world: World
    scenario: Scenario
    history: History
    invariants: Invariants
    progress: Progress | None = None
    profit: Expression | None = None
    lab: dict[str, dict[str, float]] = field(default_factory=lambda: dict[str, dict[str, float]]())

    _names: dict[str, tuple[str, ...]] = field(init=False)
    _setpoints: tuple[tuple[str, str], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Columns are named once: there are some dozens of them, in every cycle."""
        plc, settings = self.world.plc, self.scenario.settings
        self._names = {
            "y": tuple(f"y.{name}" for name in plc.outputs()),
            "u": tuple(f"u.{name}" for name in plc.inputs()),
            "cv": tuple(f"cv.{cv.output}" for cv in settings.controlled),
        }
        self._setpoints = tuple((f"sp.{mv.name}", mv.setpoint) for mv in settings.manipulated)

    def __call__(self, account: Account) -> None:
        snapshot, record = account.snapshot, account.record
        plc, scenario = self.world.plc, self.scenario
        if isinstance(plc, ExternalPlc):
            plc.saw(snapshot)
        elapsed_s = (account.time_ns - START_NS) / 1e9
        names = self._names
        numbers = {"time_s": elapsed_s}
        numbers.update(zip(names["y"], plc.outputs().values(), strict=True))
        numbers.update(zip(names["u"], plc.inputs().values(), strict=True))
        for column, setpoint in self._setpoints:
            numbers[column] = plc.setpoint_in_use(setpoint)
        estimated = record.cv_value.values() or repeat(nan, len(names["cv"]))
        numbers.update(zip(names["cv"], estimated, strict=True))
        for name, value in record.setpoints.items():
            numbers[f"wanted.{name}"] = value
        numbers["cycle_ms"] = account.cycle_ms
        numbers["solve_ms"] = account.solve_ms
        numbers["lateness_ms"] = account.lateness_ms
        numbers["skipped"] = snapshot.skipped
        numbers["late_writes"] = [*snapshot.writes.values()].count(WriteOutcome.LATE)
        faults = "; ".join(self._faults(elapsed_s))
        plan = record.plan
        texts = {
            "mode": record.mode,
            "rung": plan.rung if plan is not None else "",
            "refused": "; ".join(text.split(":")[0] for text in plan.refused) if plan else "",
            "refused_commands": "; ".join(refused_commands(record)),
            "faults": faults,
            **variable_texts(record),
        }
        self.history.append(numbers, texts)
        self.invariants.observe(snapshot, record)
        for result in snapshot.quality_results:
            time_s = (result.time_ns - START_NS) / 1e9
            self.lab[result.result_id] = {**result.values, "time_s": time_s}
        if self.progress is not None:
            shown = partial(self._shown, account, faults)
            self.progress(Moment(len(self.history), scenario.cycles, numbers=shown))

    def _shown(self, account: Account, faults: str) -> str:
        """The numbers that matter, for a progress display."""
        record = account.record
        parts = [f"{self.history.columns['time_s'][-1] / 3600:.1f} h", f"{record.mode:6}"]
        if self.profit is not None:
            row = {**self.world.plc.inputs(), **self.world.plc.outputs()}
            parts.append(f"profit {self.profit(row):.1f}")
        parts += [f"{name} {value:.4g}" for name, value in record.move.values.items()]
        return "  ".join([*parts, faults]).rstrip()

    def _faults(self, elapsed_s: float) -> list[str]:
        """What is broken now, in words."""
        world = [f"{fault.type} {fault.target}" for fault in self.world.take_faults()]
        solvers = self.scenario.solver_faults
        return [*world, *(str(f) for f in solvers if f.at_s <= elapsed_s < f.until_s)]
