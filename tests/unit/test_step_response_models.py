"""Step-response models give their coefficients back, and go on as they should."""

from __future__ import annotations

import numpy as np
import pytest
from test_linear_models import DT_S, LEVEL, D, U, V, Y, answer

from plant_models.process import ProcessModel, is_linear
from plant_models.step_response import step_response

K = np.arange(1, 41)
RESPONSES = {
    ("T", "valve"): 2.0 * (1 - np.exp(-np.maximum(K - 4, 0) / 6.0)),
    ("T", "feed"): np.array([0.0, -0.3, 0.1, 0.4]),
    ("level", "valve"): -0.02 * np.maximum(K - 3, 0),
    ("level", "steam"): 0.01 * K + 0.3 * (1 - np.exp(-K / 3.0)),
}


def model(tolerance: float | None = None) -> ProcessModel:
    return step_response(
        "dmc", (U, V), (Y, LEVEL), RESPONSES, DT_S,
        disturbances=(D,), integrating=("level",), tolerance=tolerance,
    )  # fmt: skip


def test_the_coefficients_come_back() -> None:
    full = model()
    assert is_linear(full)
    for source in ("valve", "steam", "feed"):
        y = answer(full, source, 40)[1:]
        for column, output in enumerate(("T", "level")):
            wanted = np.zeros(40)
            if (output, source) in RESPONSES:
                given = RESPONSES[output, source]
                wanted = np.pad(given, (0, 40 - given.size), mode="edge")
            assert y[:, column] == pytest.approx(wanted, abs=1e-12)


def test_after_the_last_coefficient_an_output_stays_or_goes_on_with_its_slope() -> None:
    y = answer(model(), "valve", 80)
    assert y[80, 0] == pytest.approx(y[40, 0], abs=1e-12)
    assert y[80, 1] == pytest.approx(-0.02 * 77, abs=1e-12)


def test_chains_are_as_long_as_needed_and_shared() -> None:
    # valve 40, steam 39 (its last move is the slope), feed 4, and one integral
    assert len(model().x) == 40 + 39 + 4 + 1


@pytest.mark.parametrize("tolerance", np.geomspace(0.2, 1e-3, 12))
def test_a_reduced_model_stays_within_its_tolerance(tolerance: float) -> None:
    small = model(tolerance)
    assert len(small.x) < 30
    for source in ("valve", "steam", "feed"):
        exact, reduced = answer(model(), source, 40), answer(small, source, 40)
        for column, output in enumerate(("T", "level")):
            largest = max(
                np.abs(np.array(v)).max() for (y, _), v in RESPONSES.items() if y == output
            )
            assert np.abs(exact - reduced)[:, column].max() <= tolerance * largest + 1e-12
    assert "reduced: step responses off by" in small.source


def test_a_tighter_tolerance_needs_more_states() -> None:
    assert len(model(0.1).x) < len(model(1e-4).x)


@pytest.mark.parametrize(("coefficients", "integrating", "told"), [
    ({("T", "valve"): []}, (), "0 coefficients"),
    ({("T", "valve"): [1.0]}, ("T",), "1 coefficients, expected 2"),
    ({("T", "valve"): [1.0, float("nan")]}, (), "T <- valve: a coefficient is not finite"),
    ({("T", "pump"): [1.0]}, (), "no input pump"),
    ({("p", "valve"): [1.0]}, (), "no output p;"),
    ({("T", "valve"): [1.0]}, ("p",), "no output p to integrate"),
    ({("T", "valve"): [1.0] * 1001}, (), "1001 coefficients"),
])  # fmt: skip
def test_what_is_no_response(
    coefficients: dict[tuple[str, str], list[float]], integrating: tuple[str, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        step_response("dmc", (U,), (Y,), coefficients, DT_S, integrating=integrating)


def test_nothing_acts_on_an_output() -> None:
    with pytest.raises(ValueError, match="output level has no response"):
        step_response("dmc", (U,), (Y, LEVEL), {("T", "valve"): [1.0]}, DT_S)
