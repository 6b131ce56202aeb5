"""What a scenario offers a swarm to break: targets by lane, and how much mismatch is gentle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from controller.cycle.application import Application
from controller.errors import ScenarioError
from controller.mpc.regulator import Regulator
from controller.settings import Controlled, S7Device, Settings
from controller.signal import Tag
from controller.wiring import typed_tags
from hil.faults.schedule import Driver
from hil.lab import LabSettings
from hil.plc.slave_loop import SlaveLoop
from hil.scenario.parts import Scenario
from hil.world import make_plant
from plant_models.process import (
    Adjustable,
    NoSteadyStateError,
    Plant,
    Vector,
    names,
    nominal,
    steady_state,
)
from plant_models.variable import Variable

MISMATCH_MAX = 0.05
"""No parameter is further from the scenario's than this share."""
_PROBE = 0.01
_SETTLE_CYCLES = 200
_ZONE_SHARE, _SETPOINT_SHARE = 0.1, 0.05
_NEGLIGIBLE = 1e-3


@dataclass(frozen=True, slots=True)
class Stage:
    """Targets of faults by name, and what is needed to choose their arguments.

    Attributes:
        sensors: measured tags that hold real numbers (others cannot carry every distortion).
        gentle: per plant parameter, the largest share by which it may differ; one that moves a
            controlled variable strongly may differ less, so that the spec stays within reach.
        reach: per CV with a setpoint, between which values the model can hold it at rest.
        free_inputs: plant inputs that no loop drives; inputs: all of them.
        rungs: of the solve ladder, from the top; `has_regulator`: below them.
    """

    tier: str
    cycle_s: float
    scan_s: float
    sensors: Mapping[str, Tag]
    loops: Mapping[str, SlaveLoop]
    handshakes: tuple[str, ...]
    drivers: Mapping[str, Driver]
    labs: Mapping[str, LabSettings]
    gentle: Mapping[str, float]
    reach: Mapping[str, tuple[float, float]]
    free_inputs: Mapping[str, Variable]
    inputs: tuple[str, ...]
    rungs: tuple[str, ...]
    has_regulator: bool


def stage_of(scenario: Scenario, application: Application) -> Stage:
    """Look a scenario over. Simulates its plant once per parameter.

    Raises:
        ScenarioError: its PLC runs a program of its own, whose loops nobody can break.
    """
    if scenario.awl is not None:
        raise ScenarioError(
            "a swarm breaks the loops of a virtual PLC, and this PLC runs a program of its own",
            where=str(scenario.path),
            mend="Give the swarm a scenario whose plc is of the kind virtual",
        )
    settings = scenario.settings
    tags = typed_tags(settings)
    measured = [*(loop.pv for loop in scenario.loops), *scenario.indicators]
    plant = make_plant(scenario)
    driven = {loop.drives for loop in scenario.loops}
    return Stage(
        tier=scenario.tier,
        cycle_s=settings.cycle_s,
        scan_s=scenario.scan_s,
        sensors={name: tags[name] for name in measured if tags[name].type.startswith("float")},
        loops={loop.name: loop for loop in scenario.loops},
        handshakes=tuple(d.name for d in settings.devices.values() if d.handshake is not None),
        drivers={
            d.name: "s7" if isinstance(d, S7Device) else "modbus" for d in settings.devices.values()
        },
        labs={lab.source: lab for lab in scenario.labs},
        gentle=_gentle(scenario, plant),
        reach=_reach(settings),
        free_inputs={v.name: v for v in plant.inputs if v.name not in driven},
        inputs=tuple(v.name for v in plant.inputs),
        rungs=tuple(name for name, _ in application.ladder.solvers),
        has_regulator=isinstance(application.ladder.regulator, Regulator),
    )


def _gentle(scenario: Scenario, plant: Plant) -> dict[str, float]:
    """The share of each parameter that shifts no CV by more than its allowance, all MVs at rest."""
    if not isinstance(plant, Adjustable):
        return {}
    before = _settled(scenario, plant)
    found: dict[str, float] = {}
    for name, value in plant.parameters.items():
        if value == 0.0:
            continue
        factor = scenario.mismatch.get(name, 1.0) * (1.0 + _PROBE)
        probed = replace(scenario, mismatch={**scenario.mismatch, name: factor})
        after = _settled(scenario, make_plant(probed))
        shifts = [
            abs(after[cv.output] - before[cv.output]) / _allowance(cv, scenario.settings)
            for cv in scenario.settings.controlled
            if cv.output in before
        ]
        worst = max(shifts, default=0.0)
        share = MISMATCH_MAX if worst <= 0.0 else min(MISMATCH_MAX, _PROBE / worst)
        if share > _NEGLIGIBLE and np.isfinite(share):
            found[name] = share
    return found


def _reach(settings: Settings) -> dict[str, tuple[float, float]]:
    """What the steady model shows with its MVs at their nominal values and at every combination of
    their limits, as far as the model is believed, with the configured setpoint in it."""
    model = settings.model
    columns = [names(model.u).index(mv.input) for mv in settings.manipulated]
    d, seen = nominal(model.d), list[Vector]()
    for corner in product(*((mv.low, mv.high) for mv in settings.manipulated)):
        u = nominal(model.u)
        u[columns] = corner
        try:
            x = steady_state(model, u, d)
        except NoSteadyStateError:
            continue
        seen.append(np.asarray(model.h(x, u, d, model.p_nominal), dtype=np.float64).ravel())
    found: dict[str, tuple[float, float]] = {}
    for cv in settings.controlled:
        if cv.setpoint is None:
            continue
        row = names(model.y).index(cv.output)
        believed = model.y[row]
        values = [
            cv.setpoint,
            *(min(max(float(y[row]), believed.low), believed.high) for y in seen),
        ]
        found[cv.output] = min(values), max(values)
    return found


def _settled(scenario: Scenario, plant: Plant) -> dict[str, float]:
    """Outputs of a plant whose inputs are left alone, noise-free or nearly so, after a while."""
    y = plant.reset(scenario.seed)
    u: Vector = getattr(plant, "initial_inputs", nominal(plant.inputs)).copy()
    for _ in range(_SETTLE_CYCLES):
        y = plant.advance(u, scenario.settings.cycle_s)
    return {v.name: float(value) for v, value in zip(plant.outputs, y.tolist(), strict=True)}


def _allowance(cv: Controlled, settings: Settings) -> float:
    variable = next(v for v in settings.model.y if v.name == cv.output)
    if cv.setpoint is not None:
        return _SETPOINT_SHARE * max(abs(cv.setpoint), _SETPOINT_SHARE * variable.span)
    low, high = max(cv.low, variable.low), min(cv.high, variable.high)
    return _ZONE_SHARE * (high - low)
