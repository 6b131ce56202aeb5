"""A PLC in software: its handshake with the controller, its PID loops, and the plant behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from controller.errors import ScenarioError
from controller.settings.application import Handshake
from hil.faults import SensorFaults
from hil.noise import GaussianNoise
from hil.pid import Pid, PidTuning, SlaveSetpoint
from hil.plc_memory import DeviceMemory, unknown_name
from hil.plc_watchdog import DeviceWatch
from plant_models.process import Plant, Vector, names, nominal

REMOTE = 0b01
PERMIT = 0b10
AT_HIGH = 0b01
AT_LOW = 0b10


@runtime_checkable
class _StartsAtRest(Protocol):
    """A plant that knows the inputs which hold its initial point."""

    @property
    def initial_inputs(self) -> Vector: ...


@dataclass(frozen=True, slots=True)
class SlaveLoop:
    """One loop of the PLC whose setpoint the controller may write: an MV of the application.

    Attributes:
        name: of the loop, usually the MV's.
        setpoint, request: tags that the controller writes.
        in_use, mode, saturation, pv, output: tags that the PLC publishes; "" leaves one out.
            mode: bit 0 REMOTE, bit 1 permit. saturation: bit 0 output at high, bit 1 at low limit.
        measures: plant output that the loop controls.
        drives: plant input that its output is.
        tuning: gain, reset, action and output range.
        setpoint_low, setpoint_high: the PLC's own clamp, in the setpoint's unit.
        setpoint_rate_per_s: the PLC's own ramp, in the setpoint's unit per second.
        start_setpoint, start_output: at power-up; without an output the plant's own is taken.
        fallback: setpoint when the controller is lost (watchdog, new epoch, PLC STOP); None holds
            the setpoint in use. A loop that is handed back or taken by the operator always holds.
        local_selector: the operator keeps the loop in LOCAL from the start.
    """

    name: str
    setpoint: str
    request: str
    in_use: str
    mode: str
    pv: str
    measures: str
    drives: str
    tuning: PidTuning
    setpoint_low: float
    setpoint_high: float
    start_setpoint: float
    saturation: str = ""
    output: str = ""
    setpoint_rate_per_s: float = math.inf
    start_output: float | None = None
    fallback: float | None = None
    local_selector: bool = False


@dataclass(frozen=True, slots=True)
class PlcStatistics:
    """What the PLC counted: per device its watchdog trips and refused frames, per loop the rest.

    `refused` counts setpoints that were no numbers, `stale_frames` frames older than the last.
    """

    watchdog_trips: Mapping[str, int]
    stale_frames: Mapping[str, int]
    mode_switches: Mapping[str, int]
    clamped: Mapping[str, int]
    refused: Mapping[str, int]


class _RunningLoop:
    """One slave loop at work."""

    def __init__(self, spec: SlaveLoop, device: DeviceWatch, output: float, pv: float) -> None:
        self.spec = spec
        self.device = device
        self.setpoint = SlaveSetpoint(
            spec.start_setpoint, spec.setpoint_low, spec.setpoint_high, spec.setpoint_rate_per_s
        )
        self.pid = Pid(spec.tuning, output, self.setpoint.in_use, pv)
        self.kept_local = spec.local_selector
        self.switches = 0
        memory = device.memory
        self._read_setpoint = memory.reader(spec.setpoint)
        self._read_request = memory.reader(spec.request)
        self._write_in_use = memory.writer(spec.in_use)
        self._write_mode = memory.writer(spec.mode)
        self._write_saturation = memory.writer(spec.saturation) if spec.saturation else None
        self._write_output = memory.writer(spec.output) if spec.output else None

    def drop(self, fallback: float | None) -> None:
        """To LOCAL without a bump."""
        if self.setpoint.remote:
            self.switches += 1
            self.setpoint.to_local(fallback)

    def scan(self, dt_s: float, pv: float) -> float:
        """Choose the mode, move the setpoint in use, and return the new output."""
        if not self.device.alive:
            self.drop(self.spec.fallback)
        elif self.kept_local or self._read_request() != 1:
            self.drop(None)  # somebody took it deliberately and is there
        elif not self.setpoint.remote:
            self.switches += 1
            self.setpoint.to_remote()
        in_use = self.setpoint.update(self._read_setpoint(), dt_s)
        return self.pid.update(in_use, pv, dt_s)

    def publish(self) -> None:
        """Store the status words; the memory's lock is held."""
        self._write_in_use(self.setpoint.in_use)
        permit = 0 if self.kept_local else PERMIT
        self._write_mode(permit | (REMOTE if self.setpoint.remote else 0))
        if self._write_saturation is not None:
            high = AT_HIGH if self.pid.at_high else 0
            self._write_saturation(high | (AT_LOW if self.pid.at_low else 0))
        if self._write_output is not None:
            self._write_output(self.pid.output)


class VirtualPlc:
    """Runs the plant scan by scan behind the PLC memory that the controller reads and writes.

    One object may stand for several PLCs: each device has its own memory, handshake, watchdog and
    RUN/STOP; they share the plant and the scan.
    """

    def __init__(
        self,
        plant: Plant,
        loops: Sequence[SlaveLoop],
        indicators: Mapping[str, str],
        memory: Mapping[str, DeviceMemory],
        handshakes: Mapping[str, Handshake],
        *,
        cycle_s: float,
        watchdog_cycles: int,
        seed: int,
        noise: Mapping[str, float] | None = None,
    ) -> None:
        """Power up: the plant at its initial point, every loop in LOCAL.

        Args:
            plant: what the loops act on; outputs y (ny,), inputs u (nu,).
            loops: one per MV.
            indicators: measured tag to plant output, for values that are only displayed.
            memory, handshakes: per device.
            cycle_s: cycle of the controller; `watchdog_cycles` of them without a new heartbeat
                drop the device's loops to LOCAL.
            seed: of the plant, the measurement noise and the sensor faults.
            noise: standard deviation per measured tag (loop PVs and indicators), in its unit.

        Raises:
            ScenarioError: a tag, a plant input or a plant output does not exist.
        """
        self.plant = plant
        self._outputs = names(plant.outputs)
        self._inputs = names(plant.inputs)
        y = plant.reset(seed)
        start = plant.initial_inputs if isinstance(plant, _StartsAtRest) else nominal(plant.inputs)
        self._u = start.copy()
        self._y = y
        self._driven = {loop.drives for loop in loops}
        watchdog_s = watchdog_cycles * cycle_s
        self._watches = {
            name: DeviceWatch(area, handshakes[name], watchdog_s) for name, area in memory.items()
        }
        self._loops: dict[str, _RunningLoop] = {}
        self._u_index: list[int] = []
        for spec in loops:
            column = _index(self._inputs, spec.drives, "plant input", spec.name)
            row = _index(self._outputs, spec.measures, "plant output", spec.name)
            if spec.start_output is not None:
                self._u[column] = spec.start_output
            watch = self._watch_of(spec.setpoint)
            self._loops[spec.name] = _RunningLoop(
                spec, watch, float(self._u[column]), float(y[row])
            )
            self._u_index.append(column)
        channels = {spec.pv: spec.measures for spec in loops} | dict(indicators)
        if len(channels) != len(loops) + len(indicators):
            raise ScenarioError(
                "two loops or indicators publish the same tag",
                where=", ".join(channels),
                mend="Give each measured value a tag of its own",
            )
        self.measured_tags = tuple(channels)
        self._y_index = [
            _index(self._outputs, output, "plant output", tag) for tag, output in channels.items()
        ]
        self._noise = GaussianNoise(self.measured_tags, noise or {}, seed)
        self.sensors = SensorFaults(seed + 1)
        self._device_plan = self._plan(memory)
        self.time_ns = 0
        self._measured = self._measure()
        self._publish(0.0)

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self._watches)

    @property
    def loop_names(self) -> tuple[str, ...]:
        return tuple(self._loops)

    def scan(self, now_ns: int, dt_s: float) -> None:
        """One scan of dt_s seconds that ends at `now_ns` (ns since epoch).

        Reads the command blocks, watches the heartbeats, runs the loops on the last measured
        values, lets the plant go on for dt_s and publishes the status blocks.
        """
        u, measured = self._u, self._measured
        for watch, loops, _ in self._device_plan:
            if not watch.running:
                continue
            with watch.memory.lock:
                watch.engaged = any(loop.setpoint.remote for _, loop in loops)
                watch.look(dt_s)
                for number, loop in loops:
                    u[self._u_index[number]] = loop.scan(dt_s, measured[number])
        self._y = self.plant.advance(u, dt_s)
        self._measured = self._measure()
        self._publish(dt_s)
        self.time_ns = now_ns

    def outputs(self) -> dict[str, float]:
        """True plant outputs by name, in their units: what no transmitter sees exactly."""
        return dict(zip(self._outputs, self._y.tolist(), strict=True))

    def inputs(self) -> dict[str, float]:
        """Plant inputs in force, by name, in their units."""
        return dict(zip(self._inputs, self._u.tolist(), strict=True))

    def set_input(self, name: str, value: float) -> None:
        """Set a plant input that no loop drives: a disturbance profile.

        Raises:
            ScenarioError: there is no such input, or a loop drives it.
        """
        column = _index(self._inputs, name, "plant input", name)
        if name in self._driven:
            raise ScenarioError(
                f"the plant input {name} is the output of a loop",
                where=name,
                mend="Change that loop's setpoint",
            )
        self._u[column] = value

    def stop(self, device: str) -> None:
        """PLC STOP: outputs hold, memory stands still, its loops fall to LOCAL."""
        self._watches[device].running = False
        for loop in self._loops.values():
            if loop.device is self._watches[device]:
                loop.drop(loop.spec.fallback)

    def restart(self, device: str) -> None:
        """STOP to RUN: loops in LOCAL until the heartbeat has moved again."""
        watch = self._watches[device]
        watch.running = True
        with watch.memory.lock:
            watch.forget()
        for number, loop in enumerate(self._loops.values()):
            if loop.device is watch:
                loop.pid.track(loop.pid.output, loop.setpoint.in_use, self._measured[number])

    def freeze_heartbeat(self, device: str, frozen: bool) -> None:
        """Stop, or start again, to answer the controller's heartbeat."""
        self._watches[device].echo_frozen = frozen

    def keep_local(self, loop: str, local: bool) -> None:
        """The operator's LOCAL selector on the faceplate: takes the permit away."""
        self._loops[loop].kept_local = local

    def set_local_setpoint(self, loop: str, value: float) -> None:
        """The operator's setpoint, followed in LOCAL; in the setpoint's unit."""
        self._loops[loop].setpoint.set_local(value)

    def setpoint_in_use(self, setpoint_tag: str) -> float:
        """What the loop behind a setpoint tag follows now, in its unit."""
        for loop in self._loops.values():
            if loop.spec.setpoint == setpoint_tag:
                return loop.setpoint.in_use
        raise ScenarioError(f"no loop has the setpoint tag {setpoint_tag}", where=setpoint_tag)

    def is_remote(self, loop: str) -> bool:
        return self._loops[loop].setpoint.remote

    @property
    def statistics(self) -> PlcStatistics:
        watches, loops = self._watches.items(), self._loops.items()
        return PlcStatistics(
            watchdog_trips={name: watch.trips for name, watch in watches},
            stale_frames={name: watch.stale_frames for name, watch in watches},
            mode_switches={name: loop.switches for name, loop in loops},
            clamped={name: loop.setpoint.clamped for name, loop in loops},
            refused={name: loop.setpoint.refused for name, loop in loops},
        )

    def _measure(self) -> list[float]:
        """What the transmitters say, in the order of `measured_tags`."""
        y = self._y.tolist()
        noise = self._noise.draw()
        return [y[row] + error for row, error in zip(self._y_index, noise, strict=True)]

    def _publish(self, dt_s: float) -> None:
        faults = self.sensors.active
        for watch, loops, channels in self._device_plan:
            if not watch.running:
                continue
            with watch.memory.lock:
                watch.echo()
                for _, loop in loops:
                    loop.publish()
                for number, tag, write in channels:
                    value = self._measured[number]
                    write(self.sensors.apply(tag, value, dt_s) if tag in faults else value)

    def _plan(self, memory: Mapping[str, DeviceMemory]) -> list[_DevicePlan]:
        """Per device its loops and measured tags, found once."""
        return [
            (
                watch,
                [(n, loop) for n, loop in enumerate(self._loops.values()) if loop.device is watch],
                [
                    (n, tag, memory[device].writer(tag))
                    for n, tag in enumerate(self.measured_tags)
                    if self._watch_of(tag) is watch
                ],
            )
            for device, watch in self._watches.items()
        ]

    def _watch_of(self, tag: str) -> DeviceWatch:
        for watch in self._watches.values():
            if tag in watch.memory.cells:
                return watch
        known = [name for watch in self._watches.values() for name in watch.memory.cells]
        raise unknown_name("tag", tag, known, tag)


_DevicePlan = tuple[
    DeviceWatch, list[tuple[int, _RunningLoop]], list[tuple[int, str, Callable[[float], None]]]
]


def _index(known: Sequence[str], name: str, what: str, where: str) -> int:
    if name not in known:
        raise unknown_name(what, name, known, where)
    return known.index(name)
