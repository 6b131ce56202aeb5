"""Late results: fused at their sample time, or refused with the right verdict and no effect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.estimation.delayed import (
    REJECTIONS_BEFORE_TRUST,
    DelayedFilter,
    DelayedFilterState,
    LateResult,
    Verdict,
    noise_covariance,
)
from controller.estimation.kalman import Measurement
from controller.signal import NS_PER_S
from tests.unit.random_walk import Q, R, Walk, at, result, walk
from tests.unit.small_application import CYCLE_S, DISTURBANCES, augmented


def settled() -> Walk:
    run = Walk()
    for _ in range(60):
        run.advance(0.0)
    return run


def same(a: DelayedFilterState, b: DelayedFilterState) -> bool:
    return len(a.moments) == len(b.moments) and all(
        np.array_equal(m.posterior.z, n.posterior.z)
        and np.array_equal(m.posterior.covariance, n.posterior.covariance)
        for m, n in zip(a.moments, b.moments, strict=True)
    )


def test_the_steady_gain_of_the_random_walk() -> None:
    run = settled()
    # With r = 1 the posterior variance is the gain: (-q + sqrt(q^2 + 4 q r)) / 2.
    assert run.variance == pytest.approx(0.270156, abs=5e-7)
    assert run.variance == pytest.approx((-Q + np.sqrt(Q**2 + 4 * Q * R)) / 2, abs=1e-12)
    before = run.mean
    run.advance(1.0)
    assert run.mean - before == pytest.approx(0.270156, abs=5e-7)


def test_the_variance_five_steps_later() -> None:
    run = settled()
    for _ in range(5):
        run.advance()
    assert run.variance == pytest.approx(0.770156, abs=5e-7)


def test_a_result_five_cycles_late_counts_at_its_sample_time() -> None:
    late, in_time = Walk(), Walk()
    for cycle in range(1, 21):
        late.advance(0.0)
        in_time.advance(0.0)
        if cycle == 15:
            in_time.state, _ = in_time.filter.fuse(in_time.state, result("r", 15, 1.0))
    wrong, _ = late.filter.fuse(late.state, result("r", 20, 1.0))
    late.state, fusion = late.filter.fuse(late.state, result("r", 15, 1.0))
    assert fusion.verdict is Verdict.FUSED
    assert late.mean == pytest.approx(in_time.mean, abs=1e-12)
    assert late.variance == pytest.approx(in_time.variance, abs=1e-12)
    assert fusion.moved == pytest.approx((late.mean,))
    assert abs(wrong.moments[-1].posterior.z[0] - in_time.mean) > 0.01  # the arrival time is wrong


def test_feedthrough_is_rerun_with_the_inputs_of_its_own_cycle() -> None:
    late, in_time = Walk(walk(feedthrough=1.0)), Walk(walk(feedthrough=1.0))
    for cycle in range(1, 13):
        u = float(np.sin(cycle))
        late.advance(1.0 + u, u)
        in_time.advance(1.0 + u, u)
        if cycle == 5:
            in_time.state, _ = in_time.filter.fuse(in_time.state, result("r", 5, 3.0))
    late.state, _ = late.filter.fuse(late.state, result("r", 5, 3.0))
    assert late.mean == pytest.approx(in_time.mean, abs=1e-12)


@pytest.mark.parametrize("offset", [-0.49, -0.2, 0.0, 0.2, 0.49])
def test_a_result_joins_the_nearest_cycle(offset: float) -> None:
    run = settled()
    exact, _ = run.filter.fuse(run.state, result("r", 50, 1.0))
    near, fusion = run.filter.fuse(run.state, result("r", 50 + offset, 1.0))
    assert fusion.verdict is Verdict.FUSED
    assert same(exact, near)


def broken(values: tuple[float, ...], sigmas: tuple[float, ...]) -> LateResult:
    return LateResult("r", "lab", at(50), Measurement(tuple([0] * len(values)), values, sigmas), 1)


REFUSED = {
    "nan": (broken((float("nan"),), (1.0,)), Verdict.UNUSABLE),
    "infinite": (broken((float("inf"),), (1.0,)), Verdict.UNUSABLE),
    "empty": (broken((), ()), Verdict.UNUSABLE),
    "sigma nan": (broken((1.0,), (float("nan"),)), Verdict.UNUSABLE),
    "sigma infinite": (broken((1.0,), (float("inf"),)), Verdict.UNUSABLE),
    "sigma zero": (broken((1.0,), (0.0,)), Verdict.UNUSABLE),
    "sigma negative": (broken((1.0,), (-1.0,)), Verdict.UNUSABLE),
    "one of two": (broken((1.0, float("nan")), (1.0, 1.0)), Verdict.UNUSABLE),
    "future": (result("r", 60.6, 1.0), Verdict.FUTURE),
    "before the start": (result("r", -0.6, 1.0), Verdict.TOO_OLD),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case: str) -> None:
    late, verdict = REFUSED[case]
    run = settled()
    after, fusion = run.filter.fuse(run.state, late)
    assert fusion.verdict is verdict
    assert after is run.state


def test_too_old_for_the_memory() -> None:
    run = Walk(walk(0.0, memory_cycles=20))
    for _ in range(60):
        run.advance(0.0)
    assert len(run.state.moments) == 21
    assert run.filter.fuse(run.state, result("a", 39, 1.0))[1].verdict is Verdict.TOO_OLD
    assert run.filter.fuse(run.state, result("b", 40, 1.0))[1].verdict is Verdict.FUSED


def test_a_duplicate_counts_once() -> None:
    run = settled()
    once, _ = run.filter.fuse(run.state, result("r", 50, 1.0))
    twice, fusion = run.filter.fuse(once, result("r", 51, 2.0))
    assert fusion.verdict is Verdict.DUPLICATE
    assert twice is once


def test_an_outlier_is_rejected_and_its_duplicate_too() -> None:
    run = settled()
    after, fusion = run.filter.fuse(run.state, result("r", 50, 50.0, gate=0.999))
    assert fusion.verdict is Verdict.OUTLIER
    assert fusion.chi_square > 10.83  # chi-square, 1 degree of freedom, 99.9 %
    assert same(after, run.state)
    assert run.filter.fuse(after, result("r", 50, 0.0))[1].verdict is Verdict.DUPLICATE


def test_after_three_rejections_in_a_row_the_next_is_trusted() -> None:
    run = settled()
    verdicts: list[Verdict] = []
    for number in range(REJECTIONS_BEFORE_TRUST + 1):
        run.state, fusion = run.filter.fuse(run.state, result(f"r{number}", 50, 50.0, gate=0.999))
        verdicts.append(fusion.verdict)
    assert verdicts == [Verdict.OUTLIER] * 3 + [Verdict.FUSED]
    assert run.mean > 0.4  # ten later measurements of 0 pull it back
    # Trust is spent: the next one is judged again.
    _, fusion = run.filter.fuse(run.state, result("next", 50, -50.0, gate=0.999))
    assert fusion.verdict is Verdict.OUTLIER


def test_rejections_count_for_their_own_source() -> None:
    run = settled()
    for number in range(REJECTIONS_BEFORE_TRUST):
        strange = result(f"r{number}", 50, 50.0, gate=0.999)
        run.state, _ = run.filter.fuse(run.state, strange)
    other = replace(result("x", 50, 50.0, gate=0.999), source="camera")
    run.state, fusion = run.filter.fuse(run.state, other)
    assert fusion.verdict is Verdict.OUTLIER
    assert run.state.rejected == {"lab": 3, "camera": 1}
    fine = replace(result("y", 50, 0.1, gate=0.999), source="camera")
    run.state, _ = run.filter.fuse(run.state, fine)
    assert run.state.rejected == {"lab": 3, "camera": 0}
    _, fusion = run.filter.fuse(run.state, result("z", 50, 50.0, gate=0.999))
    assert fusion.verdict is Verdict.FUSED


def test_what_made_an_outlier_trusted_is_not_forgotten_by_an_older_result() -> None:
    """The doubt that was added then belongs to its moment, also when that runs again."""
    model = augmented()
    noise = np.diag([4.0, 4.0, 400.0, 400.0])
    filter_ = DelayedFilter(model, noise, CYCLE_S, 1000.0)
    state = filter_.start(0, np.array([50.0, 35, 0, 0]), np.eye(4), np.full(2, 50.0), np.ones(1))
    probe = Measurement((0,), (50.0,), (1.0,))
    for cycle in range(1, 21):
        now_ns = round(cycle * CYCLE_S * NS_PER_S)
        state = filter_.advance(state, now_ns, np.full(2, 50.0), np.ones(1), probe)

    def lab(name: str, cycle: int, value: float, gate: float) -> LateResult:
        measured = Measurement((2,), (value,), (0.2,))
        return LateResult(name, "lab", round(cycle * CYCLE_S * NS_PER_S), measured, gate)

    for number in range(REJECTIONS_BEFORE_TRUST + 1):
        state, fusion = filter_.fuse(state, lab(f"r{number}", 15, 60.0, 0.999))
    assert fusion.verdict is Verdict.FUSED
    doubted = [m.doubt for m in state.moments if m.doubt is not None]
    assert len(doubted) == 1
    assert np.all(np.diag(doubted[0])[2:] > 0.0)
    before = state.moments[15].prior.covariance
    state, _ = filter_.fuse(state, lab("older", 10, 42.5, 1.0))
    after = state.moments[15].prior.covariance
    # One result at cycle 10 tells little of the disturbances; without the doubt most would go.
    undoubted = before - doubted[0]
    assert after[2, 2] - undoubted[2, 2] > 0.8 * doubted[0][2, 2]


def test_an_accepted_result_forgives_earlier_rejections() -> None:
    run = settled()
    values = [50.0, 50.0, 0.1, 50.0, 50.0]
    verdicts: list[Verdict] = []
    for number, value in enumerate(values):
        run.state, fusion = run.filter.fuse(run.state, result(f"r{number}", 50, value, gate=0.999))
        verdicts.append(fusion.verdict)
    assert verdicts == [
        Verdict.OUTLIER, Verdict.OUTLIER, Verdict.FUSED, Verdict.OUTLIER, Verdict.OUTLIER
    ]  # fmt: skip


def test_absurd_numbers_never_reach_the_estimate() -> None:
    run = settled()
    for number in range(6):
        with np.errstate(over="ignore"):
            absurd = result(f"r{number}", 50, 1e200, gate=0.999)
            run.state, fusion = run.filter.fuse(run.state, absurd)
        assert fusion.verdict is Verdict.UNUSABLE
    assert abs(run.mean) < 1.0


def test_the_walk_of_states_and_disturbances() -> None:
    covariance = noise_covariance(augmented(), {"T1": 3.0}, DISTURBANCES)
    assert np.sqrt(np.diag(covariance)) == pytest.approx([3.0, 2.0, 20.0, 20.0])
    with pytest.raises(KeyError, match="T7"):
        noise_covariance(augmented(), {"T7": 3.0}, DISTURBANCES)
