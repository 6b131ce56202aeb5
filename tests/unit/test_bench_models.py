"""The benchmark's plant models obey the balances and the mechanics they are made of."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from plant_models import chain_of_masses, linear_column, polymerization
from plant_models.integrate import rk4
from plant_models.process import ProcessModel, Vector, nominal


def rate(model: ProcessModel, x: Vector, u: Vector, d: Vector | None = None) -> Vector:
    d = nominal(model.d) if d is None else d
    return np.asarray(model.f(x, u, d, model.p_nominal), dtype=np.float64).ravel()


# --- polymerization ----------------------------------------------------------------------------

FEED = np.array([20000.0, 350.0, 340.0])


def test_in_the_polymerization_mass_only_comes_with_the_feed() -> None:
    model = polymerization.model()
    x = nominal(model.x)
    x[2] = 4000.0
    dx = 3600.0 * rate(model, x, FEED)
    assert dx[:3].sum() == pytest.approx(20000.0)
    assert dx[8] == pytest.approx(20000.0)
    assert dx[2] > 0.0


def test_the_adiabatic_temperature_stays_what_its_definition_says() -> None:
    model = polymerization.model()
    x_now = nominal(model.x)
    x_now[2], x_now[3] = 3000.0, 365.0
    x = ca.SX.sym("x", 10)
    total = x[0] + x[1] + x[2]
    defined = polymerization.adiabatic_temperature(x[1], total, x[3], ca.SX(950.0))
    along = ca.Function("along", [x], [ca.jacobian(defined, x)])
    dx = rate(model, x_now, FEED)
    assert dx[9] == pytest.approx(float(along(x_now) @ ca.DM(dx)), rel=1e-12)
    start = ca.Function("start", [x], [defined])(nominal(model.x))
    assert float(start) == pytest.approx(model.x[9].nominal, abs=1e-4)


def test_without_reaction_and_feed_heat_only_moves_through_the_walls() -> None:
    model = polymerization.model(k_0=0.1, dH_R=100.0)
    x = nominal(model.x)
    x[1], x[3:8] = 0.0, 350.0
    still = rate(model, x, np.array([0.0, 350.0, 350.0]))
    assert still == pytest.approx(np.zeros(10), abs=1e-12)
    x[3] = 360.0
    warm = rate(model, x, np.array([0.0, 350.0, 350.0]))
    total = float(x[:3].sum())
    assert warm[3] < 0.0 < warm[4]
    into_steel = warm[4] * polymerization.CP_STEEL * polymerization.STEEL_KG
    into_exchanger = 20000.0 * polymerization.CP_REACTOR * 10.0 / 3600.0
    lost = -warm[3] * polymerization.CP_REACTOR * total
    assert lost == pytest.approx(into_steel + into_exchanger)


# --- chain of masses ---------------------------------------------------------------------------


@pytest.mark.parametrize("masses", [3, 5, 7])
def test_the_chain_hangs_at_rest(masses: int) -> None:
    model = chain_of_masses.model(masses)
    x = nominal(model.x)
    assert len(x) == 6 * (masses - 2) + 3
    assert rate(model, x, np.zeros(3)) == pytest.approx(np.zeros(len(x)), abs=1e-10)
    heights = x[2 : 3 * (masses - 2) : 3]
    assert np.all(heights < 0.0)
    assert heights == pytest.approx(heights[::-1])


def energy(x: Vector, masses: int) -> float:
    """Kinetic, gravitational and elastic energy, from the model's nominal parameters."""
    mass, stiffness, length = nominal(chain_of_masses.PARAMETERS)
    free = masses - 2
    places = np.vstack([np.zeros(3), x[: 3 * free + 3].reshape(-1, 3)])
    gaps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    velocities = x[3 * free + 3 :]
    kinetic = 0.5 * mass * float(velocities @ velocities)
    lifted = mass * chain_of_masses.GRAVITY_M_S2 * float(places[1:-1, 2].sum())
    return kinetic + lifted + 0.5 * stiffness * float(((gaps - length) ** 2).sum())


def test_a_chain_that_nobody_moves_keeps_its_energy() -> None:
    model = chain_of_masses.model(5)
    step = rk4(model, 0.01)
    x = nominal(model.x)
    x[:3] += [0.05, 0.1, -0.05]
    before = energy(x, 5)
    for _ in range(100):
        x = np.asarray(step(x, np.zeros(3), [], model.p_nominal)).ravel()
    assert np.linalg.norm(x[12:]) > 0.05
    assert energy(x, 5) == pytest.approx(before, abs=1e-6)


def test_the_hand_moves_with_its_velocity() -> None:
    model = chain_of_masses.model(5)
    dx = rate(model, nominal(model.x), np.array([0.1, -0.2, 0.3]))
    assert dx[9:12] == pytest.approx([0.1, -0.2, 0.3])


def test_a_chain_needs_three_masses() -> None:
    with pytest.raises(ValueError, match="at least 3 masses"):
        chain_of_masses.model(2)


# --- linear column -----------------------------------------------------------------------------


def test_the_column_separates_and_rests_at_its_profile() -> None:
    model = linear_column.model()
    profile = nominal(model.x)
    assert np.all(np.diff(profile) > 0.0)
    assert rate(model, profile, nominal(model.u)) == pytest.approx(np.zeros(20), abs=1e-12)


def test_the_column_s_light_component_is_neither_made_nor_lost() -> None:
    """At rest, what more feed brings in leaves in the products: the exact global balance."""
    a, b, e = (np.asarray(m) for m in linear_column.jacobians())
    profile = linear_column.steady_profile()
    holdup = np.full(20, linear_column.TRAY_KMOL)
    holdup[[0, -1]] = linear_column.END_KMOL
    distillate = linear_column.BOILUP_KMOL_MIN - linear_column.REFLUX_KMOL_MIN
    bottoms = linear_column.FEED_KMOL_MIN - distillate
    leaves = np.zeros(20)
    leaves[0], leaves[-1] = bottoms, distillate
    assert holdup @ a == pytest.approx(-leaves, abs=1e-12)
    # More reflux turns distillate into bottoms, more boilup the reverse.
    turned = profile[-1] - profile[0]
    assert holdup @ b == pytest.approx([turned, -turned], abs=1e-12)
    assert holdup @ e == pytest.approx([0.5 - profile[0], 1.0], abs=1e-12)


def test_more_reflux_purifies_the_distillate_and_soils_the_bottoms() -> None:
    a, b, _ = (np.asarray(m) for m in linear_column.jacobians())
    gain = -np.linalg.solve(a, b)
    assert gain[-1, 0] > 0.0 > gain[-1, 1]
    assert gain[0, 0] > 0.0 > gain[0, 1]
    assert np.max(np.linalg.eigvals(a).real) < 0.0
