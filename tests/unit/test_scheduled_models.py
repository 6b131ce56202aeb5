"""A scheduled model is the local one at each point, at rest between them, and has no jumps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_linear_models import single

from plant_models import van_de_vusse
from plant_models.process import ProcessModel, is_linear, steady_state
from plant_models.scheduled import scheduled
from plant_models.state_space import discretized, state_space
from plant_models.transfer_function import FOPDT
from plant_models.variable import Variable


def local(load: float, dt_s: float = 0.0, level: float | None = None) -> ProcessModel:
    """A tank whose gain and time constant follow the load; at rest at level 2 load."""
    at = 2.0 * load if level is None else level
    level_ = Variable("level", "m", 0.0, 20.0, at)
    model = state_space(
        f"tank at {load:g}",
        states=(level_,),
        inputs=(Variable("valve", "percent", 0.0, 100.0, 10.0 * load),),
        disturbances=(Variable("load", "kg/s", 0.0, 10.0, load),),
        outputs=(level_,),
        a=[[-0.01 * load]],
        b=[[0.002 * load**2]],
        bd=[[0.05]],
        c=[[1.0]],
    )
    return discretized(model, dt_s) if dt_s > 0.0 else model


LOADS = (1.0, 2.0, 5.0)


def rate(model: ProcessModel, level: float, valve: float, load: float) -> float:
    return float(model.f([level], [valve], [load], []))


@pytest.mark.parametrize("dt_s", [0.0, 20.0])
def test_at_each_point_it_is_the_local_model(dt_s: float) -> None:
    whole = scheduled("tank", "load", [(q, local(q, dt_s)) for q in LOADS])
    assert (whole.dt_s, is_linear(whole)) == (dt_s, False)
    for q in LOADS:
        for level, valve in ((2.0 * q, 10.0 * q), (3.0, 44.0), (0.0, 0.0)):
            there = local(q, dt_s)
            assert rate(whole, level, valve, q) == pytest.approx(rate(there, level, valve, q))
            assert float(whole.h([level], [valve], [q], [])) == pytest.approx(level)


def test_between_two_points_it_rests_at_the_interpolated_operating_point() -> None:
    whole = scheduled("tank", "load", [(q, local(q)) for q in LOADS])
    for q in (1.25, 2.9, 4.7):
        assert rate(whole, 2.0 * q, 10.0 * q, q) == pytest.approx(0.0, abs=1e-15)
        x = steady_state(whole, np.array([10.0 * q]), np.array([q]))
        assert x == pytest.approx([2.0 * q])
    # half-way between the pole at 2 and that at 5
    slope = rate(whole, 8.0, 35.0, 3.5) - rate(whole, 7.0, 35.0, 3.5)
    assert slope == pytest.approx(-0.035)


def test_it_has_no_jumps_and_the_end_models_hold_beyond_the_ends() -> None:
    whole = scheduled("tank", "load", [(q, local(q)) for q in LOADS])
    q = np.linspace(0.0, 7.0, 1401)
    values = np.array([rate(whole, 4.0, 30.0, load) for load in q])
    # one step of the load of 0.005 moves the rate by no more than its steepest slope, 0.7 per load
    assert np.abs(np.diff(values)).max() < 4e-3
    assert rate(whole, 4.0, 30.0, 7.0) == pytest.approx(rate(local(5.0), 4.0, 30.0, 7.0))


@pytest.mark.parametrize("variable", ["valve", "level"])
def test_an_input_or_an_output_may_choose(variable: str) -> None:
    values = {"valve": 10.0, "level": 2.0}
    whole = scheduled("tank", variable, [(values[variable] * q, local(q)) for q in LOADS])
    for q in LOADS:
        assert rate(whole, 2.0 * q, 10.0 * q, 3.0) == pytest.approx(
            rate(local(q), 2.0 * q, 10.0 * q, 3.0)
        )


def test_an_output_with_an_offset_may_choose() -> None:
    """A level that is read from the floor, 3 m below the bottom of the tank."""

    def raised(load: float) -> ProcessModel:
        return replace(
            local(load),
            y=(Variable("height", "m", 0.0, 30.0, 2.0 * load + 3.0),),
            h=state_space(
                "h", states=local(load).x, inputs=local(load).u, disturbances=local(load).d,
                outputs=(Variable("height", "m", 0.0, 30.0, 2.0 * load + 3.0),),
                a=[[-1.0]], b=[[1.0]], c=[[1.0]],
            ).h,
        )  # fmt: skip

    whole = scheduled("tank", "height", [(2.0 * q + 3.0, raised(q)) for q in LOADS])
    assert rate(whole, 3.0, 0.0, 1.0) == pytest.approx(
        -0.015 * (3.0 - 3.0) + 0.5 * (0.002 + 0.008) * (0.0 - 15.0) + 0.05 * (1.0 - 1.5)
    )


def test_the_nominal_point_is_that_of_the_point_chosen_and_ranges_hold_all() -> None:
    whole = scheduled("tank", "load", [(q, local(q)) for q in LOADS], nominal_point=1)
    assert [v.nominal for v in (*whole.x, *whole.u, *whole.d)] == [4.0, 20.0, 2.0]
    narrow = replace(local(1.0), x=(Variable("level", "m", 1.0, 3.0, 2.0),))
    both = scheduled("tank", "load", [(1.0, narrow), (2.0, local(2.0))])
    assert (both.x[0].low, both.x[0].high) == (0.0, 20.0)


def other_unit() -> ProcessModel:
    return replace(local(2.0), u=(Variable("valve", "1", 0.0, 1.0, 0.5),))


@pytest.mark.parametrize(("variable", "points", "told"), [
    ("load", [(1.0, local(1.0))], "1 operating points"),
    ("load", [(2.0, local(2.0)), (1.0, local(1.0))], "do not rise"),
    ("load", [(1.0, local(1.0)), (1.0, local(1.0))], "do not rise"),
    ("wind", [(1.0, local(1.0)), (2.0, local(2.0))], "no variable wind"),
    ("load", [(1.0, local(1.0)), (2.0, local(2.0, 20.0))], "sample times differ"),
    ("load", [(1.0, local(1.0)), (2.0, other_unit())], r"inputs differ.*valve \[1\]"),
    ("load", [(1.0, local(1.0)), (2.0, single(FOPDT(1.0, 9.0)))], "differ"),
    ("F", [(1.0, van_de_vusse.model()), (2.0, van_de_vusse.model())], "not linear"),
])  # fmt: skip
def test_what_cannot_be_scheduled(
    variable: str, points: list[tuple[float, ProcessModel]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        scheduled("tank", variable, points)


def test_an_output_that_depends_on_the_point_cannot_choose_it() -> None:
    shifted = replace(local(2.0), x=(Variable("level", "m", 0.0, 20.0, 1.0),), y=local(2.0).y)
    points = [(1.0, local(1.0)), (2.0, shifted)]
    assert scheduled("tank", "level", points).name == "tank"
    gained = state_space(
        "g", states=local(2.0).x, inputs=local(2.0).u, disturbances=local(2.0).d,
        outputs=local(2.0).y, a=[[-1.0]], b=[[1.0]], c=[[2.0]],
    )  # fmt: skip
    with pytest.raises(ValueError, match="schedule on an input or a measured disturbance"):
        scheduled("tank", "level", [(1.0, local(1.0)), (2.0, gained)])
