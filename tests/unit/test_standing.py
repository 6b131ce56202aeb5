"""What holds until somebody asks for something else, and that remembering it changes nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from controller.cycle.standing import standing
from controller.cycle.state import Wishes
from controller.mpc.target import target_calculation
from tests.unit.small_application import CVS, MVS, augmented, situation, small_application, target

WISHES = Wishes(low={"Q1": 20.0}, high={"T2": 70.0}, setpoint={"T1": 57.0}, resting={"Q2": 40.0})


def test_nothing_is_made_anew_while_wishes_and_application_stay() -> None:
    application = small_application()
    first = standing(application, None, WISHES)
    assert standing(application, first, WISHES) is first
    assert standing(application, first, replace(WISHES)) is not first
    other = replace(application, cycle_s=application.cycle_s)  # its layout is another one
    assert standing(other, first, WISHES) is not first


def test_wishes_change_what_they_name_and_nothing_else() -> None:
    application = small_application()
    layout, holds = application.layout, standing(application, None, WISHES)
    assert holds.mv_low.tolist() == [20.0, layout.mv_low[1]]
    assert holds.cv_high.tolist() == [layout.cv_high[0], 70.0]
    assert holds.setpoint[0] == 57.0
    assert np.isnan(holds.setpoint[1]) == np.isnan(layout.setpoint[1])
    assert holds.resting[1] == 40.0
    assert holds.setpoints["T1"] == 57.0
    assert holds.mv_high.tolist() == layout.mv_high.tolist()
    with pytest.raises(ValueError, match="read-only"):
        holds.mv_low[0] = 0.0


def test_a_limit_may_only_be_narrowed() -> None:
    application = small_application()
    wide = Wishes(low={"Q1": -1e6}, high={"Q1": 1e6})
    holds = standing(application, None, wide)
    assert holds.mv_low.tolist() == application.layout.mv_low.tolist()
    assert holds.mv_high.tolist() == application.layout.mv_high.tolist()


def constant(values: object) -> np.ndarray:
    array = np.array(values, dtype=np.float64)
    array.setflags(write=False)
    return array


def test_the_target_sees_limits_that_change_in_place() -> None:
    """What may be written to is never taken for what it was."""
    here = situation()
    before = target()(here).y[0]
    here.setpoint[0] = before - 5.0
    assert target()(here).y[0] == pytest.approx(before - 5.0, abs=1e-4)


def test_remembered_limits_give_the_target_of_fresh_ones() -> None:
    calculation = target()
    fields = ("mv_low", "mv_high", "cv_low", "cv_high", "setpoint", "resting")
    fixed = structs.replace(situation(), **{f: constant(getattr(situation(), f)) for f in fields})
    blocked = {"blocked_up": np.array([1.0, 0.0])}
    for changes in ({}, {"u_now": np.array([61.0, 47.0])}, blocked, {"free": np.array([0.0, 1.0])}):
        here = structs.replace(fixed, **changes)
        fresh = target_calculation(augmented(), MVS, CVS)(here)
        for _ in range(2):
            found = calculation(here)
            assert found.u.tolist() == fresh.u.tolist()
            assert found.constraints == fresh.constraints
    other = structs.replace(fixed, setpoint=constant([50.0, np.nan]))
    assert calculation(other).y[0] == pytest.approx(50.0, abs=1e-4)
