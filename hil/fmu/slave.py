"""An FMU at work inside its own process: FMI 2 and FMI 3 co-simulation through FMPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from fmpy.fmi1 import FMICallException
from fmpy.fmi2 import FMU2Slave, fmi2Terminated
from fmpy.fmi3 import FMU3Slave
from fmpy.model_description import ModelDescription, ModelVariable

from hil.fmu.messages import Value

EVENT_ROUNDS_MAX = 100
"""Rounds of an event iteration; a model that needs more never settles (FMI 3, section 2.3.3)."""
RETURNS_MAX = 10_000
"""Early returns within one communication step; more means that time does not get on."""

Change = Callable[[], None]

_DISCARD = 2
_FLOATS = ("Real", "Float32", "Float64")


class SlaveFailure(Exception):
    """The FMU did not do as asked: `what`, and how to `mend` it."""

    def __init__(self, what: str, mend: str = "Ask the maker of the FMU") -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


class Slave(Protocol):
    """What stepping needs of either FMI version; times in seconds of the FMU's own clock."""

    def begin(self, start: Change, inputs: Change, time_s: float) -> None:
        """Instantiate, set start values, initialise; inputs are set in initialisation mode."""
        ...

    def step(self, time_s: float, step_s: float) -> float:
        """One communication step, or less of it; the time reached.

        Raises:
            SlaveFailure: the FMU ends the simulation or refuses the step.
        """
        ...

    def at_event(self, change: Change) -> None:
        """Change what only an event may change."""
        ...

    def end(self) -> None:
        """Terminate and free the instance."""
        ...


class Fmi2(Slave):
    """FMI 2.0 co-simulation."""

    def __init__(self, fmu: FMU2Slave) -> None:
        self._fmu = fmu

    def begin(self, start: Change, inputs: Change, time_s: float) -> None:
        _instantiate(self._fmu)
        start()
        self._fmu.setupExperiment(startTime=time_s)
        self._fmu.enterInitializationMode()
        inputs()
        self._fmu.exitInitializationMode()

    def step(self, time_s: float, step_s: float) -> float:
        try:
            self._fmu.doStep(time_s, step_s)
        except FMICallException as error:
            if error.status == _DISCARD and self._fmu.getBooleanStatus(fmi2Terminated):
                raise _ended(time_s) from error
            raise _refused_step(time_s, step_s, error) from error
        return time_s + step_s

    def at_event(self, change: Change) -> None:
        change()

    def end(self) -> None:
        self._fmu.terminate()
        self._fmu.freeInstance()


class Fmi3(Slave):
    """FMI 3.0 co-simulation, with event mode and early return where the FMU has them."""

    def __init__(self, fmu: FMU3Slave, *, event_mode: bool, early_return: bool) -> None:
        self._fmu = fmu
        self._event_mode = event_mode
        self._early_return = early_return

    def begin(self, start: Change, inputs: Change, time_s: float) -> None:
        _instantiate(
            self._fmu, eventModeUsed=self._event_mode, earlyReturnAllowed=self._early_return
        )
        start()
        self._fmu.enterInitializationMode(startTime=time_s)
        inputs()
        self._fmu.exitInitializationMode()
        if self._event_mode:
            self._settle()

    def step(self, time_s: float, step_s: float) -> float:
        try:
            event, terminate, early, reached_s = self._fmu.doStep(time_s, step_s)
        except FMICallException as error:
            raise _refused_step(time_s, step_s, error) from error
        if terminate:
            raise _ended(reached_s)
        if event and self._event_mode:
            self._fmu.enterEventMode()
            self._settle()
        return reached_s if early else time_s + step_s

    def at_event(self, change: Change) -> None:
        if not self._event_mode:
            change()
            return
        self._fmu.enterEventMode()
        change()
        self._settle()

    def end(self) -> None:
        self._fmu.terminate()
        self._fmu.freeInstance()

    def _settle(self) -> None:
        """Iterate the event until the discrete states rest, then go back to stepping."""
        for _ in range(EVENT_ROUNDS_MAX):
            again, terminate, *_ = self._fmu.updateDiscreteStates()
            if terminate:
                raise SlaveFailure("the FMU ends the simulation at an event")
            if not again:
                self._fmu.enterStepMode()
                return
        raise SlaveFailure(f"an event of the FMU does not settle in {EVENT_ROUNDS_MAX} rounds")


def advance(slave: Slave, begin_s: float, step_s: float, count: int) -> float:
    """Make `count` communication steps from `begin_s`; the time reached, seconds.

    A step from which the FMU returns early is finished by further ones.

    Raises:
        SlaveFailure: the FMU ends, refuses a step, or stands still.
    """
    for number in range(count):
        time_s, target_s = begin_s + number * step_s, begin_s + (number + 1) * step_s
        for _ in range(RETURNS_MAX):
            time_s = slave.step(time_s, target_s - time_s)
            if time_s >= target_s - 1e-9 * step_s:
                break
        else:
            raise SlaveFailure(
                f"the FMU came back {RETURNS_MAX} times within one step of {step_s:g} s "
                f"and reached only {time_s:g} s"
            )
    return begin_s + count * step_s


def open_slave(model: ModelDescription, folder: Path) -> tuple[Slave, Any]:
    """Load the shared library; the slave and FMPy's object for its variables.

    Raises:
        SlaveFailure: the library cannot be loaded or lacks a function.
    """
    kind = model.coSimulation
    if kind is None:
        raise SlaveFailure("the FMU is not for co-simulation", "Export it for co-simulation")
    arguments = {
        "guid": model.guid,
        "modelIdentifier": kind.modelIdentifier,
        "unzipDirectory": str(folder),
        "instanceName": kind.modelIdentifier,
    }
    try:
        if model.fmiMajorVersion == 2:
            fmu = FMU2Slave(**arguments)
            return Fmi2(fmu), fmu
        fmu = FMU3Slave(**arguments)
    except Exception as error:
        raise SlaveFailure(
            f"its shared library cannot be used: {error}", "Export the FMU for this platform"
        ) from error
    event_mode = bool(kind.hasEventMode)
    early = event_mode or bool(kind.mightReturnEarlyFromDoStep)
    return Fmi3(fmu, event_mode=event_mode, early_return=early), fmu


class Variables:
    """Reads and writes scalar variables of any numeric type as numbers, in FMI's own units."""

    def __init__(self, fmu: Any, variables: Mapping[str, ModelVariable]) -> None:
        self._fmu = fmu
        self._variables = variables
        # An enumeration travels as an integer; the rest is called like its type.
        self._travels_as = {"Enumeration": "Integer" if isinstance(fmu, FMU2Slave) else "Int64"}

    def write(self, names: Sequence[str], values: Sequence[Value]) -> None:
        for name, value in zip(names, values, strict=True):
            variable = self._variables[name]
            access = self._travels_as.get(variable.type, variable.type)
            getattr(self._fmu, f"set{access}")(
                [variable.valueReference], [_converted(variable.type, value)]
            )

    def reader(self, names: Sequence[str]) -> Callable[[], list[float]]:
        """A function that reads the variables in order, with one call per type."""
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(names):
            kind = self._variables[name].type
            groups.setdefault(self._travels_as.get(kind, kind), []).append(place)
        calls = [
            (
                getattr(self._fmu, f"get{access}"),
                [self._variables[names[place]].valueReference for place in places],
                places,
            )
            for access, places in groups.items()
        ]

        def read() -> list[float]:
            found = [0.0] * len(names)
            for get, references, places in calls:
                for place, value in zip(places, get(references), strict=True):
                    found[place] = float(value)
            return found

        return read

    def at_events_only(self, names: Sequence[str]) -> bool:
        """Whether one of the variables is discrete: such an input changes at events only."""
        return any(self._variables[name].variability == "discrete" for name in names)


def _instantiate(fmu: FMU2Slave | FMU3Slave, **options: bool) -> None:
    try:
        # What an FMU says when it fails is worth more than the time that its chatter takes.
        fmu.instantiate(loggingOn=True, **options)
    except Exception as error:
        raise SlaveFailure(
            "the FMU refuses to be instantiated; its library may belong to another "
            "modelDescription.xml (GUID or instantiation token), or lack a licence",
            "Export the FMU again",
        ) from error


def _converted(kind: str, value: Value) -> Value:
    if kind == "String":
        return str(value)
    if kind == "Boolean":
        return float(value) >= 0.5
    return float(value) if kind in _FLOATS else round(float(value))


def _ended(time_s: float) -> SlaveFailure:
    return SlaveFailure(
        f"the FMU ends the simulation at {time_s:g} s of its time",
        "Shorten the scenario, or mend what ends it",
    )


def _refused_step(time_s: float, step_s: float, error: FMICallException) -> SlaveFailure:
    return SlaveFailure(
        f"the FMU cannot step {step_s:g} s from {time_s:g} s of its time: {error}",
        "Give a smaller step_s, or mend the model",
    )
