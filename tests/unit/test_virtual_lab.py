"""The virtual laboratory: on time, late, noisy, sometimes lost or wrong, always from its seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from controller.errors import ScenarioError
from controller.signal import NS_PER_S, QualityResult
from hil.lab import LabSettings, VirtualLab


def _lab(**changes: object) -> list[QualityResult]:
    settings = LabSettings("assay", 600.0, (900.0, 1500.0), {"xA": 0.01, "xG": 0.02}, 60.0)
    lab = VirtualLab(replace(settings, **changes), start_ns=0, seed=3)  # type: ignore[arg-type]
    results: list[QualityResult] = []
    for now_s in range(0, 120_000, 30):
        arrived = lab.advance(now_s * NS_PER_S, {"xA": now_s * 1e-6, "xG": 0.5, "T": 80.0})
        for result in arrived:
            assert now_s * NS_PER_S - 30 * NS_PER_S < result.received_ns <= now_s * NS_PER_S
        results += arrived
    return results


def test_the_lab_samples_on_time_and_delivers_late() -> None:
    results = _lab()
    by_id = sorted(results, key=lambda result: result.result_id)
    assert [r.time_ns for r in by_id[:3]] == [60 * NS_PER_S, 660 * NS_PER_S, 1260 * NS_PER_S]
    delays = [(r.received_ns - r.time_ns) / NS_PER_S for r in results]
    assert 900 <= min(delays) < 960
    assert 1440 < max(delays) <= 1500
    errors = [r.values["xA"] - r.time_ns / NS_PER_S * 1e-6 for r in results]
    assert 0.008 < float(np.std(errors)) < 0.012
    assert results == _lab(), "the same seed gives the same results"
    assert dict(results[0].sigma) == {"xA": 0.01, "xG": 0.02}


def test_the_lab_loses_and_spoils_results_without_changing_the_others() -> None:
    clean = {r.result_id: r for r in _lab()}
    thinned = _lab(drop=0.3)
    assert 0.6 < len(thinned) / len(clean) < 0.8
    assert all(clean[r.result_id] == r for r in thinned)
    spoiled = _lab(outlier=0.2)
    wrong = [r for r in spoiled if r != clean[r.result_id]]
    assert 0.1 < len(wrong) / len(clean) < 0.3
    gaps = {round(abs(r.values["xA"] - clean[r.result_id].values["xA"]), 9) for r in wrong}
    assert gaps == {0.2}
    with pytest.raises(ScenarioError, match="assay"):
        _lab(every_s=0.0)


DELAYS = {True: (900.0, 1500.0), False: (100.0, 100.0)}


def _story(
    faults: list[tuple[int, int, str, dict[str, float]]], delays: tuple[float, float]
) -> dict[str, QualityResult]:
    """Results by number of 20 samples, every 600 s from 60 s; faults as (from, until, …) s."""
    settings = LabSettings("assay", 600.0, delays, {"xA": 0.01}, 60.0)
    lab = VirtualLab(settings, start_ns=0, seed=3)
    arrived: list[QualityResult] = []
    for now_s in range(0, 20_000, 30):
        for begin_s, end_s, fault, args in faults:
            if now_s == begin_s:
                lab.begin(fault, args)
            if now_s == end_s:
                lab.end(fault)
        for result in lab.advance(now_s * NS_PER_S, {"xA": now_s * 1e-6}):
            assert result.time_ns <= now_s * NS_PER_S
            assert now_s - 30 < result.received_ns / NS_PER_S <= now_s
            arrived.append(result)
    return {result.result_id: result for result in arrived}


def _changed(
    faults: list[tuple[int, int, str, dict[str, float]]],
) -> tuple[dict[str, QualityResult], dict[str, QualityResult], list[str]]:
    sound, faulty = _story([], DELAYS[True]), _story(faults, DELAYS[True])
    return sound, faulty, [name for name in sound if faulty.get(name) != sound[name]]


def _names(*numbers: int) -> list[str]:
    return [f"assay-{number:05d}" for number in numbers]


def test_late_and_outlying_results_differ_by_exactly_that_and_by_nothing_else() -> None:
    sound, faulty, changed = _changed([(600, 1800, "late", {"delay_s": 450.0})])
    assert sorted(changed) == _names(1, 2)
    for name in changed:
        assert faulty[name].received_ns == sound[name].received_ns + 450 * NS_PER_S
        assert faulty[name].values == sound[name].values
    sound, faulty, changed = _changed([(600, 6600, "lab_outlier", {"sigmas": 8.0})])
    assert sorted(changed) == _names(*range(1, 11))
    gaps = {round(faulty[n].values["xA"] - sound[n].values["xA"], 9) for n in changed}
    assert gaps == {-0.08, 0.08}


def test_missing_results_are_missing_and_no_others() -> None:
    _, faulty, changed = _changed([(600, 1800, "missing", {})])
    assert sorted(changed) == _names(1, 2)
    assert not set(changed) & set(faulty)
    _, faulty, some = _changed([(0, 20_000, "missing", {"probability": 0.5})])
    assert 8 < len(some) < 25
    assert not set(some) & set(faulty)


def test_swapped_bottles_exchange_their_labels_two_by_two() -> None:
    sound, faulty, changed = _changed([(600, 3600, "swapped", {})])
    assert sorted(changed) == _names(1, 2, 3, 4), "the fifth has no partner and keeps its label"
    for one, other in (_names(1, 2), _names(2, 1), _names(3, 4), _names(4, 3)):
        assert faulty[one].values == sound[other].values
        assert faulty[one].received_ns == sound[other].received_ns
        assert faulty[one].time_ns == sound[one].time_ns


def test_a_bottle_waits_for_its_partner_or_for_the_end_of_the_fault() -> None:
    sound = _story([], DELAYS[False])
    faulty = _story([(600, 2400, "swapped", {})], DELAYS[False])
    first, second, third = _names(1, 2, 3)
    assert faulty[second].values == sound[first].values
    assert faulty[second].received_ns == 1260 * NS_PER_S, "no report before the bottle is drawn"
    assert faulty[first].values == sound[second].values
    assert faulty[third].values == sound[third].values
    assert faulty[third].received_ns == 2400 * NS_PER_S
    assert {n for n in sound if faulty[n] != sound[n]} == {first, second, third}
