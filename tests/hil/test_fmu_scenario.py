"""A plant of another maker, in an FMU, under the whole controller: the example that is shipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pythonfmu3.builder import FmuBuilder

from controller.app import build_application
from controller.errors import PlantError, ScenarioError
from hil.fmu.plant import FmuPlant
from hil.runner import run_scenario
from hil.scenario import Scenario, load_scenario
from hil.world import make_plant

pytestmark = pytest.mark.peer

EXAMPLE = Path(__file__).parents[2] / "config" / "fmu"


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rig")
    built = FmuBuilder.build_FMU(EXAMPLE / "tclab_rig.py", folder, needsExecutionTool=False)
    assert Path(built).name == "TCLabRig.fmu"
    return folder


def example(folder: Path, **changes: object) -> Scenario:
    paths = {name.replace("__", "."): value for name, value in changes.items()}
    return load_scenario(
        EXAMPLE / "tclab.hil.yaml", {"plant.arguments.folder": str(folder), **paths}
    )


def test_the_shipped_example_holds_its_setpoints(folder: Path, tmp_path: Path) -> None:
    run = run_scenario(example(folder), tmp_path / "run")
    assert [str(check) for check in run.verdict.checks if check.outcome != "passed"] == []
    assert run.verdict.passed
    second = run.history.column("time_s") >= 3000.0
    for name, setpoint in (("y.T1", 52.0), ("y.T2", 38.0)):
        assert np.mean(run.history.column(name)[second]) == pytest.approx(setpoint, abs=0.3)
    readings = run.history.column("y.T1")
    assert np.unique(np.round(np.diff(readings), 4)).size > 3  # it is the rig, noise and all


def test_the_seed_decides_the_noise_in_the_fmu(folder: Path, tmp_path: Path) -> None:
    scenario = example(folder)
    application = build_application(scenario.settings, 1)

    def readings(name: str, seed: int) -> list[float]:
        run = run_scenario(
            scenario,
            tmp_path / name,
            seed=seed,
            duration_s=120.0,
            check_replay=False,
            application=application,
        )
        return list(run.history.column("y.T1"))

    first = readings("a", 1)
    assert readings("b", 1) == first
    assert readings("c", 2) != first


def test_a_mismatch_changes_a_parameter_of_the_fmu(folder: Path) -> None:
    plant = make_plant(example(folder, plant__mismatch__lag=2.0))
    assert isinstance(plant, FmuPlant)
    assert plant.parameters["lag"] == 6.0
    with pytest.raises(ScenarioError, match="parameter of the plant called 'mass'"):
        make_plant(example(folder, plant__mismatch__mass=2.0))


def test_a_missing_fmu_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"TCLabRig\.fmu: the FMU cannot be read") as caught:
        make_plant(example(tmp_path))
    assert caught.value.exit_code == 2


def test_a_plant_that_dies_in_the_middle_ends_the_run_with_its_reason(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a plant proves nothing: it must break, not go on with the last outputs."""
    ask = FmuPlant.advance

    def advance(self: FmuPlant, u: np.ndarray, dt_s: float) -> np.ndarray:
        calls.append(dt_s)
        if len(calls) == 20:
            self._process._process.kill()  # pyright: ignore[reportPrivateUsage]
        return ask(self, u, dt_s)

    calls: list[float] = []
    monkeypatch.setattr(FmuPlant, "advance", advance)
    with pytest.raises(PlantError, match=r"crashed \(SIGKILL\)") as caught:
        run_scenario(example(folder), tmp_path / "run", duration_s=600.0, check_replay=False)
    assert caught.value.exit_code == 3
    assert len(calls) == 20
