"""Quality sources, estimator, MPC and optimizer: their sections with all numbers resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from controller.settings.application import (
    Controlled,
    Disturbance,
    EstimatorKind,
    EstimatorSettings,
    Lab,
    Manipulated,
    Measured,
    MpcSettings,
    OptimizerSettings,
)
from controller.settings.context import UNKNOWN, Context
from controller.settings.expression import unknown_parts
from controller.settings.problems import suggestion
from controller.settings.robust import resolve_robust
from controller.settings.schema import OptimizerSection
from controller.settings.yaml_core import KeyPath
from plant_models.variable import Variable

# The default drift of an unknown: in an hour it strays by about one per cent of the range.
DEFAULT_WALK = 0.01


def resolve_quality(context: Context) -> Mapping[str, Lab]:
    labs: dict[str, Lab] = {}
    for name, section in context.raw.quality.items():
        path: KeyPath = ("quality", name)
        if name in context.raw.tags:
            context.add(path, f"{name} is the name of a tag already", "Choose another name")
        outputs = context.variables("output")
        sigma = _per_variable(context, (*path, "measures"), section.measures, outputs, "output")
        delay_max_s = context.seconds((*path, "delay_max"), section.delay_max)
        stale_after_s = 2.0 * delay_max_s
        if section.stale_after is not None:
            stale_after_s = context.seconds((*path, "stale_after"), section.stale_after)
        labs[name] = Lab(
            name,
            section.kind,
            sigma,
            delay_max_s,
            float(section.gate),
            stale_after_s,
            section.critical,
        )
    return MappingProxyType(labs)


def _per_variable(
    context: Context,
    path: KeyPath,
    given: Mapping[str, float | str],
    variables: Mapping[str, Variable],
    kind: str,
    *,
    per: str = "",
    zero: bool = False,
) -> Mapping[str, float]:
    """Spreads or steps by name, each in the unit of its variable."""
    result: dict[str, float] = {}
    for name, amount in given.items():
        if context.model is not None and context.known((*path, name), kind, name, variables):
            unit = variables[name].unit
            result[name] = context.positive((*path, name), amount, unit, per=per, zero=zero)
    return MappingProxyType(result)


def resolve_estimator(
    context: Context, measured: Iterable[Measured], controlled: Iterable[Controlled]
) -> EstimatorSettings:
    section = context.raw.estimator
    path: KeyPath = ("estimator",)
    states = _per_variable(
        context,
        (*path, "states"),
        section.states,
        context.variables("state"),
        "model state",
        per="hour**0.5",
        zero=True,
    )
    choice = _estimator_choice(context, path)
    if section.disturbances is None:
        names = dict.fromkeys([m.output for m in measured] + [c.output for c in controlled])
        outputs = context.variables("output")
        default = tuple(
            Disturbance(name, "output", DEFAULT_WALK * outputs[name].span)
            for name in names
            if name in outputs
        )
        return EstimatorSettings(states, default, *choice)
    seen: dict[str, KeyPath] = {}
    disturbances: list[Disturbance] = []
    for i, item in enumerate(section.disturbances):
        place = (*path, "disturbances", i)
        if item.kind == "output":
            variable = context.variable((*place, "on"), item.on, "output")
        elif item.kind == "state":
            variable = context.variable((*place, "on"), item.on, "state")
        else:
            variable = context.variable((*place, "on"), item.on, "input", "disturbance")
        context.once(seen, (*place, "on"), f"a disturbance on {item.kind}", item.on)
        walk = UNKNOWN
        if variable is not None:
            per = "hour**1.5" if item.kind == "state" else "hour**0.5"
            walk = context.positive((*place, "walk"), item.walk, variable.unit, per=per)
        disturbances.append(Disturbance(item.on, item.kind, walk))
    return EstimatorSettings(states, tuple(disturbances), *choice)


def _estimator_choice(context: Context, path: KeyPath) -> tuple[EstimatorKind, int, int]:
    """Kind, window and iterations; the last two belong to the moving horizon alone."""
    section = context.raw.estimator
    if section.kind != "moving_horizon":
        for key, given in (("window", section.window), ("iterations", section.iterations)):
            if given is not None:
                context.add(
                    (*path, key),
                    f"{key} is for kind moving_horizon, but kind is {section.kind}",
                    f"Remove {key}, or write kind: moving_horizon",
                )
    return section.kind, section.window or 10, section.iterations or 6


def resolve_mpc(context: Context, cycle_s: float) -> MpcSettings:
    section = context.raw.mpc
    step_s = context.seconds(("mpc", "step"), section.step)
    if step_s < cycle_s:
        context.add(
            ("mpc", "step"),
            f"the step of {step_s:g} s is shorter than the cycle of {cycle_s:g} s",
            "Write at least one cycle",
        )
    sqp, ipopt = section.iterations
    blocks = tuple(section.blocks)
    if sum(blocks) > section.horizon:
        context.add(
            ("mpc", "blocks"),
            f"the blocks cover {sum(blocks)} intervals, the horizon has {section.horizon}",
            "Shorten them",
        )
    return MpcSettings(
        step_s=step_s,
        horizon=section.horizon,
        plan_age_max=section.plan_age_max,
        iterations=(sqp, ipopt),
        blocks=blocks,
        economics=float(section.economics),
        terminal=section.terminal,
        engine=section.engine,
        robust=resolve_robust(context, section.horizon),
    )


def resolve_optimizer(
    context: Context, manipulated: Iterable[Manipulated]
) -> OptimizerSettings | None:
    section = context.raw.optimizer
    if section is None:
        return None
    path: KeyPath = ("optimizer",)
    context.known((*path, "quality"), "quality source", section.quality, context.raw.quality)
    inputs = context.variables("input")
    moved = {m.name: inputs[m.input] for m in manipulated if m.input in inputs}
    limited = {
        name: variable
        for name, variable in context.variables("output").items()
        if any(c.output == name for c in context.raw.controlled)
    }
    steps = {
        key: _per_variable(context, (*path, key), given, moved, "MV")
        for key, given in (("trust_region", section.trust_region), ("probe", section.probe))
    }
    _check_probe(context, path, section, steps["trust_region"], steps["probe"])
    _check_objective(context, (*path, "maximise"), section.maximise)
    return OptimizerSettings(
        method=section.method,
        maximise=section.maximise,
        unit=section.unit,
        quality=section.quality,
        sigma=float(section.sigma),
        backoff=_per_variable(
            context, (*path, "backoff"), section.backoff, limited, "controlled output", zero=True
        ),
        trust_region=steps["trust_region"],
        probe=steps["probe"],
        points=section.points,
        settle_s=context.seconds((*path, "settle"), section.settle),
    )


def _check_probe(
    context: Context,
    path: KeyPath,
    section: OptimizerSection,
    trust: Mapping[str, float],
    probe: Mapping[str, float],
) -> None:
    for name in section.trust_region:
        if name not in section.probe:
            context.add((*path, "probe"), f"{name} has no probing step", f"Add {name} to probe")
    for name in section.probe:
        if name not in section.trust_region:
            what = f"{name} is not in trust_region"
            context.add((*path, "probe", name), what, f"Add {name} to trust_region")
        elif probe.get(name, UNKNOWN) > trust.get(name, UNKNOWN):
            context.add(
                (*path, "probe", name),
                f"a probing step of {probe[name]:g} is longer than the trust region of "
                f"{trust[name]:g}",
                "Probe inside the trust region",
            )


def _check_objective(context: Context, path: KeyPath, text: str) -> None:
    if context.model is None:
        return
    names = [
        *context.variables("output", "disturbance", "input"),
        *(v.name for v in context.model.p),
        *(m.name for m in context.raw.manipulated),
    ]
    for offset, what, name in unknown_parts(text, names):
        mend = suggestion(name, names) if name else "Use names, numbers, + - * / ** and ( )"
        context.add(path, what, mend, offset=offset)
