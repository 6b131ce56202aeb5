"""Gathers what a report shows: the journal, and the truth and the verdict if there are any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, is_zipfile

import msgspec
import numpy as np

from controller.app import settings_of
from controller.cycle.record import decode_record
from controller.errors import JournalError, ModelError, ReplayError, SettingsError
from controller.historian.messages import PROPOSAL, QUALITY_CORRECTION, QUALITY_RESULT
from controller.historian.reader import CycleRow, Event, JournalReader, open_reader
from controller.historian.samples import Segment
from controller.optimizer.expression import Expression, compile_expression
from controller.settings import Settings
from controller.signal import NS_PER_S
from hil.faults.solver import ClockOffsets
from hil.history import History
from hil.report.series import Column
from hil.world import START_NS

# More fans than that hide the line they should explain.
_FANS = 20
_NAN = float("nan")


class Fan(NamedTuple):
    """A plan at the time it was made: outputs after 0, 1 … N steps, moves from 0, 1 … N − 1 on."""

    time_s: float
    cv: Mapping[str, list[float]]
    mv: Mapping[str, list[float]]


class LabSample(NamedTuple):
    """A lab result: when it was drawn and known, what it said and what the estimator made of it."""

    drawn_s: float
    known_s: float
    values: Mapping[str, float]
    sigma: Mapping[str, float]
    fate: str


class Entry(NamedTuple):
    """A line of the event log."""

    time_s: float
    text: str


class Advised(NamedTuple):
    """A proposal of the optimizer and what became of it."""

    time_s: float
    name: str
    targets: Mapping[str, float]
    gain: float
    why: str
    fate: str


class Shaped(NamedTuple):
    """A limit that shaped the steady-state target: for how many cycles, and what was said last."""

    cycles: int
    sentence: str


@dataclass(slots=True)
class Recorded:
    """The journal as series over time; every column has one value per cycle, NaN where unknown.

    Times are true ones: what a scenario has made the wall clock wrong by is taken off.

    Attributes:
        start_ns: time zero of every `…_s`, ns since epoch, UTC.
        starts_s: when each segment began, by its first cycle.
        numbers: `cv.`, `cv_sigma.`, `wanted.` by CV; `in_use.`, `written.`, `resting.` by MV;
            `d.` by disturbance; `objective`; `busy_ms`.
        shaped: by limit, such as `xG high`, what the targets said of it.
    """

    settings: Settings
    segments: tuple[Segment, ...]
    start_ns: int
    maximise: Expression | None
    starts_s: list[float] = field(default_factory=lambda: list[float]())
    time_s: Column = field(default_factory=lambda: np.zeros(0))
    numbers: dict[str, list[float]] = field(default_factory=lambda: dict[str, list[float]]())
    mode: list[str] = field(default_factory=lambda: list[str]())
    rung: list[str] = field(default_factory=lambda: list[str]())
    doubt: list[str] = field(default_factory=lambda: list[str]())
    fans: list[Fan] = field(default_factory=lambda: list[Fan]())
    lab: list[LabSample] = field(default_factory=lambda: list[LabSample]())
    entries: list[Entry] = field(default_factory=lambda: list[Entry]())
    advised: list[Advised] = field(default_factory=lambda: list[Advised]())
    shaped: dict[str, Shaped] = field(default_factory=lambda: dict[str, Shaped]())
    fates: dict[str, str] = field(default_factory=lambda: dict[str, str]())

    def column(self, name: str) -> Column:
        return np.array(self.numbers[name], dtype=np.float64)

    @property
    def begun_s(self) -> float:
        """Scenario time of the first cycle."""
        return (self.start_ns - START_NS) / NS_PER_S

    @property
    def duration_s(self) -> float:
        return float(self.time_s[-1] - self.time_s[0]) + self.settings.cycle_s


def read_journal(directory: Path) -> Recorded:
    """The journal of a data directory.

    Raises:
        JournalError: it is missing or damaged.
        ReplayError: it holds no decided cycle, or its settings cannot be read again.
    """
    with open_reader(directory) as reader:
        segments = reader.segments()
        if not segments:
            raise _empty(directory)
        settings = _settings(directory, segments[-1])
        events = list(reader.events())
        offsets = ClockOffsets()
        for event in events:
            offsets.hear(event.body)
        first_ns, last_ns = _extent(reader, segments, offsets, directory)
        maximise = compile_expression(settings.optimizer.maximise) if settings.optimizer else None
        recorded = Recorded(settings, segments, first_ns, maximise)
        fan_every_ns = max(
            (last_ns - first_ns) // _FANS,
            round(settings.mpc.step_s * settings.mpc.horizon * NS_PER_S),
        )
        times: list[int] = []
        true_ns: dict[tuple[int, int], int] = {}
        next_fan_ns = first_ns
        for segment in segments:
            begun = len(times)
            for row in reader.cycles(segment.segment):
                if row.record is None:
                    continue
                record = _decoded(row, directory)
                time_ns = row.time_ns - offsets.at(segment.segment, row.cycle)
                true_ns[row.cycle, row.time_ns] = time_ns
                times.append(time_ns)
                _append(recorded, record)
                if time_ns >= next_fan_ns and _add_fan(recorded, record, time_ns):
                    next_fan_ns = time_ns + fan_every_ns
            recorded.starts_s += [(t - first_ns) / NS_PER_S for t in times[begun : begun + 1]]
        if not times:
            raise _empty(directory)
        recorded.time_s = (np.array(times) - first_ns) / NS_PER_S
    _read_events(recorded, _true_times(events, true_ns))
    return recorded


def read_verdict(path: Path) -> dict[str, Any] | None:
    """The verdict beside a journal; None where there is none.

    Raises:
        ReplayError: the file is there but is no verdict.
    """
    if not path.exists():
        return None
    try:
        verdict = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        missing = {"scenario", "passed", "checks", "kpis", "seed", "tier"} - verdict.keys()
    except (OSError, msgspec.MsgspecError) as error:
        raise _damaged(path, f"it is not a verdict: {error}") from error
    if missing:
        raise _damaged(path, f"it is not a verdict: {', '.join(sorted(missing))} missing")
    return verdict


def read_history(path: Path) -> History | None:
    """The true history beside a journal; None where there is none.

    Raises:
        ReplayError: the file is there but is no history.
    """
    if not path.exists():
        return None
    # Asked first, because loading a truncated archive leaves the file open.
    if not is_zipfile(path):
        raise _damaged(path, "it is not a history")
    try:
        history = History.load(path)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise _damaged(path, f"it is not a history: {error}") from error
    if not len(history):
        raise _damaged(path, "it is a history without a cycle")
    return history


def _damaged(path: Path, what: str) -> ReplayError:
    return ReplayError(
        what, where=str(path), mend="Run the scenario again, or remove the file to leave it out"
    )


def _empty(directory: Path) -> ReplayError:
    return ReplayError(
        "the journal holds no decided cycle",
        where=str(directory),
        mend="Name the data directory of a controller that has run for a cycle at least",
    )


def _settings(directory: Path, segment: Segment) -> Settings:
    """The settings kept with the run."""
    try:
        return settings_of(segment, directory)
    except SettingsError as error:
        raise ReplayError(
            f"the settings kept in the journal cannot be read: {error}",
            where=str(directory),
            mend="Make the report where the process model can be found, with the version that ran",
        ) from error


def _extent(
    reader: JournalReader, segments: tuple[Segment, ...], offsets: ClockOffsets, directory: Path
) -> tuple[int, int]:
    """True time of the first and of the last cycle, ns since epoch."""
    first = next(((s, row) for s in segments for row in reader.cycles(s.segment)), None)
    last = next(((s, r) for s in reversed(segments) if (r := reader.last_record(s.segment))), None)
    if first is None or last is None:
        raise _empty(directory)
    found = [row.time_ns - offsets.at(s.segment, row.cycle) for s, row in (first, last)]
    return found[0], found[1]


def _true_times(events: list[Event], true_ns: Mapping[tuple[int, int], int]) -> list[Event]:
    """The events with the times at which they happened; what came from outside has them.

    Args:
        true_ns: by cycle and time on the controller's wall clock, which may be wrong.
    """
    found: list[Event] = []
    offset_ns = 0
    for event in events:
        known = true_ns.get((event.body.get("cycle", -1), event.time_ns))
        if known is not None:
            offset_ns = event.time_ns - known
        own = event.kind not in (QUALITY_RESULT, QUALITY_CORRECTION, "command")
        found.append(replace(event, time_ns=event.time_ns - offset_ns) if own else event)
    return found


def _decoded(row: CycleRow, directory: Path) -> dict[str, Any]:
    try:
        return decode_record(row.record or b"")
    except msgspec.DecodeError as error:
        raise JournalError(
            f"the record of cycle {row.cycle} is damaged: {error}",
            where=str(directory),
            mend="Restore the journal from a copy",
        ) from error


def _append(recorded: Recorded, record: Mapping[str, Any]) -> None:
    settings = recorded.settings
    readings, move = record["readings"], record["move"]
    sent = {tag for frame in move["frames"].values() for tag in frame}
    numbers: dict[str, float] = {}
    outputs = _outputs(settings, record)
    for cv in settings.controlled:
        # OFF only reads: what the estimator says there is not in use.
        used = record["cv_value"] if record["mode"] != "OFF" else {}
        numbers[f"cv.{cv.output}"] = used.get(cv.output, _NAN)
        numbers[f"wanted.{cv.output}"] = record["setpoints"].get(cv.output, _NAN)
    for mv in settings.manipulated:
        name = mv.name
        numbers[f"in_use.{name}"] = readings.get(mv.in_use, _NAN)
        written = mv.setpoint in sent and move["allowed"].get(name, False)
        numbers[f"written.{name}"] = move["values"][name] if written else _NAN
        numbers[f"resting.{name}"] = record["resting"].get(name, _NAN)
    for item in settings.feedforward:
        numbers[f"d.{item.input}"] = readings.get(item.tag, _NAN)
    numbers["objective"] = _objective(recorded, numbers, outputs)
    timing = record["timing"]
    numbers["busy_ms"] = timing["read_ms"] + timing["step_ms"] + timing["write_ms"]
    for name, value in numbers.items():
        recorded.numbers.setdefault(name, []).append(value)
    recorded.mode.append(record["mode"])
    recorded.rung.append(record["plan"]["rung"] if record["plan"] else "")
    recorded.doubt.append("in doubt" if record["doubts"] else "")
    for limit in record["target"]["constraints"] if record["target"] else ():
        key = f"{limit['name']} {limit['bound']}"
        before = recorded.shaped.get(key, Shaped(0, ""))
        recorded.shaped[key] = Shaped(before.cycles + 1, limit["sentence"])
    if record["estimate"]:
        for fusion in record["estimate"]["fusions"]:
            recorded.fates[fusion["result_id"]] = fusion["verdict"]


def _outputs(settings: Settings, record: Mapping[str, Any]) -> dict[str, float]:
    """Estimated model outputs by name; none before there is an estimate."""
    if not record["estimate"] or record["mode"] == "OFF":
        return {}
    names = [variable.name for variable in settings.model.y]
    return dict(zip(names, record["estimate"]["y"], strict=True))


def _objective(
    recorded: Recorded, numbers: Mapping[str, float], outputs: Mapping[str, float]
) -> float:
    """What the optimizer maximises, at the estimated outputs."""
    settings = recorded.settings
    if recorded.maximise is None or not outputs:
        return _NAN
    values = {variable.name: variable.nominal for variable in settings.model.p}
    for mv in settings.manipulated:
        values[mv.input] = values[mv.name] = numbers[f"in_use.{mv.name}"]
    values |= {item.input: numbers[f"d.{item.input}"] for item in settings.feedforward}
    # An estimated output hides an MV of the same name: it is what really flows.
    values |= outputs
    try:
        return recorded.maximise(values)
    except ModelError:
        return _NAN


def _add_fan(recorded: Recorded, record: Mapping[str, Any], time_ns: int) -> bool:
    """Keep the plan of this cycle for display, if it is a freshly solved one."""
    plan, estimate = record["plan"], record["estimate"]
    if not plan or not estimate or plan["age"] != 0 or not plan["prediction"]:
        return False
    settings = recorded.settings
    outputs = [variable.name for variable in settings.model.y]
    cv: dict[str, list[float]] = {}
    for item in settings.controlled:
        index = outputs.index(item.output)
        ahead = [row[index] for row in plan["prediction"]]
        cv[item.output] = [estimate["y"][index], *ahead]
    mv = {m.name: [row[i] for row in plan["moves"]] for i, m in enumerate(settings.manipulated)}
    recorded.fans.append(Fan((time_ns - recorded.start_ns) / NS_PER_S, cv, mv))
    return True


def _read_events(recorded: Recorded, events: list[Event]) -> None:
    def since(time_ns: int) -> float:
        return (time_ns - recorded.start_ns) / NS_PER_S

    said: dict[str, str] = {}
    lab: dict[str, LabSample] = {}
    for event in events:
        if event.kind not in (QUALITY_RESULT, QUALITY_CORRECTION, PROPOSAL, "command"):
            text = str(event.body.get("text", event.body))
            label = "" if event.kind == "cycle" else f"{event.kind}: "
            recorded.entries.append(Entry(since(event.time_ns), label + text))
            words = text.split()
            if len(words) > 2 and words[0] == "proposal":
                said[words[1]] = words[2].rstrip(":")
        elif event.kind in (QUALITY_RESULT, QUALITY_CORRECTION):
            result = event.body.get("result", event.body)
            source = recorded.settings.quality.get(result["source"])
            sigma = {**(source.sigma if source else {}), **result["sigma"]}
            fate = recorded.fates.get(result["result_id"], "not used")
            lab[result["result_id"]] = LabSample(
                since(result["time_ns"]),
                since(result["received_ns"]),
                result["values"],
                sigma,
                fate if result["valid"] else "invalid",
            )
    for number, start_s in enumerate(recorded.starts_s[1:], 2):
        recorded.entries.append(Entry(start_s, f"the controller has started again: start {number}"))
    recorded.entries.sort(key=lambda entry: entry.time_s)
    recorded.lab = sorted(lab.values(), key=lambda sample: sample.drawn_s)
    for event in events:
        if event.kind == PROPOSAL:
            body = event.body
            name = body["proposal_id"]
            fate = said.get(name, "came after the last cycle")
            recorded.advised.append(
                Advised(
                    since(event.time_ns), name, body["targets"], body["gain"], body["why"], fate
                )
            )
