"""Robust control from the file to the first rung of the ladder, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controller.app import build_application
from controller.errors import SettingsError
from controller.mpc.tree import ParameterSet
from controller.settings import Settings, parse
from controller.settings.application import RobustSettings

EXAMPLE = Path(__file__).parents[2] / "config" / "cstr" / "cstr.yaml"
PLACE = "  iterations: [12, 150]\n"
FAST = "{name: fast, k10: 1.35e12 1/h, weight: 2}"
SLOW = "{name: slow, k10: 1.2e12 1/h, kw: 1.1 kJ/s/m^2/K}"


def with_robust(inside: str) -> Settings:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert PLACE in text
    robust = f"{PLACE}  engine: portable\n  robust: {{{inside}}}\n"
    return parse(text.replace(PLACE, robust), EXAMPLE, {})


def test_sets_are_read_in_the_units_of_the_model() -> None:
    robust = with_robust(f"sets: [{FAST}, {SLOW}]").mpc.robust
    assert robust is not None
    assert robust.horizon == 1
    assert [(item.name, item.weight) for item in robust.sets] == [
        ("nominal", 1.0),
        ("fast", 2.0),
        ("slow", 1.0),
    ]
    nominal, fast, slow = (dict(item.values) for item in robust.sets)
    assert nominal == {}
    assert fast == {"k10": pytest.approx(1.35e12)}
    assert slow == {"k10": pytest.approx(1.2e12), "kw": pytest.approx(3960.0)}


def test_the_nominal_set_may_be_left_out() -> None:
    robust = with_robust(f"nominal: false, horizon: 2, sets: [{FAST}]").mpc.robust
    assert robust is not None
    assert (robust.horizon, [item.name for item in robust.sets]) == (2, ["fast"])


def test_without_the_section_there_is_no_tree() -> None:
    assert parse(EXAMPLE.read_text(encoding="utf-8"), EXAMPLE, {}).mpc.robust is None


def test_the_tree_is_the_first_rung() -> None:
    application = build_application(with_robust(f"sets: [{FAST}, {SLOW}]"), epoch=1)
    names = [name for name, _ in application.ladder.solvers]
    assert names == ["tree", "sqp", "ipopt"]


def test_a_set_that_the_model_cannot_compute_is_shown_at_its_place() -> None:
    settings = with_robust(f"sets: [{FAST}]")
    robust = RobustSettings(1, (ParameterSet("lost", 1.0, {"k10": float("nan")}),))
    lost = replace(settings, mpc=replace(settings.mpc, robust=robust))
    with pytest.raises(SettingsError, match="with k10 of parameter set lost") as caught:
        build_application(lost, epoch=1)
    assert caught.value.where == settings.where("mpc.robust")


@pytest.mark.parametrize(
    ("inside", "where", "what", "mend"),
    [
        ("sets: []", "mpc.robust.sets", "found 0 entries, expected at least 1", "Add entries"),
        ("horizon: 1", "mpc.robust.sets", "a value is missing", "Add sets"),
        (
            "sets: [{name: fast, K10: 1.35e12 1/h}]",
            "mpc.robust.sets[0].K10",
            "there is no model parameter K10",
            "Did you mean k10?",
        ),
        (
            "sets: [{name: fast, k10: 1.35e12 kg/h}]",
            "mpc.robust.sets[0].k10",
            "the value is in kg/h, expected a unit that converts to 1/h",
            "Write the value in 1/h",
        ),
        (
            "sets: [{name: fast, k10: much}]",
            "mpc.robust.sets[0].k10",
            "found 'much', expected a number, or a number and its unit",
            "Write for example",
        ),
        (
            "sets: [{name: fast, k10: -1 1/h}]",
            "mpc.robust.sets[0].k10",
            "-1 1/h is outside that of the model: k10",
            "Choose a value",
        ),
        (
            "sets: [{name: fast, k10: 2e12, weight: 0}]",
            "mpc.robust.sets[0].weight",
            "found 0, expected more than 0",
            "Change the value",
        ),
        (
            "sets: [{name: fast, k10: 2e12, weight: -1.5}]",
            "mpc.robust.sets[0].weight",
            "found -1.5, expected more than 0",
            "Change the value",
        ),
        (
            "sets: [{name: fast}]",
            "mpc.robust.sets[0]",
            "set fast changes no parameter of the model",
            "Write a parameter and its value",
        ),
        (
            "sets: [{k10: 2e12}]",
            "mpc.robust.sets[0].name",
            "a value is missing",
            "Add name: Name of the set",
        ),
        (
            f"sets: [{FAST}, {FAST}]",
            "mpc.robust.sets[1].name",
            "parameter set fast is already at mpc.robust.sets[0].name",
            "Name another",
        ),
        (
            "sets: [{name: nominal, k10: 2e12}]",
            "mpc.robust.sets[0].name",
            "nominal is the name of the model's own parameters",
            "Choose another name",
        ),
        (
            f"horizon: 21, sets: [{FAST}]",
            "mpc.robust.horizon",
            "the tree branches in 21 intervals, the MPC has 20",
            "Shorten it",
        ),
        (
            f"horizon: 6, sets: [{FAST}]",
            "mpc.robust.horizon",
            "2 parameter sets over 6 intervals make more than 32 branches",
            "Shorten the robust horizon",
        ),
        (f"horizon: 0, sets: [{FAST}]", "mpc.robust.horizon", "found 0, expected at least 1", ""),
        (f"horizons: 2, sets: [{FAST}]", "mpc.robust.horizons", "unknown key", "horizon"),
    ],
)
def test_what_does_not_fit_is_shown_at_its_place(
    inside: str, where: str, what: str, mend: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        with_robust(inside)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    place, path = problem.where.split(" ", 1)
    assert path == where
    assert place.startswith(f"{EXAMPLE}:")
    line = EXAMPLE.read_text(encoding="utf-8").split(PLACE)[0].count("\n") + 3
    assert place.split(":")[-2] == str(line)
    assert what in problem.what
    assert mend in problem.mend
