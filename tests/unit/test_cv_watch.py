"""CVs that are no longer measured: predicted for a while, then dropped or in doubt, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from controller.cycle.application import Application, CvWatch
from controller.cycle.record import decode_snapshot, encode_snapshot
from controller.cycle.state import CvFailure, LoopState
from controller.cycle.step import step
from controller.cycle.validate import Reading
from controller.cycle.watch import watch_cvs
from controller.mpc.problem import Situation, Target
from controller.mpc.target import TargetCalculation
from controller.signal import NS_PER_S, Command, CommandKind, QualityResult, Sample, Status
from tests.unit.small_application import (
    CVS,
    CYCLE_S,
    MVS,
    START_NS,
    Run,
    mode_command,
    small_application,
)

T1 = CvWatch("T1", ("T1.PV",), predict_s=30.0, policy="drop")
T2 = CvWatch("T2", ("T2.PV",), predict_s=30.0, policy="drop")


@dataclass
class Overheard:
    """The target calculation, and what it was asked."""

    target: TargetCalculation
    situations: list[Situation] = field(default_factory=list)

    def __call__(self, situation: Situation, guess: Target | None = None) -> Target:
        self.situations.append(situation)
        return self.target(situation)

    @property
    def watched(self) -> list[float] | None:
        watched = self.situations[-1].watched
        return None if watched is None else watched.tolist()


def application(*watches: CvWatch) -> Application:
    """The small application, whose probes put nothing in doubt of their own."""
    small = small_application()
    return replace(
        small,
        watches=watches,
        measured=tuple(replace(m, critical=False) for m in small.measured),
        target=Overheard(small.target),  # type: ignore[arg-type]
    )


def active(*watches: CvWatch) -> tuple[Run, Overheard]:
    run = Run(application(*watches))
    run.activate()
    return run, run.application.target  # type: ignore[return-value]


def lose(run: Run, *tags: str) -> None:
    lost = {t: Sample(None, Status.BAD_COMMUNICATION_ERROR, 0, 0) for t in tags}
    run.edit = lambda _, samples: {**samples, **lost}


def statuses(run: Run, name: str, cycles: int) -> list[str]:
    return [run.cycle().cv_status[name] for _ in range(cycles)]


def test_all_is_good_while_everything_is_measured() -> None:
    run, asked = active(T1, T2)
    run.cycles(3)
    assert {tuple(r.cv_status.items()) for r in run.records} == {(("T1", "GOOD"), ("T2", "GOOD"))}
    assert asked.watched is None
    assert run.state.failures == {}


def test_without_a_watch_a_cv_is_predicted_for_as_long_as_it_takes() -> None:
    run, asked = active()
    lose(run, "T1.PV")
    assert statuses(run, "T1", 30) == ["PREDICTED"] * 30
    assert asked.watched is None
    assert run.records[-1].mode == "ACTIVE"
    assert run.records[-1].doubts == ()


def test_a_cv_is_predicted_for_a_while_then_dropped_and_the_other_stays() -> None:
    run, asked = active(T1, T2)
    lose(run, "T1.PV")
    assert statuses(run, "T1", 3) == ["PREDICTED"] * 3
    assert asked.watched is None
    record = run.cycle()
    assert record.cv_status == {"T1": "DROPPED", "T2": "GOOD"}
    assert record.events == ("T1 is dropped: not measured for 30 s, 30 s may be predicted",)
    assert asked.watched == [0.0, 1.0]
    assert statuses(run, "T1", 5) == ["DROPPED"] * 5
    assert run.records[-1].events == ()
    assert run.records[-1].mode == "ACTIVE"


def test_back_only_when_measured_for_some_cycles_and_from_where_the_mvs_are() -> None:
    run, asked = active(T1, T2)
    run.cycles(40)
    lose(run, "T1.PV")
    run.cycles(20)
    run.edit = lambda _, samples: samples
    told = dict(run.records[-1].move.values)
    assert statuses(run, "T1", 3) == ["DROPPED", "DROPPED", "GOOD"]
    assert run.records[-1].events == ("T1 is controlled again: it is measured",)
    assert asked.watched is None
    assert run.state.failures == {}
    furthest = MVS[0].rate_per_s * CYCLE_S + 1e-9
    for record in run.records[-3:]:
        assert all(abs(record.move.values[mv] - told[mv]) <= furthest for mv in told)
        told = dict(record.move.values)
    run.cycles(120)
    assert run.bench.x == pytest.approx([55.0, 40.0], abs=2e-3)


def test_a_short_failure_is_bridged_and_forgotten() -> None:
    run, _ = active(T1)
    for _ in range(4):
        lose(run, "T1.PV")
        assert statuses(run, "T1", 3) == ["PREDICTED"] * 3
        run.edit = lambda _, samples: samples
        assert statuses(run, "T1", 1) == ["GOOD"]


def test_a_sensor_that_comes_and_goes_stays_dropped() -> None:
    run, _ = active(T1)
    lose(run, "T1.PV")
    run.cycles(4)
    for _ in range(4):
        run.edit = lambda _, samples: samples
        assert statuses(run, "T1", 2) == ["DROPPED"] * 2
        lose(run, "T1.PV")
        assert statuses(run, "T1", 1) == ["DROPPED"]


def test_a_critical_cv_holds_and_sheds_when_its_prediction_is_too_old() -> None:
    run, _ = active(replace(T1, policy="critical"))
    lose(run, "T1.PV")
    run.cycles(3)
    assert run.records[-1].doubts == ()
    record = run.cycle()
    assert record.doubts == ("T1: not measured for 30 s, 30 s may be predicted",)
    assert record.move.reasons["Q1"] == "held: in doubt"
    assert record.cv_status["T1"] == "PREDICTED"
    modes = [run.cycle().mode for _ in range(4)]
    assert modes.index("SHED") == run.application.rules.hold_cycles - 1


def test_nothing_left_to_control_is_a_doubt() -> None:
    run, _ = active(T1, T2)
    lose(run, "T1.PV")
    run.cycles(10)
    lose(run, "T1.PV", "T2.PV")
    run.cycles(3)
    assert run.records[-1].doubts == ()
    doubts = run.cycle().doubts
    assert doubts == ("every CV is dropped: nothing that is controlled is measured",)


def test_no_time_to_predict_means_dropped_at_once() -> None:
    run, _ = active(replace(T1, predict_s=0.0))
    lose(run, "T1.PV")
    assert statuses(run, "T1", 2) == ["DROPPED"] * 2


def test_one_good_tag_of_two_is_enough() -> None:
    run, _ = active(replace(T1, tags=("T1.PV", "FEED.PV")))
    lose(run, "T1.PV")
    assert statuses(run, "T1", 10) == ["GOOD"] * 10
    lose(run, "T1.PV", "FEED.PV")
    assert statuses(run, "T1", 4) == ["PREDICTED"] * 3 + ["DROPPED"]


def test_a_cv_of_the_laboratory_fails_when_its_newest_sample_is_too_old() -> None:
    small = application(CvWatch("T2", (), ("lab",), predict_s=60.0, policy="drop"))
    lab = replace(small.sources["lab"], stale_after_s=120.0)
    run = Run(replace(small, sources={"lab": lab}))
    run.activate()
    assert {r.cv_status["T2"] for r in run.records} == {"PREDICTED"}

    def result(number: int) -> Sequence[QualityResult]:
        now_ns = START_NS + round((run.state.cycle + 1) * CYCLE_S * NS_PER_S)
        mean = {"mean": float(run.bench.x.mean())}
        return [QualityResult(f"r{number}", "lab", now_ns - 10 * NS_PER_S, now_ns, mean)]

    run.cycle(results=result(1))
    # Drawn 10 s before: 11 more cycles until it is older than 120 s, then 60 s of prediction.
    assert statuses(run, "T2", 18) == ["GOOD"] * 11 + ["PREDICTED"] * 6 + ["DROPPED"]
    run.cycle(results=result(2))
    assert statuses(run, "T2", 3) == ["DROPPED", "DROPPED", "GOOD"]


def test_replay_finds_the_same_statuses() -> None:
    run, _ = active(T1, replace(T2, policy="critical"))
    lose(run, "T1.PV")
    run.cycles(6)
    run.edit = lambda _, samples: samples
    run.cycles(4)
    again, state = application(T1, replace(T2, policy="critical")), LoopState()
    for snapshot, record in zip(run.snapshots, run.records, strict=True):
        state, found = step(again, state, decode_snapshot(encode_snapshot(snapshot)))
        assert found.digest == record.digest


@pytest.mark.parametrize(
    ("watch", "named"),
    [
        (CvWatch("T9", ("T1.PV",)), "T9"),
        (CvWatch("T1", ("T9.PV",)), "T9.PV"),
        (CvWatch("T1", (), ("camera",)), "camera"),
    ],
)
def test_a_watch_of_nothing_is_refused_by_name(watch: CvWatch, named: str) -> None:
    with pytest.raises(ValueError, match=f"what is not there: {named}$"):
        replace(small_application(), watches=(watch,))


def test_a_cv_without_a_watch_is_watched_where_it_is_measured() -> None:
    cvs = (*CVS, replace(CVS[0], name="mean", output=2))
    layout = replace(small_application(), cvs=cvs, watches=(T2,)).layout
    assert layout.watches == (CvWatch("T1", ("T1.PV",)), T2, CvWatch("mean", (), ("lab",)))


def test_a_cv_that_nothing_measures_is_a_prediction_and_cannot_fail() -> None:
    run, asked = active(CvWatch("T1", (), policy="drop"))
    lose(run, "T1.PV")
    assert statuses(run, "T1", 3) == ["GOOD"] * 3
    assert asked.watched is None


def test_a_clock_that_was_set_back_does_not_prolong_the_prediction() -> None:
    small = application(T1)
    later = CvFailure(START_NS + 3600 * NS_PER_S)
    readings = {tag.name: Reading(1.0, Status.BAD, 0.0) for tag in small.tags}
    found = watch_cvs(small, LoopState(failures={"T1": later}), readings, START_NS)
    assert found.failures["T1"] == CvFailure(START_NS)


def test_limits_of_the_operator_narrow_what_is_planned_for() -> None:
    run, asked = active()
    now_ns = run.records[-1].time_ns
    wishes = {
        CommandKind.LIMIT_LOW: {"Q1": 20.0, "T2": 30.0},
        CommandKind.LIMIT_HIGH: {"Q2": 80.0, "T1": 70.0},
        CommandKind.SETPOINT: {"Q1": 60.0, "T2": 41.0},
    }
    run.cycle(
        *(
            Command(f"{kind}{name}", kind, now_ns, name, value)
            for kind, values in wishes.items()
            for name, value in values.items()
        )
    )
    seen = asked.situations[-1]
    assert (seen.mv_low.tolist(), seen.mv_high.tolist()) == ([20.0, 0.0], [100.0, 80.0])
    assert (seen.cv_low.tolist(), seen.cv_high.tolist()) == ([0.0, 30.0], [70.0, 100.0])
    assert seen.setpoint.tolist() == [55.0, 41.0]
    assert seen.resting.tolist() == pytest.approx([60.0, float("nan")], nan_ok=True)
    assert run.records[-1].setpoints == {"T1": 55.0, "T2": 41.0}


def test_outside_active_the_plan_shows_what_every_mv_would_do() -> None:
    run, asked = active()
    run.bench.remote["Q2"] = False
    run.cycle()
    assert asked.situations[-1].free.tolist() == [1.0, 0.0]
    run.cycle(mode_command("manual"))
    run.cycle()
    assert run.bench.remote == {"Q1": False, "Q2": False}
    assert asked.situations[-1].free.tolist() == [1.0, 1.0]
    assert run.state.handshake.sent == {}
