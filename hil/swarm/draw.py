"""Random faults: for every fault type, arguments that matter and that the PLC's types can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

import numpy as np

from hil.faults.schedule import HOST, KINDS, TIERS_OF, Fault
from hil.faults.solver import Rung, SolverFault, SolverFaultKind
from hil.swarm.stage import Stage

Args = dict[str, float]
Chance = np.random.Generator

_MODBUS_CODES: Final = (2.0, 4.0, 6.0)
_S7_CODES: Final = (float(0x8104), float(0x8500), float(0x8701))
_CHEAP: Final[tuple[SolverFaultKind, ...]] = ("infeasible", "exception", "slow")
_COSTLY: Final[tuple[SolverFaultKind, ...]] = ("cap", "wrong", "nan")
_COSTLY_SHARE = 0.2  # each builds its own broken solver, which takes a second
_TOGETHER_SHARE = 0.3
REPRODUCIBLE_HOST_FAULTS: Final = frozenset({"kill", "pause", "disk_full", "clock_step"})
"""Faults of the control process after which the same seed gives the same history in lock-step.
What is not here depends on real time."""
_CYCLES: Final = (0.5, 60.0)
"""Shortest and longest fault, in cycles."""


def digits(value: float, count: int = 4) -> float:
    """Rounded to significant digits: a drawn scenario is also read by people."""
    return float(f"{value:.{count}g}")


def draw_faults(
    chance: Chance, stage: Stage, count: int, until_s: float, beside: Sequence[Fault] = ()
) -> tuple[Fault, ...]:
    """Those `beside`, and up to `count` more that begin and end before `until_s` (s).

    Most come one by one; some come while another lasts. Two of one type on one target never
    overlap, because a scenario may not say so.
    """
    choices = fault_choices(stage)
    found = list(beside)
    for _ in range(count if choices else 0):
        kind = str(chance.choice(sorted(choices)))
        if found and chance.random() < _TOGETHER_SHARE:
            other = found[int(chance.integers(len(found)))]
            begin_s = float(chance.uniform(other.at_s, other.until_s))
        else:
            begin_s = float(chance.uniform(0.0, until_s))
        draw_fault(chance, stage, kind, begin_s, until_s, found)
    return tuple(sorted(found, key=lambda fault: (fault.at_s, fault.type, fault.target)))


def draw_fault(
    chance: Chance, stage: Stage, kind: str, begin_s: float, until_s: float, found: list[Fault]
) -> None:
    """Append a fault of this type that begins at `begin_s` (s), unless its like is there then."""
    target = str(chance.choice(fault_choices(stage)[kind]))
    args = {k: digits(v) for k, v in ARGUMENTS[kind](chance, stage, target).items()}
    at_s, end_s = _times(chance, stage, begin_s, until_s)
    fault = Fault(at_s, end_s, target, kind, MappingProxyType(args))
    if at_s < end_s and not any(_collide(fault, other) for other in found):
        found.append(fault)


def draw_solver_faults(
    chance: Chance, stage: Stage, count: int, until_s: float
) -> tuple[SolverFault, ...]:
    """Up to `count` faults of the rungs of the solve ladder."""
    found: list[SolverFault] = []
    rungs = [*stage.rungs, "all", *(["lqr"] if stage.has_regulator else [])]
    for _ in range(count):
        solver = cast("Rung", str(chance.choice(rungs)))
        costly = chance.random() < _COSTLY_SHARE
        kinds = _COSTLY if costly else _CHEAP
        if solver == "lqr":
            kinds = ("nan", "wrong", "slow")
        elif solver == "tree" or (solver == "all" and "tree" in stage.rungs):
            kinds = _CHEAP  # a scenario tree cannot fail in the costly ways
        kind = cast("SolverFaultKind", str(chance.choice(kinds)))
        at_s, end_s = _times(chance, stage, float(chance.uniform(0.0, until_s)), until_s)
        # Slow means late: at least now and then the frames come after their cycle is over.
        delay_s = digits(float(chance.uniform(0.1, 1.5)) * stage.cycle_s) if kind == "slow" else 0.0
        if kind == "slow":
            end_s = min(end_s, at_s + 5.0 * stage.cycle_s)
        if at_s < end_s:
            found.append(SolverFault(at_s, end_s, solver, kind, delay_s))
    return tuple(sorted(found, key=lambda fault: (fault.at_s, fault.solver, fault.kind)))


def fault_choices(stage: Stage) -> dict[str, list[str]]:
    """Per fault type that this tier supports, the targets there are; types without are left out,
    and so are those after which a history is not the same again."""
    targets: Mapping[str, list[str]] = {
        "sensor": sorted(stage.sensors),
        "quality": sorted(stage.labs),
        "loop": sorted(stage.loops),
        "device": sorted(stage.handshakes),
        "link": sorted(stage.drivers),
        "host": [HOST],
    }
    of_plant = {
        "parameter_drift": sorted(stage.gentle),
        "feed_change": sorted(stage.free_inputs),
        "gain_flip": sorted(stage.inputs),
    }
    found: dict[str, list[str]] = {}
    for name, kind in KINDS.items():
        if stage.tier not in TIERS_OF[name]:
            continue
        if kind.lane == "host" and name not in REPRODUCIBLE_HOST_FAULTS:
            continue
        mine = of_plant[name] if kind.lane == "plant" else targets[kind.lane]
        if kind.driver is not None:
            mine = [device for device in mine if stage.drivers[device] == kind.driver]
        if mine:
            found[name] = mine
    return found


def _times(chance: Chance, stage: Stage, begin_s: float, until_s: float) -> tuple[float, float]:
    """Whole scans, so that the file says what happens; a length between the shortest and the
    longest, all orders of magnitude alike."""
    shortest, longest = _CYCLES
    length_s = shortest * (longest / shortest) ** chance.random() * stage.cycle_s
    scan_s = stage.scan_s
    at = round(begin_s / scan_s)
    end = min(at + max(1, round(length_s / scan_s)), int(until_s / scan_s))
    return digits(at * scan_s, 9), digits(end * scan_s, 9)


def _collide(one: Fault, other: Fault) -> bool:
    same = (one.type, one.target) == (other.type, other.target)
    return same and one.at_s <= other.until_s and other.at_s <= one.until_s


# --- arguments by type -------------------------------------------------------------------------


def _none(chance: Chance, stage: Stage, target: str) -> Args:
    return {}


def _between(chance: Chance, low: float, high: float) -> float:
    """All orders of magnitude between two positive numbers alike."""
    return low * (high / low) ** float(chance.random())


def _sign(chance: Chance) -> float:
    return 1.0 if chance.random() < 0.5 else -1.0


def _of_span(name: str, low: float, high: float, *, signed: bool) -> Callable[..., Args]:
    """One argument that is a share of the span of the sensor."""

    def draw(chance: Chance, stage: Stage, target: str) -> Args:
        tag = stage.sensors[target]
        size = _between(chance, low, high) * _span(tag.low, tag.high)
        return {name: size * _sign(chance) if signed else size}

    return draw


def _span(low: float, high: float) -> float:
    return high - low if np.isfinite(high - low) and high > low else 1.0


def _spike(chance: Chance, stage: Stage, target: str) -> Args:
    size = _of_span("size", 0.01, 0.5, signed=True)(chance, stage, target)
    return {**size, "probability": _between(chance, 0.02, 1.0)}


def _drift(chance: Chance, stage: Stage, target: str) -> Args:
    tag = stage.sensors[target]
    per_cycle = _between(chance, 1e-4, 1e-2) * _span(tag.low, tag.high)
    return {"rate_per_s": per_cycle * _sign(chance) / stage.cycle_s}


def _out_of_range(chance: Chance, stage: Stage, target: str) -> Args:
    tag = stage.sensors[target]
    span, beyond = _span(tag.low, tag.high), _between(chance, 0.01, 10.0)
    upward = _sign(chance) > 0 or not np.isfinite(tag.low)
    if upward and np.isfinite(tag.high):
        return {"value": tag.high + beyond * span}
    return {"value": (tag.low if np.isfinite(tag.low) else 0.0) - beyond * span}


def _of_output(name: str, low: float, high: float) -> Callable[..., Args]:
    """One argument that is a share of the range of a loop's output."""

    def draw(chance: Chance, stage: Stage, target: str) -> Args:
        tuning = stage.loops[target].tuning
        return {name: _between(chance, low, high) * (tuning.output_high - tuning.output_low)}

    return draw


def _part(chance: Chance, low: float, high: float) -> Args:
    """A range inside a range, at least a tenth as wide."""
    a, b = sorted(float(v) for v in chance.uniform(low, high, 2))
    least = 0.1 * (high - low)
    return {"low": min(a, high - least), "high": max(b, min(a, high - least) + least)}


def _saturation(chance: Chance, stage: Stage, target: str) -> Args:
    tuning = stage.loops[target].tuning
    return _part(chance, tuning.output_low, tuning.output_high)


def _clamp(chance: Chance, stage: Stage, target: str) -> Args:
    loop = stage.loops[target]
    return _part(chance, loop.setpoint_low, loop.setpoint_high)


def _late(chance: Chance, stage: Stage, target: str) -> Args:
    return {"delay_s": _between(chance, 0.1, 3.0) * stage.labs[target].every_s}


def _sigmas(chance: Chance, stage: Stage, target: str) -> Args:
    return {"sigmas": _between(chance, 3.0, 50.0)}


def _probability(chance: Chance, stage: Stage, target: str) -> Args:
    return {"probability": _between(chance, 0.05, 1.0)}


def _modbus(chance: Chance, stage: Stage, target: str) -> Args:
    return {"code": float(chance.choice(_MODBUS_CODES)), **_probability(chance, stage, target)}


def _s7(chance: Chance, stage: Stage, target: str) -> Args:
    return {"code": float(chance.choice(_S7_CODES)), **_probability(chance, stage, target)}


def _delay(chance: Chance, stage: Stage, target: str) -> Args:
    delay_ms = _between(chance, 1.0, 200.0)
    return {"delay_ms": delay_ms, "jitter_ms": delay_ms * float(chance.random())}


def _period(chance: Chance, stage: Stage, target: str) -> Args:
    return {"period_ms": _between(chance, 5.0, 500.0)}


def _factor(chance: Chance, stage: Stage, target: str) -> Args:
    share = stage.gentle[target]
    return {"factor": 1.0 + float(chance.uniform(-share, share))}


def _feed(chance: Chance, stage: Stage, target: str) -> Args:
    feed = stage.free_inputs[target]
    to = feed.nominal + float(chance.uniform(-0.1, 0.1)) * feed.span
    return {"to": min(max(to, feed.low), feed.high)}


def _clock_step(chance: Chance, stage: Stage, target: str) -> Args:
    return {"step_s": _between(chance, 1.0, 7200.0) * _sign(chance)}


ARGUMENTS: Final[Mapping[str, Callable[[Chance, Stage, str], Args]]] = MappingProxyType(
    {
        "freeze": _none,
        "bias": _of_span("size", 1e-3, 0.1, signed=True),
        "drift": _drift,
        "spike": _spike,
        "nan": _none,
        "out_of_range": _out_of_range,
        "quantise": _of_span("step", 1e-3, 0.1, signed=False),
        "late": _late,
        "missing": _probability,
        "swapped": _none,
        "lab_outlier": _sigmas,
        "mode_flip": _none,
        "stiction": _of_output("band", 1e-3, 0.1),
        "deadband": _of_output("size", 1e-3, 0.1),
        "saturation": _saturation,
        "rate_limit": _of_output("rate_per_s", 1e-4, 0.1),
        "stuck": _none,
        "refuse_write": _none,
        "clamp_write": _clamp,
        "stop": _none,
        "heartbeat_freeze": _none,
        "cable_cut": _none,
        "reset": _none,
        "refuse": _none,
        "delay": _delay,
        "drop": _probability,
        "half_open": _none,
        "modbus_exception": _modbus,
        "s7_error": _s7,
        "byte_order": _none,
        "word_order": _none,
        "stale_image": _none,
        "reconnect_storm": _period,
        "parameter_drift": _factor,
        "feed_change": _feed,
        "gain_flip": _none,
        "kill": _none,
        "pause": _none,
        "disk_full": _none,
        "clock_step": _clock_step,
    }
)
"""How the arguments of each type are drawn; every type that a swarm can raise is here."""
