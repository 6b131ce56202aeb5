"""The bench of a run: plant, PLCs, laboratory and wire watch, and what the controller dials."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from controller.drivers.block_plan import Limits, modbus_limits
from controller.ports import Clock, Transport
from controller.settings import Device, ModbusRtuDevice, ModbusTcpDevice, S7Device
from controller.wiring import typed_tags
from hil.faults.kinds import Driver
from hil.faults.schedule import FaultSchedule, FaultyHost, FaultyLink
from hil.invariants.judge import Invariants
from hil.lab import VirtualLab
from hil.link.proxy import LOOPBACK, FaultProxy
from hil.link.servers import ModbusServer, S7Server
from hil.link.virtual_transport import MemoryTransport
from hil.link.watch import WireWatch, permits_of
from hil.plc.awl import AwlPlc
from hil.plc.external import ExternalPlc
from hil.plc.virtual import VirtualPlc
from hil.plc_memory import DeviceMemory
from hil.scenario.forced_tier import serial_line
from hil.scenario.parts import Scenario
from hil.world import START_NS, PlcSide, World, make_plant, make_plc


@runtime_checkable
class _Closing(Protocol):
    """A plant that holds a process or a file until it is closed."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything outside the controller, ready to run.

    Attributes:
        addresses: overrides of the application that lead its devices here (wire, realtime), with
            time-outs that fit its cycle.
        transports: the way into the PLC memory without a wire (virtual); empty otherwise.
    """

    world: World
    plc: PlcSide
    watch: WireWatch
    invariants: Invariants
    addresses: Mapping[str, object]
    transports: tuple[Transport, ...]


def build_rig(
    stack: ExitStack, scenario: Scenario, clock: Clock, host: FaultyHost | None = None
) -> Rig:
    """Build it; what listens is closed by the stack.

    Args:
        clock: stamps samples in the virtual tier, and violations on the wire.
        host: what host faults act on; without it they are refused.

    Raises:
        ScenarioError: the plant, the PLC or a fault of the scenario does not fit.
    """
    settings = scenario.settings
    tags = typed_tags(settings)
    memory = {name: DeviceMemory(name, tags.values()) for name in settings.devices}
    drivers: dict[str, Driver] = {
        device.name: "s7" if isinstance(device, S7Device) else "modbus"
        for device in settings.devices.values()
    }
    permits = permits_of(replace(settings, tags=tags))
    plc = _plc(scenario, memory)
    if not isinstance(plc, ExternalPlc) and isinstance(plc.plant, _Closing):
        stack.callback(plc.plant.close)
    watch = WireWatch(drivers, permits, now_ns=clock.time_ns, in_use=plc.setpoint_in_use)
    lockstep = scenario.tier != "realtime"
    invariants = Invariants(settings, START_NS, watch, lockstep=lockstep)
    links: dict[str, FaultyLink] = {}
    addresses: dict[str, object] = time_outs(scenario)
    transports: list[Transport] = []
    for number, device in enumerate(settings.devices.values()):
        area, seed = memory[device.name], scenario.seed + 100 + number
        if scenario.tier == "virtual":
            own = [tag for tag in tags.values() if tag.device == device.name]
            transport = MemoryTransport(
                area,
                own,
                clock,
                invariants.check,
                timeout_s=device.timeout_s,
                seed=scenario.seed + number,
                line_seed=seed,
                limits=_limits(device),
            )
            transports.append(transport)
            links[device.name] = transport
            continue
        if isinstance(device, ModbusRtuDevice):
            raise serial_line(device.name, scenario)
        upstream = (
            (device.host, device.port)
            if scenario.external
            else (LOOPBACK, _served(stack, device, area))
        )
        proxy = FaultProxy(
            drivers[device.name],
            upstream[1],
            upstream_host=upstream[0],
            seed=seed,
            on_frame=invariants.listener(device.name),
            layout=[cell.place for cell in area.cells.values()],
            # A storm breaks connections by the scenario's time, not by ours.
            storm_clock_ns=clock.monotonic_ns if scenario.tier == "wire" else None,
            speed=scenario.speed,
        )
        stack.enter_context(proxy)
        links[device.name] = proxy
        addresses[f"devices.{device.name}.host"] = LOOPBACK
        addresses[f"devices.{device.name}.port"] = proxy.port
    labs = tuple(
        VirtualLab(lab, START_NS, scenario.seed + 10 + i) for i, lab in enumerate(scenario.labs)
    )
    schedule = FaultSchedule(
        scenario.faults,
        plc,
        plc.sensors,
        links,
        labs={lab.settings.source: lab for lab in labs},
        host=host,
        drivers=drivers,
    )
    world = World(scenario, plc, schedule, labs)
    return Rig(world, plc, watch, invariants, addresses, tuple(transports))


def _plc(scenario: Scenario, memory: dict[str, DeviceMemory]) -> VirtualPlc | AwlPlc | ExternalPlc:
    """The PLCs of the kind that the scenario wants, with the plant behind them."""
    if scenario.external:
        return ExternalPlc(scenario.settings)
    if scenario.awl is None:
        return make_plc(scenario, memory)
    (area,) = memory.values()
    return AwlPlc(
        make_plant(scenario),
        scenario.awl,
        area,
        scenario.settings,
        time_ns=START_NS,
        seed=scenario.seed,
        x0=scenario.x0,
    )


def time_outs(scenario: Scenario) -> dict[str, object]:
    """Overrides for the time-outs of the devices where the plant lives faster than the wall clock.

    Sockets know no other time than ours, so a time-out stays as long as it is configured; except
    that all of them together still fit into a cycle, as the settings demand.
    """
    devices = scenario.settings.devices.values()
    cycle_s = scenario.settings.cycle_s / scenario.speed
    share = cycle_s / sum(device.timeout_s for device in devices)
    if scenario.tier != "realtime" or share >= 1.0:
        return {}
    return {f"devices.{d.name}.timeout": share * d.timeout_s for d in devices}


def _limits(device: Device) -> Limits | None:
    """How a driver may put tags together in one request, where its device is particular."""
    if isinstance(device, S7Device):
        return None
    return modbus_limits(max_gap=device.max_gap, forbidden=device.forbidden)


def _served(stack: ExitStack, device: S7Device | ModbusTcpDevice, area: DeviceMemory) -> int:
    """A server for the device; its port."""
    server = S7Server(area) if isinstance(device, S7Device) else ModbusServer(area, device.unit)
    return stack.enter_context(server).port
