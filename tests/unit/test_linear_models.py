"""Transfer functions answer steps as their formulas say; state space is what scipy makes of it."""

from __future__ import annotations

from dataclasses import replace

import casadi as ca
import numpy as np
import pytest
from scipy.signal import cont2discrete

from plant_models import shell_fractionator, van_de_vusse, wood_berry
from plant_models.dead_time import LONGEST_CHAIN
from plant_models.integrate import ModelPlant
from plant_models.process import (
    NoSteadyStateError,
    ProcessModel,
    Vector,
    is_linear,
    names,
    nominal,
    rests_at_nominal,
    steady_state,
)
from plant_models.state_space import discretized, matrices, state_space
from plant_models.transfer_function import FOPDT, SOPDT, Cell, Integrator, transfer_matrix
from plant_models.variable import Variable

DT_S = 30.0
U = Variable("valve", "percent", 0.0, 100.0, 40.0)
V = Variable("steam", "kg/s", 0.0, 10.0, 2.0)
D = Variable("feed", "kg/s", 0.0, 10.0, 5.0)
Y = Variable("T", "degC", 0.0, 200.0, 80.0)
LEVEL = Variable("level", "m", 0.0, 4.0, 1.5)


def answer(model: ProcessModel, source: str, samples: int, step: float = 1.0) -> Vector:
    """Outputs minus nominal at 0, dt, 2 dt … after a step of one input, (samples + 1, ny)."""
    plant = ModelPlant(model)
    u = nominal(plant.inputs)
    u[names(plant.inputs).index(source)] += step
    y = [plant.reset(0), *(plant.advance(u, model.dt_s) for _ in range(samples))]
    return np.array(y) - nominal(model.y)


def single(cell: Cell, dt_s: float = DT_S) -> ProcessModel:
    return transfer_matrix("one", (U,), (), (Y,), {("T", "valve"): cell}, dt_s)


def first_order(t: Vector, gain: float, tau: float, delay: float) -> Vector:
    return gain * (1.0 - np.exp(-np.maximum(t - delay, 0.0) / tau))


def second_order(t: Vector, c: SOPDT) -> Vector:
    """Step response of K (lead s + 1) / ((a s + 1)(b s + 1)), a unlike b, by partial fractions."""
    late = np.maximum(t - c.delay_s, 0.0)
    a, b, lead = c.tau1_s, c.tau2_s, c.lead_s
    shape = 1 - (a - lead) / (a - b) * np.exp(-late / a) - (lead - b) / (a - b) * np.exp(-late / b)
    return c.gain * np.where(t > c.delay_s, shape, 0.0)


@pytest.mark.parametrize("delay_s", [0.0, 10.0, 30.0, 42.5, 90.0, 299.0])
def test_first_order_lag_with_dead_time(delay_s: float) -> None:
    y = answer(single(FOPDT(-2.5, 120.0, delay_s)), "valve", 60)[:, 0]
    assert y == pytest.approx(first_order(DT_S * np.arange(61), -2.5, 120.0, delay_s), abs=1e-9)


@pytest.mark.parametrize("delay_s", [0.0, 60.0, 75.0])
@pytest.mark.parametrize("lead_s", [0.0, 200.0, -80.0, 45.0])
def test_second_order_lag_with_lead_and_dead_time(delay_s: float, lead_s: float) -> None:
    cell = SOPDT(1.7, 150.0, 45.0, delay_s, lead_s)
    y = answer(single(cell), "valve", 60)[:, 0]
    assert y == pytest.approx(second_order(DT_S * np.arange(61), cell), abs=1e-9)


def test_two_equal_lags() -> None:
    t = DT_S * np.arange(41)
    y = answer(single(SOPDT(3.0, 90.0, 90.0)), "valve", 40)[:, 0]
    assert y == pytest.approx(3.0 * (1 - (1 + t / 90.0) * np.exp(-t / 90.0)), abs=1e-9)


@pytest.mark.parametrize("delay_s", [0.0, 45.0, 120.0])
def test_integration_with_dead_time(delay_s: float) -> None:
    t = DT_S * np.arange(41)
    y = answer(single(Integrator(0.004, delay_s)), "valve", 40)[:, 0]
    assert y == pytest.approx(0.004 * np.maximum(t - delay_s, 0.0), abs=1e-9)


def test_a_varying_input_is_delayed_by_the_fraction_of_a_sample_too() -> None:
    cell, half = FOPDT(2.0, 100.0, 75.0), 15.0
    coarse, fine = ModelPlant(single(cell)), ModelPlant(single(cell, half))
    rng = np.random.default_rng(4)
    for _ in range(40):
        u = rng.uniform(0.0, 100.0, 1)
        assert coarse.advance(u, DT_S) == pytest.approx(fine.advance(u, 2 * half), abs=1e-9)


def matrix_model() -> ProcessModel:
    return transfer_matrix(
        "matrix",
        (U, V),
        (D,),
        (Y, LEVEL),
        {
            ("T", "valve"): FOPDT(0.5, 100.0, 60.0),
            ("T", "steam"): FOPDT(4.0, 100.0, 100.0),
            ("T", "feed"): SOPDT(-3.0, 80.0, 20.0, 150.0),
            ("level", "valve"): Integrator(-1e-4, 30.0),
            ("level", "feed"): Integrator(2e-3),
        },
        DT_S,
    )


def test_a_matrix_is_the_sum_of_its_cells() -> None:
    model, t = matrix_model(), DT_S * np.arange(31)
    from_steam = answer(model, "steam", 30, 2.0)
    assert from_steam[:, 0] == pytest.approx(first_order(t, 8.0, 100.0, 100.0), abs=1e-9)
    assert not from_steam[:, 1].any()
    from_feed = answer(model, "feed", 30)
    assert from_feed[:, 0] == pytest.approx(
        second_order(t, SOPDT(-3.0, 80.0, 20.0, 150.0)), abs=1e-9
    )
    assert from_feed[:, 1] == pytest.approx(2e-3 * t, abs=1e-9)


def test_states_are_shared_and_named() -> None:
    model = matrix_model()
    assert names(model.x) == (
        "T<-valve+steam", "T<-feed", "T<-feed second lag", "level integral",
        "valve delay 1", "valve delay 2",
        "steam delay 1", "steam delay 2", "steam delay 3", "steam delay 4",
        "feed delay 1", "feed delay 2", "feed delay 3", "feed delay 4", "feed delay 5",
    )  # fmt: skip
    assert model.x[4].description == "valve 30 s ago"
    assert (model.x[4].unit, model.x[4].nominal) == ("percent", 40.0)
    assert (is_linear(model), model.symbol, model.dt_s) == (True, ca.SX, DT_S)
    assert "sampled every 30 s" in str(model)


def test_the_nominal_point_is_at_rest() -> None:
    for model in (matrix_model(), wood_berry.model(), shell_fractionator.model()):
        at = nominal(model.x), nominal(model.u), nominal(model.d), []
        assert np.asarray(model.f(*at)).ravel() == pytest.approx(nominal(model.x), abs=1e-12)
        assert np.asarray(model.h(*at)).ravel() == pytest.approx(nominal(model.y), abs=1e-12)


@pytest.mark.parametrize(("cell", "told"), [
    (FOPDT(1.0, 0.0), "time constant of 0"), (FOPDT(1.0, -3.0), "time constant of -3"),
    (FOPDT(1.0, 10.0, -1.0), "dead time of -1"), (FOPDT(0.0, 10.0), "gain of 0"),
    (FOPDT(float("nan"), 10.0), "gain of nan"), (SOPDT(1.0, 5.0, 0.0), "second time constant"),
    (SOPDT(1.0, 5.0, 5.0, 0.0, float("inf")), "lead"), (Integrator(1.0, -2.0), "dead time of -2"),
    (FOPDT(1.0, 10.0, DT_S * (LONGEST_CHAIN + 2)), "longer sample time"),
    (FOPDT(1.0, 10.0, 1e30), "longer sample time"),
])  # fmt: skip
def test_an_impossible_cell_is_named(cell: Cell, told: str) -> None:
    with pytest.raises(ValueError, match=rf"T <- valve.*{told}"):
        single(cell)


def test_a_cell_of_nothing_and_an_output_without_cell() -> None:
    cells = {("T", "valve"): FOPDT(1.0, 10.0)}
    with pytest.raises(ValueError, match="no input pump"):
        transfer_matrix("m", (U,), (), (Y,), {("T", "pump"): FOPDT(1.0, 1.0)}, DT_S)
    with pytest.raises(ValueError, match="no output p;"):
        transfer_matrix("m", (U,), (), (Y,), {("p", "valve"): FOPDT(1.0, 1.0)}, DT_S)
    with pytest.raises(ValueError, match="output level has no cell"):
        transfer_matrix("m", (U,), (), (Y, LEVEL), cells, DT_S)
    with pytest.raises(ValueError, match="input feed has no cell"):
        transfer_matrix("m", (U,), (D,), (Y,), cells, DT_S)
    with pytest.raises(ValueError, match="sample time of 0"):
        transfer_matrix("m", (U,), (), (Y,), cells, 0.0)
    with pytest.raises(ValueError, match="valve is an input and a disturbance"):
        transfer_matrix("m", (U,), (U,), (Y,), cells, DT_S)


A = np.array([[-0.02, 0.01], [0.0, -0.05]])
B = np.array([[0.3, 0.0], [0.1, -0.2]])
BD = np.array([[0.0], [0.4]])
C = np.array([[1.0, 0.5]])
X = (Variable("a", "1", -9.0, 9.0, 1.0), Variable("b", "1", -9.0, 9.0, -2.0))


def continuous(**changes: object) -> ProcessModel:
    given: dict[str, object] = {
        "states": X, "inputs": (U, V), "outputs": (Y,), "disturbances": (D,),
        "a": A, "b": B, "c": C, "bd": BD, "d": [[0.0, 0.25]], "dd": [[0.125]],
    }  # fmt: skip
    return state_space("plant", **{**given, **changes})  # type: ignore[arg-type]


def test_sampling_agrees_with_scipy() -> None:
    sampled = discretized(continuous(), 12.0)
    ours = matrices(sampled)
    phi, gamma, *_ = cont2discrete((A, np.hstack([B, BD]), C, np.zeros((1, 3))), 12.0)
    assert ours.a == pytest.approx(phi, abs=1e-12)
    assert np.hstack([ours.b, ours.bd]) == pytest.approx(gamma, abs=1e-12)
    assert (sampled.dt_s, is_linear(sampled), ours.drift.any()) == (12.0, True, False)


def test_continuous_and_sampled_models_are_one_process() -> None:
    model = continuous()
    sampled = ModelPlant(discretized(model, 12.0))
    steps = ModelPlant(model, 0.5)
    u = np.array([55.0, 1.0, 6.0])
    for _ in range(5):
        assert sampled.advance(u, 12.0) == pytest.approx(steps.advance(u, 12.0), abs=1e-7)


def test_the_steady_state_is_that_of_the_matrices() -> None:
    u, d = np.array([50.0, 1.0]), np.array([6.0])
    x = nominal(X) - np.linalg.solve(A, B @ (u - [40.0, 2.0]) + BD @ (d - 5.0))
    for model in (continuous(), discretized(continuous(), 40.0)):
        assert steady_state(model, u, d) == pytest.approx(x, abs=1e-9)


def test_feedthrough_reaches_the_output_at_once() -> None:
    h = continuous().h(nominal(X), [40.0, 4.0], [6.0], [])
    assert float(h) == pytest.approx(80.0 + 0.25 * 2.0 + 0.125)


@pytest.mark.parametrize(("changes", "told"), [
    ({"a": [[1.0]]}, "A is 1 x 1, but 2 states and 2 states need 2 x 2"),
    ({"b": [[1.0], [2.0]]}, "B is 2 x 1, but 2 states and 2 inputs"),
    ({"c": [1.0, 2.0]}, "C is 2, but 1 outputs"),
    ({"bd": np.ones((2, 2))}, "Bd is 2 x 2"),
    ({"d": [[float("inf"), 0.0]]}, "D holds a number that is not finite"),
    ({"a": [["x", 1.0], [2.0, 3.0]]}, "A is not a matrix"),
    ({"states": (X[0], X[0])}, "a is there twice"),
    ({"disturbances": ()}, "Bd is given, but there are no disturbances"),
    ({"dt_s": -1.0}, "sample time of -1"),
])  # fmt: skip
def test_matrices_that_do_not_fit(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        continuous(**changes)


def test_only_a_continuous_linear_model_at_rest_is_sampled() -> None:
    linear = continuous()
    drifting = replace(linear, x=(replace(X[0], nominal=3.0), X[1]))
    for model, dt_s in (
        (van_de_vusse.model(), 1.0),
        (discretized(linear, 1.0), 1.0),
        (linear, 0.0),
        (drifting, 1.0),
    ):
        with pytest.raises(ValueError, match=model.name):
            discretized(model, dt_s)


def test_linearity_is_read_from_the_graph() -> None:
    x, u, d, p = (ca.SX.sym(n) for n in "xudp")
    v = Variable("v", "1", -1.0, 1.0, 0.0)
    for f, h, linear in (
        (p * x + u * p**2, x - d, True),
        (x * u, x, False),
        (x, d**2, False),
        (ca.fmax(u, 0), x, False),
        (ca.exp(p) * d + 3, p, True),
    ):
        functions = (ca.Function("f", [x, u, d, p], [e]) for e in (f, h))
        model = ProcessModel("m", (v,), (v,), (v,), (v,), (v,), *functions)
        assert is_linear(model) is linear


def test_a_sampled_plant_may_be_advanced_in_any_steps() -> None:
    """Within a sample it sees the mean of its inputs, so nothing of a flow is lost."""
    model = single(Integrator(0.001))
    whole, parts = ModelPlant(model), ModelPlant(model)
    whole.advance(np.array([45.0]), 60.0)
    for k in range(600):
        parts.advance(np.array([40.0 + (k % 5) * 2.5]), 0.1)
    assert parts.x == pytest.approx(whole.x, abs=1e-12)
    assert parts.advance(np.array([100.0]), 29.9) == pytest.approx(parts.advance([100.0], 0.0))  # type: ignore[arg-type]
    parts.reset(0)
    assert parts.x == pytest.approx([0.0])


def test_an_integrating_plant_starts_where_it_stands_still() -> None:
    model = single(Integrator(0.01, 45.0))
    assert ModelPlant(model).x == pytest.approx([0.0, 40.0, 40.0])
    assert rests_at_nominal(model)
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    filling = replace(
        model,
        x=(LEVEL,),
        f=ca.Function("f", [x, u, d, p], [u / 10]),
        h=ca.Function("h", [x, u, d, p], [x]),
        dt_s=0.0,
    )
    assert not rests_at_nominal(filling)
    with pytest.raises(NoSteadyStateError):
        ModelPlant(filling, 1.0)


def test_published_gains_of_the_columns() -> None:
    gains = {name: answer(wood_berry.model(), name, 300)[-1] for name in ("R", "S", "F")}
    assert gains["R"] == pytest.approx([12.8, 6.6], abs=1e-4)
    assert gains["S"] == pytest.approx([-18.9, -19.4], abs=1e-4)
    assert gains["F"] == pytest.approx([3.8, 4.9], abs=1e-4)
    exact = first_order(60.0 * np.arange(41), 3.8, 14.9 * 60, 8.1 * 60)
    assert answer(wood_berry.model(), "F", 40)[:, 0] == pytest.approx(exact, abs=1e-9)
    shell = shell_fractionator.model(outputs=("y1", "y2", "y7"))
    assert answer(shell, "u1", 200)[-1] == pytest.approx([4.05, 5.39, 4.38], abs=1e-4)
    assert answer(shell, "l2", 200)[-1] == pytest.approx([1.44, 1.83, 1.26], abs=1e-4)
    worst = shell_fractionator.model(uncertainty=(-1, 0, 0, 0, 1), outputs=("y7",))
    assert answer(worst, "u1", 200)[-1] == pytest.approx([4.38 - 3.11], abs=1e-4)
    with pytest.raises(ValueError, match="y8"):
        shell_fractionator.model(outputs=("y8",))
    with pytest.raises(ValueError, match="uncertainty"):
        shell_fractionator.model(uncertainty=(2, 0, 0, 0, 0))
