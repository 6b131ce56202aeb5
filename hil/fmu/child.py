"""The process that holds one FMU: a crash or an endless loop in it harms nobody else.

Run as `python -m hil.fmu.child FD FOLDER DEADLINE_S`: FD is an inherited socket, FOLDER the
private directory of the plant, DEADLINE_S the time that one request may take.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import msgspec
from fmpy.model_description import ModelDescription, ModelVariable, read_model_description

from hil.fmu.messages import (
    MODEL,
    Adjust,
    Advance,
    Begin,
    Done,
    Facts,
    Failure,
    Interface,
    Outputs,
    Quit,
    Ready,
    Reply,
    Request,
)
from hil.fmu.slave import Slave, SlaveFailure, Variables, advance, open_slave

LOG_MAX = 1 << 20
"""Of what the FMU prints; after that it starts anew, so that no long run fills the disk."""


class Holder:
    """The FMU between requests: opened, then begun, then stepped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._model = _read(folder)
        self._variables = {v.name: v for v in self._model.modelVariables}
        self._slave: Slave | None = None
        self._access: Variables | None = None
        self._inputs: list[str] = []
        self._read: Callable[[], list[float]] = list
        self._discrete = False
        self._time_s = 0.0
        self._last: list[float] = []

    def interface(self) -> Interface:
        kind = self._model.coSimulation
        step = _number(getattr(self._model.defaultExperiment, "stepSize", None))
        if step is None and kind is not None:
            step = _number(kind.fixedInternalStepSize)
        return Interface(
            variables=[_facts(v) for v in self._model.modelVariables],
            preferred_step_s=step,
            variable_step=kind is not None and bool(kind.canHandleVariableCommunicationStepSize),
        )

    def answer(self, request: Request) -> Reply:
        if isinstance(request, Begin):
            return self._begin(request)
        if self._slave is None or self._access is None:
            raise SlaveFailure("the FMU has not begun")
        if isinstance(request, Advance):
            self._hold(request.u)
            self._time_s = advance(self._slave, self._time_s, request.step_s, request.count)
            return Outputs(self._read(), self._time_s)
        if isinstance(request, Adjust):
            access = self._access
            self._slave.at_event(lambda: access.write([request.name], [request.value]))
            return Done()
        self._slave.end()
        return Done()

    def _begin(self, request: Begin) -> Outputs:
        self._slave, fmu = open_slave(self._model, self._folder)
        self._access = access = Variables(fmu, self._variables)
        self._inputs = list(request.inputs)
        self._discrete = access.at_events_only(self._inputs)
        start, inputs = request.start, request.inputs
        # Not every model description has a default experiment.
        start_s = getattr(self._model.defaultExperiment, "startTime", None)
        self._time_s = _number(start_s) or 0.0
        self._slave.begin(
            lambda: access.write(list(start), list(start.values())),
            lambda: access.write(list(inputs), list(inputs.values())),
            self._time_s,
        )
        self._last = list(request.inputs.values())
        self._read = access.reader(request.outputs)
        return Outputs(self._read(), self._time_s)

    def _hold(self, u: list[float]) -> None:
        slave, access = cast("Slave", self._slave), cast("Variables", self._access)
        if u == self._last:
            return
        if self._discrete:
            slave.at_event(lambda: access.write(self._inputs, u))
        else:
            access.write(self._inputs, u)
        self._last = u


def _read(folder: Path) -> ModelDescription:
    try:
        # Validated against the schema; the archive's check has seen that it has no DOCTYPE.
        return read_model_description(folder, validate=True)
    except Exception as error:
        raise SlaveFailure(
            f"modelDescription.xml is wrong: {error}", "Export the FMU again"
        ) from error


def _facts(variable: ModelVariable) -> Facts:
    declared = variable.declaredType
    low, high, nominal = (
        _number(getattr(variable, key) or getattr(declared, key, None))
        for key in ("min", "max", "nominal")
    )
    return Facts(
        name=variable.name,
        causality=variable.causality,
        variability=variable.variability,
        initial=variable.initial,
        type=variable.type,
        scalar=not variable.dimensions,
        unit=variable.unit or getattr(declared, "unit", None),
        low=low,
        high=high,
        start=None if variable.start is None else str(variable.start),
        nominal=nominal,
        text=variable.description or "",
    )


def _number(text: Any) -> float | None:
    return None if text is None else float(text)


def serve(connection: Connection, folder: Path, deadline_s: float) -> None:
    """Answer requests until the other side hangs up or the FMU fails."""
    encode, decoder = msgspec.msgpack.encode, msgspec.msgpack.Decoder(Request)
    connection.send_bytes(encode(Ready()))
    holder: Holder | None = None
    request: Request | None = None
    while not isinstance(request, Quit):
        # The kernel ends this process even when the one that asked is gone and cannot.
        signal.setitimer(signal.ITIMER_REAL, deadline_s)
        try:
            if holder is None:
                holder = Holder(folder / MODEL)
                reply: Reply = holder.interface()
            else:
                reply = holder.answer(cast("Request", request))
        except SlaveFailure as error:
            reply = Failure(error.what, error.mend)
        except Exception as error:  # noqa: BLE001 - whatever foreign code raises is told
            reply = Failure(f"{type(error).__name__}: {error}", "Ask the maker of the FMU")
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        connection.send_bytes(encode(reply))
        if isinstance(reply, Failure):
            return
        if os.fstat(2).st_size > LOG_MAX:
            os.ftruncate(2, 0)
        try:
            request = decoder.decode(connection.recv_bytes())
        except (EOFError, OSError):
            # Whoever started this was killed: nobody else is left who would clear away.
            shutil.rmtree(folder, ignore_errors=True)
            return


def main() -> None:
    descriptor, folder, deadline_s = sys.argv[1:]
    os.dup2(2, 1)  # what the FMU prints must not end up among the program's own results
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the harness's to handle
    serve(Connection(int(descriptor)), Path(folder), float(deadline_s))
    # Without the interpreter's own end: a library that was loaded may hang or crash in it.
    os._exit(0)


if __name__ == "__main__":
    main()
