"""From settings to the parts of an application: indices, limits, tags, unknowns, filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from controller.cycle.application import (
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
from controller.estimation.delayed import DelayedFilter, noise_covariance
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
            )
        )
    return tuple(found)


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


def estimator(settings: Settings) -> DelayedFilter:
    """The filter with its augmented model.

    Raises:
        SettingsError: the measured outputs cannot tell the disturbances apart.
    """
    unknowns = tuple(Disturbance(q.on, q.kind, q.walk) for q in settings.estimator.disturbances)
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
    return DelayedFilter(
        augmented,
        noise_covariance(augmented, dict(settings.estimator.states), unknowns),
        settings.cycle_s,
        memory_s + settings.cycle_s,
    )
