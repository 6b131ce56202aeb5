"""From settings to the parts of an application: indices, limits, tags, unknowns, filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import casadi as ca
import numpy as np

from controller.cycle.application import (
    CvWatch,
    Link,
    MeasuredDisturbance,
    MeasuredOutput,
    QualitySource,
    SlaveLoop,
)
from controller.cycle.guard import GuardedDevice, GuardedMv
from controller.drivers.address import describe_type
from controller.errors import ModelError, SettingsError
from controller.estimation.augmented import Disturbance, augment, require_detectable
from controller.estimation.delayed import noise_covariance
from controller.estimation.estimator import Estimator, make_estimator
from controller.estimation.kalman import SECONDS_PER_HOUR
from controller.mpc.problem import ControlledVariable, ManipulatedVariable
from controller.settings import Handshake, S7Device, Settings
from controller.signal import Tag
from plant_models.process import names


def controlled(settings: Settings) -> tuple[ControlledVariable, ...]:
    outputs = names(settings.model.y)
    found: list[ControlledVariable] = []
    for cv in settings.controlled:
        variable = settings.model.y[outputs.index(cv.output)]
        limited = np.isfinite(cv.low) and np.isfinite(cv.high) and cv.setpoint is None
        found.append(
            ControlledVariable(
                name=cv.output,
                output=outputs.index(cv.output),
                unit=variable.unit,
                low=cv.low + cv.margin,
                high=cv.high - cv.margin,
                setpoint=cv.setpoint,
                weight=cv.weight,
                scale=cv.high - cv.low if limited else variable.span,
                rank=cv.rank,
                price=cv.price,
                approach_s=cv.approach_s,
                ramp_s=cv.ramp_s,
            )
        )
    return tuple(found)


def economics(
    settings: Settings,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
) -> ca.Function | None:
    """What MVs and CVs cost over one interval, (x, u, d, y) -> cost; None where nothing is priced
    or prices are left to the steady-state target."""
    weight = settings.mpc.economics
    if not weight or not any(v.price for v in (*mvs, *cvs)):
        return None
    model = settings.model
    sizes = (("x", model.x), ("u", model.u), ("d", model.d), ("y", model.y))
    x, u, d, y = (model.symbol.sym(name, len(variables)) for name, variables in sizes)
    hourly = sum(mv.price * u[mv.input] for mv in mvs) + sum(cv.price * y[cv.output] for cv in cvs)
    hours = settings.mpc.step_s / SECONDS_PER_HOUR
    return ca.Function("economics", [x, u, d, y], [weight * hours * hourly])


def watches(settings: Settings) -> tuple[CvWatch, ...]:
    """What happens to each CV when nothing measures it."""
    return tuple(
        CvWatch(
            cv.output,
            () if cv.measured_by in settings.quality else (cv.measured_by,),
            (cv.measured_by,) if cv.measured_by in settings.quality else (),
            cv.predict_for_s,
            cv.on_failure,
        )
        for cv in settings.controlled
    )


def typed_tags(settings: Settings) -> Mapping[str, Tag]:
    """The tags with the types that their addresses say.

    Raises:
        SettingsError: every address that its driver does not understand, each with its place.
    """
    problems: list[SettingsError] = []
    tags: dict[str, Tag] = {}
    for name, tag in settings.tags.items():
        driver = "s7" if isinstance(settings.devices[tag.device], S7Device) else "modbus"
        try:
            tags[name] = replace(tag, type=describe_type(driver, tag.address))
        except SettingsError as error:
            where = f"{settings.where(f'tags.{name}.address')} tags.{name}.address"
            problems.append(SettingsError(error.what, where=where, mend=error.mend))
    if problems:
        raise SettingsError(
            problems[0].what,
            where=problems[0].where,
            mend=problems[0].mend,
            problems=tuple(problems),
        )
    return tags


def manipulated(settings: Settings, tags: Mapping[str, Tag]) -> tuple[ManipulatedVariable, ...]:
    inputs = names(settings.model.u)
    return tuple(
        ManipulatedVariable(
            name=mv.name,
            input=inputs.index(mv.input),
            unit=tags[mv.setpoint].unit,
            low=mv.low,
            high=mv.high,
            rate_per_s=mv.rate_per_s,
            move_suppression=mv.move_suppression,
            target_weight=mv.target_weight,
            price=mv.price,
        )
        for mv in settings.manipulated
    )


def guarded_mvs(settings: Settings, tags: Mapping[str, Tag]) -> tuple[GuardedMv, ...]:
    return tuple(
        GuardedMv(
            name=mv.name,
            device=tags[mv.setpoint].device,
            unit=tags[mv.setpoint].unit,
            low=mv.low,
            high=mv.high,
            rate_per_s=mv.rate_per_s,
            setpoint=mv.setpoint,
            request=mv.request,
        )
        for mv in settings.manipulated
    )


def _handshakes(settings: Settings) -> dict[str, Handshake]:
    return {
        device.name: device.handshake
        for device in settings.devices.values()
        if device.handshake is not None
    }


def guarded_devices(settings: Settings) -> tuple[GuardedDevice, ...]:
    return tuple(
        GuardedDevice(name, words.heartbeat, words.sequence or "", words.epoch or "")
        for name, words in _handshakes(settings).items()
    )


def links(settings: Settings) -> tuple[Link, ...]:
    return tuple(Link(name, words.heartbeat_echo) for name, words in _handshakes(settings).items())


def slave_loops(settings: Settings) -> tuple[SlaveLoop, ...]:
    return tuple(
        SlaveLoop(mv.name, mv.in_use, mv.mode, mv.saturation, mv.target)
        for mv in settings.manipulated
    )


def measured_outputs(settings: Settings) -> tuple[MeasuredOutput, ...]:
    outputs = names(settings.model.y)
    return tuple(
        MeasuredOutput(outputs.index(m.output), m.tag, m.sigma, m.critical)
        for m in settings.measured
    )


def measured_disturbances(settings: Settings) -> tuple[MeasuredDisturbance, ...]:
    disturbances = names(settings.model.d)
    return tuple(
        MeasuredDisturbance(disturbances.index(f.input), f.tag, f.critical)
        for f in settings.feedforward
    )


def quality_sources(settings: Settings) -> dict[str, QualitySource]:
    outputs = names(settings.model.y)
    return {
        lab.name: QualitySource(
            lab.name,
            {output: outputs.index(output) for output in lab.sigma},
            lab.sigma,
            lab.delay_max_s,
            lab.gate,
            lab.stale_after_s,
            lab.critical,
        )
        for lab in settings.quality.values()
    }


def estimator(settings: Settings) -> Estimator:
    """The estimator with its augmented model.

    Raises:
        SettingsError: the measured outputs cannot tell the disturbances apart, or the kind of
            estimator does not fit the model.
    """
    chosen = settings.estimator
    unknowns = tuple(Disturbance(q.on, q.kind, q.walk) for q in chosen.disturbances)
    seen = {m.output for m in settings.measured}
    seen |= {output for lab in settings.quality.values() for output in lab.sigma}
    try:
        augmented = augment(settings.model, unknowns, settings.cycle_s, settings.mpc.step_s)
        require_detectable(augmented, tuple(y for y in names(settings.model.y) if y in seen))
    except ModelError as error:
        raise SettingsError(
            error.what, where=settings.where("estimator.disturbances"), mend=error.mend
        ) from error
    memory_s = max((lab.delay_max_s for lab in settings.quality.values()), default=0.0)
    try:
        return make_estimator(
            chosen.kind,
            augmented,
            noise_covariance(augmented, dict(chosen.states), unknowns),
            settings.cycle_s,
            memory_s + settings.cycle_s,
            chosen.window,
            chosen.iterations,
        )
    except ModelError as error:
        raise SettingsError(
            error.what, where=settings.where("estimator.kind"), mend=error.mend
        ) from error
