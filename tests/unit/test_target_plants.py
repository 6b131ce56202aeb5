"""Targets of nonlinear and of integrating plants: balances met, and no better point nearby."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import casadi as ca
import numpy as np
import pytest
from msgspec import structs

from controller import wiring
from controller.estimation.augmented import AugmentedModel, augment
from controller.mpc.problem import ControlledVariable, ManipulatedVariable, Situation, Target
from controller.mpc.target import TargetCalculation, target_calculation
from controller.settings import load
from plant_models.process import ProcessModel, nominal, steady_state
from plant_models.variable import Variable

CONFIG = Path(__file__).parents[2] / "config"


@dataclass(frozen=True)
class Plant:
    augmented: AugmentedModel
    mvs: tuple[ManipulatedVariable, ...]
    cvs: tuple[ControlledVariable, ...]
    calculation: TargetCalculation
    rest: Situation


def plant_of(
    augmented: AugmentedModel,
    mvs: tuple[ManipulatedVariable, ...],
    cvs: tuple[ControlledVariable, ...],
    x: np.ndarray,
) -> Plant:
    model, nothing = augmented.model, np.full(len(mvs), np.nan)
    rest = Situation(
        x=x,
        w=np.zeros(augmented.nw),
        d=nominal(model.d),
        u_now=nominal(model.u),
        mv_low=np.array([mv.low for mv in mvs]),
        mv_high=np.array([mv.high for mv in mvs]),
        cv_low=np.array([cv.low for cv in cvs]),
        cv_high=np.array([cv.high for cv in cvs]),
        setpoint=np.array([np.nan if cv.setpoint is None else cv.setpoint for cv in cvs]),
        free=np.ones(len(mvs)),
        blocked_up=np.zeros(len(mvs)),
        blocked_down=np.zeros(len(mvs)),
        resting=nothing,
    )
    return Plant(augmented, mvs, cvs, target_calculation(augmented, mvs, cvs), rest)


@lru_cache(maxsize=2)
def configured(name: str) -> Plant:
    settings = load(CONFIG / name)
    tags = wiring.typed_tags(settings)
    augmented = wiring.estimator(settings).augmented
    x = steady_state(settings.model, nominal(settings.model.u))
    return plant_of(augmented, wiring.manipulated(settings, tags), wiring.controlled(settings), x)


def cstr() -> Plant:
    return configured("cstr/cstr.yaml")


def williams_otto() -> Plant:
    return configured("williams_otto/williams-otto.yaml")


def imbalance(plant: Plant, found: Target, situation: Situation) -> float:
    """Largest dx/dt in spans per hour."""
    rate = np.asarray(plant.augmented.derivative(found.x, found.u, situation.d, situation.w))
    spans = np.array([v.span for v in plant.augmented.model.x])
    return float(np.max(np.abs(rate.ravel() / spans))) * 3600.0


def by_interior_point(plant: Plant, situation: Situation, near: Target) -> Target:
    """IPOPT on the nonlinear program, from a point near the answer of the other method."""
    sure = replace(plant.calculation, iterations=0)
    rng = np.random.default_rng(3)
    return sure(structs.replace(situation, x=near.x * (1.0 + 0.01 * rng.normal(size=near.x.size))))


@pytest.mark.parametrize("setpoint", [0.8, 0.95, 1.05, 1.09])
def test_the_cstr_reaches_its_setpoint_in_balance(setpoint: float) -> None:
    plant = cstr()
    situation = structs.replace(plant.rest, setpoint=np.array([setpoint, np.nan]))
    found = plant.calculation(situation)
    assert found.solved
    assert found.y[1] == pytest.approx(setpoint, abs=1e-5)
    assert imbalance(plant, found, situation) < 1e-5
    assert found.slack == pytest.approx([0.0, 0.0], abs=0.0)


def test_a_yield_beyond_its_maximum_is_approached_up_to_the_maximum() -> None:
    """cB has a maximum over the feed: there its derivative says nothing any more."""
    plant = cstr()
    situation = structs.replace(plant.rest, setpoint=np.array([1.2, np.nan]))
    found = plant.calculation._successive(
        situation, plant.calculation.scales.asked(situation), None
    )
    assert imbalance(plant, found, situation) < 1e-4
    flows, heats = np.linspace(14.0, 20.0, 13), np.linspace(-800.0, 0.0, 9)
    model = plant.augmented.model
    best = max(
        steady_state(model, np.array([f, q]), guess=found.x)[1] for f in flows for q in heats
    )
    assert found.y[1] >= best - 1e-6
    assert found.slack[0] == pytest.approx(1.2 - found.y[1], abs=1e-5)
    assert found.constraints[0].sentence.startswith("cB (rank 1) gives 0.1066 mol/l")
    again = plant.calculation(situation, found)
    assert again.y[1] == pytest.approx(found.y[1], abs=1e-6)


@pytest.mark.parametrize("price", [-1.0, -10.0])
def test_a_priced_yield_goes_to_its_maximum_as_by_interior_point(price: float) -> None:
    plant = cstr()
    cvs = (replace(plant.cvs[0], setpoint=None, price=price), plant.cvs[1])
    calculation = target_calculation(plant.augmented, plant.mvs, cvs)
    free = structs.replace(plant.rest, setpoint=np.full(2, np.nan))
    found = calculation._successive(free, calculation.scales.asked(free), None)
    assert found.y[1] == pytest.approx(1.09340, abs=1e-5)
    by_ipopt = by_interior_point(replace(plant, calculation=calculation), free, found)
    assert by_ipopt.solved
    assert found.y[1] == pytest.approx(by_ipopt.y[1], abs=1e-6)
    assert found.u[0] == pytest.approx(by_ipopt.u[0], abs=0.02)


@pytest.mark.parametrize(
    ("resting", "shift"),
    [((4.4, 80.0), 0.0), ((np.nan, np.nan), 0.0), ((4.4, 80.0), 0.01), ((5.5, 75.0), -0.005)],
)
def test_williams_otto_agrees_with_the_interior_point(
    resting: tuple[float, float], shift: float
) -> None:
    plant = williams_otto()
    situation = structs.replace(
        plant.rest, resting=np.array(resting), w=np.full(plant.augmented.nw, shift)
    )
    found = plant.calculation(situation)
    assert found.solved
    assert imbalance(plant, found, situation) < 1e-5
    sure = by_interior_point(plant, situation, found)
    assert sure.solved
    assert found.u == pytest.approx(sure.u, abs=5e-2)
    assert found.slack == pytest.approx(sure.slack, abs=1e-5)


def test_random_situations_of_the_cstr_end_in_balance_and_within_limits() -> None:
    plant, rng = cstr(), np.random.default_rng(11)
    for _ in range(60):
        situation = structs.replace(
            plant.rest,
            setpoint=np.array([rng.uniform(0.6, 1.2), np.nan]),
            x=plant.rest.x * rng.uniform(0.9, 1.1, 4),
            w=rng.normal(size=3) * [0.02, 2.0, 2.0],
            d=np.array([rng.uniform(4.6, 5.6), rng.uniform(95.0, 115.0)]),
            u_now=np.array([rng.uniform(5.0, 30.0), rng.uniform(-8500.0, 0.0)]),
        )
        found = plant.calculation(situation)
        assert found.solved, found.reason
        assert imbalance(plant, found, situation) < 1e-2
        assert np.all(found.u >= situation.mv_low - 1e-6)
        assert np.all(found.u <= situation.mv_high + 1e-6)
        wanted = situation.setpoint[0]
        assert abs(found.y[1] - wanted) == pytest.approx(found.slack[0], abs=1e-4)


def test_nonlinear_answers_do_not_depend_on_what_was_asked_before() -> None:
    plant = cstr()
    asked = structs.replace(plant.rest, setpoint=np.array([1.2, np.nan]))
    first = plant.calculation(asked)
    plant.calculation(structs.replace(plant.rest, setpoint=np.array([0.7, np.nan])))
    plant.calculation(structs.replace(plant.rest, d=np.array([np.nan, 100.0])))
    again = plant.calculation(asked)
    for name in ("u", "x", "y", "slack"):
        assert getattr(first, name).tobytes() == getattr(again, name).tobytes(), name
    assert first.constraints == again.constraints


@lru_cache(maxsize=1)
def tank() -> Plant:
    """A buffer tank filled by F, emptied by G and by a demand, and a heated jacket beside it."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 2), ("u", 2), ("d", 1), ("p", 0)))
    rate = ca.vertcat((u[0] - u[1] - d[0]) / 3600.0, (u[0] - x[1]) / 60.0)
    model = ProcessModel(
        "tank",
        x=(Variable("L", "m^3", 0.0, 10.0, 5.0), Variable("T", "degC", 0.0, 10.0, 5.0)),
        u=tuple(Variable(n, "m^3/h", 0.0, 10.0, v) for n, v in (("F", 5.0), ("G", 2.0))),
        d=(Variable("demand", "m^3/h", 0.0, 20.0, 3.0),),
        y=(Variable("L", "m^3", 0.0, 10.0, 5.0), Variable("T", "degC", 0.0, 10.0, 5.0)),
        p=(),
        f=ca.Function("f", [x, u, d, p], [rate]),
        h=ca.Function("h", [x, u, d, p], [x]),
    )
    mvs = tuple(
        ManipulatedVariable(n, i, "m^3/h", 0.0, 10.0, 0.1, 0.1, 1.0)
        for i, n in enumerate(("F", "G"))
    )
    cvs = (
        ControlledVariable("L", 0, "m^3", 2.0, 8.0, None, 1.0, 6.0),
        ControlledVariable("T", 1, "degC", 0.0, 10.0, None, 1.0, 10.0, rank=2),
    )
    return plant_of(augment(model, (), 10.0, 10.0), mvs, cvs, np.array([5.0, 5.0]))


@lru_cache(maxsize=1)
def hill() -> Plant:
    """Balances that are linear, and an output that is highest at u = 3."""
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 1), ("u", 1), ("d", 0), ("p", 0)))
    top = 8.0 - (x - 3.0) ** 2 / 4.0
    variable = Variable("x", "kg", 0.0, 10.0, 8.0)
    model = ProcessModel(
        "hill",
        x=(variable,),
        u=(Variable("u", "kg", 0.0, 10.0, 8.0),),
        d=(),
        y=(Variable("y", "EUR", -10.0, 10.0, 0.0),),
        p=(),
        f=ca.Function("f", [x, u, d, p], [(u - x) / 60.0]),
        h=ca.Function("h", [x, u, d, p], [top]),
    )
    mv = ManipulatedVariable("u", 0, "kg", 0.0, 10.0, 0.1, 0.1, 1.0)
    cv = ControlledVariable("y", 0, "EUR", -10.0, 10.0, None, 1.0, 20.0, price=-1.0)
    return plant_of(augment(model, (), 10.0, 10.0), (mv,), (cv,), np.array([8.0]))


@pytest.mark.parametrize("start", [0.0, 2.9, 8.0, 10.0])
def test_the_top_of_a_hill_is_found_from_anywhere(start: float) -> None:
    plant = hill()
    here = structs.replace(plant.rest, u_now=np.array([start]), x=np.array([start]))
    found = plant.calculation._successive(here, plant.calculation.scales.asked(here), None)
    # What the inertia of 1e-4 pulls away from the top is 1e-4 (start - u) 2 · 20 / (10² / 2).
    assert found.u[0] == pytest.approx(3.0, abs=0.002)
    assert found.constraints == ()


def test_the_top_of_a_hill_is_kept_before_a_resting_value() -> None:
    """Its slack has no slope there: what it gives up is decided by curvature alone."""
    plant = hill()
    cvs = (replace(plant.cvs[0], setpoint=9.0, price=0.0),)
    calculation = target_calculation(plant.augmented, plant.mvs, cvs)
    here = structs.replace(plant.rest, setpoint=np.array([9.0]), resting=np.array([6.0]))
    found = calculation._successive(here, calculation.scales.asked(here), None)
    assert found.u[0] == pytest.approx(3.0, abs=0.002)
    assert found.slack == pytest.approx([1.0], abs=1e-5)
    assert found.constraints[0].sentence == (
        "y (rank 1) gives 1 EUR at its setpoint of 9 EUR because no steady state comes nearer"
    )


def test_what_integrates_is_balanced_and_its_level_stays_inside_the_zone() -> None:
    plant = tank()
    assert plant.calculation.linearizer.layout.n_integrating == 1
    for level, expected in ((5.0, 5.0), (1.0, 2.0), (9.5, 8.0)):
        found = plant.calculation(structs.replace(plant.rest, x=np.array([level, 5.0])))
        assert found.solved
        assert found.u[0] - found.u[1] == pytest.approx(3.0, abs=1e-6)
        assert found.y[0] == pytest.approx(expected, abs=1e-5)


def test_a_level_has_a_setpoint_and_the_mvs_keep_their_resting_values() -> None:
    plant = tank()
    found = plant.calculation(
        structs.replace(
            plant.rest, setpoint=np.array([6.0, np.nan]), resting=np.array([7.0, np.nan])
        )
    )
    assert found.y[0] == pytest.approx(6.0, abs=1e-5)
    assert found.u == pytest.approx([7.0, 4.0], abs=1e-3)


def test_balance_comes_before_the_first_rank() -> None:
    plant = tank()
    found = plant.calculation(
        structs.replace(plant.rest, d=np.array([8.0]), cv_high=np.array([8.0, 6.0]))
    )
    assert found.u == pytest.approx([8.0, 0.0], abs=1e-5)
    assert found.slack == pytest.approx([0.0, 2.0], abs=1e-4)
    assert found.reason == ""


def test_without_a_balance_the_drift_is_the_least_and_told() -> None:
    plant = tank()
    found = plant.calculation(structs.replace(plant.rest, d=np.array([12.0])))
    assert found.solved
    assert found.u == pytest.approx([10.0, 0.0], abs=1e-5)
    assert found.reason == ("no steady state: a level drifts by 0.2 of its range an hour at best")
