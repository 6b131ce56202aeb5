"""A PLC in software: its handshake with the controller, its PID loops, and the plant behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import add

from controller.errors import ScenarioError
from controller.settings.application import Handshake
from controller.signal import NS_PER_S
from hil.faults.kinds import NO_ARGS
from hil.faults.sensors import SensorFaults
from hil.names import unknown_name
from hil.plc.noise import GaussianNoise
from hil.plc.plant_side import PlantSide
from hil.plc.slave_loop import AT_HIGH, AT_LOW, PERMIT, REMOTE, RunningLoop, SlaveLoop
from hil.plc.watchdog import DeviceWatch
from hil.plc_memory import DeviceMemory
from plant_models.process import Plant, Vector

__all__ = ["AT_HIGH", "AT_LOW", "PERMIT", "REMOTE", "PlcStatistics", "SlaveLoop", "VirtualPlc"]


@dataclass(frozen=True, slots=True)
class PlcStatistics:
    """What the PLC counted: per device its watchdog trips and refused frames, per loop the rest.

    `refused` counts setpoints that were no numbers, `stale_frames` frames older than the last. NaN
    is what nobody has counted.
    """

    watchdog_trips: Mapping[str, float]
    stale_frames: Mapping[str, float]
    mode_switches: Mapping[str, float]
    clamped: Mapping[str, float]
    refused: Mapping[str, float]


class VirtualPlc(PlantSide):
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
        x0: Mapping[str, float] | None = None,
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
            x0: states of the plant that start elsewhere than at its own initial point.

        Raises:
            ScenarioError: a tag, a plant input, output or state does not exist.
        """
        super().__init__(plant, {loop.drives for loop in loops}, seed, x0 or {})
        self._faulty_valves: list[tuple[int, RunningLoop]] = []
        watchdog_s = watchdog_cycles * cycle_s
        self._watches = {
            name: DeviceWatch(area, handshakes[name], watchdog_s) for name, area in memory.items()
        }
        self._loops: dict[str, RunningLoop] = {}
        self._u_index: list[int] = []
        for spec in loops:
            column = self._column(spec.drives, spec.name)
            pv = self._y[self._row(spec.measures, spec.name)]
            if spec.start_output is not None:
                self._u[column] = spec.start_output
            watch = self._watch_of(spec.setpoint)
            self._loops[spec.name] = RunningLoop(spec, watch, float(self._u[column]), pv)
            self._u_index.append(column)
        channels = {spec.pv: spec.measures for spec in loops} | dict(indicators)
        if len(channels) != len(loops) + len(indicators):
            raise ScenarioError(
                "two loops or indicators publish the same tag",
                where=", ".join(channels),
                mend="Give each measured value a tag of its own",
            )
        self.measured_tags = tuple(channels)
        self._y_index = [self._row(output, tag) for tag, output in channels.items()]
        self._noise = GaussianNoise(self.measured_tags, noise or {}, seed)
        self.sensors = SensorFaults(seed + 1, memory.values())
        self._programs = [self._program(watch) for watch in self._watches.values()]
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
        for program in self._programs:
            program.take_commands()
        self._control(now_ns, dt_s)
        self._publish(dt_s)

    def scan_unseen(self, now_ns: int, dt_s: float, scans: int) -> None:
        """As many scans of dt_s seconds, the last of which ends at `now_ns`, while nobody looks.

        Equal to `scan` for each of them, as long as nobody reads or writes the memory on the way
        and no fault begins or ends: then the command blocks need to be read only once, and of the
        status blocks only the last counts.
        """
        for program in self._programs:
            program.take_commands()
        dt_ns = round(dt_s * NS_PER_S)
        for number in range(scans - 1):
            self._control(now_ns - (scans - 1 - number) * dt_ns, dt_s)
            if self.sensors.active:
                self._publish(dt_s)  # a fault of a sensor goes on with every scan
        self._control(now_ns, dt_s)
        self._publish(dt_s)

    def _control(self, now_ns: int, dt_s: float) -> None:
        """Run the loops on the last measured values, and the plant for one scan."""
        u, measured = self._u, self._measured
        for program in self._programs:
            if program.watch.running:
                program.control(u, measured, dt_s)
        if self._faulty_valves:
            self._move_valves(dt_s)
        self._go_on(dt_s)
        self._measured = self._measure()
        self.time_ns = now_ns

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

    def begin_loop_fault(self, loop: str, fault: str, args: Mapping[str, float] = NO_ARGS) -> None:
        """Raise a fault of the loop lane (see `hil.faults.kinds`) on a loop."""
        number = self.loop_names.index(loop)
        self._loops[loop].begin(fault, args, float(self._u[self._u_index[number]]))
        self._find_faulty_valves()

    def end_loop_fault(self, loop: str, fault: str) -> None:
        """A sound valve goes where the loop's output says, also while the PLC is stopped."""
        number, running = self.loop_names.index(loop), self._loops[loop]
        was_faulty = running.actuator is not None
        running.end(fault)
        if was_faulty and running.actuator is None:
            self._u[self._u_index[number]] = running.pid.output
        self._find_faulty_valves()

    def setpoint_range(self, loop: str) -> tuple[float, float]:
        """The PLC's own clamp on the setpoint of a loop, in its unit."""
        spec = self._loops[loop].spec
        return spec.setpoint_low, spec.setpoint_high

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

    def _find_faulty_valves(self) -> None:
        """Once per fault, so that a scan with sound valves pays nothing."""
        self._faulty_valves = [
            (column, loop)
            for column, loop in zip(self._u_index, self._loops.values(), strict=True)
            if loop.actuator is not None
        ]

    def _move_valves(self, dt_s: float) -> None:
        for column, loop in self._faulty_valves:
            if loop.actuator is not None:
                self._u[column] = loop.actuator.move(loop.pid.output, dt_s)

    def _measure(self) -> list[float]:
        """What the transmitters say, in the order of `measured_tags`."""
        return [*map(add, map(self._y.__getitem__, self._y_index), self._noise.draw())]

    def _publish(self, dt_s: float) -> None:
        for program in self._programs:
            if program.watch.running:
                program.publish(self._measured, self.sensors, dt_s)

    def _program(self, watch: DeviceWatch) -> _Program:
        """The program of one device: its loops and its measured tags."""
        loops = enumerate(zip(self._loops.values(), self._u_index, strict=True))
        return _Program(
            watch,
            [(n, column, loop) for n, (loop, column) in loops if loop.device is watch],
            [(n, tag) for n, tag in enumerate(self.measured_tags) if self._watch_of(tag) is watch],
        )

    def _watch_of(self, tag: str) -> DeviceWatch:
        for watch in self._watches.values():
            if tag in watch.memory.cells:
                return watch
        known = [name for watch in self._watches.values() for name in watch.memory.cells]
        raise unknown_name("tag", tag, known, tag)


class _Program:
    """What one device does in a scan: its command block in, its status block out, each at once."""

    __slots__ = (
        "_channels",
        "_commands",
        "_loops",
        "_n_words",
        "_scans",
        "_status",
        "_words",
        "_written",
        "watch",
    )

    def __init__(
        self,
        watch: DeviceWatch,
        loops: Sequence[tuple[int, int, RunningLoop]],
        channels: Sequence[tuple[int, str]],
    ) -> None:
        """`loops` with their numbers and the plant inputs that they drive; `channels`: numbers and
        tags of what is measured."""
        self.watch = watch
        self._loops, self._channels = tuple(loops), tuple(channels)
        # With where each finds its setpoint and request among what was written.
        self._scans = [(n, column, loop.scan, 2 * i) for i, (n, column, loop) in enumerate(loops)]
        self._n_words = len(watch.words)
        self._words: Sequence[float] = ()
        self._written: Sequence[float] = ()
        self._commands = watch.memory.block(
            [*watch.words, *(tag for _, _, loop in loops for tag in loop.words)]
        )
        self._status = watch.memory.block(
            [
                *watch.echo_words,
                *(tag for _, _, loop in loops for tag in loop.status_words),
                *(tag for _, tag in channels),
            ]
        )

    def take_commands(self) -> None:
        """Copy the command block; a stopped PLC does not."""
        if self.watch.running:
            with self.watch.memory.lock:
                words = self._commands.read()
            self._words, self._written = words[: self._n_words], words[self._n_words :]

    def control(self, u: Vector, measured: Sequence[float], dt_s: float) -> None:
        """Watch the heartbeat and run the loops, whose outputs go into u (nu,)."""
        if self.watch.look(self._words, dt_s):
            # A controller that has handed back may fall silent: nobody loses anything then.
            self.watch.trips += any(loop.setpoint.remote for _, _, loop in self._loops)
        written = self._written
        for number, column, scan, at in self._scans:
            u[column] = scan(dt_s, measured[number], written[at], written[at + 1])

    def publish(self, measured: Sequence[float], sensors: SensorFaults, dt_s: float) -> None:
        """Store what the device shows: echoes, the state of its loops, what is measured."""
        values = [*self.watch.answer()]
        for _, _, loop in self._loops:
            values += loop.status()
        faults = sensors.active
        values += [
            sensors.apply(tag, measured[number], dt_s) if tag in faults else measured[number]
            for number, tag in self._channels
        ]
        with self.watch.memory.lock:
            self._status.write(values)
