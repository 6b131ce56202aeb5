"""One cycle, on one page: a pure function from state and snapshot to state and record."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import numpy as np
from msgspec.structs import replace

from controller.cycle.application import Application, Layout
from controller.cycle.guard import Authority, Move, MvFacts, guard
from controller.cycle.handshake import linked, mv_facts
from controller.cycle.limits import ramp
from controller.cycle.mode import Mode, ModeState, advance_mode
from controller.cycle.observe import (
    Inputs,
    doubts,
    estimate,
    model_inputs,
    newest_samples,
)
from controller.cycle.record import Estimate, Record
from controller.cycle.standing import standing
from controller.cycle.state import HandshakeState, LoopState, Standing, Wishes
from controller.cycle.validate import validate
from controller.cycle.watch import CvStatus, watch_cvs
from controller.cycle.wishes import hear, timely
from controller.mpc.ladder import PlannerState
from controller.mpc.problem import (
    Plan,
    Situation,
    Target,
)
from controller.signal import NS_PER_S, Snapshot
from plant_models.process import Vector

# Members of an enumeration take ten times as long to find as these.
_OFF, _ACTIVE, _WRITING = Mode.OFF, Mode.ACTIVE, (Mode.READY, Mode.ACTIVE)


def step(
    application: Application, state: LoopState, snapshot: Snapshot
) -> tuple[LoopState, Record]:
    """Decide one cycle. Same application, state and snapshot: same record, bit for bit."""
    cycle_s = application.cycle_s
    memory, readings = validate(
        application.tags, state.memory, snapshot.samples, snapshot.time_ns, cycle_s
    )
    timely_snapshot, refused = timely(application, snapshot)
    wishes, heard = hear(application, state.wishes, timely_snapshot)
    facts, handshake = mv_facts(application, state, wishes, readings, snapshot)
    cvs = watch_cvs(application, state, readings, snapshot.time_ns)
    doubt = (*doubts(application, state, handshake, readings, snapshot), *cvs.doubts)
    mode = advance_mode(
        application.rules,
        state.mode,
        timely_snapshot.commands,
        doubt,
        linked(application, handshake),
    )
    inputs = model_inputs(application, state, facts, readings)
    estimator, estimated = estimate(application, state, inputs, readings, snapshot)
    holds = standing(application, state.standing, wishes)
    situation = _situation(
        application, holds, facts, mode, cvs.status, inputs, estimated, snapshot.time_ns
    )
    limits, situation = ramp(application, state.limits, situation)
    target, planner, plan = _think(application, state, situation, estimated)
    authority = Authority(
        handshake=mode.mode in _WRITING or mode.hand_back,
        control=mode.mode is _ACTIVE,
        hold=mode.holding,
    )
    heartbeat, sequence = _next(handshake.heartbeat), _next(handshake.sequence)
    move = guard(
        application.guarded_mvs,
        application.guarded_devices,
        authority,
        _first_moves(application, plan),
        facts,
        cycle_s,
        heartbeat,
        sequence,
        application.epoch,
    )
    after = LoopState(
        cycle=snapshot.cycle,
        time_ns=snapshot.time_ns,
        memory=memory,
        mode=mode,
        wishes=wishes,
        handshake=_sent(application, handshake, move, heartbeat, sequence),
        estimator=estimator,
        sampled_ns=newest_samples(state, snapshot, estimated),
        failures=cvs.failures,
        standing=holds,
        limits=limits,
        target=target if target is not None and target.solved else None,
        planner=planner,
        planless=mode.mode is not _OFF and (plan is None or plan.rung == "hold"),
    )
    record = Record(
        cycle=snapshot.cycle,
        time_ns=snapshot.time_ns,
        mode=mode.mode.value,
        reason=mode.reason,
        doubts=doubt,
        mv_status=_mv_status(application, mode, facts, move),
        cv_status=cvs.status,
        cv_value=_cv_values(application, estimated),
        readings={name: reading.value for name, reading in readings.items()},
        resting=wishes.resting,
        setpoints=holds.setpoints,
        wishes=wishes,
        estimate=estimated,
        target=target,
        plan=plan,
        move=move,
        events=(
            *_mode_event(state, mode),
            *refused,
            *heard,
            *cvs.events,
            *_fusion_events(estimated),
        ),
    )
    return after, record


def _think(
    application: Application,
    state: LoopState,
    situation: Situation | None,
    estimated: Estimate | None,
) -> tuple[Target | None, PlannerState, Plan | None]:
    """Target and plan, where there is something to plan for."""
    if situation is None or estimated is None:
        return None, PlannerState(), None
    # Inputs are believable always (`Layout.mv_believable`), states are while the estimate is sound.
    strange = "" if estimated.healthy else application.ladder.implausible(situation)
    if strange:
        stay = _stay(situation, estimated, strange)
        planner, plan = application.ladder(state.planner, situation, stay)
        return None, planner, plan
    # Of several steady states the one near the plant: the last target is a place to begin only
    # where the plant has come close to it.
    last = state.target
    near = application.layout.x_near
    if last is not None and not all((abs(last.x - situation.x) <= near).tolist()):
        last = None
    target = application.target(situation, last)
    planner, plan = application.ladder(state.planner, situation, target)
    return target, planner, plan


def _situation(
    application: Application,
    holds: Standing,
    facts: Mapping[str, MvFacts],
    mode: ModeState,
    cv_status: Mapping[str, CvStatus],
    inputs: Inputs,
    estimated: Estimate | None,
    now_ns: int,
) -> Situation | None:
    """What to plan for; nothing in OFF, and nothing before there is an estimate."""
    if estimated is None or mode.mode is _OFF:
        return None
    mvs, cvs, layout = application.mvs, application.cvs, application.layout
    active = mode.mode is _ACTIVE
    here = [facts[mv.name] for mv in mvs]
    u_now = inputs.u.copy()
    for mv, fact in zip(mvs, here, strict=True):
        if fact.remote and fact.last_sent is not None:
            u_now[mv.input] = fact.last_sent
    dropped = "DROPPED" in cv_status.values()
    return Situation(
        x=estimated.x,
        w=estimated.disturbance,
        d=inputs.d,
        u_now=u_now,
        mv_low=holds.mv_low,
        mv_high=holds.mv_high,
        cv_low=holds.cv_low,
        cv_high=holds.cv_high,
        setpoint=holds.setpoint,
        # Outside ACTIVE the plan shows what would be done, so every MV is free there.
        free=_flags([fact.remote for fact in here], layout) if active else layout.every,
        blocked_up=_flags([fact.high for fact in here], layout),
        blocked_down=_flags([fact.low for fact in here], layout),
        resting=holds.resting,
        cv_now=estimated.y[layout.cv_rows] if layout.funnelled else None,
        forecast=_forecast(application, holds.wishes, inputs, now_ns)
        if holds.wishes.forecast
        else None,
        watched=np.array([0.0 if cv_status[cv.name] == "DROPPED" else 1.0 for cv in cvs])
        if dropped
        else None,
    )


def _forecast(application: Application, wishes: Wishes, inputs: Inputs, now_ns: int) -> Vector:
    """Measured disturbances in every interval of the horizon, (N, nd): as now, until a value that
    is expected of them begins."""
    horizon = application.ladder.stage.horizon
    begins = [now_ns + round(k * horizon.step_s * NS_PER_S) for k in range(horizon.intervals)]
    rows = np.tile(inputs.d, (horizon.intervals, 1))
    for column, variable in enumerate(application.model.d):
        for at_ns, value in wishes.forecast.get(variable.name, ()):
            if at_ns > now_ns:
                rows[bisect_left(begins, at_ns) :, column] = value
    return rows


def _flags(flags: list[bool], layout: Layout) -> Vector:
    """1.0 where a flag is set; as a rule all are, or none is."""
    if all(flags):
        return layout.every
    return np.array(flags, dtype=np.float64) if any(flags) else layout.none


def _stay(situation: Situation, estimated: Estimate, reason: str) -> Target:
    slack = np.zeros(situation.setpoint.size)
    return Target(situation.u_now, situation.x, estimated.y, slack, False, reason)


def _first_moves(application: Application, plan: Plan | None) -> dict[str, float]:
    if plan is None:
        return {}
    return dict(zip((mv.name for mv in application.mvs), plan.moves[0].tolist(), strict=True))


def _next(word: int) -> int:
    """The next value of a UINT16 counter; 0 is left to a PLC that has just started."""
    return word % 65535 + 1


def _sent(
    application: Application,
    handshake: HandshakeState,
    move: Move,
    heartbeat: int,
    sequence: int,
) -> HandshakeState:
    if not move.frames:
        return replace(handshake, sending=False, sent={})
    # What was not asked for is not followed: only tracking, which nothing may be measured by.
    asked = {
        mv.name: move.values[mv.name]
        for mv in application.guarded_mvs
        if mv.device in move.frames and move.allowed[mv.name]
    }
    return replace(handshake, heartbeat=heartbeat, sequence=sequence, sent=asked, sending=True)


def _mv_status(
    application: Application, mode: ModeState, facts: Mapping[str, MvFacts], move: Move
) -> dict[str, str]:
    status: dict[str, str] = {}
    for mv in application.mvs:
        fact = facts[mv.name]
        if fact.in_use is None:
            status[mv.name] = "DROPPED"
        elif mode.mode is not _ACTIVE:
            status[mv.name] = "TRACKING"
        elif not fact.remote:
            status[mv.name] = "LOCAL"
        elif fact.high or move.values.get(mv.name, mv.low) >= mv.high - 1e-6 * mv.span:
            status[mv.name] = "HIGH"
        elif fact.low or move.values.get(mv.name, mv.high) <= mv.low + 1e-6 * mv.span:
            status[mv.name] = "LOW"
        else:
            status[mv.name] = "ON"
    return status


def _cv_values(application: Application, estimated: Estimate | None) -> dict[str, float]:
    if estimated is None:
        return {}
    y = estimated.y.tolist()
    return {cv.name: y[cv.output] for cv in application.cvs}


def _mode_event(state: LoopState, mode: ModeState) -> tuple[str, ...]:
    if mode.mode is state.mode.mode:
        return ()
    return (f"{state.mode.mode} → {mode.mode}: {mode.reason}",)


def _fusion_events(estimated: Estimate | None) -> tuple[str, ...]:
    if estimated is None:
        return ()
    return tuple(
        f"result {fusion.result_id}: {fusion.verdict}, chi-square {fusion.chi_square:.3g}"
        for fusion in estimated.fusions
    )
