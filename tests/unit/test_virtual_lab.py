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
