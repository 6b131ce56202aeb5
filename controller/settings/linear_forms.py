"""Linear models written in a settings file: state space, transfer functions, step responses.

What the file says is checked here, line by line, in the units of its variables; what only the
whole model can say is told by the model's constructor.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from controller.settings import quantity
from controller.settings.context import UNKNOWN, Context
from controller.settings.model_sections import (
    CellSection,
    StateSpaceSection,
    StepResponseSection,
    TransferFunctionsSection,
    VariableSection,
)
from controller.settings.quantity import QuantityError, check_unit
from controller.settings.yaml_core import KeyPath
from plant_models.dead_time import LONGEST_CHAIN
from plant_models.process import ProcessModel
from plant_models.state_space import state_space
from plant_models.step_response import step_response
from plant_models.transfer_function import FOPDT, SOPDT, Cell, Integrator, transfer_matrix
from plant_models.variable import Variable

LinearSection = StateSpaceSection | TransferFunctionsSection | StepResponseSection
MISFIT = "Correct this section"
"""How to mend what only the whole model shows; the message names the part."""


def resolve_linear(context: Context, path: KeyPath, section: LinearSection) -> ProcessModel | None:
    """One linear model; None with its problems noted."""
    before = len(context.problems)
    inputs = _variables(context, (*path, "inputs"), section.inputs)
    disturbances = _variables(context, (*path, "disturbances"), section.disturbances)
    outputs = _variables(context, (*path, "outputs"), section.outputs)
    _check_distinct(context, path, section)
    name = context.raw.name
    try:
        match section:
            case StateSpaceSection():
                return _state_space(context, path, section, before, (inputs, disturbances, outputs))
            case TransferFunctionsSection():
                dt_s = context.seconds((*path, "sample"), section.sample)
                cells = _cells(context, path, section, dt_s, ([*inputs, *disturbances], outputs))
                if len(context.problems) > before:
                    return None
                return transfer_matrix(name, inputs, disturbances, outputs, cells, dt_s)
            case StepResponseSection():
                dt_s = context.seconds((*path, "sample"), section.sample)
                responses = _responses(context, path, section)
                if len(context.problems) > before:
                    return None
                return step_response(
                    name,
                    inputs,
                    outputs,
                    responses,
                    dt_s,
                    disturbances=disturbances,
                    integrating=section.integrating,
                    tolerance=section.tolerance,
                )
    except ValueError as error:
        context.add(path, str(error), MISFIT)
        return None


def _variables(
    context: Context, path: KeyPath, sections: Sequence[VariableSection]
) -> list[Variable]:
    """The variables of one list; those with a problem are left out."""
    seen: dict[str, KeyPath] = {}
    result: list[Variable] = []
    for i, section in enumerate(sections):
        here = (*path, i)
        before = len(context.problems)
        context.once(seen, (*here, "name"), "variable", section.name)
        try:
            check_unit(section.unit)
        except QuantityError as error:
            context.add((*here, "unit"), error.what, error.mend)
            continue
        low, high = context.pair((*here, "range"), section.range, section.unit)
        at = context.value((*here, "nominal"), section.nominal, section.unit)
        if at < low or at > high:
            what = f"{at:g} {section.unit} is outside the range {low:g} … {high:g} {section.unit}"
            context.add((*here, "nominal"), what, "Choose a nominal value inside the range")
        if len(context.problems) == before:
            result.append(Variable(section.name, section.unit, low, high, at, section.description))
    return result


def _check_distinct(context: Context, path: KeyPath, section: LinearSection) -> None:
    inputs = {v.name for v in section.inputs}
    for i, v in enumerate(section.disturbances):
        if v.name in inputs:
            what = f"{v.name} is an input already"
            context.add((*path, "disturbances", i, "name"), what, "Choose another name")


def _state_space(
    context: Context,
    path: KeyPath,
    section: StateSpaceSection,
    before: int,
    variables: tuple[list[Variable], list[Variable], list[Variable]],
) -> ProcessModel | None:
    inputs, disturbances, outputs = variables
    states = _variables(context, (*path, "states"), section.states)
    dt_s = 0.0 if section.sample is None else context.seconds((*path, "sample"), section.sample)
    sizes = {
        "states": len(section.states),
        "inputs": len(section.inputs),
        "disturbances": len(section.disturbances),
        "outputs": len(section.outputs),
    }
    per = 1.0 if dt_s > 0.0 else {"s": 1.0, "min": 60.0, "h": 3600.0}[section.time_unit]
    if dt_s > 0.0 and section.time_unit != "s":
        what = "the matrices of a discrete model are per sample, not per time"
        context.add((*path, "time_unit"), what, "Remove time_unit, or sample")
    a = _matrix(context, (*path, "A"), section.A, ("states", "states"), sizes)
    b = _matrix(context, (*path, "B"), section.B, ("states", "inputs"), sizes)
    bd = _matrix(context, (*path, "Bd"), section.Bd, ("states", "disturbances"), sizes)
    c = _matrix(context, (*path, "C"), section.C, ("outputs", "states"), sizes)
    d = _matrix(context, (*path, "D"), section.D, ("outputs", "inputs"), sizes)
    dd = _matrix(context, (*path, "Dd"), section.Dd, ("outputs", "disturbances"), sizes)
    if len(context.problems) > before:
        return None
    return state_space(
        context.raw.name,
        states=states,
        inputs=inputs,
        outputs=outputs,
        disturbances=disturbances,
        a=a / per,
        b=b / per,
        bd=bd / per,
        c=c,
        d=d,
        dd=dd,
        dt_s=dt_s,
    )


def _matrix(
    context: Context,
    path: KeyPath,
    rows: Sequence[Sequence[float]] | None,
    kinds: tuple[str, str],
    sizes: Mapping[str, int],
) -> NDArray[np.float64]:
    """The matrix, zero where it is left out; every row of the wrong length is told."""
    shape = sizes[kinds[0]], sizes[kinds[1]]
    result = np.zeros(shape)
    if rows is None:
        return result
    name = path[-1]
    if len(rows) != shape[0]:
        what = f"{name} has {len(rows)} rows, expected {shape[0]}: one for each of {kinds[0]}"
        context.add(path, what, "Write one row for each")
        return result
    for i, row in enumerate(rows):
        if len(row) == shape[1]:
            result[i] = row
        else:
            what = f"row {i + 1} of {name} has {len(row)} numbers, expected {shape[1]}"
            context.add((*path, i), what, f"Write one number for each of {kinds[1]}")
    return result


def _cells(
    context: Context,
    path: KeyPath,
    section: TransferFunctionsSection,
    dt_s: float,
    variables: tuple[Sequence[Variable], Sequence[Variable]],
) -> dict[tuple[str, str], Cell]:
    cells: dict[tuple[str, str], Cell] = {}
    seen: dict[str, KeyPath] = {}
    known_inputs = [v.name for v in (*section.inputs, *section.disturbances)]
    known_outputs = [v.name for v in section.outputs]
    by_input, by_output = ({v.name: v for v in part} for part in variables)
    for i, item in enumerate(section.cells):
        here = (*path, "cells", i)
        context.once(seen, here, "a cell", f"{item.output} <- {item.input}")
        fits = context.known((*here, "output"), "output", item.output, known_outputs)
        fits &= context.known((*here, "input"), "input", item.input, known_inputs)
        if not fits or item.output not in by_output or item.input not in by_input:
            continue
        cell = _cell(context, here, item, by_output[item.output].unit, by_input[item.input].unit)
        if cell is not None and cell.delay_s > LONGEST_CHAIN * dt_s:
            what = f"{cell.delay_s:g} s is more than {LONGEST_CHAIN} samples of {dt_s:g} s"
            context.add((*here, "delay"), what, "Take a longer sample time")
        elif cell is not None:
            cells[item.output, item.input] = cell
    _check_all_used(context, path, "cells", known_outputs, (c.output for c in section.cells))
    return cells


def _check_all_used(
    context: Context, path: KeyPath, what: str, known: Iterable[str], used: Iterable[str]
) -> None:
    missing = sorted(set(known) - set(used))
    if missing:
        context.add((*path, what), f"nothing acts on output {', '.join(missing)}", "Add it")


def _cell(
    context: Context, path: KeyPath, item: CellSection, y_unit: str, u_unit: str
) -> Cell | None:
    """One cell, times in seconds and gains in the units of its variables."""
    before = len(context.problems)
    if (item.gain is None) == (item.slope is None):
        found = "neither gain nor slope" if item.gain is None else "gain and slope"
        context.add(path, f"found {found}, expected one of them", "Write one of them")
        return None
    per = "" if u_unit in ("", "1") else f"({u_unit})"
    delay_s = context.seconds((*path, "delay"), item.delay, zero=True)
    if item.slope is not None:
        for key in ("tau", "tau2", "lead"):
            if getattr(item, key) is not None:
                context.add((*path, key), f"an integration has no {key}", f"Remove {key}")
        slope = _ratio(context, (*path, "slope"), item.slope, y_unit, f"{per}*s" if per else "s")
        return None if len(context.problems) > before else Integrator(slope, delay_s)
    gain = _ratio(context, (*path, "gain"), item.gain or 0.0, y_unit, per)
    if item.tau is None:
        context.add(path, "a gain needs a time constant", "Add tau")
        return None
    tau_s = context.seconds((*path, "tau"), item.tau)
    if item.tau2 is None:
        if item.lead is not None:
            context.add((*path, "lead"), "a lead needs two time constants", "Add tau2")
        return None if len(context.problems) > before else FOPDT(gain, tau_s, delay_s)
    tau2_s = context.seconds((*path, "tau2"), item.tau2)
    lead_s = 0.0 if item.lead is None else context.value((*path, "lead"), item.lead, "s")
    if len(context.problems) > before:
        return None
    return SOPDT(gain, tau_s, tau2_s, delay_s, lead_s)


def _ratio(context: Context, path: KeyPath, given: float | str, y_unit: str, per: str) -> float:
    """A gain in y units per `per`; it is not zero. A bare number is in these units already."""
    # A bare number of a slope too is per second, as everything in the model is.
    try:
        result = quantity.difference(given, y_unit, f"({per})" if per else "")
    except QuantityError as error:
        context.add(path, error.what, error.mend)
        return UNKNOWN
    if result == 0.0 or not math.isfinite(result):
        context.add(path, f"found {given}, expected a gain", "Remove a cell without effect")
    return result


def _responses(
    context: Context, path: KeyPath, section: StepResponseSection
) -> dict[tuple[str, str], Sequence[float]]:
    found: dict[tuple[str, str], Sequence[float]] = {}
    seen: dict[str, KeyPath] = {}
    known_inputs = [v.name for v in (*section.inputs, *section.disturbances)]
    known_outputs = [v.name for v in section.outputs]
    for i, item in enumerate(section.responses):
        here = (*path, "responses", i)
        context.once(seen, here, "a response", f"{item.output} <- {item.input}")
        fits = context.known((*here, "output"), "output", item.output, known_outputs)
        fits &= context.known((*here, "input"), "input", item.input, known_inputs)
        if item.output in section.integrating and len(item.coefficients) < 2:
            what = "the slope of an integrating output needs two coefficients"
            context.add((*here, "coefficients"), what, "Write at least two")
        if fits:
            found[item.output, item.input] = item.coefficients
    for i, name in enumerate(section.integrating):
        context.known((*path, "integrating", i), "output", name, known_outputs)
    _check_all_used(
        context, path, "responses", known_outputs, (r.output for r in section.responses)
    )
    return found
