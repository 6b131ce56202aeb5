"""Every rung is made to fail in every way a solver fails, and no failure gets past its check."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controller.app import build_application
from controller.cycle.application import Application
from controller.errors import ScenarioError
from controller.mpc.ladder import PlannerState
from controller.mpc.problem import Plan, Situation
from controller.ports import Messages
from controller.settings import load
from controller.signal import NS_PER_S
from hil.faults.solver import (
    AnnouncingInbox,
    ClockOffsets,
    Rung,
    SolverFault,
    SolverFaultKind,
    SolverFaults,
)
from hil.scenario import load_scenario
from plant_models.process import nominal

CONFIG = Path(__file__).parents[2] / "config"
EVERY_RUNG = CONFIG / "scenarios" / "every-rung.yaml"
NONLINEAR: tuple[Rung, ...] = ("rti", "sqp", "ipopt")
KINDS: tuple[SolverFaultKind, ...] = ("infeasible", "cap", "wrong", "exception", "nan")
VIOLATED, UNSOLVED, UNFINISHED = "constraints are violated", "the QP is not solved", "not converged"
NO_NUMBER = "the answer is not finite"
SAID = {
    "infeasible": (VIOLATED, UNSOLVED),
    "cap": (VIOLATED, UNFINISHED, "not stationary"),
    "wrong": (VIOLATED, UNSOLVED),
    "exception": ("broke: a fault of the scenario",),
    "nan": (NO_NUMBER,),
}


@pytest.fixture(scope="module", name="reactor")
def _reactor() -> Application:
    return build_application(load(CONFIG / "cstr" / "cstr.yaml"), epoch=1)


@pytest.fixture(scope="module", name="column")
def _column() -> Application:
    return build_application(load(CONFIG / "wood_berry" / "wood-berry.yaml"), epoch=1)


def situation(application: Application) -> Situation:
    """Off its setpoints, with room to move."""
    model, layout = application.model, application.layout
    return Situation(
        x=nominal(model.x) + 0.02 * np.array([v.span for v in model.x]),
        w=np.zeros(application.filter.augmented.nw),
        d=nominal(model.d),
        u_now=nominal(model.u),
        mv_low=layout.mv_low,
        mv_high=layout.mv_high,
        cv_low=layout.cv_low,
        cv_high=layout.cv_high,
        setpoint=layout.setpoint,
        free=layout.every,
        blocked_up=layout.none,
        blocked_down=layout.none,
        resting=layout.resting,
    )


def plan(application: Application, *faults: SolverFault, time_s: float = 0.0) -> Plan:
    injected = SolverFaults(faults, start_ns=0)
    faulty = injected.inside(application)
    injected.begin_cycle(round(time_s * NS_PER_S))
    now = situation(application)
    return faulty.ladder(PlannerState(), now, application.target(now))[1]


def always(rung: Rung, kind: SolverFaultKind, delay_s: float = 0.0) -> SolverFault:
    return SolverFault(0.0, 1e9, rung, kind, delay_s)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rung", NONLINEAR)
def test_a_nonlinear_rung_that_fails_is_refused_for_what_it_did(
    reactor: Application, rung: Rung, kind: SolverFaultKind
) -> None:
    above = NONLINEAR[: NONLINEAR.index(rung)]
    found = plan(reactor, *(always(name, "exception") for name in above), always(rung, kind))
    assert found.rung == (*NONLINEAR, "lqr")[NONLINEAR.index(rung) + 1]
    reason = found.refused[len(above)]
    assert reason.startswith(f"{rung}: ")
    assert any(text in reason for text in SAID[kind]), reason
    if kind == "wrong" and rung != "rti":
        assert reason.endswith("it said SOLVER_RET_SUCCESS")


@pytest.mark.parametrize("kind", KINDS)
def test_a_condensed_qp_that_fails_is_refused_for_what_it_did(
    column: Application, kind: SolverFaultKind
) -> None:
    found = plan(column, always("condensed", kind))
    assert found.rung == "sqp"
    assert any(text in found.refused[0] for text in SAID[kind]), found.refused
    if kind in ("wrong", "nan"):
        assert found.refused[0].endswith("it said DAQP exit flag 1")


def test_without_any_solver_the_regulator_stays_and_without_it_nothing_moves(
    reactor: Application,
) -> None:
    none = always("all", "exception")
    assert plan(reactor, none).rung == "lqr"
    for kind, reason in (("nan", "not finite"), ("wrong", "away from the target")):
        found = plan(reactor, none, always("lqr", kind))  # pyright: ignore[reportArgumentType]
        assert found.rung == "hold"
        assert reason in found.refused[-1]


def test_a_fault_acts_in_its_time_alone_and_leaves_nothing_behind(reactor: Application) -> None:
    fault = SolverFault(10.0, 20.0, "all", "wrong")
    sound = plan(reactor)
    assert sound.rung == "rti"
    assert sound.refused == ()
    for time_s, rung in ((9.9, "rti"), (10.0, "lqr"), (19.9, "lqr"), (20.0, "rti")):
        found = plan(reactor, fault, time_s=time_s)
        assert found.rung == rung
        assert (found.rung == "rti") == np.array_equal(found.moves, sound.moves)


class SteppedClock:
    def __init__(self) -> None:
        self.now_ns = 5 * NS_PER_S

    def time_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep_until(self, monotonic_ns: int) -> None:
        self.now_ns = monotonic_ns


def test_a_slow_solver_spends_time_and_decides_the_same(reactor: Application) -> None:
    clock = SteppedClock()
    slow = (always("rti", "slow", 12.0), always("all", "slow", 0.5), always("sqp", "slow", 7.0))
    injected = SolverFaults(slow, 0, clock)
    faulty = injected.inside(reactor)
    injected.begin_cycle(0)
    now = situation(reactor)
    found = faulty.ladder(PlannerState(), now, reactor.target(now))[1]
    assert clock.now_ns == 17.5 * NS_PER_S
    assert found.rung == "rti"
    replayed = plan(reactor, *slow)  # where nobody waits
    assert np.array_equal(replayed.moves, found.moves)


class EmptyInbox:
    def poll(self, time_ns: int) -> Messages:
        return Messages()


class WrongClock:
    offset_ns = 0


def test_the_inbox_announces_the_cycle_by_its_true_time() -> None:
    fault = SolverFault(10.0, 20.0, "rti", "nan")
    injected = SolverFaults([fault], start_ns=100 * NS_PER_S)
    clock, notes = WrongClock(), list[tuple[int, int]]()
    inbox = AnnouncingInbox(
        EmptyInbox(), injected, clock, lambda *note: notes.append((note[0], note[1]))
    )
    seen: list[bool] = []
    for second, offset_s in ((9, 0), (10, 900), (19, 900), (19, -9), (20, -9), (20, 0)):
        clock.offset_ns = offset_s * NS_PER_S
        inbox.poll((100 + second + offset_s) * NS_PER_S)
        seen.append(injected.active == (fault,))
    assert seen == [False, True, True, True, False, False]
    assert [(time_ns // NS_PER_S, off // NS_PER_S) for time_ns, off in notes] == [
        (1010, 900), (110, -9), (120, 0),
    ]  # fmt: skip


def test_offsets_are_found_again_by_start_and_cycle() -> None:
    offsets = ClockOffsets()
    for step in ((1, 5, 900), (1, 9, 0), (2, 0, -3), (2, 0, -4)):
        offsets.hear(ClockOffsets.told(*step))
    offsets.hear({"text": "something else"})
    asked = [(1, 4), (1, 5), (1, 8), (1, 9), (2, 0), (2, 99), (3, 7)]
    assert [offsets.at(*cycle) for cycle in asked] == [0, 900, 900, 0, -4, -4, 0]


def test_a_rung_that_the_ladder_does_not_have_is_refused(reactor: Application) -> None:
    with pytest.raises(ScenarioError, match=r"no rung condensed.*It has rti, sqp, ipopt"):
        plan(reactor, always("condensed", "nan"))
    with pytest.raises(ScenarioError, match=r"lqr is no solver.*nan or wrong"):
        plan(reactor, always("lqr", "infeasible"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("solver: rti, kind: cap", "solver: rtl, kind: cap", r"solver_faults\[1\].solver.*'rtl'"),
        ("solver: rti, kind: cap", "solver: rti, kind: caps", r"solver_faults\[1\].kind.*'caps'"),
        ("solver: rti, kind: cap", "solver: rti, kinds: cap", "kinds: unknown key"),
        ("solver: rti, kind: cap", "solver: rti, kind: cap, delay: 1 s", "cap with a delay of 1 s"),
        ("until: 7 min,    solver", "until: 6 min, solver", "from 390.0 s until 360.0 s"),
        ("until: 7 min,    solver", "until: 7 kg, solver", r"solver_faults\[1\].until"),
    ],
)
def test_a_wrong_solver_fault_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    text = EVERY_RUNG.read_text(encoding="utf-8")
    assert text.count(old) == 1
    line = text[: text.index(old)].count("\n") + 1
    path = tmp_path / "wrong.yaml"
    application = (CONFIG / "cstr" / "cstr.yaml").as_posix()
    text = text.replace(old, new).replace("../cstr/cstr.yaml", application)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match=rf"wrong\.yaml:{line}:\d+.*{said}"):
        SolverFaults(load_scenario(path).solver_faults, start_ns=0)
