"""Plants in FMUs: what they answer, and what happens when they hang, crash or give up."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from controller.errors import PlantError, ScenarioError
from hil.fmu import process
from hil.fmu.plant import FmuPlant, fmu_plant
from plant_models.process import Adjustable, Plant, names
from tests.hil.fmu_models import counter, described, tank

ROOT = Path(__file__).parents[2]
U = np.array([3.0])


@pytest.fixture(scope="module", name="tanks")
def _tanks(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Path]:
    return {fmi: tank(fmi, tmp_path_factory.mktemp("tank")) for fmi in (2, 3)}


@pytest.fixture(params=[2, 3], ids=["FMI 2", "FMI 3"])
def tank_file(request: pytest.FixtureRequest, tanks: Mapping[int, Path]) -> Path:
    return tanks[request.param]


@pytest.fixture(name="tank_3")
def _tank_3(tanks: Mapping[int, Path]) -> Path:
    return tanks[3]


@pytest.fixture(scope="module", name="events")
def _events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return counter(tmp_path_factory.mktemp("counter"))


@pytest.fixture(autouse=True)
def _nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does to its plant, no temporary file outlives it."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    yield
    gc.collect()
    assert list(place.iterdir()) == []


def expected_level(steps: int, step_s: float, flow: float = 3.0, hold_up: float = 2.0) -> float:
    level = 1.0
    for _ in range(steps):
        level += step_s * (flow - level / hold_up)
    return level


def test_it_is_a_plant_and_integrates_as_its_source_says(tank_file: Path) -> None:
    with fmu_plant(tank_file) as plant:
        as_plant: Plant = plant
        assert names(as_plant.inputs) == ("flow",)
        assert names(as_plant.outputs) == ("level", "temperature", "full")
        assert plant.inputs[0].nominal == 1.0
        assert plant.reset(1) == pytest.approx([1.0, 300.0, 0.0])
        for scan in range(1, 4):
            assert plant.advance(U, 1.0)[0] == pytest.approx(expected_level(scan, 1.0))
        assert plant.advance(np.array([20.0]), 1.0)[2] == 1.0  # a Boolean is 0 or 1


def test_a_reset_starts_anew_and_forgets_what_was_adjusted(tank_file: Path) -> None:
    with fmu_plant(tank_file, seed_parameter="seed") as plant:
        begin = plant.reset(7)
        assert begin[0] == pytest.approx(1.007)  # the seed arrived
        plant.set_parameter("hold_up", 8.0)
        plant.advance(U, 1.0)
        assert plant.parameters["hold_up"] == 8.0
        assert plant.reset(7) == pytest.approx(begin)
        assert plant.parameters["hold_up"] == 2.0
        assert plant.advance(U, 1.0)[0] == pytest.approx(1.007 + 3.0 - 1.007 / 2.0)


def test_parameters_fixed_and_tunable(tank_file: Path) -> None:
    with fmu_plant(tank_file, start={"area": 3.0}, area=1.0, hold_up=4.0) as plant:
        assert isinstance(plant, Adjustable)
        assert plant.parameters == {
            "hold_up": 4.0, "area": 1.0, "seed": 0.0, "trouble": 0.0,
        }  # fmt: skip
        plant.set_parameter("area", 0.5)  # fixed, but the run has not begun
        assert plant.reset(1)[0] == pytest.approx(2.0)
        assert plant.advance(U, 1.0)[0] == pytest.approx(2.0 + (3.0 - 0.5) / 0.5)
        plant.set_parameter("hold_up", 1.0)
        assert plant.advance(U, 1.0)[0] == pytest.approx(7.0 + (3.0 - 7.0) / 0.5)
        with pytest.raises(ScenarioError, match="area is fixed"):
            plant.set_parameter("area", 2.0)
        with pytest.raises(KeyError, match="no parameter volume"):
            plant.set_parameter("volume", 2.0)
        assert plant.advance(U, 1.0)[0] == pytest.approx(-1.0 + (3.0 + 1.0) / 0.5)


def test_a_scan_is_cut_into_communication_steps(tank_3: Path) -> None:
    with fmu_plant(tank_3, step_s=0.3) as plant:
        plant.reset(1)
        # 1 s is four steps of 0.25 s: equal ones, none longer than asked for.
        assert plant.advance(U, 1.0)[0] == pytest.approx(expected_level(4, 0.25))


def test_a_fixed_step_is_kept_and_a_scan_that_is_no_multiple_refused(tmp_path: Path) -> None:
    stiff = tank(3, tmp_path / "stiff", canHandleVariableCommunicationStepSize=False)
    end = "</LogCategories>"
    preferred = described(
        stiff, tmp_path / "p.fmu", end, f'{end}<DefaultExperiment stepSize="0.25"/>'
    )
    with fmu_plant(preferred) as plant:
        plant.reset(1)
        assert plant.advance(U, 1.0)[0] == pytest.approx(expected_level(4, 0.25))
        with pytest.raises(ScenarioError, match=r"a scan of 0\.7 s is no multiple"):
            plant.advance(U, 0.7)


def test_a_description_against_the_schema_is_told(tank_3: Path, tmp_path: Path) -> None:
    misplaced = described(
        tank_3, tmp_path / "p.fmu", "<LogCat", '<DefaultExperiment stepSize="0.25"/><LogCat'
    )
    with pytest.raises(ScenarioError, match="is wrong: Failed to validate"):
        fmu_plant(misplaced)


@pytest.mark.parametrize(
    ("fmi", "trouble", "words"),
    [
        (
            2,
            2,
            r"crashed \(SIGSEGV\) when asked to go on .*; it last said: about to fall over",
        ),
        (3, 3, r"cannot step 1 s from 0 s of its time.*out of paper"),
        (3, 4, "no finite number at 1 s of its time: level = nan"),
        (3, 5, r"crashed \(exit code 7\)"),
    ],
    ids=["segfault", "exception", "nan", "exit"],
)
def test_a_failing_model_is_told_and_never_kills_the_harness(
    tanks: Mapping[int, Path], fmi: int, trouble: int, words: str
) -> None:
    tank_file = tanks[fmi]
    plant = fmu_plant(tank_file)
    plant.reset(1)
    plant.set_parameter("trouble", trouble)
    with pytest.raises(PlantError, match=words) as caught:
        plant.advance(U, 1.0)
    assert str(tank_file) in str(caught.value)
    with pytest.raises(PlantError):  # and it stays ended: no half-dead plant goes on
        plant.advance(U, 1.0)
    if trouble == 5:
        assert plant.reset(1)[0] == 1.0  # until it starts anew
    plant.close()


def test_a_hanging_model_is_stopped_at_its_deadline(tank_3: Path) -> None:
    plant = fmu_plant(tank_3)
    plant.reset(1)
    plant.set_parameter("trouble", 1)
    plant._process._timeout_s = 0.3  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(PlantError, match=r"took longer than 0\.3 s to go on for 1 s"):
        plant.advance(U, 1.0)
    plant.close()


def test_a_process_whose_harness_was_killed_ends_by_itself(
    tank_3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline also stands in the FMU's own process: nobody else may be left to enforce it."""
    monkeypatch.setattr(process, "BOOT_S", 0.0)
    monkeypatch.setattr(process.FmuProcess, "_hear", _patient)
    plant = fmu_plant(tank_3, timeout_s=0.1)
    plant.reset(1)
    plant.set_parameter("trouble", 1)
    with pytest.raises(PlantError, match="SIGALRM"):
        plant.advance(U, 1.0)


KILLED = """
import os, signal, sys
from hil.fmu.plant import fmu_plant
plant = fmu_plant(sys.argv[1])
plant.reset(1)
print(plant._folder.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_idle_process_clears_away_when_its_harness_was_killed(
    tank_3: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tank_3)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = done.stdout.strip()
    assert Path(folder).parent == tmp_path / "temporary"
    for _ in range(500):
        if not Path(folder).exists():
            break
        time.sleep(0.02)
    assert not Path(folder).exists()


_hear = process.FmuProcess._hear  # pyright: ignore[reportPrivateUsage]


def _patient(self: process.FmuProcess, wanted: type, timeout_s: float, doing: str) -> object:
    return _hear(self, wanted, 30.0, doing)


def test_events_early_returns_and_tunable_parameters_of_fmi_3(events: Path) -> None:
    with fmu_plant(events) as plant:
        assert plant.reset(1) == pytest.approx([0.0, 0.0])
        # Events at 1, 2 and 3 s, wherever the scans end.
        assert plant.advance(plant_inputs(plant), 2.5) == pytest.approx([2.0, 2.5])
        plant.set_parameter("gain", 10.0)  # in event mode, which is an event
        before = plant.advance(plant_inputs(plant), 0.25)
        assert plant.advance(plant_inputs(plant), 0.5) == pytest.approx([before[0] + 10.0, 3.25])


def plant_inputs(plant: FmuPlant) -> np.ndarray:
    return np.array([v.nominal for v in plant.inputs])


@pytest.mark.parametrize(
    ("start", "words"),
    [
        ({"ends": 1.0}, "ends the simulation at 1 s"),
        ({"gain": 13.0}, "came back 10000 times within one step"),
        ({"gain": 99.0}, "does not settle in 100 rounds"),
    ],
    ids=["terminate", "no progress", "event storm"],
)
def test_an_fmu_that_does_not_get_on(events: Path, start: dict[str, float], words: str) -> None:
    plant = fmu_plant(events, start=start)
    with pytest.raises(PlantError, match=words):
        run(plant)


def run(plant: FmuPlant) -> None:
    plant.reset(1)
    plant.advance(plant_inputs(plant), 2.0)


def test_a_wrong_token_is_told_before_the_run(tmp_path: Path) -> None:
    plant = fmu_plant(counter(tmp_path, token="another-one"))
    with pytest.raises(PlantError, match="GUID or instantiation token"):
        plant.reset(1)


def test_units_and_limits_come_from_the_description_and_are_converted(events: Path) -> None:
    with fmu_plant(events, inputs={"rate": {"unit": "degC", "high": 90}}, outputs=["count"]) as it:
        (rate,) = it.inputs
        assert (rate.unit, rate.high) == ("degC", 90.0)
        assert rate.low == pytest.approx(200 - 273.15)  # from the declared type, in K there
        assert rate.nominal == pytest.approx(300 - 273.15)
        assert it.outputs[0].description == "events so far, weighted"
    with fmu_plant(events, inputs={"rate": {"unit": "degC"}}, outputs=["rate", "own_time"]) as it:
        it.reset(1)
        y = it.advance(np.array([20.0]), 0.5)
        assert y[0] == pytest.approx(293.15)  # what the FMU was given, in its own unit


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed_parameter": "chance"}, "no variable chance"),
        ({"step_s": 0.0}, "step_s is 0.0 s"),
        ({"timeout_s": -1.0}, "timeout_s is -1.0 s"),
        ({"path": "missing.fmu"}, "No such file"),
        ({"volume": 3.0}, "no variable volume"),
    ],
)
def test_arguments_that_do_not_fit_name_the_file(
    tank_3: Path, arguments: dict[str, object], words: str
) -> None:
    with pytest.raises(ScenarioError, match=words) as caught:
        fmu_plant(**{"path": tank_3.name, "folder": tank_3.parent, **arguments})  # type: ignore[arg-type]
    assert str(tank_3.parent) in caught.value.where


def test_arrays_and_foreign_units_are_refused_when_named(events: Path) -> None:
    with pytest.raises(ScenarioError, match="profile is an array input"):
        fmu_plant(events, inputs=["profile"])
    with pytest.raises(ScenarioError, match=r"rate: .*kg"):
        fmu_plant(events, inputs={"rate": {"unit": "kg"}})


def test_without_fmpy_the_remedy_is_told(tank_3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find_spec", lambda _: None)
    with pytest.raises(ScenarioError, match=r"pip install 'loopwright\[fmu\]'"):
        fmu_plant(tank_3)


def test_a_dropped_plant_takes_its_process_along(tank_3: Path) -> None:
    plant = fmu_plant(tank_3)
    number = plant._process._process.pid  # pyright: ignore[reportPrivateUsage]
    os.kill(number, 0)
    del plant
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
