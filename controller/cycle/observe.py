"""From readings to facts: model inputs, measurements, doubts, the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

import numpy as np
from msgspec import Struct

from controller.cycle.application import Application, QualitySource
from controller.cycle.guard import MvFacts
from controller.cycle.mode import Mode
from controller.cycle.record import Estimate
from controller.cycle.state import HandshakeState, LoopState
from controller.cycle.validate import Reading
from controller.estimation.augmented import operating_point
from controller.estimation.delayed import (
    DelayedFilterState,
    Fusion,
    LateResult,
    Verdict,
)
from controller.estimation.kalman import Belief, Measurement
from controller.signal import NS_PER_S, QualityResult, Snapshot
from plant_models.process import Vector, nominal

INITIAL_DOUBT_HOURS = 24.0
"""The first estimate is as uncertain as if nothing had been measured for a day."""


class Inputs(Struct, frozen=True, eq=False):
    """Model inputs in this cycle: setpoints in use u (nu,), measured disturbances d (nd,)."""

    u: Vector
    d: Vector
    known: bool


def doubts(
    application: Application,
    state: LoopState,
    handshake: HandshakeState,
    readings: Mapping[str, Reading],
    snapshot: Snapshot,
) -> tuple[str, ...]:
    """Everything that speaks against moving anything in this cycle, in words."""
    found = [
        f"{tag}: {readings[tag].why or readings[tag].status.name}"
        for tag in application.layout.critical_tags
        if not readings[tag].good
    ]
    if state.cycle >= 0:
        elapsed_s = (snapshot.time_ns - state.time_ns) / NS_PER_S
        expected_s = (snapshot.cycle - state.cycle) * application.cycle_s
        if abs(elapsed_s - expected_s) > application.cycle_s:
            found.append(f"the clock moved by {elapsed_s:g} s instead of {expected_s:g} s")
    if state.mode.mode is Mode.ACTIVE and not handshake.sending:
        found.append("no frame could be sent: a setpoint in use is unknown or outside its limits")
    if state.mode.mode is Mode.ACTIVE:
        found += [
            f"{device} has not echoed the heartbeat for {cycles} cycles"
            for device, cycles in handshake.silent.items()
            if cycles >= application.watchdog_cycles
        ]
        found += [
            f"{device} has not confirmed {frames} frames in a row"
            for device, frames in handshake.unconfirmed.items()
            if frames >= application.watchdog_cycles
        ]
    if state.planless:
        found.append("no verified plan")
    found += _stale_quality(application, state, snapshot.time_ns)
    if not any(readings[loop.in_use].good for loop in application.loops):
        found.append("no setpoint in use can be read")
    return tuple(found)


def _stale_quality(application: Application, state: LoopState, now_ns: int) -> list[str]:
    found: list[str] = []
    for source in application.sources.values():
        if not source.critical:
            continue
        sampled_ns = state.sampled_ns.get(source.name)
        if sampled_ns is None:
            found.append(f"{source.name}: no result has been used yet")
            continue
        age_s = (now_ns - sampled_ns) / NS_PER_S
        if not -application.cycle_s <= age_s <= source.stale_after_s:
            found.append(
                f"{source.name}: the newest sample used is {age_s / 60:.0f} min old, "
                f"{source.stale_after_s / 60:g} min allowed"
            )
    return found


def newest_samples(
    state: LoopState, snapshot: Snapshot, estimated: Estimate | None
) -> Mapping[str, int]:
    """Per quality source, when the newest sample that was fused was drawn."""
    if estimated is None or not estimated.fusions:
        return state.sampled_ns
    newest = dict(state.sampled_ns)
    for result, fusion in zip(snapshot.quality_results, estimated.fusions, strict=True):
        if fusion.verdict is Verdict.FUSED:
            newest[result.source] = max(newest.get(result.source, 0), result.time_ns)
    return newest


def model_inputs(
    application: Application,
    state: LoopState,
    facts: Mapping[str, MvFacts],
    readings: Mapping[str, Reading],
) -> Inputs:
    """Inputs of the model from the PLC; where one cannot be read, the last one stands."""
    model, layout = application.model, application.layout
    last = state.estimator.moments[-1] if state.estimator is not None else None
    u = nominal(model.u) if last is None else last.u.copy()
    known = True
    for mv, (low, high) in zip(application.mvs, layout.mv_believable, strict=True):
        in_use = facts[mv.name].in_use
        if in_use is not None:
            u[mv.input] = min(max(in_use, low), high)
        elif last is None:
            known = False
    d = nominal(model.d) if last is None else last.d.copy()
    believable = zip(application.disturbances, layout.disturbance_believable, strict=True)
    for disturbance, (low, high) in believable:
        value = readings[disturbance.tag].value
        if isfinite(value):
            d[disturbance.input] = min(max(value, low), high)
        elif last is None and disturbance.critical:
            known = False
    return Inputs(u, d, known)


def estimate(
    application: Application,
    state: LoopState,
    inputs: Inputs,
    readings: Mapping[str, Reading],
    snapshot: Snapshot,
) -> tuple[DelayedFilterState | None, Estimate | None]:
    """The estimate after this cycle's measurements and the late results that arrived."""
    if not inputs.known:
        return state.estimator, None
    now = _measurement(application, readings)
    begun = _continue(application, state.estimator, inputs, snapshot)
    after, estimated = _update(application, begun, inputs, now, snapshot)
    if not estimated.healthy:
        # From a belief beyond all reason it would hardly return.
        anew = _start(application, inputs, snapshot)
        after, estimated = _update(application, anew, inputs, now, snapshot)
    return after, estimated


def _update(
    application: Application,
    after: DelayedFilterState,
    inputs: Inputs,
    now: Measurement,
    snapshot: Snapshot,
) -> tuple[DelayedFilterState, Estimate]:
    """One cycle further: with what is measured now and the late results that arrived."""
    filter_ = application.filter
    surprise: dict[str, float] = {}
    moves_on = snapshot.time_ns > after.moments[-1].time_ns
    if moves_on:  # The frame that hands back may fall into the same moment as the cycle before.
        after = filter_.advance(after, snapshot.time_ns, inputs.u, inputs.d, now)
    if moves_on and now.outputs:
        found = filter_.surprise(after.moments[-1], now).tolist()
        outputs = application.layout.outputs
        surprise = {outputs[i]: v for i, v in zip(now.outputs, found, strict=True)}
    fusions: list[Fusion] = []
    for result in snapshot.quality_results:
        late = translate(application.sources.get(result.source), result, snapshot.time_ns)
        if isinstance(late, Fusion):
            fusions.append(late)
            continue
        after, fusion = filter_.fuse(after, late)
        fusions.append(fusion)
    return after, _conclude(application, after, surprise, tuple(fusions))


def _measurement(application: Application, readings: Mapping[str, Reading]) -> Measurement:
    """What the tags that are good say in this cycle."""
    found = [readings[m.tag] for m in application.measured]
    good = [reading.good for reading in found]
    if all(good):
        layout = application.layout
        return Measurement(layout.measured, tuple(r.value for r in found), layout.sigmas)
    kept = [(m, r) for m, r, ok in zip(application.measured, found, good, strict=True) if ok]
    return Measurement(
        tuple(m.output for m, _ in kept),
        tuple(r.value for _, r in kept),
        tuple(m.sigma for m, _ in kept),
    )


def _continue(
    application: Application,
    estimator: DelayedFilterState | None,
    inputs: Inputs,
    snapshot: Snapshot,
) -> DelayedFilterState:
    """The filter to advance; started anew after a gap that its memory does not bridge."""
    if estimator is not None:
        elapsed_s = (snapshot.time_ns - estimator.moments[-1].time_ns) / NS_PER_S
        if (
            -application.cycle_s
            < elapsed_s
            <= max(application.filter.memory_s, 10 * application.cycle_s)
        ):
            return estimator
    return _start(application, inputs, snapshot)


def _start(application: Application, inputs: Inputs, snapshot: Snapshot) -> DelayedFilterState:
    """A filter that knows no more than the inputs, one cycle ago."""
    x, _, _ = operating_point(application.model, inputs.u, inputs.d)
    z = np.concatenate([x, np.zeros(application.filter.augmented.nw)])
    covariance = application.filter.noise_per_hour * INITIAL_DOUBT_HOURS
    start_ns = snapshot.time_ns - round(application.cycle_s * NS_PER_S)
    return application.filter.start(start_ns, z, covariance, inputs.u, inputs.d)


def _plausible(application: Application, belief: Belief) -> bool:
    """Whether all numbers are finite and near enough to where plants are run."""
    for value, (low, high) in zip(belief.z.tolist(), application.layout.z_believable, strict=True):
        if not low <= value <= high:
            return False
    # No covariance exceeds the root of the product of its two variances.
    return isfinite(sum(belief.covariance.diagonal().tolist()))


def translate(
    source: QualitySource | None, result: QualityResult, now_ns: int
) -> LateResult | Fusion:
    """A quality result in terms of the model, or why it cannot be used."""
    if source is None or not result.valid:
        return Fusion(result.result_id, Verdict.UNUSABLE)
    if (now_ns - result.time_ns) / NS_PER_S > source.delay_max_s:
        return Fusion(result.result_id, Verdict.TOO_OLD)
    known = [name for name in source.outputs if name in result.values]
    return LateResult(
        result.result_id,
        result.source,
        result.time_ns,
        Measurement(
            tuple(source.outputs[name] for name in known),
            tuple(result.values[name] for name in known),
            tuple(result.sigma.get(name, source.sigma[name]) for name in known),
        ),
        source.gate,
    )


def _conclude(
    application: Application,
    estimator: DelayedFilterState,
    surprise: Mapping[str, float],
    fusions: tuple[Fusion, ...],
) -> Estimate:
    newest, nx = estimator.moments[-1], application.filter.augmented.nx
    y, variance = application.filter.outputs(newest)
    z = newest.posterior.z
    return Estimate(
        x=z[:nx],
        disturbance=z[nx:],
        y=y,
        sigma=np.sqrt(np.maximum(variance, 0.0)),
        innovation=surprise,
        fusions=fusions,
        healthy=_plausible(application, newest.posterior),
    )
