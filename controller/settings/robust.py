"""The parameter sets of robust control: every name a parameter of the model, every value in it."""

from __future__ import annotations

from types import MappingProxyType

from controller.mpc.tree import BRANCHES_MAX, ParameterSet
from controller.settings.application import RobustSettings
from controller.settings.context import Context
from controller.settings.schema import ParameterSetSection
from controller.settings.yaml_core import KeyPath

NOMINAL = "nominal"
PATH: KeyPath = ("mpc", "robust")


def resolve_robust(context: Context, intervals: int) -> RobustSettings | None:
    """The scenario tree in an MPC horizon of so many intervals; None where there is none."""
    section = context.raw.mpc.robust
    if section is None:
        return None
    seen: dict[str, KeyPath] = {}
    sets = [ParameterSet(NOMINAL, 1.0, MappingProxyType({}))] if section.nominal else []
    for i, item in enumerate(section.sets):
        place = (*PATH, "sets", i)
        context.once(seen, (*place, "name"), "parameter set", item.name)
        if item.name == NOMINAL:
            what = f"{NOMINAL} is the name of the model's own parameters"
            context.add((*place, "name"), what, "Choose another name")
        sets.append(_parameter_set(context, place, item))
    if section.horizon > intervals:
        context.add(
            (*PATH, "horizon"),
            f"the tree branches in {section.horizon} intervals, the MPC has {intervals}",
            "Shorten it; 1 is the rule",
        )
    # The power of a long horizon is a number nobody needs: what is too long stops the count.
    elif len(sets) ** min(section.horizon, BRANCHES_MAX) > BRANCHES_MAX:
        context.add(
            (*PATH, "horizon"),
            f"{len(sets)} parameter sets over {section.horizon} intervals make more than "
            f"{BRANCHES_MAX} branches",
            "Shorten the robust horizon, or drop a set",
        )
    return RobustSettings(section.horizon, tuple(sets))


def _parameter_set(context: Context, place: KeyPath, section: ParameterSetSection) -> ParameterSet:
    values: dict[str, float] = {}
    given = section.parameters
    if not given:
        what = f"set {section.name} changes no parameter of the model"
        context.add(place, what, "Write a parameter and its value, or remove the set")
    parameters = {v.name: v for v in context.model.p} if context.model is not None else {}
    for name, amount in given.items():
        here = (*place, name)
        if context.model is None or not context.known(here, "model parameter", name, parameters):
            continue
        variable = parameters[name]
        values[name] = context.value(here, amount, variable.unit)
        if values[name] < variable.low or values[name] > variable.high:
            what = f"{values[name]:g} {variable.unit} is outside that of the model: {variable}"
            context.add(here, what, "Choose a value that the model knows")
    return ParameterSet(section.name, float(section.weight), MappingProxyType(values))
