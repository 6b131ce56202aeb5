"""Comparing two sets of runs: statistics by hand, findings, pairs, and the page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wilcoxon

from controller.errors import ReplayError, ScenarioError
from controller.terminal import Verb
from hil.compare import commands
from hil.compare.comparison import Comparison, KpiRow, compare
from hil.compare.directions import better, known, of_the_machine
from hil.compare.page import write_comparison
from hil.compare.paired_test import (
    bootstrap_interval,
    differences,
    holm,
    pairs_needed,
    signed_rank,
)
from hil.compare.runs import find_runs, pair_runs
from hil.kpi_names import KPI_NAMES
from hil.runner import run_scenario
from hil.scenario import load_scenario
from tests.unit.html_page import HtmlPage

ROOT = Path(__file__).parents[2]

# --- statistics ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),
        ([-1, -2, -3, -4, -5, -6], 2 / 64),
        # Choices of signs whose negative ranks sum up to at most 6: 14 of 64.
        ([1, 2, 3, 4, 5, -6], 2 * 14 / 64),
        # All of one size: rank 3.5 each; none or one of six negative: 7 of 64.
        ([1, 1, 1, 1, 1, -1], 2 * 7 / 64),
        # Zeros are left out.
        ([0, 1, 0, 2, 3, 4, 5, 6], 2 / 64),
        ([1, -1, 2, -2, 3, -3], 1.0),
        # Two of the same size share the rank 1.5: sums of at most 1.5 are three of 128.
        ([-1, 1, 2, 3, 4, 5, 6], 2 * 3 / 128),
    ],
)
def test_signed_ranks_by_hand(change: list[float], p: float) -> None:
    assert signed_rank(np.array(change, dtype=float)) == pytest.approx(p, rel=1e-12)


def test_too_few_differing_pairs_are_no_test() -> None:
    assert signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) is None
    assert signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 0.0])) is None


@given(st.lists(st.floats(0.01, 1e3), min_size=6, max_size=14, unique=True), st.data())
def test_signed_ranks_agree_with_scipy(sizes: list[float], data: st.DataObject) -> None:
    signs = data.draw(st.lists(st.sampled_from([-1, 1]), min_size=len(sizes), max_size=len(sizes)))
    change = np.array(sizes) * np.array(signs)
    expected: Any = wilcoxon(change, method="exact")
    assert signed_rank(change) == pytest.approx(float(expected.pvalue), rel=1e-9)


@given(st.lists(st.integers(-4, 4).filter(bool), min_size=6, max_size=10))
def test_signed_ranks_with_ties_count_every_choice_of_signs(change: list[int]) -> None:
    sizes = sorted(map(abs, change))
    rank = {s: np.mean([i + 1 for i, t in enumerate(sizes) if t == s]) for s in sizes}
    ranks = [rank[abs(c)] for c in change]
    total = sum(r for r, c in zip(ranks, change, strict=True) if c > 0)
    sums = [sum(chosen) for k in range(len(ranks) + 1) for chosen in combinations(ranks, k)]
    assert len(sums) == sum(comb(len(ranks), k) for k in range(len(ranks) + 1))
    below = sum(s <= total + 1e-9 for s in sums) / len(sums)
    above = sum(s >= total - 1e-9 for s in sums) / len(sums)
    expected = min(1.0, 2 * min(below, above))
    assert signed_rank(np.array(change, dtype=float)) == pytest.approx(expected)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.5, 0.9, 0.001]) == pytest.approx((1.0, 1.0, 0.003))
    assert holm([]) == ()


def test_pairs_that_many_tests_need() -> None:
    # 2/2ⁿ · tests ≤ 0.05
    assert [pairs_needed(tests) for tests in (0, 1, 2, 13, 40)] == [6, 6, 7, 10, 11]
    for tests in range(1, 200):
        n = pairs_needed(tests)
        assert tests * 2 / 2**n <= 0.05
        assert n == 6 or tests * 2 / 2 ** (n - 1) > 0.05


def test_bootstrap_interval() -> None:
    assert bootstrap_interval(np.full(6, 2.5)) == pytest.approx((2.5, 2.5))
    assert bootstrap_interval(np.full(5, 2.5)) is None
    change = np.random.default_rng(4).normal(1.0, 2.0, 400)
    interval = bootstrap_interval(change)
    assert interval == bootstrap_interval(change)
    assert interval is not None
    # The normal interval of a mean, which so many pairs come close to.
    half = 1.96 * change.std() / 20
    expected = (change.mean() - half, change.mean() + half)
    assert interval == pytest.approx(expected, abs=0.02)


def test_the_last_digit_is_no_difference() -> None:
    assert differences([1.0, 1e9], [1.0 + 1e-15, 1e9 + 1e-6]).tolist() == [0.0, 0.0]
    assert differences([1.0], [1.0 + 1e-9])[0] == pytest.approx(1e-9)


# --- directions ------------------------------------------------------------------------------


def test_every_kpi_has_a_direction() -> None:
    assert [name for name in KPI_NAMES if not known(name)] == []


def test_directions() -> None:
    assert better("iae.cB") == "lower"
    assert better("active_share") == better("cpk.T") == better("profit_end") == "higher"
    # A longer name rules over a shorter one.
    assert (better("share_shed"), better("share_active"), better("share_off")) == (
        "lower",
        "higher",
        "neither",
    )
    assert (better("rung_hold"), better("rung_sqp")) == ("lower", "neither")
    assert better("nobody_knows") == "neither"
    assert of_the_machine("solve_ms_p99")
    assert not of_the_machine("settling_s.T")


# --- comparison ------------------------------------------------------------------------------

Check = tuple[str, float | None, str]


def judged(
    directory: Path,
    kpis: Mapping[str, float | None],
    seed: int = 1,
    checks: Sequence[Check] = (),
    scenario: str = "tank",
    changes: Mapping[str, object] | None = None,
) -> Path:
    """The verdict of a run, as `hil run` leaves it."""
    directory.mkdir(parents=True)
    document = {
        "scenario": scenario,
        "title": f"The {scenario}",
        "seed": seed,
        "tier": "virtual",
        "version": "1",
        "passed": all(outcome == "passed" for _, _, outcome in checks),
        "checks": [
            {"name": n, "value": v, "low": None, "high": 1.0, "outcome": o, "severity": "fail"}
            for n, v, o in checks
        ],
        "kpis": {"cycles": 100.0, **kpis},
    }
    (directory / "verdict.json").write_text(json.dumps(document), encoding="utf-8")
    if changes is not None:
        (directory / "changes.json").write_text(json.dumps(changes), encoding="utf-8")
    return directory


def both(root: Path, name: str, a: Sequence[float], b: Sequence[float]) -> None:
    """Runs with one KPI on both sides, a seed each."""
    for side, values in (("a", a), ("b", b)):
        for seed, value in enumerate(values):
            judged(root / side / str(seed), {name: value}, seed)


def compared(root: Path) -> Comparison:
    return compare(pair_runs(find_runs(root / "a"), find_runs(root / "b")))


def row(comparison: Comparison, name: str) -> KpiRow:
    return next(r for group in comparison.groups for r in group.kpis if r.name == name)


@pytest.mark.parametrize(
    ("name", "shift", "finding"),
    [
        ("iae.T", 0.5, "worse"),
        ("iae.T", -0.5, "better"),
        ("active_share", 0.5, "better"),
        ("active_share", -0.5, "worse"),
        ("largest_move.F", 0.5, "changed"),
        ("iae.T", 0.0, "same"),
        ("solve_ms_p50", 0.5, "machine"),
    ],
)
def test_findings(tmp_path: Path, name: str, shift: float, finding: str) -> None:
    before = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5]
    both(tmp_path, name, before, [value + shift for value in before])
    comparison = compared(tmp_path)
    found = row(comparison, name)
    assert found.finding == finding
    assert found.n == 6
    assert found.a == pytest.approx(1.25)
    assert found.difference == pytest.approx(shift)
    assert found.percent == pytest.approx(100 * shift / 1.25)
    tested = finding in ("worse", "better", "changed")
    assert found.p == (pytest.approx(2 / 64) if tested else None)
    assert comparison.tests == tested
    assert len(comparison.regressions) == (finding == "worse")


def test_a_mixed_change_is_not_significant(tmp_path: Path) -> None:
    both(tmp_path, "iae.T", [1.0] * 6, [1.1, 0.8, 1.3, 0.6, 1.5, 1.6])
    found = row(compared(tmp_path), "iae.T")
    assert found.p is not None
    assert found.p > 0.05
    assert found.finding == "not significant"


def test_few_pairs_are_said_to_be_too_few(tmp_path: Path) -> None:
    both(tmp_path, "iae.T", [1.0, 1.0, 1.0], [2.0, 2.1, 2.2])
    comparison = compared(tmp_path)
    found = row(comparison, "iae.T")
    assert (found.finding, found.p, found.interval, found.n) == ("too few pairs", None, None, 3)
    assert found.percent == pytest.approx(110.0)
    assert "n is too small" in comparison.power
    assert "3 pairs" in comparison.power
    assert comparison.regressions == ()


def test_many_tests_need_more_pairs(tmp_path: Path) -> None:
    """Six pairs are enough for one KPI, and not for two."""
    for side, shift in (("a", 0.0), ("b", 1.0)):
        for seed in range(6):
            kpis = {"iae.T": seed + shift, "ise.T": 2 * seed + 3 * shift}
            judged(tmp_path / side / str(seed), kpis, seed)
    comparison = compared(tmp_path)
    found = row(comparison, "iae.T")
    assert comparison.tests == 2
    assert (found.p, found.p_holm) == pytest.approx((2 / 64, 4 / 64))
    assert found.finding == "too few pairs"
    assert "takes 7 pairs" in comparison.power


def test_a_kpi_that_is_no_longer_measured_is_a_regression(tmp_path: Path) -> None:
    judged(tmp_path / "a", {"settling_s.T": 30.0, "share_shed": 0.1})
    judged(tmp_path / "b", {"settling_s.T": None})
    comparison = compared(tmp_path)
    assert row(comparison, "settling_s.T").lost == 1
    assert row(comparison, "settling_s.T").finding == "unpaired"
    # A mode that did not occur any more is not a KPI that is missing.
    assert (row(comparison, "share_shed").lost, row(comparison, "share_shed").b) == (0, 0.0)
    assert comparison.regressions == ("no longer measured: tank, virtual: settling_s.T, in 1 runs",)


def test_checks_that_changed_are_told_and_failures_count(tmp_path: Path) -> None:
    before = [("iae.T", 0.9, "passed"), ("iae.T", 0.9, "failed"), ("sheds", 0.0, "passed")]
    after = [("iae.T", 1.2, "failed"), ("iae.T", 1.2, "passed")]
    judged(tmp_path / "a", {}, checks=before)
    judged(tmp_path / "b", {}, checks=after)
    comparison = compared(tmp_path)
    assert [(c.check, c.outcomes, c.worse) for c in comparison.changes] == [
        ("iae.T", "passed → failed", True),
        ("sheds", "passed → absent", True),
        ("iae.T (2)", "failed → passed", False),
    ]
    assert len(comparison.regressions) == 2


def test_a_check_that_turned_in_many_seeds_is_told_once_with_the_worst(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in enumerate([0.8, 1.2, 1.9, 1.4, None], start=1):
        outcome = "untested" if value is None else "failed" if value > 1.0 else "passed"
        kept = [("sheds", 0.0, "passed")]
        judged(tmp_path / "a" / str(seed), {}, seed, [("iae.T", 0.9, "passed"), *kept])
        judged(tmp_path / "b" / str(seed), {}, seed, [("iae.T", value, outcome), *kept])
    sides = (str(tmp_path / "a"), str(tmp_path / "b"))
    told = (
        "tank, virtual: iae.T passed → failed (3) and passed → untested (1) in 4 of 5 seeds, "
        "worst in seed 3: 0.9 → 1.9"
    )
    page = tmp_path / "p.html"
    assert execute(commands.compare, *sides, "--html", str(page), "--fail-on-regression") == 1
    screen = " ".join(capsys.readouterr().out.split())
    assert screen.count("iae.T passed") == 1
    assert told in screen
    assert "5 pairs, 1 regressions" in screen
    execute(commands.compare, *sides, "--json")
    answer = json.loads(capsys.readouterr().out)
    assert answer["regressions"] == [f"check: {told}"]
    (change,) = answer["changes"]
    assert (change["check"], change["pairs"], change["worse"]) == ("iae.T", 5, True)
    assert [each["seed"] for each in change["turned"]] == [3, 4, 2, 5]
    text = HtmlPage(page.read_text(encoding="utf-8")).text
    assert "1 REGRESSION" in text
    assert text.count(told) == 1
    assert "4 of 5 seeds" in text


def test_each_scenario_is_told_apart_and_what_was_mended_is_no_regression(tmp_path: Path) -> None:
    for scenario, before, after in (("tank", 0.9, 1.3), ("mill", 1.3, 0.9)):
        for seed in (1, 2):
            for side, value in (("a", before), ("b", after)):
                outcome = "passed" if value <= 1.0 else "failed"
                checks = [("iae.T", value, outcome)]
                judged(tmp_path / side / scenario / str(seed), {}, seed, checks, scenario)
    comparison = compared(tmp_path)
    assert [(c.scenario, c.outcomes, c.share) for c in comparison.changes] == [
        ("tank", "passed → failed", "2 of 2 seeds"),
        ("mill", "failed → passed", "2 of 2 seeds"),
    ]
    assert len(comparison.regressions) == 1
    assert "as in seed 1: 1.3 → 0.9" in str(comparison.changes[1])


def test_a_matrix_is_counted_in_runs(tmp_path: Path) -> None:
    for side, outcome in (("a", "passed"), ("b", "failed")):
        for horizon in (10, 20):
            changes = {"overrides.mpc.horizon": horizon}
            checks = [("always(mode == ACTIVE)", None, outcome)]
            judged(tmp_path / side / str(horizon), {}, checks=checks, changes=changes)
    (change,) = compared(tmp_path).changes
    # A formula about words has no margin, so there are no values to show.
    assert str(change) == (
        "tank, virtual: always(mode == ACTIVE) passed → failed in 2 of 2 runs, "
        "worst in seed 1, overrides.mpc.horizon = 10"
    )


def test_many_missing_runs_are_told_together(tmp_path: Path) -> None:
    for seed in (1, 2, 3, 5, 8):
        judged(tmp_path / "a" / str(seed), {}, seed)
    judged(tmp_path / "b" / "8", {}, 8)
    assert compared(tmp_path).regressions == ("missing in B: tank, virtual, 4 runs, seeds 1-3, 5",)


def test_runs_without_a_partner_are_told(tmp_path: Path) -> None:
    for seed in (1, 2):
        judged(tmp_path / "a" / str(seed), {}, seed)
    for seed in (2, 3):
        judged(tmp_path / "b" / str(seed), {}, seed)
    comparison = compared(tmp_path)
    assert comparison.pairs == 1
    assert [run.seed for run in comparison.only_a] == [1]
    assert [run.seed for run in comparison.only_b] == [3]
    assert comparison.regressions == ("missing in B: tank, virtual, seed 1",)


def test_a_matrix_is_paired_by_what_was_changed(tmp_path: Path) -> None:
    for side in ("a", "b"):
        for horizon in (10, 20):
            changes = {"overrides.mpc.horizon": horizon, "seed": 1}
            judged(tmp_path / side / str(horizon), {"iae.T": horizon}, changes=changes)
    comparison = compared(tmp_path)
    assert comparison.pairs == 2
    assert row(comparison, "iae.T").finding == "same"


def test_what_was_changed_between_the_sides_does_not_part_them(tmp_path: Path) -> None:
    judged(tmp_path / "a", {"iae.T": 1.0})
    judged(tmp_path / "b", {"iae.T": 2.0}, changes={"overrides.mpc.horizon": 30})
    assert compared(tmp_path).pairs == 1


def test_bad_input_is_refused_with_its_place(tmp_path: Path) -> None:
    judged(tmp_path / "a/1", {})
    judged(tmp_path / "a/again", {})
    judged(tmp_path / "b/1", {}, seed=7)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScenarioError, match="twice") as twice:
        compared(tmp_path)
    assert str(tmp_path / "a/again") in twice.value.where
    with pytest.raises(ScenarioError, match="no run of A has a partner"):
        pair_runs(find_runs(tmp_path / "a/1"), find_runs(tmp_path / "b"))
    with pytest.raises(ScenarioError, match="no run"):
        find_runs(tmp_path / "empty")
    (tmp_path / "b/1/changes.json").write_text("{", encoding="utf-8")
    with pytest.raises(ReplayError, match="changes"):
        find_runs(tmp_path / "b")


def execute(verb: Verb, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    return verb.execute(parser.parse_args(arguments))


def test_the_exit_code_is_1_only_where_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both(tmp_path, "iae.T", range(6), range(1, 7))
    sides = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert execute(commands.compare, *sides) == 0
    assert "iae.T" in capsys.readouterr().out
    assert execute(commands.compare, *sides, "--json", "--fail-on-regression") == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["groups"][0]["seeds"] == [0, 1, 2, 3, 4, 5]
    assert len(answer["regressions"]) == 1
    assert execute(commands.compare, *reversed(sides), "--json", "--fail-on-regression") == 0


def test_the_page_stands_without_histories(tmp_path: Path) -> None:
    both(tmp_path, "iae.<T>", range(6), range(1, 7))
    page = write_comparison(compared(tmp_path), tmp_path / "a", tmp_path / "b", tmp_path / "p.html")
    text = HtmlPage(page.read_text(encoding="utf-8")).text
    assert "1 REGRESSION" in text
    assert "iae.<T> ↓" in text


@pytest.mark.slow
def test_the_page_of_real_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = load_scenario(ROOT / "config/scenarios/cstr-setpoint.yaml")
    loosened = replace(
        scenario.settings,
        controlled=tuple(
            replace(cv, high=cv.high + 2.0) if cv.setpoint is None else cv
            for cv in scenario.settings.controlled
        ),
    )
    for side, settings in (("a", scenario.settings), ("b", loosened)):
        for seed in (1, 2):
            run_scenario(
                replace(scenario, settings=settings),
                tmp_path / side / str(seed),
                tier="virtual",
                seed=seed,
                duration_s=300,
                check_replay=False,
            )
    out = tmp_path / "page.html"
    sides = (str(tmp_path / "a"), str(tmp_path / "b"))
    assert execute(commands.compare, *sides, "--html", str(out)) == 0
    assert "page:" in capsys.readouterr().out
    read = HtmlPage(out.read_text(encoding="utf-8"))
    for chart in ("g0-cv0", "g0-cv1", "g0-mv0", "g0-mv1", "g0-lanes"):
        assert f"chart-{chart}" in read.ids
    assert "n is too small" in read.text
    assert "A, all 2 runs" in read.text
    assert "mode B" in read.text
    assert "hil compare" in read.text
