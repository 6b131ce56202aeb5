"""MVs that drop out and come back: the others go on, and nothing jumps on the way back."""

from __future__ import annotations

import numpy as np
import pytest

from controller.signal import Sample, Status
from tests.unit.small_application import CYCLE_S, MVS, Run, mode_command, small_application

STEP = MVS[0].rate_per_s * CYCLE_S
FIRST = "tracking: the first request moves nothing"


def active() -> Run:
    run = Run(small_application())
    run.activate()
    return run


def sent(run: Run, cycles: int) -> np.ndarray:
    """Setpoints of both MVs in the last frames, (cycles, 2)."""
    frames = run.bench.frames[-cycles:]
    return np.array([[f["Q1.SP"], f["Q2.SP"]] for f in frames], dtype=np.float64)


def settled(run: Run) -> None:
    run.cycles(140)
    assert run.bench.x == pytest.approx([55.0, 40.0], abs=2e-3)
    assert set(run.records[-1].mv_status.values()) == {"ON"}


def test_back_from_local_it_starts_where_the_operator_left_it() -> None:
    run = active()
    run.cycles(20)
    for k in range(15):
        run.bench.remote["Q2"] = False
        run.bench.heat["Q2"] = 70.0 - k  # driven by hand, faster than we ever would
        record = run.cycle()
        if k == 0:
            # A jump is believed when it has lasted for a cycle; until then nothing is asked for.
            assert run.bench.frames[-1]["Q2.REQ"] == 0
            continue
        assert record.mv_status["Q2"] == "LOCAL"
        # The setpoint follows, so that the switch back to REMOTE does not move the loop.
        assert run.bench.frames[-1]["Q2.SP"] == 70.0 - k
        assert run.bench.frames[-1]["Q2.REQ"] == 1
    left = run.bench.heat["Q2"]
    record = run.cycle()
    assert record.mv_status["Q2"] == "ON"
    assert abs(run.bench.heat["Q2"] - left) <= STEP + 1e-9
    run.cycles(5)
    assert np.max(np.abs(np.diff(sent(run, 7), axis=0))) <= STEP + 1e-9
    settled(run)


def test_while_one_is_in_local_the_plan_keeps_it_still_and_moves_the_other() -> None:
    run = active()
    for _ in range(10):
        run.bench.remote["Q2"] = False
        plan = run.cycle().plan
        assert plan is not None
        assert plan.moves[:, 1] == pytest.approx(np.full(len(plan.moves), run.bench.heat["Q2"]))
    assert abs(run.bench.heat["Q1"] - 50.0) > 1.0


def test_a_setpoint_in_use_that_can_be_read_again_is_followed_without_a_jump() -> None:
    run = active()
    run.cycles(10)
    lost = {"Q2.SPU": Sample(None, Status.BAD_COMMUNICATION_ERROR, 0, 0)}
    run.edit = lambda _, samples: {**samples, **lost}
    for _ in range(2 * run.application.rules.hold_cycles):
        assert run.cycle().mv_status["Q2"] == "DROPPED"
    assert not run.bench.remote["Q2"]  # the request was withdrawn, the PLC took it back
    run.edit = lambda _, samples: samples
    before = run.bench.heat["Q2"]
    run.cycles(4)
    assert np.max(np.abs(np.diff([before, *sent(run, 4)[:, 1]]))) <= STEP + 1e-9
    assert run.bench.remote["Q2"]
    settled(run)


def test_a_loop_that_is_in_remote_before_it_is_asked_starts_where_it_is() -> None:
    run = Run(small_application())
    record = run.cycle(mode_command("auto"))
    while record.mode != "ACTIVE":
        run.bench.remote = {"Q1": True, "Q2": True}  # left so by another master
        record = run.cycle()
    assert record.plan is not None
    assert abs(record.plan.moves[0, 0] - 50.0) > 0.1
    for name in ("Q1", "Q2"):
        assert run.bench.frames[-1][f"{name}.SP"] == 50.0
        assert run.bench.frames[-1][f"{name}.REQ"] == 1
        assert record.move.reasons[name] == FIRST
    record = run.cycle()
    assert FIRST not in record.move.reasons.values()
    assert 0.1 < abs(run.bench.heat["Q1"] - 50.0) <= STEP + 1e-9


def test_a_loop_that_stayed_in_remote_without_a_request_is_asked_anew_where_it_is() -> None:
    run = active()
    run.cycles(10)
    lost = {"Q2.SPU": Sample(None, Status.BAD_COMMUNICATION_ERROR, 0, 0)}
    run.edit = lambda _, samples: {**samples, **lost}
    run.cycles(run.application.rules.hold_cycles + 1)
    assert run.bench.frames[-1]["Q2.REQ"] == 0
    run.edit = lambda _, samples: samples
    run.bench.remote["Q2"], run.bench.heat["Q2"] = True, 57.5
    record = run.cycle()
    assert record.move.reasons["Q2"] == FIRST
    assert run.bench.frames[-1]["Q2.SP"] == 57.5
    assert run.bench.frames[-1]["Q2.REQ"] == 1
    assert record.move.reasons.get("Q1") != FIRST
    settled(run)


@pytest.mark.parametrize(("word", "status", "sign"), [(1, "HIGH", 1.0), (2, "LOW", -1.0)])
def test_a_saturated_output_is_blocked_one_way_planned_so_and_released(
    word: int, status: str, sign: float
) -> None:
    run = active()
    run.cycles(60)
    run.bench.upset = np.array([-15.0 * sign, 0.0])  # wants Q1 to go on in the blocked direction
    run.bench.saturation["Q1"] = word
    stuck = run.bench.heat["Q1"]
    for _ in range(10):
        record = run.cycle()
        assert record.plan is not None
        assert record.mv_status["Q1"] == status
        assert np.all(sign * (record.plan.moves[:, 0] - stuck) <= 1e-6)
    # Wound up, it would not come back at once when the wish turns round.
    run.bench.upset = np.array([15.0 * sign, 0.0])
    run.cycles(6)
    assert sign * (run.bench.heat["Q1"] - stuck) < -1.0
    run.bench.saturation["Q1"] = 0
    run.bench.upset = np.zeros(2)
    settled(run)
