"""Plants whose parameters drift and whose states are placed: it works, and it is felt."""

from __future__ import annotations

import numpy as np
import pytest

from plant_models import (
    quadruple_tank,
    shell_fractionator,
    van_de_vusse,
    williams_otto_plant,
    wood_berry,
)
from plant_models.actuator import ActuatedPlant
from plant_models.process import Adjustable, Placeable, Plant, Vector, nominal
from plant_models.variable import Variable

CASES = [
    (quadruple_tank.plant, "gamma1", {"h1": 15.0, "h4": 3.0}, "h1"),
    (van_de_vusse.plant, "k10", {"cB": 0.5}, "cB"),
    (van_de_vusse.actuated_plant, "k10", {"cB": 0.5}, "cB"),
    (williams_otto_plant.plant, "k1_factor", {"T_R": 80.0}, "T_R"),
]


@pytest.mark.parametrize(("factory", "parameter", "states", "output"), CASES)
def test_a_parameter_that_changes_moves_a_plant_at_rest(
    factory: type[Plant], parameter: str, states: dict[str, float], output: str
) -> None:
    del states, output
    plant = factory()
    assert isinstance(plant, Adjustable)
    start = plant.reset(0)
    u = getattr(plant, "initial_inputs", nominal(plant.inputs))
    assert plant.advance(u, 60.0) == pytest.approx(start, rel=1e-4, abs=1e-6)
    was = plant.parameters[parameter]
    plant.set_parameter(parameter, 1.2 * was)
    assert plant.parameters[parameter] == 1.2 * was
    moved = plant.advance(u, 60.0)
    assert float(np.max(np.abs(moved - start) / (np.abs(start) + 1e-6))) > 1e-3
    with pytest.raises(KeyError, match="no parameter viscosity"):
        plant.set_parameter("viscosity", 1.0)


@pytest.mark.parametrize(("factory", "parameter", "states", "output"), CASES)
def test_a_placed_state_is_measured_and_the_others_stay(
    factory: type[Plant], parameter: str, states: dict[str, float], output: str
) -> None:
    del parameter
    plant = factory()
    assert isinstance(plant, Placeable)
    start = plant.reset(0)
    before = dict(plant.states)
    y = plant.place(states)
    assert dict(plant.states) == {**before, **states}
    row = [v.name for v in plant.outputs].index(output)
    assert y[row] == states[output]
    assert np.array_equal(plant.reset(0), start)
    with pytest.raises(KeyError, match="no state viscosity"):
        plant.place({"viscosity": 1.0})
    with pytest.raises(ValueError, match=f"{output} cannot be placed at nan"):
        plant.place({output: np.nan})


class _Closed:
    """A plant that lets nobody in."""

    inputs = (Variable("u", "1", 0.0, 1.0, 0.5),)
    outputs = (Variable("y", "1", 0.0, 1.0, 0.5),)

    def reset(self, seed: int) -> Vector:
        del seed
        return np.array([0.5])

    def advance(self, u: Vector, dt_s: float) -> Vector:
        del dt_s
        return u.copy()


def test_actuators_offer_no_more_than_the_plant_behind_them() -> None:
    plant = ActuatedPlant(_Closed(), {"u": 5.0})
    assert dict(plant.parameters) == dict(plant.states) == {}
    with pytest.raises(KeyError, match=r"behind actuators on u has no parameter k"):
        plant.set_parameter("k", 1.0)
    with pytest.raises(KeyError, match="has no state k"):
        plant.place({"k": 1.0})
    assert str(van_de_vusse.actuated_plant()).endswith("behind actuators on F, Q")
    assert dict(shell_fractionator.plant().parameters) == {}


def test_gains_of_the_column_that_drift_act_as_those_it_was_made_with() -> None:
    made, drifted = wood_berry.plant(reflux_gain=0.9, steam_gain=1.1), wood_berry.plant()
    drifted.set_parameter("reflux_gain", 0.9)
    drifted.set_parameter("steam_gain", 1.1)
    u = nominal(made.inputs) + np.array([0.1, -0.05, 0.2])
    for _ in range(200):
        y = made.advance(u, 60.0)
        assert np.array_equal(drifted.advance(u, 60.0), y)
    gains = {key: cell.gain for key, cell in wood_berry.CELLS.items()}
    rise = 0.9 * gains["XD", "R"] * 0.1 - 1.1 * gains["XD", "S"] * 0.05 + gains["XD", "F"] * 0.2
    assert y[0] - nominal(made.outputs)[0] == pytest.approx(rise, rel=1e-3)
