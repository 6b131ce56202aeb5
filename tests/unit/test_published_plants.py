"""Published multivariable benchmarks in closed loop: estimator, ranked target, condensed QP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from controller.estimation.augmented import Disturbance, augment
from controller.estimation.delayed import noise_covariance
from controller.estimation.estimator import make_estimator
from controller.estimation.kalman import Measurement
from controller.mpc.condensed import CondensedQp
from controller.mpc.instance import Instances
from controller.mpc.ladder import Ladder, PlannerState
from controller.mpc.problem import ControlledVariable, Horizon, ManipulatedVariable, Situation
from controller.mpc.stage import make_stage
from controller.mpc.target import target_calculation
from controller.signal import NS_PER_S
from plant_models import shell_fractionator, wood_berry
from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel, Vector, nominal

SIGMA = 1e-3


@dataclass
class Run:
    """Outputs (steps, ny) of the plant and its inputs (steps, nu)."""

    y: Vector
    u: Vector
    rungs: set[str]


def closed_loop(
    model: ProcessModel,
    plant: ModelPlant,
    mvs: Sequence[ManipulatedVariable],
    cvs: Sequence[ControlledVariable],
    horizon: Horizon,
    upset: Vector,
    steps: int,
) -> Run:
    """The loop without a PLC: measured every cycle, the upset unmeasured and constant."""
    dt_s = horizon.cycle_s
    unknowns = tuple(Disturbance(cv.name, "output", 0.5 * cv.scale) for cv in cvs)
    augmented = augment(model, unknowns, dt_s, horizon.step_s)
    filter_ = make_estimator(
        "kalman", augmented, noise_covariance(augmented, {}, unknowns), dt_s, dt_s, 1, 1
    )
    stage = make_stage(augmented, mvs, cvs, horizon)
    ladder = Ladder(stage, Instances(stage), (("condensed", CondensedQp(stage)),), 0)
    target = target_calculation(augmented, mvs, cvs)
    rows = [cv.output for cv in cvs]
    u, d = nominal(model.u), nominal(model.d)
    z = np.concatenate([nominal(model.x), np.zeros(augmented.nw)])
    state = filter_.start(0, z, filter_.noise_per_hour * 24.0, u, d)
    planner, rungs = PlannerState(), set[str]()
    plant.reset(1)
    history: list[tuple[Vector, Vector]] = []
    for k in range(1, steps + 1):
        y = plant.advance(np.concatenate([u, upset]), dt_s)[: len(model.y)]
        seen = Measurement(tuple(rows), tuple(y[rows].tolist()), (SIGMA,) * len(rows))
        state = filter_.advance(state, round(k * dt_s * NS_PER_S), u, d, seen)
        belief = state.moments[-1].posterior.z
        here = Situation(
            x=belief[: augmented.nx],
            w=belief[augmented.nx :],
            d=d,
            u_now=u,
            mv_low=np.array([mv.low for mv in mvs]),
            mv_high=np.array([mv.high for mv in mvs]),
            cv_low=np.array([cv.low for cv in cvs]),
            cv_high=np.array([cv.high for cv in cvs]),
            setpoint=np.array([np.nan if cv.setpoint is None else cv.setpoint for cv in cvs]),
            free=np.ones(len(mvs)),
            blocked_up=np.zeros(len(mvs)),
            blocked_down=np.zeros(len(mvs)),
            resting=np.full(len(mvs), np.nan),
        )
        planner, plan = ladder(planner, here, target(here))
        rungs.add(plan.rung)
        u = u.copy()
        u[[mv.input for mv in mvs]] = plan.moves[0]
        history.append((y, u))
    return Run(np.array([h[0] for h in history]), np.array([h[1] for h in history]), rungs)


MINUTE_S = 60.0
GAINS = {"nominal": (0.0,) * 5, "low": (-1.0, -1.0, -1.0, 1.0, 1.0), "high": (1.0,) * 5}


@pytest.mark.parametrize("gains", GAINS)
def test_the_shell_fractionator_settles_inside_its_zones(gains: str) -> None:
    """The standard problem: end points at 0 ± 0.005 where that can be had, bottoms reflux
    temperature above -0.5, draws and duty inside ± 0.5 and not faster than 0.05 a minute."""
    kept = ("y1", "y2", "y7")
    model = shell_fractionator.model(outputs=kept)
    plant = ModelPlant(shell_fractionator.model(MINUTE_S, GAINS[gains], kept))
    mvs = [
        ManipulatedVariable(v.name, i, "1", -0.5, 0.5, 0.05 / MINUTE_S, 5.0, 0.0)
        for i, v in enumerate(model.u)
    ]
    cvs = [
        ControlledVariable("y1", 0, "1", -0.005, 0.005, None, 10.0, 0.5, rank=2),
        ControlledVariable("y2", 1, "1", -0.005, 0.005, None, 10.0, 0.5, rank=2),
        ControlledVariable("y7", 2, "1", -0.5, np.inf, None, 50.0, 0.5, rank=1),
    ]
    horizon = Horizon(4 * MINUTE_S, 40, 4 * MINUTE_S, blocks=(1, 1, 1, 2, 3, 5))
    run = closed_loop(model, plant, mvs, cvs, horizon, np.array([0.5, 0.5]), 250)
    assert run.rungs == {"condensed"}
    assert np.all(np.abs(run.u) <= 0.5 + 1e-6)
    assert np.max(np.abs(np.diff(run.u, axis=0))) <= 0.2 + 1e-6
    assert np.max(np.abs(run.y[:, :2])) < 1.6  # the upset alone, not amplified
    end = run.y[-25:]
    assert np.all(end[:, 2] >= -0.5 - 0.005)
    assert np.max(np.abs(end[:, :2])) <= 0.005 + 0.005


def test_the_wood_berry_column_settles_inside_its_zones() -> None:
    model = wood_berry.model()
    plant = wood_berry.plant(reflux_gain=1.1, steam_gain=0.9)
    mvs = [
        ManipulatedVariable(v.name, i, v.unit, 0.0, 4.0, 0.1 / MINUTE_S, 5.0, 0.0)
        for i, v in enumerate(model.u)
    ]
    cvs = [
        ControlledVariable("XD", 0, "percent", 96.0, 96.3, None, 10.0, 1.0),
        ControlledVariable("XB", 1, "percent", 0.3, 0.6, None, 10.0, 1.0),
    ]
    horizon = Horizon(MINUTE_S, 40, MINUTE_S)
    run = closed_loop(model, plant, mvs, cvs, horizon, np.array([2.45 + 0.3]), 150)
    assert run.rungs == {"condensed"}
    assert np.max(run.y[:, 0]) > 96.3  # the feed does upset it
    end = run.y[-30:]
    assert np.all((end[:, 0] > 96.0 - 0.02) & (end[:, 0] < 96.3 + 0.02))
    assert np.all((end[:, 1] > 0.3 - 0.02) & (end[:, 1] < 0.6 + 0.02))
