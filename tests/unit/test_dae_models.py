"""Algebraic equations are solved inside the model: values, derivatives, and what is refused."""

from __future__ import annotations

import casadi as ca
import numpy as np
import pytest

from controller.estimation.augmented import Disturbance, augment, require_detectable
from plant_models.dae import dae_model
from plant_models.integrate import ModelPlant, rk4
from plant_models.process import ProcessModel, is_linear, steady_state
from plant_models.variable import Variable

HEAD = Variable("head", "m", 0.0, 10.0, 4.0)
FLOW = Variable("flow", "m3/s", 0.0, 10.0, 2.0)
LOSS = Variable("loss", "m", 0.0, 10.0, 2.0)
FEED = Variable("feed", "m3/s", 0.0, 10.0, 2.0)


def functions(*expressions: ca.SX) -> tuple[ca.Function, ...]:
    return tuple(ca.Function("part", SYMBOLS, [e]) for e in expressions)


SYMBOLS = [ca.SX.sym(n, k) for n, k in (("x", 1), ("z", 2), ("u", 1), ("d", 0), ("p", 1))]
X, Z, U, _, P = SYMBOLS
RESISTANCE = Variable("resistance", "s2/m5", 0.1, 10.0, 0.5)


def tank(g: ca.SX | None = None) -> ProcessModel:
    """A tank of 50 m2 drains through a pipe: head = loss + R flow^2, loss = flow.

    With R = 1/2: flow = sqrt(1 + 2 head) - 1, so 50 dhead/dt = feed + 1 - sqrt(1 + 2 head).
    """
    if g is None:
        g = ca.vertcat(X - Z[1] - P * Z[0] ** 2, Z[1] - Z[0])
    f, g_, h = functions((U - Z[0]) / 50.0, g, ca.vertcat(X, Z[0]))
    return dae_model(
        "tank", x=(HEAD,), z=(FLOW, LOSS), u=(FEED,), y=(HEAD, FLOW), p=(RESISTANCE,),
        f=f, g=g_, h=h,
    )  # fmt: skip


@pytest.mark.parametrize("head", [0.01, 1.0, 4.0, 9.5])
def test_the_algebraic_variables_solve_their_equations(head: float) -> None:
    model, flow = tank(), np.sqrt(1 + 2 * head) - 1
    assert np.asarray(model.h([head], [2.0], [], [0.5])).ravel() == pytest.approx([head, flow])
    assert float(model.f([head], [2.0], [], [0.5])) == pytest.approx((2.0 - flow) / 50.0)
    assert (model.symbol, model.z, is_linear(model)) == (ca.MX, (FLOW, LOSS), False)


def test_the_parameters_reach_the_equations() -> None:
    model = tank().with_parameters({"resistance": 2.0})
    flow = (np.sqrt(1 + 8 * 4.0) - 1) / 4
    y = np.asarray(model.h([4.0], [2.0], [], model.p_nominal)).ravel()
    assert y[1] == pytest.approx(flow)
    assert model.z == (FLOW, LOSS)


def test_the_solution_over_time_is_the_analytic_one() -> None:
    """Without feed, s = sqrt(1 + 2 head) obeys s - s0 + ln((s - 1)/(s0 - 1)) = -t / 50."""
    model, head, t = tank(), 4.0, 80.0
    end = float(rk4(model, t, 160)([head], [0.0], [], [0.5]))
    s0, s = np.sqrt(1 + 2 * head), np.sqrt(1 + 2 * end)
    assert s - s0 + np.log((s - 1) / (s0 - 1)) == pytest.approx(-t / 50.0, abs=1e-9)
    plant = ModelPlant(model, 0.5)
    assert plant.advance(np.array([0.0]), t)[0] == pytest.approx(end, abs=1e-12)


def test_a_steady_state_and_derivatives_go_through_the_equations() -> None:
    model = tank()
    assert steady_state(model, np.array([3.0])) == pytest.approx([7.5])
    augmented = augment(model, (Disturbance("feed", "input", 0.1),), 5.0, 10.0)
    z = np.array([4.0, 0.0])
    z_next, slope = (np.asarray(m) for m in augmented.advance(z, [2.0], [], 5.0))
    assert z_next.ravel() == pytest.approx([4.0, 0.0])
    # d(flow)/d(head) = 1/sqrt(1 + 2 head) = 1/3, so one mode of 150 s
    assert slope[0] == pytest.approx([np.exp(-5 / 150), 3.0 * (1 - np.exp(-5 / 150))], abs=1e-6)
    require_detectable(augmented, ("head",))


def test_without_a_solution_there_is_no_number() -> None:
    assert np.isnan(float(tank().f([-1.0], [2.0], [], [0.5])))
    assert np.isnan(np.asarray(tank().h([float("nan")], [2.0], [], [0.5]))).any()


def test_c_code_can_be_made_of_it() -> None:
    code = ca.CodeGenerator("dae.c")
    code.add(tank().f)
    code.add(tank().f.jacobian())
    assert "casadi_newton" in code.dump() or "newton" in code.dump()


@pytest.mark.parametrize(("g", "told"), [
    (ca.vertcat(Z[0] + Z[1] - X, 2 * Z[0] + 2 * Z[1] - U), "do not determine flow, loss"),
    (ca.vertcat(Z[0] + Z[1] - X, Z[0] + (1 + 1e-13) * Z[1] - U), "do not determine flow, loss"),
    (ca.vertcat(Z[1] - X, Z[1] - U), "do not determine flow"),
    (ca.vertcat(Z[0] - X, U - X), "equation 2 of 2 holds none"),
    (ca.vertcat(X + 1 + Z[0] ** 2, Z[1] - Z[0]), "no solution for flow, loss"),
])  # fmt: skip
def test_equations_that_do_not_give_the_variables(g: ca.SX, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        tank(g)


def test_the_number_of_equations_is_that_of_the_variables() -> None:
    with pytest.raises(ValueError, match="g takes"):
        tank(ca.vertcat(Z[0] - X))
    f, g, h = functions(X, X, X)
    with pytest.raises(ValueError, match="no algebraic variables"):
        dae_model("t", x=(HEAD,), z=(), u=(FEED,), y=(HEAD,), f=f, g=g, h=h)
