"""One cycle, on one page: a pure function from state and snapshot to state and record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from controller.cycle.application import Application
from controller.cycle.guard import Authority, Move, MvFacts, guard
from controller.cycle.mode import Mode, ModeState, advance_mode
from controller.cycle.observe import (
    Inputs,
    doubts,
    estimate,
    linked,
    model_inputs,
    mv_facts,
    newest_samples,
)
from controller.cycle.record import Estimate, Record, digest_snapshot, seal
from controller.cycle.state import HandshakeState, LoopState, Wishes
from controller.cycle.validate import validate
from controller.cycle.wishes import hear, timely
from controller.mpc.ladder import PlannerState
from controller.mpc.problem import Plan, Situation, Target
from controller.signal import Snapshot


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
    doubt = doubts(application, state, handshake, readings, snapshot)
    mode = advance_mode(
        application.rules,
        state.mode,
        timely_snapshot.commands,
        doubt,
        linked(application, handshake),
    )
    inputs = model_inputs(application, state, facts, readings)
    estimator, estimated = estimate(application, state, inputs, readings, snapshot)
    target, planner, plan = _think(application, state, wishes, facts, mode, inputs, estimated)
    authority = Authority(
        handshake=mode.mode in (Mode.READY, Mode.ACTIVE) or mode.hand_back,
        control=mode.mode is Mode.ACTIVE,
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
        handshake=_sent(handshake, move, heartbeat, sequence),
        estimator=estimator,
        sampled_ns=newest_samples(state, snapshot, estimated),
        planner=planner,
        planless=mode.mode is not Mode.OFF and (plan is None or plan.rung == "hold"),
    )
    record = Record(
        cycle=snapshot.cycle,
        time_ns=snapshot.time_ns,
        snapshot_digest=digest_snapshot(snapshot),
        mode=mode.mode.value,
        reason=mode.reason,
        doubts=doubt,
        mv_status=_mv_status(application, mode, facts, move),
        cv_value=_cv_values(application, estimated),
        readings={name: reading.value for name, reading in readings.items()},
        resting=wishes.resting,
        setpoints=_setpoints(application, wishes),
        wishes=wishes,
        estimate=estimated,
        target=target,
        plan=plan,
        move=move,
        events=(*_mode_event(state, mode), *refused, *heard, *_fusion_events(estimated)),
    )
    return after, seal(record)


def _think(
    application: Application,
    state: LoopState,
    wishes: Wishes,
    facts: Mapping[str, MvFacts],
    mode: ModeState,
    inputs: Inputs,
    estimated: Estimate | None,
) -> tuple[Target | None, PlannerState, Plan | None]:
    """Target and plan; none in OFF, and none before there is an estimate."""
    if estimated is None or mode.mode is Mode.OFF:
        return None, PlannerState(), None
    situation = _situation(application, wishes, facts, mode, inputs, estimated)
    strange = application.ladder.implausible(situation)
    if strange:
        stay = _stay(situation, estimated, strange)
        planner, plan = application.ladder(state.planner, situation, stay)
        return None, planner, plan
    target = application.target(situation)
    planner, plan = application.ladder(state.planner, situation, target)
    return target, planner, plan


def _situation(
    application: Application,
    wishes: Wishes,
    facts: Mapping[str, MvFacts],
    mode: ModeState,
    inputs: Inputs,
    estimated: Estimate,
) -> Situation:
    mvs, cvs = application.mvs, application.cvs
    active = mode.mode is Mode.ACTIVE
    u_now = inputs.u.copy()
    for mv in mvs:
        fact = facts[mv.name]
        if fact.remote and fact.last_sent is not None:
            u_now[mv.input] = fact.last_sent
    here = [facts[mv.name] for mv in mvs]
    rest = {loop.mv: loop.target for loop in application.loops if loop.target is not None}
    rest |= dict(wishes.resting)
    setpoints = _setpoints(application, wishes)
    return Situation(
        x=estimated.x,
        w=estimated.disturbance,
        d=inputs.d,
        u_now=u_now,
        mv_low=np.array([max(mv.low, f.operator_low) for mv, f in zip(mvs, here, strict=True)]),
        mv_high=np.array([min(mv.high, f.operator_high) for mv, f in zip(mvs, here, strict=True)]),
        cv_low=np.array([max(cv.low, wishes.low.get(cv.name, cv.low)) for cv in cvs]),
        cv_high=np.array([min(cv.high, wishes.high.get(cv.name, cv.high)) for cv in cvs]),
        setpoint=np.array([setpoints.get(cv.name, np.nan) for cv in cvs]),
        # Outside ACTIVE the plan shows what would be done, so every MV is free there.
        free=np.array([1.0 if f.remote or not active else 0.0 for f in here]),
        blocked_up=np.array([float(f.high) for f in here]),
        blocked_down=np.array([float(f.low) for f in here]),
        resting=np.array([rest.get(mv.name, np.nan) for mv in mvs]),
    )


def _setpoints(application: Application, wishes: Wishes) -> dict[str, float]:
    return {
        cv.name: wishes.setpoint.get(cv.name, cv.setpoint)
        for cv in application.cvs
        if cv.setpoint is not None
    }


def _stay(situation: Situation, estimated: Estimate, reason: str) -> Target:
    slack = np.zeros(situation.setpoint.size)
    return Target(situation.u_now, situation.x, estimated.y, slack, False, reason)


def _first_moves(application: Application, plan: Plan | None) -> dict[str, float]:
    if plan is None:
        return {}
    return {mv.name: float(plan.moves[0, i]) for i, mv in enumerate(application.mvs)}


def _next(word: int) -> int:
    """The next value of a UINT16 counter; 0 is left to a PLC that has just started."""
    return word % 65535 + 1


def _sent(handshake: HandshakeState, move: Move, heartbeat: int, sequence: int) -> HandshakeState:
    if not move.frames:
        return replace(handshake, sending=False, sent={})
    return replace(
        handshake, heartbeat=heartbeat, sequence=sequence, sent=move.values, sending=True
    )


def _mv_status(
    application: Application, mode: ModeState, facts: Mapping[str, MvFacts], move: Move
) -> dict[str, str]:
    status: dict[str, str] = {}
    for mv in application.mvs:
        fact = facts[mv.name]
        if fact.in_use is None:
            status[mv.name] = "DROPPED"
        elif mode.mode is not Mode.ACTIVE:
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
    return {cv.name: float(estimated.y[cv.output]) for cv in application.cvs}


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
