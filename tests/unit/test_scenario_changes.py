"""Changes and matrices of scenarios: laid over, named, and refused where they lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from controller.errors import LoopwrightError, ScenarioError
from controller.settings.yaml_core import read
from hil.scenario import load_scenario, variants
from hil.scenario.changes import said

SCENARIO = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"


def _written(folder: Path, **changes: object) -> Path:
    data = read(SCENARIO, SCENARIO.read_text(encoding="utf-8")).data
    data["application"] = str(SCENARIO.parents[1] / "cstr" / "cstr.yaml")
    path = folder / "scenario.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}, sort_keys=False), encoding="utf-8")
    return path


def test_changes_reach_scenario_plant_and_application() -> None:
    changes = {
        "seed": 41,
        "plant.mismatch.k10": 1.05,
        "profiles[0].to": 104.0,
        "plc.loops.F.gain": 0.4,
        "overrides.mpc.horizon": 15,
    }
    changed = load_scenario(SCENARIO, changes)
    assert changed.seed == 41
    assert changed.mismatch == {"k10": 1.05}
    assert changed.profiles[0].to == 104.0
    assert next(loop for loop in changed.loops if loop.name == "F").tuning.gain == 0.4
    assert changed.settings.mpc.horizon == 15
    assert changed.changes == changes
    plain = load_scenario(SCENARIO)
    assert (plain.mismatch, plain.profiles[0].to, plain.settings.mpc.horizon) == ({}, 107.0, 20)


def test_the_text_of_a_changed_scenario_is_that_scenario(tmp_path: Path) -> None:
    changed = load_scenario(_written(tmp_path), {"seed": 9, "plant.mismatch.kw": 0.9})
    again = tmp_path / "again.yaml"
    again.write_text(changed.text, encoding="utf-8")
    reloaded = load_scenario(again)
    assert (reloaded.seed, reloaded.mismatch) == (9, {"kw": 0.9})
    assert reloaded.assertions == changed.assertions
    assert reloaded.plant_arguments == changed.plant_arguments


@pytest.mark.parametrize(
    ("path", "said_of_it"),
    [
        ("profiles[7].to", "not an entry of this list of 1"),
        ("seed.deeper", "has nothing inside"),
        ("", "needs a path"),
        ("plant.mismach.k10", "unknown key"),
        ("overrides.mpc.horizn", "names nothing|unknown"),
    ],
)
def test_a_change_that_leads_nowhere_is_refused(path: str, said_of_it: str) -> None:
    with pytest.raises(LoopwrightError, match=said_of_it):
        load_scenario(SCENARIO, {path: 1})


def test_every_combination_of_the_matrix_is_a_variant(tmp_path: Path) -> None:
    path = _written(tmp_path, matrix={"seed": [1, 2], "plant.mismatch.k10": [0.95, 1.05]})
    found = variants(path)
    assert [(s.seed, s.mismatch["k10"]) for s in found] == [
        (1, 0.95),
        (1, 1.05),
        (2, 0.95),
        (2, 1.05),
    ]
    # The seed is no part of the name: runs that differ in it only are repetitions.
    assert [s.name for s in found] == ["cstr-setpoint[k10=0.95]", "cstr-setpoint[k10=1.05]"] * 2
    assert "matrix" not in yaml.safe_load(found[0].text)


def test_a_change_takes_its_path_out_of_the_matrix(tmp_path: Path) -> None:
    path = _written(tmp_path, matrix={"seed": [1, 2], "plant.mismatch.k10": [0.95, 1.05]})
    found = variants(path, {"seed": 7})
    assert [s.seed for s in found] == [7, 7]
    assert len(variants(SCENARIO)) == 1


def test_a_matrix_that_is_a_campaign_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, matrix={"seed": list(range(200)), "plant.x0.T": list(range(100))})
    with pytest.raises(ScenarioError, match="20000 combinations"):
        variants(path)


def test_names_of_variants_are_as_short_as_they_can_be() -> None:
    assert said({"seed": 4, "plant.mismatch.k10": 1.05}) == "seed=4,k10=1.05"
    assert said({"plc.loops.F.gain": 1, "plc.loops.Q.gain": 2}) == "F.gain=1,Q.gain=2"


@pytest.mark.parametrize(
    ("assertion", "said_of_it"),
    [
        ({"kpi": "iae.cB", "bound": "y.T", "high": 1.0}, "about kpi and bound"),
        ({"high": 1.0}, "about none"),
        ({"bound": "y.T"}, "nothing is asserted"),
        ({"temporal": "always[20 min, end](y.T <= )"}, "assertions"),
        ({"kpi": "iae.cB", "high": 1.0, "from": "5 min"}, "no times of its own"),
        ({"bound": "y.T", "high": 1.0, "from": "5 furlongs"}, "from"),
    ],
)
def test_assertions_that_mean_nothing_are_refused(
    tmp_path: Path, assertion: dict[str, object], said_of_it: str
) -> None:
    path = _written(tmp_path, assertions=[assertion])
    with pytest.raises(ScenarioError, match=said_of_it):
        load_scenario(path)


def test_a_mismatch_of_an_unknown_parameter_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"parameter of the plant called 'k11'.*k10"):
        load_scenario(SCENARIO, {"plant.mismatch.k11": 1.1})


def test_what_is_wrong_in_a_matrix_is_told_at_its_line(tmp_path: Path) -> None:
    path = _written(tmp_path, matrix={"seed": [1], "plant.mismatch.k11": [0.95]})
    line = path.read_text(encoding="utf-8").splitlines().index("  plant.mismatch.k11:") + 1
    with pytest.raises(ScenarioError, match=r"called 'k11'") as caught:
        variants(path)
    assert caught.value.where == f"{path}:{line}:3 plant.mismatch.k11"


def test_mismatch_multiplies_the_argument_of_the_scenario() -> None:
    from hil.world import make_plant
    from plant_models.process import Adjustable

    plant = make_plant(load_scenario(SCENARIO, {"plant.mismatch.k10": 1.1}))
    assert isinstance(plant, Adjustable)
    assert plant.parameters["k10"] == pytest.approx(1.1 * 1.22e12, rel=1e-12)
