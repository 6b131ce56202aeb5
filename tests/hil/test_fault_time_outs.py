"""Time-outs of a plant that lives faster than the wall clock: those of real sockets."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from controller.drivers.modbus import open_modbus_tcp
from controller.signal import Status, Tag
from hil.control.clocks import ScaledClock, SharedTime
from hil.link.proxy import FaultProxy
from hil.link.servers import ModbusServer
from hil.plc_memory import DeviceMemory
from hil.rig import time_outs
from hil.scenario import load_scenario

REALTIME = Path(__file__).parents[2] / "config" / "scenarios" / "realtime.yaml"
TIMEOUT_S = 0.3


@pytest.mark.parametrize(
    ("changes", "cycle_s", "shrunk"),
    [
        ({"clock.speed": 1}, 10.0, False),
        ({"clock.speed": 10}, 1.0, False),
        ({"clock.speed": 40}, 0.25, True),
        ({"clock.speed": 40, "tier": "wire"}, 10.0, False),
    ],
)
def test_time_outs_are_cut_only_where_they_no_longer_fit_a_cycle(
    changes: dict[str, object], cycle_s: float, shrunk: bool
) -> None:
    scenario = load_scenario(REALTIME, changes)
    devices = scenario.settings.devices.values()
    found = time_outs(scenario)
    assert bool(found) == shrunk
    if not shrunk:
        assert sum(device.timeout_s for device in devices) <= cycle_s
        return
    assert set(found) == {f"devices.{device.name}.timeout" for device in devices}
    assert sum(float(str(value)) for value in found.values()) == pytest.approx(cycle_s)
    assert all(float(str(found[f"devices.{d.name}.timeout"])) < d.timeout_s for d in devices)


def test_a_dead_line_is_waited_for_in_real_time() -> None:
    tags = [Tag("PV", "plc", "holding:21:float32", "float32")]
    shared = SharedTime(0, speed=50.0)
    shared.set("origin_ns", time.monotonic_ns())
    with (
        ModbusServer(DeviceMemory("plc", tags)) as server,
        FaultProxy("modbus", server.port) as proxy,
    ):
        device = open_modbus_tcp(
            "plc", tags, ScaledClock(shared), host="127.0.0.1", port=proxy.port,
            timeout_s=TIMEOUT_S,
        )  # fmt: skip
        device.begin_read()
        assert device.finish_read()["PV"].status is Status.GOOD
        proxy.begin("half_open")
        begun_s = time.monotonic()
        device.begin_read()
        assert device.finish_read()["PV"].status is Status.BAD_COMMUNICATION_ERROR
        assert time.monotonic() - begun_s >= 0.99 * TIMEOUT_S
        device.close()
