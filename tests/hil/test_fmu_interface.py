"""What a scenario may ask of an FMU's variables, and how they travel to FMPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fmpy.fmi1 import FMICallException
from fmpy.model_description import ModelVariable

from controller.errors import ScenarioError
from hil.fmu.interface import Choice, channels, start_values
from hil.fmu.messages import Facts
from hil.fmu.plant import fmu_plant
from hil.fmu.slave import Fmi2, SlaveFailure, Variables
from tests.hil.fmu_models import tank


@pytest.fixture(scope="module", name="known")
def _known(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Facts]:
    with fmu_plant(tank(3, tmp_path_factory.mktemp("tank"))) as plant:
        return plant._known  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(
    ("causality", "choice", "words"),
    [
        ("input", ["flow", "heat"], "no variable heat.*Inputs are flow"),
        ("input", ["level"], "level is an output of type Float64, .* cannot be an input"),
        ("input", {"flow": {"unit": "kg/s", "lowest": 3}}, "flow takes no lowest"),
        ("input", {"flow": {"low": 2.0}}, "nominal 1.0 1 is outside"),
        ("input", {"flow": {"low": "2 kg/s"}}, "not a finite number"),
        ("output", [], "it has no output"),
    ],
)
def test_inputs_and_outputs_that_do_not_fit(
    known: Mapping[str, Facts], causality: str, choice: Choice, words: str
) -> None:
    with pytest.raises(ScenarioError, match=words):
        channels(known, causality, choice)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"level": 2.0}, "level .* takes no start value"),
        ({"hold_up": float("nan")}, "hold_up: nan is not a finite number"),
        ({"hold_up": "two"}, "not a finite number"),
        ({"chance": 1}, "no variable chance"),
    ],
)
def test_start_values_that_do_not_fit(
    known: Mapping[str, Facts], start: Mapping[str, object], words: str
) -> None:
    with pytest.raises(ScenarioError, match=words):
        start_values(known, start)


class Recorder:
    """Stands in for FMPy's object: keeps what it was called with."""

    def __init__(self, **answers: object) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self._answers = answers

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            self.calls.append((name, arguments))
            answer = self._answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.mark.parametrize(
    ("ended", "words"),
    [(True, "ends the simulation at 3 s"), (False, "cannot step 0.5 s")],
)
def test_a_step_discarded_in_fmi_2_is_an_end_or_a_refusal(ended: bool, words: str) -> None:
    error = FMICallException("fmi2DoStep", 2)
    fmu: Any = Recorder(doStep=error, getBooleanStatus=ended)
    with pytest.raises(SlaveFailure, match=words):
        Fmi2(fmu).step(3.0, 0.5)


def test_every_type_travels_as_itself_and_an_enumeration_as_an_integer() -> None:
    kinds = {"level": "Float32", "valve": "Boolean", "grade": "Enumeration", "count": "UInt8"}
    variables = {
        name: ModelVariable(name=name, valueReference=number, type=kind)
        for number, (name, kind) in enumerate(kinds.items())
    }
    fmu = Recorder(getFloat32=[1.5], getBoolean=[True], getInt64=[3], getUInt8=[4])
    access = Variables(fmu, variables)
    access.write(list(kinds), [2.5, 0.7, 2.9, 7.2])
    assert fmu.calls == [
        ("setFloat32", ([0], [2.5])),
        ("setBoolean", ([1], [True])),
        ("setInt64", ([2], [3])),
        ("setUInt8", ([3], [7])),
    ]
    assert access.reader(["count", "grade", "valve", "level"])() == [4.0, 3.0, 1.0, 1.5]
