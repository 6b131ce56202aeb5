"""The coverage matrix: every cycle is counted where it belongs, and gaps are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from hil.faults.kinds import KINDS, Fault
from hil.history import History
from hil.report.coverage_matrix import (
    FAULT_TYPES,
    Covered,
    count_cycles,
    coverage,
    coverage_html,
    coverage_table,
    covered,
)
from hil.scenario import load_scenario
from tests.unit.html_page import HtmlPage

SCENARIO = Path(__file__).parents[2] / "config/scenarios/cstr-setpoint.yaml"


def history() -> History:
    """Five cycles, ten seconds apart, with a sensor that was frozen in two of them."""
    found = History()
    faults = ["", "freeze T.PV", "freeze T.PV", "", ""]
    for i, mode in enumerate(["ACTIVE", "ACTIVE", "ACTIVE", "SHED", "SHED"]):
        found.append({"time_s": 10.0 * (i + 1)}, {"mode": mode, "faults": faults[i]})
    return found


def small() -> Covered:
    faults = ["", "freeze T.PV", "freeze T.PV; nan rti", "nan T.PV", "nan T.PV; nan cB.PV", ""]
    modes = ["INIT", "ACTIVE", "ACTIVE", "ACTIVE", "SHED", "SHED"]
    return count_cycles("tank", faults, modes)


def test_each_fault_counts_in_the_mode_of_its_cycle() -> None:
    assert small().plant == "tank"
    assert small().cycles == {
        ("none", "INIT"): 1,
        ("freeze", "ACTIVE"): 2,
        ("solver nan", "ACTIVE"): 1,
        ("nan", "ACTIVE"): 1,
        ("nan", "SHED"): 1,  # two signals at once are one cycle
        ("none", "SHED"): 1,
    }


def test_runs_add_up_over_plants() -> None:
    total = coverage([small(), small(), count_cycles("column", ["delay feed"], ["ACTIVE"])])
    assert total.runs == 3
    assert total.plants == ("tank", "column")
    assert total.count("tank", "freeze", "ACTIVE") == 4
    assert total.count("column", "freeze", "ACTIVE") == 0
    assert str(total) == (f"4 of {len(FAULT_TYPES) - 1} fault types tried, in 3 runs on 2 plants")


def test_what_was_never_tried_is_named() -> None:
    missing = coverage([small()]).missing
    assert "freeze" not in missing
    assert {"bias", "cable_cut", "solver slow"} <= set(missing)
    assert set(KINDS) < set(FAULT_TYPES)


def test_a_type_that_nobody_knows_is_shown_all_the_same() -> None:
    found = coverage([count_cycles("tank", ["earthquake site"], ["ACTIVE"])])
    assert found.faults[-1] == "earthquake"
    assert "earthquake" in coverage_html(found)


def test_faults_and_modes_must_belong_to_the_same_cycles() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        count_cycles("tank", ["", ""], ["ACTIVE"])


def test_html_has_a_row_per_fault_and_a_column_per_plant_and_mode() -> None:
    other = count_cycles("<column> & co", ["delay feed"], ["ACTIVE"])
    read = HtmlPage(coverage_html(coverage([small(), other])))
    rows = {row[0]: row[1:] for row in read.rows}
    assert rows["Fault in force"] == ["tank", "<column> & co"]
    assert rows["freeze"] == ["–", "–", "–", "–", "2", "–", *["–"] * 6]
    assert rows["delay"] == [*["–"] * 6, "–", "–", "–", "–", "1", "–"]
    assert rows["bias (never)"] == ["–"] * 12
    assert len(read.rows) == 2 + len(FAULT_TYPES)


def test_the_terminal_shows_what_was_tried_and_names_the_rest() -> None:
    console = Console(width=120)
    with console.capture() as caught:
        console.print(coverage_table(coverage([small()])))
    text = caught.get()
    assert "freeze" in text
    assert "never tried: bias" in " ".join(text.split())


@pytest.mark.parametrize(
    ("reference", "plant"),
    [
        ("plant_models.van_de_vusse:actuated_plant", "van_de_vusse"),
        ("../models/tank.py:make", "tank"),
        ("registered-name", "registered-name"),
    ],
)
def test_a_plant_has_a_name_that_people_know(reference: str, plant: str) -> None:
    scenario = replace(load_scenario(SCENARIO), plant_ref=reference)
    assert covered(scenario, history()).plant == plant


def test_a_fault_between_two_cycles_counts_for_the_next_one() -> None:
    faults = (
        Fault(20.0, 40.0, "T.PV", "freeze"),  # in the history already
        Fault(31.0, 31.0, "feed", "reset"),
        Fault(32.0, 38.0, "feed", "delay"),
        Fault(51.0, 51.0, "feed", "kill"),  # after the last cycle: nobody felt it
    )
    scenario = replace(load_scenario(SCENARIO), faults=faults)
    assert covered(scenario, history()).cycles == {
        ("none", "ACTIVE"): 1,
        ("freeze", "ACTIVE"): 2,
        ("reset", "SHED"): 1,
        ("delay", "SHED"): 1,
        ("none", "SHED"): 1,
    }


def test_json_nests_by_plant_fault_and_mode() -> None:
    answer = coverage([small()]).plain()
    assert answer["cycles"]["tank"]["nan"] == {"ACTIVE": 1, "SHED": 1}
    assert answer["runs"] == 1
    assert "bias" in answer["never_tried"]
    assert "none" not in coverage([]).plain()["never_tried"]
