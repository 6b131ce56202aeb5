"""The model of the process, from whichever of its forms the file gives, checked at its place."""

from __future__ import annotations

from pathlib import Path

from controller.errors import ModelError
from controller.estimation.augmented import substeps
from controller.settings.context import Context
from controller.settings.linear_forms import MISFIT, resolve_linear
from controller.settings.model_sections import ScheduledSection, SchedulePointSection
from controller.settings.plant_reference import accepted_names, call_factory, find_factory
from controller.settings.quantity import QuantityError, check_unit
from controller.settings.yaml_core import KeyPath
from plant_models.process import (
    NoSteadyStateError,
    ProcessModel,
    names,
    nominal,
    rests_at_nominal,
    steady_state,
)
from plant_models.scheduled import scheduled

FORMS = ("plant", "state_space", "transfer_functions", "step_response", "scheduled")


def resolve_model(context: Context, folder: Path) -> ProcessModel | None:
    """The model that the file describes, at rest at its nominal point; None with problems noted.

    Args:
        folder: where a relative path of a plant file starts.
    """
    section = context.raw.model
    given = [form for form in FORMS if getattr(section, form) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "no form of a model"
        context.add(("model",), f"found {found}, expected one", f"Write one of {', '.join(FORMS)}")
        return None
    path: KeyPath = ("model", given[0])
    if section.plant is not None:
        return _plant(context, path, section.plant, folder)
    if section.parameters:
        what = f"the {given[0]} model has no parameters"
        context.add(("model", "parameters"), what, "Remove them, and write their values out")
    if section.scheduled is not None:
        return _scheduled(context, path, section.scheduled)
    dynamics = section.state_space or section.transfer_functions or section.step_response
    return None if dynamics is None else resolve_linear(context, path, dynamics)


def check_sampling(context: Context, cycle_s: float, step_s: float) -> None:
    """Notes a cycle or an MPC step that is no whole number of samples of a discrete model."""
    if context.model is None or context.model.dt_s == 0.0:
        return
    for path, what, time_s in (
        (("cycle",), "a cycle", cycle_s),
        (("mpc", "step"), "a step", step_s),
    ):
        if not 0.0 < time_s < float("inf"):
            continue
        try:
            substeps(context.model, time_s, what)
        except ModelError as error:
            context.add(path, error.what, error.mend)


def _plant(context: Context, place: KeyPath, reference: str, folder: Path) -> ProcessModel | None:
    given = context.raw.model.parameters
    before = len(context.problems)
    try:
        factory = find_factory(reference, folder)
        own = accepted_names(factory)
        arguments = {name: v for name, v in given.items() if name in own}
        for name in (name for name, v in arguments.items() if isinstance(v, str)):
            what = f"{name} is an argument of {reference}, which knows no units"
            context.add(("model", "parameters", name), what, "Write a number without unit")
        if len(context.problems) > before:
            return None
        model = call_factory(factory, reference, arguments)
    except ModelError as error:
        context.add(place, error.what, error.mend)
        return None
    if not isinstance(model, ProcessModel):
        context.add(
            place,
            f"{reference} returns {type(model).__name__}, not a ProcessModel",
            "Name the factory of a process model",
        )
        return None
    _check_units(context, place, model)
    values: dict[str, float] = {}
    known = {v.name: v.unit for v in model.p}
    for name, amount in given.items():
        here = ("model", "parameters", name)
        if name not in own and context.known(here, "model parameter", name, [*known, *own]):
            values[name] = context.value(here, amount, known[name])
            _check_parameter(context, here, model, values[name])
    if len(context.problems) > before:
        return model
    model = model.with_parameters(values) if values else model
    _check_rest(context, place, model)
    return model


def _check_rest(context: Context, place: KeyPath, model: ProcessModel) -> None:
    """A model starts at rest: at a steady state, or where its integrators stand still."""
    if rests_at_nominal(model):
        return
    try:
        steady_state(model, nominal(model.u))
    except NoSteadyStateError as error:
        context.add(
            place,
            f"no steady state at the nominal point: {error}",
            "Correct the nominal values or the parameters; the targets need a steady state",
        )


def _check_parameter(context: Context, path: KeyPath, model: ProcessModel, value: float) -> None:
    variable = next(v for v in model.p if v.name == path[-1])
    if not variable.low <= value <= variable.high:
        what = f"{value:g} {variable.unit} is outside that of the model: {variable}"
        context.add(path, what, "Choose a value that the model knows")


def _check_units(context: Context, place: KeyPath, model: ProcessModel) -> None:
    for variable in (*model.x, *model.u, *model.d, *model.y, *model.p, *model.z):
        try:
            check_unit(variable.unit)
        except QuantityError as error:
            context.add(place, f"unit of model variable {variable.name}: {error.what}", error.mend)


def _scheduled(context: Context, path: KeyPath, section: ScheduledSection) -> ProcessModel | None:
    before = len(context.problems)
    models = [
        _point(context, (*path, "points", i), point) for i, point in enumerate(section.points)
    ]
    if section.start > len(models):
        what = f"there is no point {section.start}, but {len(models)} of them"
        context.add((*path, "start"), what, "Choose one of them")
    first = models[0]
    if first is None or len(context.problems) > before:
        return None
    variables = {v.name: v for v in (*first.d, *first.u, *first.y)}
    if not context.known((*path, "variable"), "variable", section.variable, variables):
        return None
    unit = variables[section.variable].unit
    values = [
        context.value((*path, "points", i, "at"), point.at, unit)
        for i, point in enumerate(section.points)
    ]
    for i in range(1, len(values)):
        if values[i] <= values[i - 1]:
            what = f"{values[i]:g} {unit} is not above the value of the point before"
            context.add((*path, "points", i, "at"), what, "Order the points by rising value")
    for i, model in enumerate(models):
        if model is not None and names(model.x) != names(first.x):
            what = "its states are not those of the first point: " + ", ".join(names(model.x))
            mend = "Give all points the same lags, and dead times of as many samples"
            context.add((*path, "points", i), what, mend)
    if len(context.problems) > before:
        return None
    points = [(v, m) for v, m in zip(values, models, strict=True) if m is not None]
    try:
        return scheduled(
            context.raw.name, section.variable, points, nominal_point=section.start - 1
        )
    except ValueError as error:
        context.add(path, str(error), MISFIT)
        return None


def _point(context: Context, path: KeyPath, point: SchedulePointSection) -> ProcessModel | None:
    if (point.state_space is None) == (point.transfer_functions is None):
        found = "neither" if point.state_space is None else "both"
        what = f"found {found} of state_space and transfer_functions, expected one of them"
        context.add(path, what, "Write one of them")
        return None
    if point.state_space is not None:
        return resolve_linear(context, (*path, "state_space"), point.state_space)
    if point.transfer_functions is not None:
        return resolve_linear(context, (*path, "transfer_functions"), point.transfer_functions)
    return None
