"""The slow layer at work: feeds the optimizer with records, hands its proposals to the inbox.

It only reads records and only writes proposals, so it may run beside the loop in one process or
in a process of its own; killing it never delays a cycle. Started anew on the same journal it
learns the same again and makes the same proposals, which the inbox recognises by their identity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from controller.cycle.mode import Mode
from controller.optimizer.advisor import Advisor, AdvisorState
from controller.optimizer.steady import CycleRow
from controller.signal import NS_PER_S, Proposal, Snapshot


@dataclass(slots=True)
class Advice:
    """History kept for the advisor, and the advisor's own state.

    Attributes:
        source: quality source whose results it learns from.
        decision_tags: tag of the setpoint in use, per decision of the problem.
        disturbance_tags: tag per disturbance of the problem; "" where none measures it.
        disturbance_nominal: value of a disturbance that no tag measures.
    """

    advisor: Advisor
    source: str
    decision_tags: tuple[str, ...]
    disturbance_tags: tuple[str, ...]
    disturbance_nominal: tuple[float, ...]
    state: AdvisorState = field(default_factory=AdvisorState)
    rows: deque[CycleRow] = field(default_factory=lambda: deque[CycleRow]())

    def consider(
        self, snapshot: Snapshot, mode: str, readings: Mapping[str, float]
    ) -> Proposal | None:
        """Take in one finished cycle; a proposal when it is time for one.

        Args:
            mode: application mode of the cycle's record; readings: its trusted values by tag.
        """
        u = tuple(readings[tag] for tag in self.decision_tags)
        d = tuple(
            readings[tag] if tag else value
            for tag, value in zip(self.disturbance_tags, self.disturbance_nominal, strict=True)
        )
        known = all(isfinite(value) for value in (*u, *d))
        # Who holds the plant does not matter for learning, only that it is held.
        self.rows.append(CycleRow(snapshot.time_ns, u, d, known))
        oldest = snapshot.time_ns - round(self.advisor.history_s * NS_PER_S)
        while self.rows[0].time_ns < oldest:
            self.rows.popleft()
        results = [result for result in snapshot.quality_results if result.source == self.source]
        self.state, proposal = self.advisor.advance(
            self.state,
            tuple(self.rows),
            results,
            snapshot.time_ns,
            may_move=mode == Mode.ACTIVE.value,
        )
        return proposal
