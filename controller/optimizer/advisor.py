"""The slow layer: takes in cycles and lab results, decides when to move next, and proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from controller.optimizer.modifier_adaptation import (
    OptimizerState,
    is_probing,
    observe,
    propose,
)
from controller.optimizer.problem import Economics, OptimizerProblem
from controller.optimizer.steady import CycleRow, Refusal, held_point, visit_from
from controller.signal import NS_PER_S, Proposal, QualityResult

# A disturbance that has kept its new value this long is a change and not a spike.
_DISTURBANCE_S = 300.0
# A change of a disturbance by this share of its scale calls for new targets at once.
_DISTURBANCE_SHARE = 0.25
# Results remembered against being taken twice; a day of samples, many times over.
_TAKEN_MAX = 500


@dataclass(frozen=True, slots=True)
class AdvisorState:
    """What the advisor remembers between calls; plain values, storable.

    Attributes:
        optimizer: what modifier adaptation knows.
        taken: identities of lab results already judged, oldest first.
        refused: the latest results that did not count, with the reason.
        moved_ns: time of the last proposal; None before the first.
        decided_at: disturbances for which the last decision was made.
        fresh: a visit has arrived since the last decision.
    """

    optimizer: OptimizerState = field(default_factory=OptimizerState)
    taken: tuple[str, ...] = ()
    refused: tuple[Refusal, ...] = ()
    moved_ns: int | None = None
    decided_at: tuple[float, ...] | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Advisor:
    """Ties steady-state detection and modifier adaptation to the clock of the lab.

    Attributes:
        settle_s: the plant must have been held this long before a sample counts.
        sample_every_s: a sample is drawn at least this often; lets probes be proposed without
            waiting for their results.
        delay_max_s: a result that has not come after this long is given up.
    """

    problem: OptimizerProblem
    economics: Economics
    settle_s: float
    sample_every_s: float = 1800.0
    delay_max_s: float = 7200.0

    @property
    def history_s(self) -> float:
        """How far back `cycle_rows` must reach."""
        return self.delay_max_s + self.settle_s + self.sample_every_s

    def advance(
        self,
        state: AdvisorState,
        cycle_rows: Sequence[CycleRow],
        lab_results: Sequence[QualityResult],
        time_ns: int,
        *,
        may_move: bool = True,
    ) -> tuple[AdvisorState, Proposal | None]:
        """One turn: learn from the results that arrived, then move if it is time to.

        Args:
            cycle_rows: history in order of time, reaching back `history_s` if there is as much.
            lab_results: results received since the last call; known ones are ignored.
            may_move: False while an operator holds the optimizer; it still learns.
        """
        state = self._learn(state, cycle_rows, lab_results)
        d_now = self._disturbance(cycle_rows, time_ns)
        if not may_move or d_now is None or not cycle_rows[-1].active:
            return state, None
        if not self._is_time(state, cycle_rows, d_now, time_ns):
            return state, None
        optimizer, proposal = propose(self.problem, state.optimizer, d_now, time_ns)
        state = replace(state, optimizer=optimizer, decided_at=d_now, fresh=False)
        if proposal is not None:
            state = replace(state, moved_ns=time_ns)
        return state, proposal

    def _learn(
        self,
        state: AdvisorState,
        rows: Sequence[CycleRow],
        results: Sequence[QualityResult],
    ) -> AdvisorState:
        for result in sorted(results, key=lambda r: (r.time_ns, r.result_id)):
            if result.result_id in state.taken:
                continue
            state = replace(state, taken=(*state.taken, result.result_id)[-_TAKEN_MAX:])
            visit = visit_from(self.problem, self.economics, rows, result, self.settle_s)
            if isinstance(visit, Refusal):
                state = replace(state, refused=(*state.refused, visit)[-10:])
                continue
            state = replace(
                state,
                optimizer=observe(self.problem, state.optimizer, visit),
                decided_at=state.decided_at or visit.d,
                fresh=True,
            )
        return state

    def _is_time(
        self,
        state: AdvisorState,
        rows: Sequence[CycleRow],
        d_now: tuple[float, ...],
        time_ns: int,
    ) -> bool:
        if state.optimizer.incumbent is None or state.decided_at is None:
            return False
        scales = np.array([v.scale for v in self.problem.disturbances])
        shift = np.abs(np.array(d_now) - np.array(state.decided_at))
        if bool(np.any(shift > _DISTURBANCE_SHARE * scales)):
            return True
        if state.moved_ns is None or not state.optimizer.pending:
            return state.fresh
        if is_probing(self.problem, state.optimizer):
            window = self.settle_s + self.sample_every_s
            if time_ns - state.moved_ns < round(window * NS_PER_S):
                return False
            return not isinstance(held_point(self.problem, rows, time_ns, window), str)
        patience_s = self.settle_s + 2 * self.sample_every_s + self.delay_max_s
        return time_ns - state.moved_ns > round(patience_s * NS_PER_S)

    def _disturbance(self, rows: Sequence[CycleRow], time_ns: int) -> tuple[float, ...] | None:
        """Median disturbances of the last minutes, (nd,), deaf to spikes; None when missing."""
        begin = time_ns - round(_DISTURBANCE_S * NS_PER_S)
        recent = np.array([row.d for row in rows if row.time_ns > begin], dtype=np.float64)
        if len(recent) == 0 or not np.all(np.isfinite(recent)):
            return None
        return tuple(map(float, np.median(recent, axis=0)))
