"""PLCs that somebody else runs, on a test bench or in a simulator: only what is read is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import nan
from types import MappingProxyType
from typing import Final

from controller.errors import ScenarioError
from controller.settings import Settings
from controller.signal import Sample, Snapshot
from hil.plc.virtual import PlcStatistics
from plant_models.variable import Variable

_NOTHING: Final[Mapping[str, float]] = MappingProxyType({})
_UNCOUNTED: Final[Mapping[str, float]] = MappingProxyType({"": nan})


class ExternalPlc:
    """What a scenario needs of PLCs, without having any: the world turns by itself.

    The "true" outputs are the measured ones. What the PLC counts (watchdog trips, clamped writes)
    is not known, so no KPI tells it. Only links and the controller's host can be disturbed.
    """

    loop_names: Collection[str] = ()
    measured_tags: Collection[str] = ()

    def __init__(self, settings: Settings) -> None:
        self.devices = tuple(settings.devices)
        self.upsets = _ForeignPlant()
        self.sensors = _ForeignSensors()
        self._output_of = {m.tag: m.output for m in settings.measured}
        self._in_use = {mv.setpoint: mv.in_use for mv in settings.manipulated}
        self._samples: Mapping[str, Sample] = {}

    def saw(self, snapshot: Snapshot) -> None:
        """The newest that the controller has read."""
        self._samples = snapshot.samples

    def scan(self, now_ns: int, dt_s: float) -> None:
        """The PLC scans when it wants to."""

    def scan_unseen(self, now_ns: int, dt_s: float, scans: int) -> None:
        """As `scan`."""

    def outputs(self) -> dict[str, float]:
        """Measured outputs by name, NaN where there is no value."""
        return {output: self._value(tag) for tag, output in self._output_of.items()}

    def inputs(self) -> dict[str, float]:
        return {}

    def commanded_inputs(self) -> dict[str, float]:
        return {}

    def set_input(self, name: str, value: float) -> None:
        raise _out_of_reach(f"the plant input {name}")

    def setpoint_in_use(self, setpoint_tag: str) -> float:
        return self._value(self._in_use[setpoint_tag])

    def setpoint_range(self, loop: str) -> tuple[float, float]:
        raise _out_of_reach(f"the loop {loop}")

    @property
    def statistics(self) -> PlcStatistics:
        return PlcStatistics(_UNCOUNTED, _UNCOUNTED, _UNCOUNTED, _UNCOUNTED, _UNCOUNTED)

    def stop(self, device: str) -> None:
        raise _out_of_reach(device)

    def restart(self, device: str) -> None:
        raise _out_of_reach(device)

    def freeze_heartbeat(self, device: str, frozen: bool) -> None:
        raise _out_of_reach(device)

    def begin_loop_fault(self, loop: str, fault: str, args: Mapping[str, float]) -> None:
        raise _out_of_reach(f"the loop {loop}")

    def end_loop_fault(self, loop: str, fault: str) -> None:
        raise _out_of_reach(f"the loop {loop}")

    def _value(self, tag: str) -> float:
        sample = self._samples.get(tag)
        value = None if sample is None else sample.value
        return float(value) if isinstance(value, int | float) else nan


class _ForeignPlant:
    """A plant of which nothing can be changed."""

    plant_name = "the plant behind the external PLC"
    parameters: Mapping[str, float] = _NOTHING
    inputs: Mapping[str, Variable] = MappingProxyType({})
    free_inputs: Collection[str] = ()

    def set_parameter(self, name: str, value: float) -> None:
        raise _out_of_reach(f"the plant parameter {name}")

    def begin(self, target: str, fault: str, args: Mapping[str, float]) -> None:
        raise _out_of_reach(f"the plant input {target}")

    def end(self, target: str, fault: str) -> None:
        raise _out_of_reach(f"the plant input {target}")


class _ForeignSensors:
    """Transmitters that nobody can disturb from here."""

    def begin(self, tag: str, fault: str, args: Mapping[str, float]) -> None:
        raise _out_of_reach(f"the transmitter {tag}")

    def end(self, tag: str, fault: str) -> None:
        raise _out_of_reach(f"the transmitter {tag}")

    def objection(self, tag: str, value: float) -> str:
        raise _out_of_reach(f"the transmitter {tag}")


def _out_of_reach(what: str) -> ScenarioError:
    return ScenarioError(
        f"{what} belongs to an external PLC and cannot be disturbed from here",
        where=what,
        mend="Disturb its link instead, or use a virtual PLC",
    )
