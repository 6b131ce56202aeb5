"""Learns plant − model at steady points and walks, inside a trust region, to the plant's optimum.

Modifier adaptation with Gaussian processes: the model stays the prior mean, the processes learn
what it misses in the objective and in each constraint. Marchetti, Chachuat & Bonvin (2009);
Ferreira et al. (2018); del Rio Chanona et al. (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from controller.optimizer.problem import OptimizerProblem
from controller.optimizer.surrogate import Surrogate, build_surrogate
from controller.optimizer.trust_region import best_probe, best_step
from controller.signal import Proposal
from plant_models.process import Vector

Kind = Literal["probe", "step", "return"]
Floats = tuple[float, ...]

# Two visits closer than this share of a probing move say nothing about a gradient.
_SAME_PLACE = 0.4
# A disturbance that has changed by this share of its scale has changed.
_SHIFTED = 0.25
# A target closer than this share of the trust region to the present one is not worth a move.
_DEADBAND = 0.02
# Samples drawn this close together are repetitions of one another.
_REPEATED = 0.05
# A mean of more samples than this would follow a drifting plant too slowly.
_REPEATS_MAX = 8
# A loss or violation has to exceed this many standard deviations before it counts as one.
_SIGNIFICANT = 3.0
# Moves that may wait for their results; more than the lab can have outstanding.
_PENDING_MAX = 8


@dataclass(frozen=True, slots=True)
class Visit:
    """One lab-confirmed steady point.

    `u` as applied and `d` as measured, in the problem's order and units; `objective` and
    `constraints` (≤ 0 is kept) computed from the measured outputs; `time_ns` of the sample.
    `repeats` samples of the same point are kept as one visit, their mean.
    """

    time_ns: int
    u: Floats
    d: Floats
    objective: float
    constraints: Floats
    repeats: int = 1

    @property
    def is_finite(self) -> bool:
        values = (*self.u, *self.d, self.objective, *self.constraints)
        return all(math.isfinite(v) for v in values)


@dataclass(frozen=True, slots=True)
class Move:
    """A proposed target that no visit has confirmed yet."""

    time_ns: int
    u: Floats
    d: Floats
    gain: float
    kind: Kind


@dataclass(frozen=True, slots=True)
class OptimizerState:
    """Everything the optimizer remembers; plain tuples, so that it can be stored and replayed.

    Attributes:
        visits: the last `points` places visited, the latest last.
        incumbent: the best safe visit so far by what the processes say, not by one lab value.
        radius: size of the trust region, in units of the first one.
        pending: targets proposed and not yet confirmed, oldest first.
        suspect: a visit that contradicted the processes; a second alike confirms a change.
        unsafe: the last visit broke a limit significantly: go back before going on.
        probed: enough places have been visited to believe a gradient.
        proposals: number of proposals made, for their identity.
    """

    visits: tuple[Visit, ...] = ()
    incumbent: Visit | None = None
    radius: float = 1.0
    pending: tuple[Move, ...] = ()
    suspect: Visit | None = None
    unsafe: bool = False
    probed: bool = False
    proposals: int = 0


def places(problem: OptimizerProblem, state: OptimizerState) -> tuple[Floats, ...]:
    """Distinct decisions visited or about to be visited."""
    found: list[Floats] = []
    for u in (*(v.u for v in state.visits), *(m.u for m in state.pending)):
        if not any(_same_place(problem, u, other) for other in found):
            found.append(u)
    return tuple(found)


def is_probing(problem: OptimizerProblem, state: OptimizerState) -> bool:
    """True until enough distinct places are known, or on their way, to believe a gradient."""
    return not state.probed and len(places(problem, state)) < problem.places


def observe(problem: OptimizerProblem, state: OptimizerState, visit: Visit) -> OptimizerState:
    """Take in one lab-confirmed steady point.

    Numbers that are not finite are ignored. A visit far from its prediction is set aside; if the
    next one contradicts the old data in the same way, the plant has changed: the old data go.
    """
    if not visit.is_finite:
        return state
    if state.probed:
        surrogate = build_surrogate(problem, state.visits)
        if float(np.max(np.abs(surrogate.innovation(visit)))) > problem.gate:
            return _set_aside(problem, state, surrogate, visit)
    move, pending = _confirmed(problem, state, visit)
    visits = _merged(problem, state.visits, visit)[-problem.points :]
    visited = replace(state, visits=visits, pending=())
    probed = state.probed or len(places(problem, visited)) >= problem.places
    state = replace(visited, pending=pending, probed=probed, suspect=None)
    return _judge(problem, state, visit, move)


def _merged(
    problem: OptimizerProblem, visits: tuple[Visit, ...], visit: Visit
) -> tuple[Visit, ...]:
    """The visits with the new one last; a repetition is averaged into the visit it repeats.

    Otherwise, days at one good point would push everything that tells a gradient out of memory.
    """
    for index, known in enumerate(visits):
        same = _distance(problem, known.u, visit.u) <= _REPEATED
        if same and not _moved(problem, known.d, visit.d, _REPEATED):
            n = min(known.repeats, _REPEATS_MAX - 1)

            def mean(old: Floats, new: Floats, n: int = n) -> Floats:
                return tuple((n * a + b) / (n + 1) for a, b in zip(old, new, strict=True))

            visit = Visit(
                visit.time_ns,
                mean(known.u, visit.u),
                mean(known.d, visit.d),
                mean((known.objective,), (visit.objective,))[0],
                mean(known.constraints, visit.constraints),
                n + 1,
            )
            return (*visits[:index], *visits[index + 1 :], visit)
    return (*visits, visit)


def _set_aside(
    problem: OptimizerProblem, state: OptimizerState, surrogate: Surrogate, visit: Visit
) -> OptimizerState:
    """Keep a contradicting visit apart; start afresh when it is the second of its kind."""
    if state.suspect is not None:
        now, before = surrogate.innovation(visit), surrogate.innovation(state.suspect)
        worst = int(np.argmax(np.abs(now)))
        if now[worst] * before[worst] > 0 and abs(before[worst]) > problem.gate / 2:
            return OptimizerState(
                visits=(state.suspect, visit), incumbent=visit, proposals=state.proposals
            )
    _, pending = _confirmed(problem, state, visit)
    return replace(state, suspect=visit, pending=pending, unsafe=True)


def _confirmed(
    problem: OptimizerProblem, state: OptimizerState, visit: Visit
) -> tuple[Move | None, tuple[Move, ...]]:
    """The move that this visit answers, and the moves still pending after it.

    A sample answers the last move made before it was drawn. The move counts as not carried out
    (None) when the plant was held elsewhere, by a limit or by hand.
    """
    before = [move for move in state.pending if move.time_ns < visit.time_ns]
    after = tuple(move for move in state.pending if move.time_ns >= visit.time_ns)
    if not before or not _same_place(problem, before[-1].u, visit.u):
        return None, after
    return before[-1], after


def _judge(
    problem: OptimizerProblem, state: OptimizerState, visit: Visit, move: Move | None
) -> OptimizerState:
    """Accept or reject the visit as incumbent by its measured gain, and size the trust region."""
    surrogate = build_surrogate(problem, state.visits)
    old = state.incumbent
    tolerance = 1e-9 + problem.sigma[1:]
    d = np.array(visit.d)
    _, constraints = surrogate.predict(np.array(visit.u), d)
    violated = bool(np.any(constraints[0] > tolerance))
    unsafe = bool(np.any(constraints[0] > _SIGNIFICANT * tolerance))
    if old is None:
        return replace(state, incumbent=visit, unsafe=False)
    _, before = surrogate.predict(np.array(old.u), d)
    worst = float(np.max(constraints[0] / tolerance, initial=-np.inf))
    worst_before = float(np.max(before[0] / tolerance, initial=-np.inf))
    gain, sigma = surrogate.gain(np.array(old.u), np.array(visit.u), d)
    # While nothing safe is known, what breaks the limits less is progress, whatever it earns.
    restoring = worst_before > 1.0
    accepted = worst < worst_before - 1.0 if restoring else not violated and gain > sigma
    radius = state.radius
    if move is not None and move.kind == "step":
        lost = unsafe or (gain < -_SIGNIFICANT * sigma and gain < 0.0)
        if accepted and gain >= 0.5 * move.gain:
            radius = min(problem.grow * radius, problem.radius_max)
        elif lost or (not accepted and move.gain > 2.0 * problem.sigma_objective):
            radius = max(problem.shrink * radius, problem.radius_min)
    return replace(
        state,
        incumbent=visit if accepted else old,
        radius=radius,
        # No way back when nothing safe is known, or when we are already on the way elsewhere.
        unsafe=unsafe and not accepted and not restoring and not state.pending,
    )


def propose(
    problem: OptimizerProblem, state: OptimizerState, d_now: Floats, time_ns: int
) -> tuple[OptimizerState, Proposal | None]:
    """The next target at the present disturbances, or None when the present one is best.

    Before anything is known there is nothing to propose. Then come probes, then steps; after an
    unsafe or contradicted visit, the incumbent again.
    """
    if state.incumbent is None or not all(math.isfinite(v) for v in d_now):
        return state, None
    d = np.array(d_now)
    surrogate = build_surrogate(problem, state.visits)
    here = np.array(state.pending[-1].u if state.pending else state.visits[-1].u)
    centre = np.array(state.incumbent.u)
    kind: Kind
    if state.unsafe and not _same_place(problem, state.incumbent.u, tuple(here)):
        kind, target = "return", centre
    elif is_probing(problem, state):
        kind, target = "probe", best_probe(problem, surrogate, _probe_centres(state), d)
    else:
        moved = _moved(problem, state.incumbent.d, d_now, _SHIFTED)
        # The old optimum may lie far from the new one, and the model knows the way there.
        radius = problem.radius_max if moved else state.radius
        kind, target = "step", best_step(problem, surrogate, centre, d, radius)
    chosen: Floats = tuple(map(float, target))
    if _distance(problem, chosen, tuple(here)) < _DEADBAND:
        return replace(state, unsafe=False), None
    gain, _ = surrogate.gain(here, target, d)
    move = Move(time_ns, chosen, d_now, gain, kind)
    state = replace(
        state,
        pending=(*state.pending, move)[-_PENDING_MAX:],
        unsafe=False,
        proposals=state.proposals + 1,
    )
    proposal = Proposal(
        proposal_id=f"optimizer-{state.proposals}",
        time_ns=time_ns,
        targets=dict(zip((v.name for v in problem.decisions), chosen, strict=True)),
        gain=gain,
        why=_why(problem, surrogate, move),
    )
    return state, proposal


def _probe_centres(state: OptimizerState) -> tuple[Vector, ...]:
    incumbent = () if state.incumbent is None else (np.array(state.incumbent.u),)
    return (*incumbent, *(np.array(m.u) for m in state.pending))


def _moved(problem: OptimizerProblem, before: Floats, now: Floats, share: float) -> bool:
    """True when a disturbance differs by more than `share` of its scale."""
    scale = problem.scale[len(problem.decisions) :]
    return bool(np.any(np.abs(np.array(now) - np.array(before)) > share * scale))


def _same_place(problem: OptimizerProblem, a: Floats, b: Floats) -> bool:
    probe = np.array([v.probe for v in problem.decisions])
    return bool(np.all(np.abs(np.array(a) - np.array(b)) <= _SAME_PLACE * probe))


def _distance(problem: OptimizerProblem, a: Floats, b: Floats) -> float:
    return float(np.max(np.abs(np.array(a) - np.array(b)) / problem.radius))


def _why(problem: OptimizerProblem, surrogate: Surrogate, move: Move) -> str:
    """One plain sentence for the operator."""
    target = " and ".join(
        f"{v.name} {value:.4g} {v.unit}" for v, value in zip(problem.decisions, move.u, strict=True)
    )
    if move.kind == "return":
        return f"Back to the last safe point, {target}, because the last result broke a limit."
    if move.kind == "probe":
        return f"Probe at {target} to learn how the plant answers, inside the expected slack."
    _, constraints = surrogate.predict(np.array(move.u), np.array(move.d))
    near = constraints[0] + problem.beta * constraints[1] > -0.5 * problem.sigma[1:]
    active = [name for name, is_near in zip(problem.constraints, near, strict=True) if is_near]
    limits = f", up to {' and '.join(active)}" if active else ""
    money = f"{move.gain:+.3g} {problem.unit}".rstrip()
    return f"Move to {target}: {money} predicted{limits}."
