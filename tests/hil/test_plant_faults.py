"""Faults of the plant: drifting parameters, changing feeds, reversed effects, by exact numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from plc_bench import ADDRESSES, DEVICE, HANDSHAKE, LOOP, Bench, Tank

from controller.errors import ScenarioError
from controller.signal import Tag
from hil.faults.schedule import Fault, FaultSchedule
from hil.plc.virtual import VirtualPlc
from hil.plc_memory import DeviceMemory
from plant_models.process import Plant, Vector
from plant_models.van_de_vusse import actuated_plant


class ScalableTank(Tank):
    """The tank with a heat transfer that can foul, a level that can be placed, and a name."""

    def __init__(self) -> None:
        self.parameters = {"UA": 2.0, "leak": 0.0}
        self.felt: list[list[float]] = []

    @property
    def states(self) -> Mapping[str, float]:
        return {"T": self._t}

    def set_parameter(self, name: str, value: float) -> None:
        self.parameters[name] = value

    def place(self, states: Mapping[str, float]) -> Vector:
        self._t = states["T"]
        return np.array([self._t, 1.0])

    def advance(self, u: Vector, dt_s: float) -> Vector:
        self.felt.append(u.tolist())
        return super().advance(u, dt_s)

    def __str__(self) -> str:
        return "scalable tank"


def _plc(plant: Plant, x0: Mapping[str, float] | None = None) -> VirtualPlc:
    tags = [
        Tag(name, DEVICE, address, "uint16" if address.endswith("UINT") else "float32")
        for name, address in ADDRESSES.items()
    ]
    return VirtualPlc(
        plant, [LOOP], {"DV": "feed"}, {DEVICE: DeviceMemory(DEVICE, tags)},
        {DEVICE: HANDSHAKE}, cycle_s=10.0, watchdog_cycles=3, seed=7, x0=x0,
    )  # fmt: skip


def _world(*faults: Fault) -> tuple[VirtualPlc, ScalableTank, FaultSchedule]:
    tank = ScalableTank()
    plc = _plc(tank)
    return plc, tank, FaultSchedule(faults, plc, plc.sensors, {})


def test_a_parameter_drifts_linearly_and_stays_where_it_got_to() -> None:
    _, tank, schedule = _world(
        Fault(10.0, 20.0, "UA", "parameter_drift", {"factor": 0.5}),
        Fault(30.0, 30.0, "UA", "parameter_drift", {"factor": 3.0}),
    )
    values: list[float] = []
    for time_s in (9.0, 10.0, 12.0, 15.0, 19.0, 21.0, 25.0, 30.0, 99.0):
        schedule.advance(time_s)
        values.append(tank.parameters["UA"])
    assert values == pytest.approx([2.0, 2.0, 1.8, 1.5, 1.1, 1.0, 1.0, 3.0, 3.0], rel=1e-15)
    assert tank.parameters["UA"] == 3.0, "the end is exact, whatever the steps were"


def test_a_changed_feed_is_felt_and_then_is_what_the_profile_made_it_meanwhile() -> None:
    plc, tank, schedule = _world(Fault(2.0, 5.0, "feed", "feed_change", {"to": 1.5}))
    for second in range(1, 7):
        schedule.advance(second)
        if second == 3:
            plc.set_input("feed", 1.1)
            assert plc.inputs()["feed"] == 1.5
            assert plc.commanded_inputs()["feed"] == 1.1
        plc.scan(second, 1.0)
    assert [u[1] for u in tank.felt] == [1.0, 1.5, 1.5, 1.5, 1.1, 1.1]
    assert plc.inputs() == plc.commanded_inputs()


def test_a_flipped_gain_mirrors_the_input_around_its_value_when_it_began() -> None:
    plc, tank, schedule = _world(
        Fault(2.0, 5.0, "feed", "gain_flip"),
        Fault(4.0, 5.0, "feed", "feed_change", {"to": 0.1}),
    )
    for second, feed in enumerate((1.0, 1.0, 1.25, 1.25, 1.25, 1.0), start=1):
        plc.set_input("feed", feed)
        schedule.advance(second)
        plc.scan(second, 1.0)
    # The last mirrored value, 1.9, lies inside the range of the input; 2 - 0.1 it is.
    assert [u[1] for u in tank.felt] == pytest.approx([1.0, 1.0, 0.75, 1.9, 1.25, 1.0])


def test_a_mirrored_output_of_a_loop_stays_inside_the_plants_range() -> None:
    plc, tank, schedule = _world(Fault(1.0, 4.0, "heat", "gain_flip"))
    schedule.advance(1.0)
    plc.set_local_setpoint("T", 90.0)
    loop = plc.commanded_inputs()["heat"]
    for second in range(1, 400):
        plc.scan(second, 1.0)
    assert plc.commanded_inputs()["heat"] > 61.0
    assert tank.felt[-1][0] == 0.0, "60 - heat would be negative"
    schedule.advance(4.0)
    plc.scan(400, 1.0)
    assert tank.felt[-1][0] == plc.commanded_inputs()["heat"] != loop


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Fault(0, 1, "UB", "parameter_drift", {"factor": 2.0}), "tank has no parameter UB"
         ".*mean UA.*It offers: UA, leak"),
        (Fault(0, 1, "leak", "parameter_drift", {"factor": 2.0}), "leak of scalable tank is 0"),
        (Fault(0, 1, "heat", "feed_change", {"to": 1.0}), "output of a loop.*one of: feed"),
        (Fault(0, 1, "feed", "feed_change", {"to": 3.0}), "3 kg/s.*from 0 to 2 kg/s"),
        (Fault(0, 1, "food", "gain_flip"), "no input food.*mean feed"),
        (Fault(0, np.inf, "UA", "parameter_drift", {"factor": 2.0}), "has none.*until"),
    ],
)  # fmt: skip
def test_what_the_plant_cannot_do_is_refused_with_what_it_offers(fault: Fault, text: str) -> None:
    with pytest.raises(ScenarioError, match=text):
        _world(fault)


def test_a_plant_without_parameters_refuses_by_name() -> None:
    bench = Bench()
    fault = Fault(0, 1, "UA", "parameter_drift", {"factor": 2.0})
    with pytest.raises(ScenarioError, match=r"Tank has no parameter UA .*It offers none"):
        FaultSchedule([fault], bench.plc, bench.plc.sensors, {})
    with pytest.raises(ScenarioError, match=r"Tank has no parameter UA"):
        bench.plc.upsets.set_parameter("UA", 1.0)


def test_the_plc_powers_up_at_the_states_that_a_scenario_asks_for() -> None:
    plc = _plc(ScalableTank(), {"T": 61.0})
    assert plc.outputs()["T"] == 61.0
    with pytest.raises(ScenarioError, match=r"scalable tank has no state h .*It offers: T"):
        _plc(ScalableTank(), {"h": 1.0})
    with pytest.raises(ScenarioError, match=r"Tank has no state T .*offers none"):
        _plc(Tank(), {"T": 1.0})


def test_drift_and_flip_reach_a_published_plant_behind_its_actuators() -> None:
    reactor = actuated_plant()
    loop = replace(LOOP, measures="T", drives="F_demand", start_setpoint=85.0)
    tags = [
        Tag(name, DEVICE, address, "uint16" if address.endswith("UINT") else "float32")
        for name, address in ADDRESSES.items()
    ]
    plc = VirtualPlc(
        reactor, [loop], {}, {DEVICE: DeviceMemory(DEVICE, tags)}, {DEVICE: HANDSHAKE},
        cycle_s=10.0, watchdog_cycles=3, seed=7,
    )  # fmt: skip
    before = reactor.parameters["k10"]
    faults = [Fault(1.0, 3.0, "k10", "parameter_drift", {"factor": 1.1})]
    schedule = FaultSchedule(faults, plc, plc.sensors, {})
    schedule.advance(2.0)
    assert reactor.parameters["k10"] == pytest.approx(1.05 * before, rel=1e-14)
    schedule.advance(3.0)
    assert reactor.parameters["k10"] == 1.1 * before
