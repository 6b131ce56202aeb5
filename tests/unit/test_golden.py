"""Golden runs: tubes in value and time, bands, what makes a comparison void, files and diffs."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ScenarioError
from hil.history import History
from hil.judge.golden import envelope, golden_checks, golden_diff, golden_run, golden_signals
from hil.judge.golden_file import ROWS_MAX, RunIdentity, read_golden, write_golden
from hil.judge.verdict import Check
from hil.scenario.parts import Golden, Tube

IDENTITY = RunIdentity("step", "virtual", 3, 100.0)
KPIS = {"iae.cB": 2.0, "travel.F": 1.0, "solve_ms_p50": 0.7}
MODES = ["INIT", "READY", *["ACTIVE"] * 8]


def run(values: list[float], modes: list[str] | None = None, step_s: float = 10.0) -> History:
    n = len(values)
    return History(
        {
            "time_s": [step_s * i for i in range(n)],
            "y.cB": values,
            "y.T": [100.0] * n,
            "sp.F": [5.0] * n,
        },
        {"mode": modes or MODES},
    )


STEP = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def spec(tubes: dict[str, Tube] | None = None, **more: object) -> Golden:
    bands = {"iae.cB": Tube(relative=0.1)}
    return replace(
        Golden(Path("step.golden.json"), tubes or {"cB": Tube(absolute=0.05)}, bands, ()), **more
    )


def checks(
    history: History,
    wanted: Golden,
    golden_of: list[float] = STEP,
    kpis: dict[str, float] = KPIS,
    identity: RunIdentity = IDENTITY,
) -> dict[str, Check]:
    golden = golden_run(run(golden_of), KPIS, IDENTITY, wanted)
    return {c.name: c for c in golden_checks(history, kpis, identity, golden, wanted)}


def outcome(values: list[float], tube: Tube) -> str:
    return checks(run(values), spec({"cB": tube}))["golden y.cB"].outcome


def test_the_same_run_passes_with_no_tolerance() -> None:
    exact = [1 / 3, 2 / 3, 1e-9, -1 / 7, 0.0, 1e9 / 7, 1.0, 1.0, 1.0, 1.0]
    wanted = spec({"y.*": Tube(), "sp.F": Tube()}, bands={"*": Tube()})
    found = checks(run(exact), wanted, exact)
    assert {c.outcome for c in found.values()} == {"passed"}
    assert set(found) == {
        "golden step.golden.json",
        "golden modes",
        "golden y.cB",
        "golden y.T",
        "golden sp.F",
        "golden iae.cB",
        "golden travel.F",
    }


def test_the_tube_is_as_wide_as_the_tolerance() -> None:
    raised = [*STEP[:6], 1.05, *STEP[7:]]
    assert outcome(raised, Tube(absolute=0.0501)) == "passed"
    assert outcome(raised, Tube(absolute=0.0499)) == "failed"
    assert outcome(raised, Tube(relative=0.0501)) == "passed"
    assert outcome(raised, Tube(relative=0.0499)) == "failed"
    # The wider of the two, not their sum.
    assert outcome(raised, Tube(absolute=0.03, relative=0.03)) == "failed"


def test_a_signal_may_come_so_much_earlier_or_later() -> None:
    later, earlier = [0.0, *STEP[:-1]], [*STEP[1:], 1.0]
    assert outcome(later, Tube(absolute=0.01)) == "failed"
    assert outcome(later, Tube(absolute=0.01, lag_s=10.0)) == "passed"
    assert outcome(later, Tube(absolute=0.01, lead_s=10.0)) == "failed"
    assert outcome(earlier, Tube(absolute=0.01, lead_s=10.0)) == "passed"
    assert outcome(earlier, Tube(absolute=0.01, lag_s=10.0)) == "failed"
    assert outcome([0.0, *later[:-1]], Tube(absolute=0.01, lag_s=10.0)) == "failed"
    assert outcome([0.0, *later[:-1]], Tube(absolute=0.01, lag_s=20.0)) == "passed"


def test_a_check_tells_the_worst_point() -> None:
    found = checks(run([*STEP[:6], 1.2, 1.4, 1.0, 1.0]), spec())["golden y.cB"]
    assert (found.value, found.outcome) == (1.4, "failed")
    assert found.high == pytest.approx(1.05, rel=1e-6)
    assert found.detail == "worst at 70 s; 2 of 10 rows outside, the first at 60 s"


def test_what_is_no_number_fails() -> None:
    assert outcome([*STEP[:6], nan, *STEP[7:]], Tube(absolute=10.0)) == "failed"
    assert outcome([*STEP[:6], inf, *STEP[7:]], Tube(absolute=10.0)) == "failed"


def test_nothing_is_asked_where_the_golden_run_has_no_number() -> None:
    wanted = spec({"cB": Tube(absolute=0.01)})
    unknown = [nan, nan, *STEP[2:]]
    assert checks(run(STEP), wanted, unknown)["golden y.cB"].outcome == "passed"
    for free in (5.0, nan):
        found = checks(run([free, free, *STEP[2:]]), wanted, unknown)["golden y.cB"]
        assert (found.outcome, found.value) == ("passed", 0.0)
    assert checks(run(STEP), wanted, [nan] * 10)["golden y.cB"].outcome == "untested"


def test_bands_of_kpis() -> None:
    for value, wanted in ((2.2, "passed"), (2.201, "failed"), (1.8, "passed"), (1.799, "failed")):
        found = checks(run(STEP), spec(), kpis={"iae.cB": value})["golden iae.cB"]
        assert found.outcome == wanted
        assert found.detail == "golden 2"
    assert checks(run(STEP), spec(), kpis={})["golden iae.cB"].outcome == "untested"
    new = spec(bands={"ise.cB": Tube(relative=0.1)})
    assert checks(run(STEP), new)["golden ise.cB"].outcome == "untested"


def test_ignore_takes_out_of_patterns() -> None:
    wanted = spec({"*": Tube(absolute=1.0)}, bands={"*": Tube()}, ignore=("y.T", "t*", "modes"))
    found = checks(run(STEP), wanted)
    assert set(found) == {
        "golden step.golden.json",
        "golden y.cB",
        "golden sp.F",
        "golden iae.cB",
    }


def test_a_name_goes_before_a_pattern() -> None:
    tubes = {"*": Tube(absolute=1.0), "cB": Tube(absolute=2.0)}
    found = golden_signals(run(STEP), spec(tubes))
    assert found["y.cB"].absolute == 2.0
    assert found["sp.F"].absolute == 1.0
    with pytest.raises(ScenarioError, match="no signal cA"):
        golden_signals(run(STEP), spec({"cA": Tube()}))


def test_modes_are_compared_in_their_order() -> None:
    shed = ["INIT", "READY", "ACTIVE", "SHED", *["ACTIVE"] * 6]
    found = checks(run(STEP, shed), spec())["golden modes"]
    assert found.outcome == "failed"
    assert found.detail == (
        "golden: INIT → READY → ACTIVE; run: INIT → READY → ACTIVE → SHED → ACTIVE"
    )
    late = ["INIT", "INIT", "READY", *["ACTIVE"] * 7]
    assert checks(run(STEP, late), spec())["golden modes"].outcome == "passed"


@pytest.mark.parametrize(
    ("history", "identity", "detail"),
    [
        (run(STEP, ["INIT"] * 10), IDENTITY, "control was never active in this run"),
        (run(STEP), replace(IDENTITY, scenario="other"), "it is of scenario step, this run of"),
        (run(STEP), replace(IDENTITY, duration_s=101.0), "it lasts 100 s, this run 101 s"),
        (run(STEP[:9], MODES[:9]), IDENTITY, "this run stopped at 80 s"),
        (run(STEP, step_s=-1.0), IDENTITY, "the clock was set back"),
    ],
)
def test_runs_that_cannot_be_compared_fail(
    history: History, identity: RunIdentity, detail: str
) -> None:
    found = list(checks(history, spec(), identity=identity).values())
    assert [c.outcome for c in found] == ["failed"]
    assert found[0].detail.startswith(detail)


def test_another_seed_or_tier_is_compared_and_told() -> None:
    found = checks(run(STEP), spec(), identity=replace(IDENTITY, tier="wire", seed=4))
    assert {c.outcome for c in found.values()} == {"passed"}
    assert found["golden step.golden.json"].detail.endswith("tier virtual, seed 3")


def test_a_run_that_proves_nothing_cannot_be_golden() -> None:
    with pytest.raises(ScenarioError, match="never active"):
        golden_run(run(STEP, ["INIT"] * 10), KPIS, IDENTITY, spec())
    with pytest.raises(ScenarioError, match="never active"):
        golden_run(History(), {}, IDENTITY, spec())
    with pytest.raises(ScenarioError, match="the clock was set back"):
        golden_run(run(STEP, step_s=-1.0), KPIS, IDENTITY, spec())
    dead = replace(golden_run(run(STEP), KPIS, IDENTITY, spec()), active=False)
    found = golden_checks(run(STEP), KPIS, IDENTITY, dead, spec())
    assert [c.outcome for c in found] == ["failed"]


def test_without_a_file_nothing_is_tested_and_the_mend_is_told(tmp_path: Path) -> None:
    golden = read_golden(tmp_path / "none.json")
    assert golden is None
    (found,) = golden_checks(run(STEP), KPIS, IDENTITY, golden, spec())
    assert found.outcome == "untested"
    assert "--update-golden" in found.detail


def test_a_signal_that_the_file_does_not_have_is_untested() -> None:
    golden = golden_run(run(STEP), KPIS, IDENTITY, spec())
    wanted = spec({"cB": Tube(absolute=0.1), "T": Tube()})
    found = {c.name: c for c in golden_checks(run(STEP), KPIS, IDENTITY, golden, wanted)}
    assert found["golden y.T"].outcome == "untested"
    assert found["golden y.cB"].outcome == "passed"


# Files.


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "step.golden.json"
    values = [nan, 1 / 3, *STEP[2:]]
    golden = golden_run(run(values), KPIS, IDENTITY, spec({"*": Tube()}))
    write_golden(golden, path)
    again = read_golden(path)
    assert again is not None
    assert golden_diff(golden, again) == "golden run of step\n  nothing changed\n"
    assert again.identity == IDENTITY
    assert again.versions == golden.versions
    assert set(again.versions) == {"loopwright", "casadi", "python"}
    assert again.modes == ((0.0, "INIT"), (10.0, "READY"), (20.0, "ACTIVE"))
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    # Real time is not kept unless asked for.
    assert again.kpis == {"iae.cB": 2.0, "travel.F": 1.0}
    kept = golden_run(run(values), KPIS, IDENTITY, spec(bands={"solve_ms_p50": Tube()}))
    assert "solve_ms_p50" in kept.kpis


def test_a_change_is_a_changed_line(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.json", []
    for values in (STEP, [*STEP[:7], 1.25, *STEP[8:]]):
        write_golden(golden_run(run(values), KPIS, IDENTITY, spec()), path)
        texts.append(path.read_text(encoding="utf-8").splitlines())
    changed = [(a, b) for a, b in zip(*texts, strict=True) if a != b]
    assert changed == [("    [70, 1],", "    [70, 1.25],")]
    assert json.loads(path.read_text(encoding="utf-8"))["columns"] == ["time_s", "y.cB"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", '{"golden": 2}', '{"golden": 1, "columns": ["time_s"], "rows": [[]]}'],
)
def test_what_is_no_golden_run_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScenarioError, match="this is no golden run") as caught:
        read_golden(path)
    assert "--update-golden" in caught.value.mend


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    golden = golden_run(run(STEP), KPIS, IDENTITY, spec())
    with pytest.raises(ScenarioError, match="cannot be written"):
        write_golden(golden, tmp_path / "file" / "a.json")


def test_a_long_run_is_kept_in_few_rows_that_lose_no_peak(tmp_path: Path) -> None:
    n = 10 * ROWS_MAX
    values = [0.0] * n
    long = replace(IDENTITY, duration_s=float(n))
    modes = ["ACTIVE"] * n
    wanted = spec({"cB": Tube(absolute=0.1)})
    write_golden(golden_run(run(values, modes, 1.0), KPIS, long, wanted), tmp_path / "a.json")
    golden = read_golden(tmp_path / "a.json")
    assert golden is not None
    assert golden.times_s.size == ROWS_MAX
    spike = [*values[:1234], 0.2, *values[1235:]]
    for series, result in ((values, "passed"), (spike, "failed")):
        found = golden_checks(run(series, modes, 1.0), KPIS, long, golden, wanted)
        assert {c.name: c.outcome for c in found}["golden y.cB"] == result
    higher = golden_run(run(spike, modes, 1.0), KPIS, long, wanted)
    found = golden_checks(run(spike, modes, 1.0), KPIS, long, higher, wanted)
    assert {c.name: c.outcome for c in found}["golden y.cB"] == "passed"


# Diffs.


def test_a_diff_tells_what_changed_and_when() -> None:
    old = golden_run(run(STEP), KPIS, IDENTITY, spec())
    old = replace(old, versions={**old.versions, "casadi": "3.7.0"})
    shed = ["INIT", "READY", "ACTIVE", "SHED", *["ACTIVE"] * 6]
    changed = run([*STEP[:7], 1.25, *STEP[8:]], shed)
    tubes = {"cB": Tube(), "T": Tube()}
    kpis = {"iae.cB": 2.5, "sheds": 1.0}
    new = golden_run(changed, kpis, replace(IDENTITY, seed=4), spec(tubes))
    assert golden_diff(old, new).splitlines() == [
        "golden run of step",
        "  seed: 3 → 4",
        f"  casadi: 3.7.0 → {new.versions['casadi']}",
        "  modes before: INIT → READY → ACTIVE",
        "  modes now:    INIT → READY → ACTIVE → SHED → ACTIVE",
        "  y.cB: 1 → 1.25 at 70 s, largest change +0.25",
        "  y.T: newly kept",
        "  iae.cB: 2 → 2.5 (+25.00%)",
        "  sheds: - → 1",
        "  travel.F: 1 → -",
    ]
    assert golden_diff(None, new) == "new golden run of step: 2 signals\n"
    assert golden_diff(new, new).endswith("nothing changed\n")


# The tube against its definition.

_VALUES = st.lists(st.integers(-5, 5).map(float), min_size=10, max_size=10)


@settings(max_examples=60, deadline=None)
@given(_VALUES, st.integers(0, 35), st.integers(0, 35), st.integers(0, 3), st.integers(0, 3))
def test_the_tube_by_its_definition(
    values: list[float], lead: int, lag: int, absolute: int, relative: int
) -> None:
    tube = Tube(float(absolute), float(relative), float(lead), float(lag))
    golden = golden_run(run(values), KPIS, IDENTITY, spec({"cB": tube}))
    floor, ceiling = envelope(golden, "y.cB", tube)
    for i, time_s in enumerate(golden.times_s):
        stands = [
            j
            for j, begin in enumerate(golden.times_s)
            if begin <= time_s + lead and (begin + 10 > time_s - lag)
        ]
        lows = [values[j] - max(absolute, relative * abs(values[j])) for j in stands]
        highs = [values[j] + max(absolute, relative * abs(values[j])) for j in stands]
        np.testing.assert_allclose([floor[i], ceiling[i]], [min(lows), max(highs)], atol=1e-5)
