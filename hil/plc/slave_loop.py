"""A slave loop of the PLC: the setpoint it follows, its PID, its status words and its valve."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hil.faults.actuators import FaultyActuator
from hil.plc.pid import Pid, PidTuning, SlaveSetpoint
from hil.plc.watchdog import DeviceWatch

REMOTE: Final = 0b01
PERMIT: Final = 0b10
AT_HIGH: Final = 0b01
AT_LOW: Final = 0b10


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


class RunningLoop:
    """One slave loop at work, with its faceplate and its valve.

    Attributes:
        words: tags of the setpoint and the request that the controller writes.
        status_words: tags that it publishes; `status` has their values.
        actuator: what its output goes through while the valve is broken; None while it is sound.
    """

    def __init__(self, spec: SlaveLoop, device: DeviceWatch, output: float, pv: float) -> None:
        self.spec = spec
        self.device = device
        self.setpoint = SlaveSetpoint(
            spec.start_setpoint, spec.setpoint_low, spec.setpoint_high, spec.setpoint_rate_per_s
        )
        self.pid = Pid(spec.tuning, output, self.setpoint.in_use, pv)
        self.kept_local = spec.local_selector
        self.switches = 0
        self.actuator: FaultyActuator | None = None
        self.words = (spec.setpoint, spec.request)
        self.status_words = tuple(
            tag for tag in (spec.in_use, spec.mode, spec.saturation, spec.output) if tag
        )
        self._refusing: tuple[float, float] | None = None

    def drop(self, fallback: float | None) -> None:
        """To LOCAL without a bump."""
        if self.setpoint.remote:
            self.switches += 1
            self.setpoint.to_local(fallback)

    def scan(self, dt_s: float, pv: float, setpoint: float, request: float) -> float:
        """Choose the mode, move the setpoint in use, and return the new output.

        `setpoint` and `request` are what the controller has written last.
        """
        if self._refusing is not None:
            setpoint, request = self._refusing
        if not self.device.alive:
            self.drop(self.spec.fallback)
        elif self.kept_local or request != 1:
            self.drop(None)  # somebody took it deliberately and is there
        elif not self.setpoint.remote:
            self.switches += 1
            self.setpoint.to_remote()
        in_use = self.setpoint.update(setpoint, dt_s)
        return self.pid.update(in_use, pv, dt_s)

    def status(self) -> list[float]:
        """The values of its status words."""
        setpoint, pid = self.setpoint, self.pid
        mode = (0 if self.kept_local else PERMIT) | (REMOTE if setpoint.remote else 0)
        values = [setpoint.in_use, mode]
        if self.spec.saturation:
            values.append((AT_HIGH if pid.at_high else 0) | (AT_LOW if pid.at_low else 0))
        if self.spec.output:
            values.append(pid.output)
        return values

    def begin(self, fault: str, args: Mapping[str, float], position: float) -> None:
        """Raise a fault of the loop; its valve is at `position` now, in output units."""
        if fault == "mode_flip":
            self.kept_local = True
        elif fault == "refuse_write":
            # The program no longer takes commands over: it works on with those it took last.
            self._refusing = self.setpoint.wanted, float(self.setpoint.remote)
        elif fault == "clamp_write":
            self.setpoint.clamp_remote(args["low"], args["high"])
        else:
            if self.actuator is None:
                self.actuator = FaultyActuator()
            self.actuator.begin(fault, args, position)

    def end(self, fault: str) -> None:
        if fault == "mode_flip":
            self.kept_local = self.spec.local_selector
        elif fault == "refuse_write":
            self._refusing = None
        elif fault == "clamp_write":
            self.setpoint.clamp_remote(self.setpoint.low, self.setpoint.high)
        elif self.actuator is not None:
            self.actuator.end(fault)
            if self.actuator.is_sound:
                self.actuator = None
