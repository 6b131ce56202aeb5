"""A PLC that runs a STEP 7 Statement List program (awlsim), with the plant behind it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from math import nan
from typing import TYPE_CHECKING, Final

from controller.errors import ScenarioError
from controller.settings import Settings
from hil.faults.sensors import SensorFaults
from hil.plc.awl_signal import Signal
from hil.plc.awl_wiring import AwlWiring
from hil.plc.noise import GaussianNoise
from hil.plc.plant_side import PlantSide
from hil.plc.slave_loop import PERMIT, REMOTE
from hil.plc.virtual import PlcStatistics
from hil.plc_memory import DeviceMemory
from plant_models.process import Plant

if TYPE_CHECKING:
    from hil.plc.awl_cpu import AwlCpu

_ROUNDING_S: Final = 1e-6  # sums of steps that should equal the scan time must not miss it


class AwlPlc(PlantSide):
    """One S7 PLC whose logic is a Statement List program, in lock-step with its plant.

    What the controller reads and writes is an image of the program's memory, exchanged at the end
    of each scan as in an S7-300: no frame arrives in the middle of a scan.
    """

    loop_names: Sequence[str] = ()

    def __init__(
        self,
        plant: Plant,
        wiring: AwlWiring,
        memory: DeviceMemory,
        settings: Settings,
        *,
        time_ns: int,
        seed: int,
        x0: Mapping[str, float],
    ) -> None:
        """Power up: plant at its initial point, OB 100, one scan.

        A program that begins at what its outputs hold begins without a bump: they are set to the
        inputs that keep the plant at rest.

        Args:
            memory: of the device; its areas become images of the program's.
            time_ns: now, ns since epoch.
            seed: of the plant, the noise and the sensor faults.
            x0: states of the plant that start elsewhere than at its own initial point.

        Raises:
            ScenarioError: awlsim is not installed; the program cannot be translated, has no such
                data block or field, or stops; the plant has no such signal or state.
        """
        super().__init__(plant, {c.signal for c in wiring.outputs}, seed, x0)
        self.time_ns = time_ns
        self.devices = (memory.device,)
        self._memory, self._scan_s = memory, wiring.scan_s
        rows = [self._row(c.signal, c.where) for c in wiring.inputs]
        columns = [self._column(c.signal, c.where) for c in wiring.outputs]
        cpu = self._cpu = _cpu(wiring, time_ns)
        self._program = _areas(cpu, memory, wiring)
        self._read = list(zip(rows, (Signal(cpu, c) for c in wiring.inputs), strict=True))
        self._driven = list(zip(columns, (Signal(cpu, c) for c in wiring.outputs), strict=True))
        self._span = [(v.low, v.high) for v in plant.inputs]
        channels = [channel.address for channel in wiring.inputs]
        self._noise = GaussianNoise(channels, {c.address: c.noise for c in wiring.inputs}, seed)
        self.sensors = SensorFaults(seed + 1, [memory])
        self.measured_tags = (*channels, *(measured.tag for measured in settings.measured))
        self._commands = [c for c in memory.cells.values() if c.tag.access == "write"]
        handshake = settings.devices[memory.device].handshake
        echoes = handshake and (handshake.heartbeat_echo, handshake.sequence_echo)
        self._echo_words = [word for word in echoes or () if word]
        self._frozen_echo: list[float] = []
        self._loops = settings.manipulated
        self._trips, self._switches = 0, {mv.name: 0 for mv in self._loops}
        self._running, self._since_scan_s = True, 0.0
        for column, signal in self._driven:
            signal.store(float(self._u[column]))
        self._power_up(time_ns)

    def scan(self, now_ns: int, dt_s: float) -> None:
        """The plant goes on for dt_s seconds until `now_ns` (ns since epoch).

        Where a scan is due by then the program reads its inputs, runs once and sets its outputs.

        Raises:
            ScenarioError: the program stopped the CPU.
        """
        self.time_ns = now_ns
        self._go_on(dt_s)
        self._since_scan_s += dt_s
        if self._since_scan_s < self._scan_s - _ROUNDING_S:
            return
        self._since_scan_s -= self._scan_s
        if self._running:
            self._run(now_ns, self._scan_s)

    def scan_unseen(self, now_ns: int, dt_s: float, scans: int) -> None:
        """As many scans of dt_s seconds, the last of which ends at `now_ns`: the program counts."""
        dt_ns = round(dt_s * 1e9)
        for left in reversed(range(scans)):
            self.scan(now_ns - left * dt_ns, dt_s)

    def setpoint_in_use(self, setpoint_tag: str) -> float:
        """What the program shows as the setpoint in use, in its unit."""
        for mv in self._loops:
            if mv.setpoint == setpoint_tag:
                return self._shown(mv.in_use)
        raise ScenarioError(f"no loop has the setpoint tag {setpoint_tag}", where=setpoint_tag)

    @property
    def statistics(self) -> PlcStatistics:
        """As far as the status words tell: a loop that fell to LOCAL although REMOTE was asked for
        and permitted was taken back by the watchdog. What was clamped or refused is not told."""
        untold = {self.devices[0]: nan}
        return PlcStatistics({self.devices[0]: self._trips}, untold, self._switches, untold, untold)

    def stop(self, device: str) -> None:
        """PLC STOP: no scans; outputs hold, memory stands still."""
        self._running = False

    def restart(self, device: str) -> None:
        """STOP to RUN: OB 100, then one scan."""
        self._running = True
        self._power_up(self.time_ns)

    def freeze_heartbeat(self, device: str, frozen: bool) -> None:
        """Show the echoes as they are now, whatever the program answers; or no longer."""
        self._frozen_echo = [self._memory.get(word) for word in self._echo_words] if frozen else []

    def setpoint_range(self, loop: str) -> tuple[float, float]:
        raise _of_the_program(loop)

    def begin_loop_fault(self, loop: str, fault: str, args: Mapping[str, float]) -> None:
        raise _of_the_program(loop)

    def end_loop_fault(self, loop: str, fault: str) -> None:
        raise _of_the_program(loop)

    def _power_up(self, now_ns: int) -> None:
        """OB 100 and one scan; how the loops stand afterwards is no trip of the watchdog."""
        self._take_inputs(0.0)
        self._cpu.restart(now_ns)
        self._last_modes: list[int] = []
        self._run(now_ns, 0.0)

    def _run(self, now_ns: int, dt_s: float) -> None:
        """One scan, with the exchange between program and image at its borders."""
        self._take_inputs(dt_s)
        with self._memory.lock:
            for cell in self._commands:
                spot = cell.place
                image = self._memory.areas[spot.area]
                self._program[spot.area][spot.byte : spot.end] = image[spot.byte : spot.end]
            self._cpu.scan(now_ns)
            for area, image in self._memory.areas.items():
                shown = self._program[area][: len(image)]
                image[: len(shown)] = shown  # an image of odd length has a byte of padding
            self._distort(dt_s)
        for column, signal in self._driven:
            value = signal.load()
            if math.isfinite(value):
                low, high = self._span[column]
                self._u[column] = min(max(value, low), high)  # no valve goes beyond open
        self._count()

    def _take_inputs(self, dt_s: float) -> None:
        """What the transmitters say, into the program's inputs."""
        for (row, signal), noise in zip(self._read, self._noise.draw(), strict=True):
            value = self._y[row] + noise
            signal.store(self.sensors.apply(signal.address, value, dt_s))

    def _distort(self, dt_s: float) -> None:
        """Faults of what is published, which the program itself does not see."""
        for tag in self.sensors.active:
            if tag in self._memory.cells:
                value = self._memory.reader(tag)()
                self._memory.writer(tag)(self.sensors.apply(tag, value, dt_s))
        for word, value in zip(self._echo_words, self._frozen_echo, strict=False):
            self._memory.writer(word)(value)

    def _count(self) -> None:
        """Mode changes, and which of them nobody asked for."""
        modes = [int(self._shown(mv.mode)) for mv in self._loops]
        tripped = False
        for mv, last, mode in zip(self._loops, self._last_modes, modes, strict=False):
            self._switches[mv.name] += (last ^ mode) & REMOTE
            dropped = last & REMOTE and not mode & REMOTE
            tripped |= bool(dropped and mode & PERMIT and int(self._shown(mv.request)) & REMOTE)
        self._trips += tripped
        self._last_modes = modes

    def _shown(self, tag: str) -> float:
        """What stands for a tag in the program's own memory."""
        cell = self._memory.cells[tag]
        return float(cell.decode(self._program[cell.place.area], cell.place.byte))


def _cpu(wiring: AwlWiring, time_ns: int) -> AwlCpu:
    if find_spec("awlsim") is None:
        raise ScenarioError(
            "Statement List needs the package awlsim, which is not installed",
            where=wiring.where,
            mend="Run pip install 'loopwright[awlsim]'",
        )
    from hil.plc.awl_cpu import AwlCpu

    return AwlCpu(wiring.program, time_ns, wiring.symbols)


def _areas(cpu: AwlCpu, memory: DeviceMemory, wiring: AwlWiring) -> dict[str, bytearray]:
    """The program's memory for every area of the device, long enough for its tags."""
    found: dict[str, bytearray] = {}
    for area in memory.areas:
        program = cpu.memory(area)
        tags = [cell for cell in memory.cells.values() if cell.place.area == area]
        last = max(tags, key=lambda cell: cell.place.end)
        if program is None:
            raise ScenarioError(
                f"{wiring.program.name} has no {area}, where the tags of {memory.device} lie",
                where=wiring.where,
                mend=f"Add DATA_BLOCK {area}, or correct the addresses in the application",
            )
        if len(program) < last.place.end:
            raise ScenarioError(
                f"{area} of {wiring.program.name} has {len(program)} bytes, and the tag "
                f"{last.tag.name} at {last.tag.address} ends at {last.place.end}",
                where=wiring.where,
                mend=f"Lengthen {area}, or correct the address in the application",
            )
        found[area] = program
    return found


def _of_the_program(loop: str) -> ScenarioError:
    return ScenarioError(
        f"the loop {loop} belongs to the Statement List program and cannot be broken from outside",
        where=loop,
        mend="Break a transmitter, the link or the plant instead, or use a virtual PLC",
    )
