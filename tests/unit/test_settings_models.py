"""Models written in a settings file: every form, its units, and every mistake at its place."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import numpy as np
import pytest
from test_linear_models import answer, first_order
from test_settings_errors import FOREIGN, position, problems_in

from controller.settings import json_schema, load, parse
from controller.settings.yaml_core import read
from plant_models import wood_berry
from plant_models.process import ProcessModel, names, nominal
from plant_models.state_space import matrices

FILE = Path(__file__).parents[2] / "config" / "wood_berry" / "wood-berry.yaml"
TEXT = FILE.read_text(encoding="utf-8")
START, END = TEXT.index("model:\n"), TEXT.index("measured:\n")

VARIABLES = """
    inputs:
      - {name: R, unit: lb/min, range: [0, 4], nominal: 1.95}
      - {name: S, unit: lb/min, range: [0, 4], nominal: 1.71}
    disturbances:
      - {name: F, unit: lb/min, range: [1, 4], nominal: 2.45}
    outputs:
      - {name: XD, unit: percent, range: [80, 100], nominal: 96.25}
      - {name: XB, unit: percent, range: [0, 20], nominal: 0.5}
"""
STATES = """
    states:
      - {name: top, unit: percent, range: [-20, 20], nominal: 0}
      - {name: bottom, unit: percent, range: [-20, 20], nominal: 0}
"""
MATRICES = """
    A: [[-0.06, 0.01], [0.0, -0.07]]
    B: [[0.7, -0.9], [0.6, -1.3]]
    Bd: [[0.25], [0.37]]
    C: [[1, 0], [0, 1]]
    D: [[0, 0.1], [0, 0]]
"""
SPACE = "state_space:\n    time_unit: min" + STATES + VARIABLES + MATRICES
RESPONSE = (
    "step_response:\n    sample: 30 s\n    integrating: [XB]"
    + VARIABLES
    + """
    responses:
      - {output: XD, input: R, coefficients: [0, 0.5, 0.8, 1.0]}
      - {output: XB, input: S, coefficients: [0, -0.1, -0.2]}
      - {output: XD, input: F, coefficients: [0.3]}
"""
)
SCHEDULED = """scheduled:
    variable: F
    points:
      - at: 2 lb/min
        state_space:
          time_unit: min
{states}{variables}{matrices}
      - at: 2.45 lb/min
        state_space:
          time_unit: min
{states}{variables}{faster}
    start: 2
""".format(
    states=STATES.replace("\n    ", "\n          "),
    variables=VARIABLES.replace("\n    ", "\n          "),
    matrices=MATRICES.replace("\n    ", "\n          "),
    faster=MATRICES.replace("-0.06", "-0.12").replace("\n    ", "\n          "),
)


def with_model(form: str) -> str:
    return TEXT[:START] + "model:\n  " + form.rstrip() + "\n\n" + TEXT[END:]


def model_of(form: str) -> ProcessModel:
    return parse(with_model(form), FILE).model


def test_the_example_is_the_published_column() -> None:
    written, coded = load(FILE).model, wood_berry.model(30.0)
    assert [(v.name, v.unit, v.nominal) for v in written.x] == [
        (v.name, v.unit, v.nominal) for v in coded.x
    ]
    ours, theirs = matrices(written), matrices(coded)
    for part in ("a", "b", "bd", "c"):
        assert getattr(ours, part) == pytest.approx(getattr(theirs, part), abs=1e-12)


@pytest.mark.parametrize("number", range(4))
def test_editors_know_every_form(number: int) -> None:
    schema = jsonschema.Draft202012Validator(json_schema())
    text = (TEXT, *map(with_model, (SPACE, RESPONSE, SCHEDULED)))[number]
    assert [e.message for e in schema.iter_errors(read(FILE, text).data)] == []


def test_state_space_in_minutes() -> None:
    model = model_of(SPACE)
    m = matrices(model)
    assert (model.dt_s, names(model.x)) == (0.0, ("top", "bottom"))
    assert m.a * 60.0 == pytest.approx(np.array([[-0.06, 0.01], [0.0, -0.07]]))
    assert m.b * 60.0 == pytest.approx(np.array([[0.7, -0.9], [0.6, -1.3]]))
    assert m.bd * 60.0 == pytest.approx(np.array([[0.25], [0.37]]))
    assert m.d == pytest.approx(np.array([[0.0, 0.1], [0.0, 0.0]]))
    assert nominal(model.y) == pytest.approx([96.25, 0.5])


def test_discrete_state_space() -> None:
    model = model_of(SPACE.replace("time_unit: min", "sample: 0.5 min"))
    assert model.dt_s == 30.0
    assert matrices(model).a[0] == pytest.approx([-0.06, 0.01])


def test_step_responses_with_an_integrating_output() -> None:
    model = model_of(RESPONSE)
    assert answer(model, "R", 6)[:, 0] == pytest.approx([0, 0, 0.5, 0.8, 1.0, 1.0, 1.0])
    assert answer(model, "S", 5)[:, 1] == pytest.approx([0, 0, -0.1, -0.2, -0.3, -0.4])
    assert answer(model, "F", 2)[:, 0] == pytest.approx([0, 0.3, 0.3])


def test_scheduled_models() -> None:
    model = model_of(SCHEDULED)
    x, u = [1.0, 0.0], nominal(model.u)
    rates = [float(model.f(x, u, [load], [])[0]) * 60.0 for load in (2.0, 2.225, 2.45)]
    disturbed = [0.25 * (load - 2.45) for load in (2.0, 2.225, 2.45)]
    assert rates == pytest.approx([-0.06 + disturbed[0], -0.09 + disturbed[1], -0.12])


@pytest.mark.parametrize(("start", "feed"), [(1, 2.0), (2, 2.45)])
def test_the_whole_starts_at_the_point_chosen(start: int, feed: float) -> None:
    form = SCHEDULED.replace("nominal: 2.45", "nominal: 2.0", 1)
    assert nominal(model_of(form.replace("start: 2", f"start: {start}")).d) == pytest.approx([feed])


def test_gains_and_slopes_are_converted_to_the_units_of_the_variables() -> None:
    form = TEXT[START:END].removeprefix("model:\n  ")
    form = form.replace("gain: 12.8, ", 'gain: "0.128 1/(lb/min)", ')
    form = form.replace(
        "gain: -19.4, tau: 14.4 min,   delay: 3 min", 'slope: "-6 percent/lb", delay: 60 s'
    )
    form = form.replace("gain: -19.4, tau: 14.4 min, ", 'slope: "-6 percent/lb", ')
    model = model_of(form)
    t = 30.0 * np.arange(61)
    exact = first_order(t, 12.8, 16.7 * 60, 60.0)
    assert answer(model, "R", 60)[:, 0] == pytest.approx(exact, abs=1e-9)
    # 1 lb/min for 1 min is 1 lb
    assert answer(model, "S", 20)[20, 1] == pytest.approx(-6.0 * (600.0 - 180.0) / 60.0, abs=1e-9)


def test_second_order_cells() -> None:
    form = (
        TEXT[START:END]
        .removeprefix("model:\n  ")
        .replace("tau: 16.7 min,", "tau: 16.7 min, tau2: 4 min, lead: -2 min,")
    )
    model = model_of(form)
    assert "XD<-R second lag" in names(model.x)
    y = answer(model, "R", 400)[:, 0]
    assert (y.min() < -0.1, y[-1]) == (True, pytest.approx(12.8, abs=1e-3))


LAGS = TEXT[START:END].removeprefix("model:\n  ")
FIRST = "{output: XD, input: R, gain: 12.8,  tau: 16.7 min, delay: 1 min}"


@pytest.mark.parametrize(("form", "old", "new", "at", "path", "what"), [
    (LAGS, "tau: 16.7 min", "tau: -1 min", "-1 min", "cells[0].tau", "expected more than zero"),
    (LAGS, "tau: 16.7 min", "tau: 2 kg", "2 kg", "cells[0].tau", "is in kg"),
    (LAGS, "delay: 1 min", "delay: -1 min", "-1 min", "cells[0].delay", "expected zero or more"),
    (LAGS, "delay: 1 min", "delay: 30 h", "30 h", "cells[0].delay", "more than 1000 samples"),
    (LAGS, "gain: 12.8", "gain: 0", "0", "cells[0].gain", "expected a gain"),
    (LAGS, "gain: 12.8", "gain: 12.8 kg", "12.8 kg", "cells[0].gain", "is in kg"),
    (LAGS, "input: R, ", "input: Q, ", "Q", "cells[0].input", "there is no input Q"),
    (LAGS, "output: XD, ", "output: YD, ", "YD", "cells[0].output", "there is no output YD"),
    (LAGS, "tau: 16.7 min, ", "", "{output: XD", "cells[0]", "a gain needs a time constant"),
    (LAGS, "gain: 12.8", "slope: 1", "16.7 min", "cells[0].tau", "an integration has no tau"),
    (LAGS, "gain: 12.8, ", "", "{output: XD", "cells[0]", "neither gain nor slope"),
    (LAGS, "tau: 16.7 min", "tau: 1 min, lead: 2 s", "2 s", "cells[0].lead", "two time constants"),
    (LAGS, "input: S, gain: -18.9", "input: R, gain: -18.9", "{output: XD, input: R, gain: -18",
     "cells[1]", "already at model.transfer_functions.cells[0]"),
    (LAGS, "sample: 30 s", "sample: 0 s", "0 s", "sample", "expected more than zero"),
    (LAGS, "nominal: 1.95", "nominal: 9", "9", "inputs[0].nominal", "outside the range"),
    (LAGS, "unit: lb/min, range: [0, 4], nominal: 1.95", "unit: wibble, range: [0, 4], nominal: 1",
     "wibble", "inputs[0].unit", "not a unit"),
    (LAGS, "name: F,", "name: S,", "S", "disturbances[0].name", "S is an input already"),
    (LAGS, "delay: 1 min", "delaz: 1 min", "delaz", "cells[0].delaz", "unknown key"),
    (SPACE, "[[-0.06, 0.01], [0.0, -0.07]]", "[[-0.06, 0.01], [0.0]]", "[0.0]", "A[1]",
     "row 2 of A has 1 numbers, expected 2"),
    (SPACE, "[[0.25], [0.37]]", "[[0.25]]", "Bd", "Bd", "Bd has 1 rows, expected 2"),
    (SPACE, "time_unit: min", "time_unit: min\n    sample: 30 s", "min", "time_unit",
     "per sample, not per time"),
    (RESPONSE, "input: S, c", "input: T, c", "T", "responses[1].input", "there is no input T"),
    (RESPONSE, "integrating: [XB]", "integrating: [XC]", "XC", "integrating[0]", "no output XC"),
    (RESPONSE, "[0, -0.1, -0.2]", "[0.1]", "coefficients", "responses[1].coefficients",
     "needs two coefficients"),
    (SCHEDULED, "variable: F", "variable: G", "G", "variable", "there is no variable G"),
    (SCHEDULED, "at: 2.45", "at: 1.45", "1.45", "points[1].at", "is not above the value"),
    (SCHEDULED, "start: 2", "start: 3", "3", "start", "there is no point 3"),
])  # fmt: skip
def test_a_mistake_is_told_at_its_place(
    form: str, old: str, new: str, at: str, path: str, what: str
) -> None:
    assert old in form
    text = with_model(form.replace(old, new, 1))
    place = form.index(old)
    offset = len(TEXT[:START]) + len("model:\n  ") + place
    kind = form[: form.index(":")]
    found = [str(p) for p in problems_in(text, FILE)]
    mine = [p for p in found if f" model.{kind}.{path}: " in p and what in p]
    assert mine, found
    assert not FOREIGN.search("\n".join(found))
    if at in new:
        line = position(text, offset + new.index(at)).split(":")[0]
        assert f":{line}:" in mine[0]


@pytest.mark.parametrize(("form", "told"), [
    ("parameters: {a: 1}", "found no form of a model, expected one"),
    ("plant: plant_models.wood_berry:model\n  " + SPACE, "found plant and state_space"),
    ("parameters: {a: 1}\n  " + SPACE, "the state_space model has no parameters"),
    (LAGS.replace(FIRST, FIRST.replace("XD", "XB")), "nothing acts on|already at"),
])  # fmt: skip
def test_exactly_one_form(form: str, told: str) -> None:
    text = with_model(form)
    assert any(p for p in problems_in(text, FILE) for t in told.split("|") if t in str(p))


@pytest.mark.parametrize(("old", "new", "path"), [
    ("cycle: 30 s", "cycle: 20 s", "cycle"), ("step: 60 s", "step: 75 s", "mpc.step"),
    ("sample: 30 s", "sample: 45 s", "cycle"),
])  # fmt: skip
def test_cycle_and_step_are_whole_samples(old: str, new: str, path: str) -> None:
    found = [str(p) for p in problems_in(TEXT.replace(old, new), FILE)]
    assert any(f" {path}: " in p and "no whole multiple of the sample time" in p for p in found)


def test_points_whose_states_differ_cannot_be_mixed() -> None:
    form = SCHEDULED.replace("name: top", "name: upper", 1)
    found = [str(p) for p in problems_in(with_model(form), FILE)]
    assert any("points[1]" in p and "states are not those of the first point" in p for p in found)
