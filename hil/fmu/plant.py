"""A plant that lives in an FMU: somebody else's model behind the virtual PLC.

The FMU runs in a process of its own and is native code with the rights of the user: the checks
of its archive catch damage and traps, not malice in the model itself.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np

from controller.errors import PlantError, ScenarioError
from hil.fmu.archive import unpack
from hil.fmu.interface import Choice, channels, parameters, start_values
from hil.fmu.messages import MODEL, Adjust, Advance, Begin, Done, Interface, Outputs, Value
from hil.fmu.process import FmuProcess
from plant_models.process import Vector, names, nominal
from plant_models.variable import Variable

_WHOLE = 1e-6
"""How far, in steps, a scan may be from a whole number of communication steps."""


class FmuPlant:
    """An FMI 2 or FMI 3 co-simulation unit as a plant; inputs (nu,) and outputs (ny,) by name."""

    def __init__(
        self,
        path: Path,
        *,
        inputs: Choice | None = None,
        outputs: Choice | None = None,
        start: Mapping[str, object] | None = None,
        seed_parameter: str = "",
        step_s: float | None = None,
        timeout_s: float = 5.0,
    ) -> None:
        """See `fmu_plant`."""
        for name, seconds in (("step_s", step_s), ("timeout_s", timeout_s)):
            if seconds is not None and not 0.0 < seconds < float("inf"):
                raise ScenarioError(
                    f"{name} is {seconds} s", where=str(path), mend="Give a time above zero"
                )
        self._path, self._timeout_s = path, timeout_s
        self._folder = TemporaryDirectory(prefix="loopwright-fmu-", ignore_cleanup_errors=True)
        self._clean = weakref.finalize(self, self._folder.cleanup)
        try:
            model = Path(self._folder.name, MODEL)
            model.mkdir()
            self._description = unpack(path, model)
            self._process = FmuProcess(path, Path(self._folder.name), timeout_s)
        except BaseException:
            self._clean()
            raise
        try:
            self._declare(self._process.interface, inputs, outputs, start or {}, seed_parameter)
            self._step_s = step_s or self._process.interface.preferred_step_s
        except ScenarioError as error:
            self.close()
            raise ScenarioError(error.what, where=str(path), mend=error.mend) from error
        self._begun = False

    def _declare(
        self,
        interface: Interface,
        inputs: Choice | None,
        outputs: Choice | None,
        start: Mapping[str, object],
        seed_parameter: str,
    ) -> None:
        self._known = {facts.name: facts for facts in interface.variables}
        self._variable_step = interface.variable_step
        self._in = channels(self._known, "input", inputs)
        self._out = channels(self._known, "output", outputs)
        self._start: dict[str, Value] = start_values(self._known, start)
        if seed_parameter:
            start_values(self._known, {seed_parameter: 0})
        self._seed_parameter = seed_parameter
        self._parameters = parameters(self._known) | {
            name: float(value)
            for name, value in self._start.items()
            if not isinstance(value, str) and self._known[name].causality == "parameter"
        }
        self._adjusted: dict[str, float] = {}

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return self._in.variables

    @property
    def outputs(self) -> tuple[Variable, ...]:
        return self._out.variables

    @property
    def parameters(self) -> Mapping[str, float]:
        """Numeric parameters now, in the FMU's own units."""
        return {**self._parameters, **self._adjusted}

    def set_parameter(self, name: str, value: float) -> None:
        """Before the first reset: a start value, also of a fixed parameter. After it: a tunable
        parameter, until the next reset.

        Raises:
            KeyError: there is no such parameter.
            ScenarioError: it is fixed once the run has begun.
            PlantError: the FMU fails.
        """
        if name not in self._parameters:
            raise KeyError(
                f"{self} has no parameter {name}: {', '.join(self._parameters) or 'none'}"
            )
        if not self._begun:
            self._start.update(start_values(self._known, {name: value}))
            self._parameters[name] = float(value)
            return
        if self._known[name].variability != "tunable":
            raise ScenarioError(
                f"the parameter {name} is {self._known[name].variability}: it cannot change "
                "during a run",
                where=str(self._path),
                mend="Choose a tunable one, or give it in `start`",
            )
        self._process.ask(Adjust(name, float(value)), Done, f"to set {name}")
        self._adjusted[name] = float(value)

    def reset(self, seed: int) -> Vector:
        """Return to the initial point, in a new process: outputs y0 (ny,).

        Nothing that the FMU keeps in memory survives. `seed` goes to its seed parameter, if one
        was named.

        Raises:
            PlantError: the FMU cannot be instantiated or initialised.
        """
        if self._begun:
            self._process.close()
            self._process = FmuProcess(self._path, Path(self._folder.name), self._timeout_s)
        self._begun = True
        self._adjusted = {}
        start = {**self._start, self._seed_parameter: seed} if self._seed_parameter else self._start
        initial = dict(zip(names(self.inputs), self._in.to_fmu(nominal(self.inputs)), strict=True))
        begin = Begin(dict(start), initial, list(names(self.outputs)))
        return self._checked(self._process.ask(begin, Outputs, "to initialise"))

    def advance(self, u: Vector, dt_s: float) -> Vector:
        """Hold inputs u (nu,) for dt_s seconds; outputs y (ny,) at the end.

        Raises:
            PlantError: the FMU hangs, crashes, ends the simulation, or answers no finite number.
            ScenarioError: dt_s is no whole number of the steps that the FMU can make.
        """
        if not self._begun:
            self.reset(0)
        step_s, count = self._steps(dt_s)
        request = Advance(self._in.to_fmu(u), step_s, count)
        return self._checked(self._process.ask(request, Outputs, f"to go on for {dt_s:g} s"))

    def close(self) -> None:
        """End the process and remove what was unpacked; also happens when the plant is dropped."""
        self._process.close()
        self._clean()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return (
            f"{self._description.name} (FMI {self._description.fmi}): {len(self.inputs)} inputs, "
            f"{len(self.outputs)} outputs, {len(self._parameters)} parameters"
        )

    def _steps(self, dt_s: float) -> tuple[float, int]:
        """Communication step in seconds and how many of them make dt_s."""
        if self._step_s is None:
            # An FMU of one fixed step that does not say which: the first scan decides.
            if not self._variable_step:
                self._step_s = dt_s
            return dt_s, 1
        count = dt_s / self._step_s
        if self._variable_step:
            whole = max(ceil(count - _WHOLE), 1)
            return dt_s / whole, whole
        if round(count) < 1 or abs(count - round(count)) > _WHOLE:
            raise ScenarioError(
                f"it steps by {self._step_s:g} s and no other time, and a scan of {dt_s:g} s is "
                "no multiple of that",
                where=str(self._path),
                mend="Choose another plc.scan, or another step_s",
            )
        return self._step_s, round(count)

    def _checked(self, reply: Outputs) -> Vector:
        y = self._out.from_fmu(reply.y)
        if not np.all(np.isfinite(y)):
            wrong = [
                f"{v.name} = {value}"
                for v, value in zip(self.outputs, y, strict=True)
                if not np.isfinite(value)
            ]
            self._process.close()
            raise PlantError(
                f"no finite number at {reply.time_s:g} s of its time: {', '.join(wrong)}",
                where=str(self._path),
                mend="Mend the model, or keep its inputs where it makes sense",
            )
        return y


def fmu_plant(
    path: str | Path,
    *,
    inputs: Choice | None = None,
    outputs: Choice | None = None,
    start: Mapping[str, object] | None = None,
    seed_parameter: str = "",
    step_s: float | None = None,
    timeout_s: float = 5.0,
    folder: str | Path = "",
    **parameters: float,
) -> FmuPlant:
    """A co-simulation FMU as a plant: `plant: {ref: hil.fmu.plant:fmu_plant, arguments: …}`.

    Args:
        path: the .fmu file, relative to `folder`.
        inputs, outputs: names, or names with `unit`, `low`, `high`, `nominal` where these differ
            from modelDescription.xml; a unit other than the FMU's is converted. Without them, all
            scalar numeric inputs and outputs. An input's nominal is where it starts.
        start: start values of parameters and other variables, in the FMU's units.
        seed_parameter: the parameter that takes the scenario's seed.
        step_s: longest communication step, seconds; the FMU's preferred one if not given, else
            one step per scan.
        timeout_s: longest time for one answer of the FMU, seconds.
        folder: where a relative path starts: the scenario's folder.
        parameters: more start values, by name.

    Raises:
        ScenarioError: fmpy is not installed; the archive is missing, hostile, damaged, not for
            co-simulation or not for this platform; or an argument does not fit the model.
    """
    return FmuPlant(
        Path(folder) / path,
        inputs=inputs,
        outputs=outputs,
        start={**(start or {}), **parameters},
        seed_parameter=seed_parameter,
        step_s=step_s,
        timeout_s=timeout_s,
    )
