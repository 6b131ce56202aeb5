"""Temporal formulas: how they are read, what they are worth, where they break; bounds."""

from __future__ import annotations

import re
from math import inf, nan

import pytest

from controller.errors import ScenarioError
from hil.history import History
from hil.judge.temporal_check import bound_check, temporal_check
from hil.temporal.evaluate import Robustness, evaluate, parse
from hil.temporal.formula import Always, Both, Either, Eventually, Not, Number, Until, Window


def run(
    values: list[float], modes: list[str] | None = None, faults: list[str] | None = None
) -> History:
    """A row every 10 s."""
    n = len(values)
    return History(
        {"time_s": [10.0 * i for i in range(n)], "y.T": values, "u.F": [2.0] * n},
        {"mode": modes or ["ACTIVE"] * n, "faults": faults or [""] * n},
    )


def found(formula: str, history: History) -> Robustness:
    return evaluate(parse(formula), history)


# Reading.


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("not y.T > 5 and y.T < 3", "(not (y.T > 5)) and (y.T < 3)"),
        ("y.T > 1 or y.T < 0 and u.F > 1", "y.T > 1 or (y.T < 0 and u.F > 1)"),
        ("y.T > 1 implies u.F > 1 or y.T < 9", "y.T > 1 implies (u.F > 1 or y.T < 9)"),
        (
            "y.T > 1 implies y.T > 2 implies y.T > 3",
            "y.T > 1 implies (y.T > 2 implies y.T > 3)",
        ),
        ("always y.T > 1 and u.F > 1", "(always (y.T > 1)) and u.F > 1"),
        ("y.T > 1 until u.F > 1 and y.T > 0", "((y.T > 1) until (u.F > 1)) and y.T > 0"),
        ("1 + 2 * y.T - 3 > 0", "((1 + (2 * y.T)) - 3) > 0"),
        ("y.T - 1 - 2 > 0", "((y.T - 1) - 2) > 0"),
        ("-y.T * 2 > 0", "((-y.T) * 2) > 0"),
        ("mode == ACTIVE", 'mode == "ACTIVE"'),
    ],
)
def test_what_binds_more_tightly(text: str, same: str) -> None:
    def shape(formula: str) -> str:
        # Places in the text differ, nothing else may.
        return re.sub(r"at=\d+", "at", repr(parse(formula).tree))

    assert shape(text) == shape(same)


def test_reads_the_forms_of_a_formula() -> None:
    tree = parse("always[20 min, 2 h](y.T <= 125)").tree
    assert isinstance(tree, Always)
    assert tree.window == Window(1200.0, 7200.0)
    tree = parse("always(mode == SHED implies eventually[0, 5 min] mode == ACTIVE)").tree
    assert isinstance(tree, Always)
    assert isinstance(tree.of, Either)
    assert isinstance(tree.of.left, Not)
    assert isinstance(tree.of.right, Eventually)
    tree = parse("(y.T >= 0.8) until[0, 10 min] (mode == ACTIVE)").tree
    assert isinstance(tree, Until)
    assert tree.window == Window(0.0, 600.0)
    tree = parse("always[20, end] y.T < 1e3").tree
    assert isinstance(tree, Always)
    assert tree.window == Window(20.0, inf)
    assert isinstance(parse("y.T > 1 and u.F > -2").tree, Both)


def test_names_are_those_of_the_formula() -> None:
    formula = parse('abs(y.T - 2 * u.F) < 3 and not faults has "a b" or y.T > 1')
    assert formula.names == ("y.T", "u.F", "faults")


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("", 1, "something is missing at the end"),
        ("always(y.T <= )", 15, "')' is not expected here"),
        ("always(y.T <= 1", 16, "something is missing at the end"),
        ("always[5 min](y.T < 1)", 7, "a window has a begin and an end"),
        ("always[0, 5 parsecs](y.T < 1)", 11, "the value is in parsecs"),
        ("always[0, 5 K](y.T < 1)", 11, "the value is in K"),
        ("always[2 h, 20 min](y.T < 1)", 7, "ends before it begins"),
        ("always[-5 s, 5 s](y.T < 1)", 8, "looks back"),
        ("y.T", 1, "nothing that could be true or false"),
        ("always(y.T)", 7, "nothing that could be true or false"),
        ("(y.T > 1) + 2 > 3", 1, "true or false, no value"),
        ("0 < y.T < 5", 9, "'<' is not expected here"),
        ("y.T = 5", 5, "'=' is not expected here"),
        ("y.T > 1 until y.T > 2 until y.T > 3", 23, "'until' is not expected here"),
        ("y.T > 5 min", 9, "'min' is not expected here"),
        ('y.T has "x"', 5, "between a column of words and a word"),
        ('y.T == "x"', 5, "between a column of words and a word"),
        ("y.T > 1 $ 3", 9, "'$' is not expected here"),
        ("[0, 1] y.T > 1", 1, "'[0, 1]' is not expected here"),
        ("(" * 60 + "y.T > 1" + ")" * 60, 51, "nested too deeply"),
        ("abs y.T > 1", 5, "'y.T' is not expected here"),
        ("and y.T > 1", 1, "'and' is not expected here"),
    ],
)
def test_points_at_what_cannot_be_read(text: str, column: int, what: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text)
    assert what in caught.value.what
    assert caught.value.where == f"column {column} of '{text}'"
    assert caught.value.mend


@pytest.mark.parametrize(
    ("text", "column", "mend"),
    [
        ("y.T > 1 and y.Temp > 2", 13, "y.T"),
        ("mode == ACTVIE", 9, "Did you mean ACTIVE?"),
        ("mod == ACTIVE", 1, "Did you mean mode?"),
        ("mode > 3", 1, "compared with a word"),
        ("time_s == ACTIVE", 1, "compare it with a number"),
    ],
)
def test_suggests_the_name_that_was_meant(text: str, column: int, mend: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(text).check_names(["time_s", "y.T"])
    assert caught.value.where.startswith(f"column {column} of")
    assert mend in caught.value.mend


def test_known_names_are_accepted() -> None:
    parse('y.T > 1 and mode == SHED and faults has "cable_cut feed"').check_names(["y.T"])


# Values.


def test_margin_is_the_distance_from_the_limit() -> None:
    history = run([1.0, 4.0, 2.0, 3.0])
    assert found("always(y.T <= 5)", history) == Robustness(1.0, None, "passed")
    assert found("always(y.T <= 4)", history) == Robustness(0.0, None, "passed")
    assert found("always(y.T < 4)", history) == Robustness(0.0, 10.0, "failed")
    assert found("always(y.T <= 3.5)", history) == Robustness(-0.5, 10.0, "failed")
    assert found("eventually(y.T >= 4)", history).value == 0.0
    assert found("abs(y.T - 2 * u.F) / 3 >= 1", history) == Robustness(0.0, None, "passed")
    assert found("y.T == 1", history).outcome == "passed"
    assert found("y.T != 1", history).outcome == "failed"


def test_windows_are_in_seconds_from_the_row() -> None:
    history = run([9.0, 1.0, 1.0, 9.0])
    assert found("always[10 s, 20 s](y.T <= 5)", history).outcome == "passed"
    assert found("always[10 s, 29.9 s](y.T <= 5)", history).outcome == "passed"
    assert found("always[10 s, 30 s](y.T <= 5)", history) == Robustness(-4.0, 30.0, "failed")
    # At 9.9 s the first row still stands.
    assert found("always[9.9 s, 20 s](y.T <= 5)", history) == Robustness(-4.0, 0.0, "failed")
    assert found("eventually[12 s, 13 s](y.T <= 5)", history).outcome == "passed"


def test_a_window_beyond_the_end_is_untested_unless_the_run_decides() -> None:
    history = run([1.0, 1.0, 1.0, 9.0])
    # The last row stands for 10 s as the others do.
    assert found("eventually[0, 40 s](y.T >= 8)", history).outcome == "passed"
    assert found("always[0, 20 s](y.T <= 5)", history).outcome == "passed"
    assert found("always[0, 40 s](y.T <= 9)", history).outcome == "passed"
    assert found("always[0, 41 s](y.T <= 9)", history) == Robustness(None, None, "untested")
    assert found("always[0, 41 s](y.T <= 5)", history).outcome == "failed"
    assert found("eventually[0, 41 s](y.T >= 8)", history).outcome == "passed"
    assert found("eventually[0, 41 s](y.T >= 10)", history).outcome == "untested"
    assert found("always[39 s, end](y.T <= 9)", history).outcome == "passed"
    assert found("always[40 s, end](y.T <= 9)", history).outcome == "untested"
    assert found("eventually[40 s, 40 s](y.T <= 9)", history).outcome == "untested"
    assert found("eventually(y.T >= 10)", history).outcome == "failed"


def test_a_shed_that_is_recovered_from_in_time() -> None:
    formula = "always(mode == SHED implies eventually[0, 20 s] mode == ACTIVE)"
    recovered = ["ACTIVE", "SHED", "SHED", "ACTIVE", "ACTIVE"]
    too_late = ["ACTIVE", "SHED", "SHED", "SHED", "ACTIVE", "ACTIVE"]
    at_the_end = ["ACTIVE", "ACTIVE", "ACTIVE", "ACTIVE", "SHED"]
    for modes, outcome, at_s in (
        (recovered, "passed", None),
        (too_late, "failed", 10.0),
        (at_the_end, "untested", None),
    ):
        result = found(formula, run([0.0] * len(modes), modes))
        assert (result.outcome, result.first_violation_s) == (outcome, at_s)


def test_until_asks_for_both() -> None:
    formula = "(y.T >= 1) until[0, 20 s] (mode == ACTIVE)"
    modes = ["INIT", "READY", "ACTIVE", "ACTIVE"]
    assert found(formula, run([1.5, 1.2, 0.0, 0.0], modes)).value == pytest.approx(0.2)
    assert found(formula, run([1.5, 0.9, 0.0, 0.0], modes)).outcome == "failed"
    assert found(formula, run([2.0] * 4, ["INIT", "INIT", "READY", "ACTIVE"])).outcome == "failed"
    not_yet = run([2.0] * 2, ["INIT", "INIT"])
    assert found(formula, not_yet).outcome == "failed"
    longer = formula.replace("20 s", "21 s")
    assert found(longer, not_yet).outcome == "untested"
    assert found("(y.T >= 1) until (mode == ACTIVE)", not_yet).outcome == "failed"


def test_words_decide_infinitely() -> None:
    history = run([0.0] * 3, faults=["", "freeze T.PV; cable_cut feed", ""])
    assert found('eventually faults has "cable_cut feed"', history).value == inf
    assert found('eventually faults has "cable_cut"', history).value == -inf
    assert found('always(faults == "")', history) == Robustness(-inf, 10.0, "failed")
    assert found('not faults has "freeze T.PV"', history).outcome == "passed"


@pytest.mark.parametrize("formula", ["y.T > 5", "not (y.T > 5)", "y.T != 5", "not (y.T == 5)"])
@pytest.mark.parametrize("broken", [nan, inf - inf])
def test_what_is_no_number_breaks_either_way(formula: str, broken: float) -> None:
    history = run([9.0, 9.0, broken])
    assert found(f"always[20 s, end]({formula})", history) == Robustness(-inf, 20.0, "failed")


def test_a_division_by_zero_is_no_number() -> None:
    assert found("always(1 / y.T > 0)", run([1.0, 0.0])).outcome == "failed"
    assert found("always(1 / y.T <= 1)", run([1.0, 0.0])).outcome == "failed"


def test_the_first_violation_is_found_inside() -> None:
    history = run([1.0, 6.0, 1.0, 1.0], ["ACTIVE", "ACTIVE", "ACTIVE", "SHED"])
    result = found("always(y.T < 5) and always(mode == ACTIVE)", history)
    assert result.first_violation_s == 10.0
    assert found("always[20 s, end](mode == ACTIVE)", history).first_violation_s == 30.0


def test_rows_in_uneven_time() -> None:
    history = History({"time_s": [0.0, 1.0, 50.0, 51.0], "y.T": [1.0, 7.0, 1.0, 1.0]}, {})
    # The row of 1 s stands until 50 s.
    assert found("always[20 s, 30 s](y.T < 5)", history).outcome == "failed"
    assert found("always[50 s, 51 s](y.T < 5)", history).outcome == "passed"


def test_a_first_row_that_comes_late_counts_from_zero() -> None:
    history = History({"time_s": [10.0, 20.0, 30.0], "y.T": [9.0, 1.0, 9.0]}, {})
    assert found("always[20 s, 29 s](y.T < 5)", history).outcome == "passed"


def test_times_that_do_not_increase_are_refused() -> None:
    history = History({"time_s": [0.0, 5.0, 5.0], "y.T": [1.0, 1.0, 1.0]}, {})
    with pytest.raises(ScenarioError, match="do not increase"):
        found("always(y.T < 5)", history)
    check = temporal_check("always(y.T < 5)", history)
    assert (check.outcome, check.value) == ("untested", None)
    assert check.detail.startswith("the clock was set back")


def test_a_run_without_the_signal_is_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"no signal y\.cB"):
        found("always(y.cB < 5)", run([1.0]))


def test_an_empty_run_is_untested() -> None:
    assert found("always(y.T < 5)", History()).outcome == "untested"
    assert temporal_check("always(y.T < 5)", History()).outcome == "untested"


def test_a_number_with_a_sign() -> None:
    tree = parse("y.T > -2").tree
    assert "Number(value=-2.0)" in repr(tree)
    assert Number(-2.0) == Number(-2)


# Checks.


def test_a_check_tells_when_and_in_which_situation() -> None:
    history = run([1.0, 6.0, 1.0], faults=["", "freeze T.PV", ""])
    check = temporal_check("always(y.T <= 5)", history, "warn")
    assert (check.value, check.low, check.outcome, check.severity) == (-1.0, 0.0, "failed", "warn")
    assert check.detail == "broken at 10 s, mode ACTIVE, freeze T.PV"
    assert temporal_check("always(y.T <= 6)", history).outcome == "passed"
    late = temporal_check("always[0, 1 h](y.T <= 6)", history)
    assert (late.outcome, late.detail) == (
        "untested",
        "a window reaches beyond the end of the run at 30 s",
    )


def test_a_run_that_was_never_active_proves_only_something_about_modes() -> None:
    history = run([1.0, 1.0], ["INIT", "INIT"])
    assert temporal_check("always(y.T <= 5)", history).outcome == "untested"
    assert temporal_check("always(y.T <= 0)", history).outcome == "failed"
    assert temporal_check("always(mode == INIT)", history).outcome == "passed"


def test_a_bound_tells_the_worst_point() -> None:
    history = run([1.0, 6.0, 7.0, 2.0])
    check = bound_check(history, "y.T", 0.0, 5.0)
    assert (check.value, check.outcome) == (7.0, "failed")
    assert check.detail == ("worst at 20 s, mode ACTIVE; 2 of 4 cycles outside, the first at 10 s")
    assert bound_check(history, "y.T", 0.0, 7.0).outcome == "passed"
    assert bound_check(history, "y.T", 0.0, 6.999).outcome == "failed"
    assert bound_check(history, "y.T", 1.0, None).outcome == "passed"
    assert bound_check(history, "y.T", 1.001, None).outcome == "failed"


def test_a_bound_holds_in_its_time_only() -> None:
    history = run([1.0, 6.0, 7.0, 2.0])
    check = bound_check(history, "y.T", None, 5.0, 30.0)
    assert (check.name, check.outcome) == ("y.T [30 s, end]", "passed")
    assert bound_check(history, "y.T", None, 5.0, 20.0).outcome == "failed"
    assert bound_check(history, "y.T", None, 5.0, 0.0, 9.0).outcome == "passed"
    assert bound_check(history, "y.T", None, 5.0, 0.0, 10.0).outcome == "failed"
    assert bound_check(history, "y.T", None, 5.0, 30.0, 40.0).outcome == "passed"
    assert bound_check(history, "y.T", None, 5.0, 30.0, 41.0).outcome == "untested"
    assert bound_check(history, "y.T", None, 5.0, 31.0).outcome == "untested"


def test_a_bound_is_broken_by_what_is_no_number() -> None:
    check = bound_check(run([1.0, nan, 2.0]), "y.T", None, 5.0)
    assert (check.value, check.outcome) == (None, "failed")
    assert "worst at 10 s" in check.detail


def test_a_bound_without_control_is_untested() -> None:
    assert bound_check(run([1.0], ["INIT"]), "y.T", None, 5.0).outcome == "untested"
    assert bound_check(run([9.0], ["INIT"]), "y.T", None, 5.0).outcome == "failed"
    assert bound_check(History(), "y.T", None, 5.0).outcome == "untested"


def test_a_bound_on_an_unknown_signal_is_an_error() -> None:
    with pytest.raises(ScenarioError, match=r"no signal y\.t0"):
        bound_check(run([1.0]), "y.t0", None, 5.0)
