"""Operators' commands and the optimizer's proposals, inside the engineering limits only."""

from __future__ import annotations

import numpy as np
import pytest

from controller.cycle.observe import Inputs
from controller.cycle.state import Wishes
from controller.cycle.step import _forecast as expected
from controller.cycle.wishes import hear
from controller.signal import Command, CommandKind, Proposal, Snapshot
from tests.unit.small_application import Bench, small_application


def command(
    kind: CommandKind, target: str = "", value: float | None = None, text: str = ""
) -> Command:
    return Command("c1", kind, 0, target, value, text, who="anna")


def told(
    *commands: Command, proposals: tuple[Proposal, ...] = (), wishes: Wishes | None = None
) -> tuple[Wishes, tuple[str, ...]]:
    snapshot = Snapshot(0, 0, {}, commands=commands, proposals=proposals)
    return hear(small_application(), wishes or Wishes(), snapshot)


def test_a_setpoint_of_a_cv() -> None:
    wishes, events = told(command(CommandKind.SETPOINT, "T1", 57.0))
    assert wishes.setpoint == {"T1": 57.0}
    assert events == ("setpoint T1 57 by anna",)


def test_a_setpoint_of_an_mv_is_where_it_rests() -> None:
    assert told(command(CommandKind.SETPOINT, "Q1", 30.0))[0].resting == {"Q1": 30.0}


def test_limits() -> None:
    wishes, _ = told(
        command(CommandKind.LIMIT_LOW, "Q1", 20.0), command(CommandKind.LIMIT_HIGH, "Q1", 60.0)
    )
    assert (wishes.low, wishes.high) == ({"Q1": 20.0}, {"Q1": 60.0})


@pytest.mark.parametrize(
    ("kind", "target", "value", "why"),
    [
        (CommandKind.SETPOINT, "T1", 100.1, "outside the engineering limits [0, 100]"),
        (CommandKind.SETPOINT, "T1", -0.1, "outside the engineering limits [0, 100]"),
        (CommandKind.SETPOINT, "T1", float("nan"), "no number"),
        (CommandKind.SETPOINT, "T1", float("inf"), "no number"),
        (CommandKind.SETPOINT, "T1", None, "no number"),
        (CommandKind.SETPOINT, "T9", 50.0, "no such MV or CV"),
        (CommandKind.LIMIT_HIGH, "Q1", 101.0, "outside the engineering limits [0, 100]"),
        (CommandKind.LIMIT_HIGH, "Q1", 0.0, "not above the low limit"),
        (CommandKind.LIMIT_LOW, "Q1", 100.0, "not below the high limit"),
        (CommandKind.LIMIT_LOW, "T2", float("-inf"), "no number"),
    ],
)
def test_refused(kind: CommandKind, target: str, value: float | None, why: str) -> None:
    wishes, events = told(command(kind, target, value))
    assert wishes == Wishes()
    assert len(events) == 1
    assert events[0].startswith("refused: ")
    assert why in events[0]


def test_limits_cannot_cross() -> None:
    wishes, _ = told(command(CommandKind.LIMIT_LOW, "Q1", 40.0))
    after, events = told(command(CommandKind.LIMIT_HIGH, "Q1", 40.0), wishes=wishes)
    assert after == wishes
    assert events[0].startswith("refused")


def test_an_unknown_mode_is_refused_in_words() -> None:
    _, events = told(command(CommandKind.MODE, text="full speed"))
    assert events == ("refused: mode full speed by anna: off, manual or auto",)


def test_mode_and_re_arm_are_noted() -> None:
    _, events = told(command(CommandKind.MODE, text="auto"), command(CommandKind.REARM))
    assert events == ("mode auto by anna", "rearm by anna")


def proposal(**targets: float) -> Proposal:
    return Proposal("p1", 0, targets, why="more profit")


def test_a_proposal_moves_the_resting_values() -> None:
    wishes, events = told(proposals=(proposal(Q1=30.0, Q2=70.0),))
    assert wishes.resting == {"Q1": 30.0, "Q2": 70.0}
    assert events == ("proposal p1 accepted: Q1 → 30, Q2 → 70. more profit",)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 100.5])
def test_a_proposal_with_one_bad_target_is_refused_whole(value: float) -> None:
    wishes, events = told(proposals=(proposal(Q1=30.0, Q2=value),))
    assert wishes == Wishes()
    assert "refused: Q2" in events[0]


def test_a_proposal_for_what_is_no_mv_is_refused() -> None:
    wishes, events = told(proposals=(proposal(T1=30.0),))
    assert wishes == Wishes()
    assert "T1 is not an MV" in events[0]


def test_on_hold_the_optimizer_is_not_heard() -> None:
    held, events = told(command(CommandKind.OPTIMIZER, text="hold"))
    assert events == ("optimizer hold by anna",)
    wishes, events = told(proposals=(proposal(Q1=30.0),), wishes=held)
    assert wishes.resting == {}
    assert "ignored" in events[0]
    on, _ = told(command(CommandKind.OPTIMIZER, text="on"), wishes=held)
    assert told(proposals=(proposal(Q1=30.0),), wishes=on)[0].resting == {"Q1": 30.0}


def forecast(value: float | None, at_ns: int = 0, name: str = "feed") -> Command:
    return command(CommandKind.FORECAST, name, value, "" if value is None else str(at_ns))


def test_forecasts_are_kept_in_order_and_forgotten_when_they_have_passed() -> None:
    wishes, events = told(forecast(1.5, 900), forecast(1.2, 300), forecast(1.3, 300))
    assert wishes.forecast == {"feed": ((300, 1.3), (900, 1.5))}
    assert events[0] == "forecast feed 1.5 0.0 min ahead by anna"
    later = Snapshot(1, 500, {}, commands=(forecast(1.1, 2000),))
    wishes, _ = hear(small_application(), wishes, later)
    assert wishes.forecast == {"feed": ((900, 1.5), (2000, 1.1))}
    wishes, events = told(forecast(None), wishes=wishes)
    assert wishes.forecast == {}
    assert events == ("forecast feed withdrawn by anna",)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (forecast(1.0, 10, "Q1"), "no such measured disturbance"),
        (forecast(2.1, 10), "outside [0, 2] kg/s"),
        (forecast(float("nan"), 10), "outside [0, 2] kg/s"),
        (command(CommandKind.FORECAST, "feed", 1.0, "soon"), "its time is none"),
    ],
)
def test_forecasts_that_make_no_sense_are_refused(asked: Command, why: str) -> None:
    wishes, events = told(asked)
    assert wishes == Wishes()
    assert why in events[0]


def test_a_forecast_reaches_the_plan_from_its_interval_on() -> None:
    bench, application = Bench(), small_application()
    points = ((round(95e9), 1.5), (round(185e9), 0.8))
    wishes = Wishes(forecast={"feed": points})
    inputs = Inputs(u=np.array([50.0, 50.0]), d=np.array([bench.feed]), known=True)
    rows = expected(application, wishes, inputs, now_ns=round(5e9))[:, 0]
    # Intervals of 30 s begin at 5, 35, 65, 95 s and so on.
    assert rows[:8].tolist() == [1.0, 1.0, 1.0, 1.5, 1.5, 1.5, 0.8, 0.8]
