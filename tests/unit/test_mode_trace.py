"""Expected sequences of modes against what a run went through."""

from __future__ import annotations

import pytest

from hil.history import History
from hil.judge.mode_trace import mode_sequence, mode_trace_check


def run(*modes: str) -> History:
    return History({"time_s": [10.0 * i for i in range(len(modes))]}, {"mode": list(modes)})


STARTED = ("INIT", "INIT", "READY", "ACTIVE", "ACTIVE", "SHED", "INIT", "READY", "ACTIVE")


def test_rows_of_one_mode_are_one() -> None:
    assert mode_sequence(STARTED[:5]) == ((0, "INIT"), (2, "READY"), (3, "ACTIVE"))


@pytest.mark.parametrize(
    "expected",
    [
        ["INIT", "READY", "ACTIVE", "SHED", "INIT", "READY", "ACTIVE"],
        ["INIT", "READY", "ACTIVE", "ACTIVE", "SHED", "INIT", "READY", "ACTIVE"],
        ["INIT", "...", "ACTIVE"],
        ["...", "SHED", "..."],
        ["..."],
        ["...", "...", "ACTIVE", "..."],
        ["INIT", "READY", "ACTIVE", "SHED", "INIT", "READY", "ACTIVE", "..."],
        ["...", "ACTIVE", "...", "ACTIVE"],
    ],
)
def test_fits(expected: list[str]) -> None:
    assert mode_trace_check(run(*STARTED), expected).outcome == "passed"


@pytest.mark.parametrize(
    ("expected", "fits", "detail"),
    [
        (["INIT", "READY", "ACTIVE"], 3.0, "at 50 s: SHED, wanted no other mode"),
        (["INIT", "ACTIVE"], 1.0, "at 20 s: READY, wanted ACTIVE"),
        (["READY", "..."], 0.0, "at 0 s: INIT, wanted READY"),
        (["...", "MANUAL", "..."], 7.0, "after ACTIVE at 80 s the run ends, wanted MANUAL"),
        (["...", "SHED"], 7.0, "after ACTIVE at 80 s the run ends, wanted SHED"),
        (
            ["...", "ACTIVE", "...", "ACTIVE", "...", "ACTIVE"],
            7.0,
            "after ACTIVE at 80 s the run ends, wanted ACTIVE",
        ),
    ],
)
def test_tells_where_the_run_went_another_way(
    expected: list[str], fits: float, detail: str
) -> None:
    check = mode_trace_check(run(*STARTED), expected)
    assert (check.outcome, check.value) == ("failed", fits)
    told, _, gone = check.detail.partition("; run: ")
    assert told == detail
    assert gone.startswith("INIT (0 s) → READY (20 s) → ACTIVE (30 s) → SHED (50 s)")


def test_a_run_that_ends_too_early_tells_what_was_still_wanted() -> None:
    check = mode_trace_check(run("INIT", "READY"), ["INIT", "READY", "ACTIVE"])
    assert check.detail.startswith("after READY at 10 s the run ends, wanted ACTIVE")


def test_an_empty_run_is_untested() -> None:
    assert mode_trace_check(History(), ["INIT"]).outcome == "untested"
