"""Only steady samples count, and the optimizer moves when the lab's clock says so."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from controller.optimizer.advisor import Advisor, AdvisorState
from controller.optimizer.modifier_adaptation import Visit
from controller.optimizer.problem import Economics, OptimizerProblem
from controller.optimizer.steady import CycleRow, Refusal, visit_from
from controller.signal import NS_PER_S, QualityResult


def load_campaign() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "optimizer_campaign.py"
    spec = importlib.util.spec_from_file_location("optimizer_campaign", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


campaign = load_campaign()


def williams_otto() -> tuple[OptimizerProblem, Economics]:
    return campaign.williams_otto_problem(True, 0.0, 2.0)


def history(minutes: int, u: tuple[float, float] = campaign.START) -> list[CycleRow]:
    return [CycleRow(k * 60 * NS_PER_S, u, (1.8275,)) for k in range(minutes + 1)]


def lab(minute: int, name: str = "r1", **values: float) -> QualityResult:
    shares = {"xP": 0.104, "xE": 0.246, "xG": 0.057, "xA": 0.127} | values
    return QualityResult(name, "assay", minute * 60 * NS_PER_S, 0, shares)


def test_a_sample_at_steady_state_becomes_a_visit_at_its_sample_time() -> None:
    problem, economics = williams_otto()
    visit = visit_from(problem, economics, history(60), lab(40), 1500.0)
    assert isinstance(visit, Visit)
    assert visit.time_ns == 40 * 60 * NS_PER_S
    assert visit.u == pytest.approx(campaign.START)
    assert visit.objective == pytest.approx(41.2, abs=0.5)
    assert visit.constraints == pytest.approx((0.007, -0.023))


def test_a_sample_is_refused_with_the_reason() -> None:
    problem, economics = williams_otto()
    rows = history(60)

    def reason(result: QualityResult, given: list[CycleRow]) -> str:
        refusal = visit_from(problem, economics, given, result, 1500.0)
        assert isinstance(refusal, Refusal)
        return refusal.reason

    moved = [replace(r, u=(4.8, 76.233)) if k > 25 else r for k, r in enumerate(rows)]
    manual = [replace(r, active=k != 30) for k, r in enumerate(rows)]
    broken = [replace(r, u=(math.nan, 76.2)) if k == 30 else r for k, r in enumerate(rows)]
    fed = [replace(r, d=(2.0,)) if k > 30 else r for k, r in enumerate(rows)]
    assert reason(lab(40), moved) == "F_B moved during the settling time"
    assert reason(lab(40), fed) == "F_A moved during the settling time"
    assert "not active" in reason(lab(40), manual)
    assert "missing" in reason(lab(40), broken)
    assert "does not reach" in reason(lab(10), rows)
    assert "too little" in reason(lab(10), [])
    assert "invalid" in reason(replace(lab(40), valid=False), rows)
    assert "not finite" in reason(lab(40, xP=math.nan), rows)
    assert "does not contain xA" in reason(replace(lab(40), values={"xP": 0.1}), rows)


def test_advisor_waits_for_the_lab_and_takes_every_result_once() -> None:
    problem, economics = williams_otto()
    advisor = Advisor(problem, economics, 1500.0, 1800.0)
    rows = history(120)
    now = rows[-1].time_ns
    state, proposal = advisor.advance(AdvisorState(), rows, [], now)
    assert proposal is None
    state, proposal = advisor.advance(state, rows, [lab(60)], now, may_move=False)
    assert proposal is None
    assert len(state.optimizer.visits) == 1
    state, proposal = advisor.advance(state, rows, [lab(60)], now)
    assert state.optimizer.visits[0].repeats == 1
    assert proposal is not None
    assert "Probe" in proposal.why
    # The target has just changed: nothing more until a sample must have been drawn there.
    again, none = advisor.advance(state, rows, [], now + 60 * NS_PER_S)
    assert none is None
    assert again == state


@pytest.mark.slow
def test_advisor_follows_the_schedule_of_a_day() -> None:
    problem, economics = williams_otto()
    day = campaign.Schedule(hours=10.0, feed_step_h=9.0)
    points = campaign.demo_run(problem, economics, 1, day)
    assert points[17].gap < 5.0
    assert points[-1].gap < 15.0
    assert points[-1].excess < 1e-3
    morning = replace(day, hours=4.0, feed_step_h=9.0)
    assert campaign.demo_run(problem, economics, 1, morning) == points[:9]
