"""What holds until somebody asks for something else: limits, setpoints and resting values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isnan

from controller.cycle.application import Application, constant
from controller.cycle.state import Standing, Wishes
from controller.mpc.problem import ControlledVariable, ManipulatedVariable
from plant_models.process import Vector


def standing(application: Application, before: Standing | None, wishes: Wishes) -> Standing:
    """What holds with these wishes; `before` itself where they are still the same."""
    layout, mvs, cvs = application.layout, application.mvs, application.cvs
    if before is not None and before.wishes is wishes and before.layout is layout:
        return before
    setpoints = layout.setpoints
    if wishes.setpoint:
        setpoints = {n: wishes.setpoint.get(n, value) for n, value in setpoints.items()}
    return Standing(
        layout=layout,
        wishes=wishes,
        mv_low=_wished(layout.mv_low, mvs, wishes.low, max),
        mv_high=_wished(layout.mv_high, mvs, wishes.high, min),
        cv_low=_wished(layout.cv_low, cvs, wishes.low, max),
        cv_high=_wished(layout.cv_high, cvs, wishes.high, min),
        setpoint=_wished(layout.setpoint, cvs, wishes.setpoint, _replaced),
        resting=_wished(layout.resting, mvs, wishes.resting, lambda _, value: value),
        setpoints=setpoints,
    )


def _wished(
    usual: Vector,
    variables: Sequence[ManipulatedVariable | ControlledVariable],
    wishes: Mapping[str, float],
    choose: Callable[[float, float], float],
) -> Vector:
    """What holds per variable: the usual value, and what `choose` makes of it and a wish."""
    if not wishes:
        return usual
    return constant(
        [
            choose(value, wishes[variable.name]) if variable.name in wishes else value
            for variable, value in zip(variables, usual.tolist(), strict=True)
        ]
    )


def _replaced(usual: float, wish: float) -> float:
    """A setpoint gives way to another one; a zone has none."""
    return usual if isnan(usual) else wish
