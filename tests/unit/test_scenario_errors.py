"""Mistakes in a scenario file are told at file:line:column when it is loaded, with the way out."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from controller.errors import LoopwrightError
from hil.faults.kinds import Lane
from hil.faults.markdown import LANES
from hil.runner import run_scenario
from hil.scenario import load_scenario, variants
from hil.suite.jobs import Asked, suite_of

CONFIG = Path(__file__).parents[2] / "config"
TEXT = """\
scenario: 1
id: typed
title: Typed by a person
application: APPLICATION
overrides: {guard.rearm: auto}
tier: virtual
duration: 2 h
plant: {ref: plant_models.van_de_vusse:actuated_plant, mismatch: {k10: 0.97}, x0: {}}
plc:
  scan: 1 s
  loops:
    F: {measures: F, drives: F_demand, pv: F.PV, output: F.OUT, gain: 0.5, reset: 6 s, output_range: [0, 40], setpoint_range: [5 1/h, 35 1/h], setpoint_rate: 20 1/h/min, start: 14.19 1/h}
    Q: {measures: Q, drives: Q_demand, pv: Q.PV, output: Q.OUT, gain: 0.5, reset: 15 s, output_range: [-9000, 0], setpoint_range: [-9000 kJ/h, 0 kJ/h], setpoint_rate: 6000 kJ/h/min, start: -1113.5 kJ/h}
  indicators: {T.PV: T, TK.PV: TK, CB.PV: cB}
profiles:
  - {input: cA0, at: 10 min, to: 5.2}
commands:
  - {at: 0 s, kind: mode, text: auto}
  - {at: 5 min, kind: setpoint, target: cB, value: 1.0}
faults:
  - {at: 5 min, until: 6 min, target: T.PV, type: bias, args: {size: 3}}
solver_faults:
  - {at: 5 min, until: 6 min, solver: sqp, kind: cap}
assertions:
  - {bound: y.T, low: 90, high: 140, from: 20 min}
  - {temporal: "always(y.T < 140)"}
mode_trace: [INIT, READY, ...]
"""  # noqa: E501


def written(folder: Path, old: str = "", new: str = "") -> Path:
    """The scenario with a mistake in it; `old` is a text that stands there once."""
    assert not old or TEXT.count(old) == 1, old
    path = folder / "typed.yaml"
    text = TEXT.replace(old, new) if old else TEXT
    path.write_text(text.replace("APPLICATION", str(CONFIG / "cstr" / "cstr.yaml")), "utf-8")
    return path


def test_the_scenario_itself_is_sound(tmp_path: Path) -> None:
    assert load_scenario(written(tmp_path)).faults[0].args == {"size": 3.0}


WORDS = ("setpoint F 99", "setpoint F 98")
COMMANDS = [
    ("target: cB, ", "target: cBx, ", "setpoint knows no variable cBx.*mean cB"),
    ("target: cB, value: 1.0", "target: cB", "setpoint needs a value"),
    ("target: cB, ", "", "setpoint needs a target"),
    ("target: cB, value: 1.0", "target: T, value: 110", "zone, not a setpoint.*limit_low"),
    ("value: 1.0", "value: 1.0 K", "converts to mol/l"),
    ("text: auto", "text: atuo", "there is no mode 'atuo'.*mean auto"),
    ("text: auto", "target: auto", "mode has no target.*takes text"),
    ("kind: mode, text: auto", "kind: optimizer, text: off", "no optimizer 'off'.*hold"),
    ("kind: mode, text: auto", "kind: forecast, target: cA", "knows no variable cA"),
    ("kind: mode", "kind: mod", "mean mode"),
]
PLANT = [
    ("measures: F,", "measures: FF,", "plant output called 'FF'"),
    ("drives: Q_demand", "drives: Q_deman", "plant input called 'Q_deman'.*Q_demand"),
    ("TK.PV: TK", "TK.PV: TKK", "plant output called 'TKK'"),
    ("x0: {}", "x0: {cC: 1}", "state of the plant called 'cC'"),
    ("{k10: 0.97}", "{k11: 0.97}", "parameter of the plant called 'k11'.*k10"),
    ("van_de_vusse:actuated_plant", "van_de_vuse:actuated_plant", "cannot import"),
    ("van_de_vusse:actuated_plant", "van_de_vusse:actuated", "has no factory actuated"),
    ("actuated_plant,", "actuated_plant, arguments: {k99: 1},", "k99"),
    ("input: cA0", "input: cA9", "plant input called 'cA9'.*cA0"),
    ("input: cA0", "input: F_demand", "driven by the PLC"),
    (
        "target: T.PV, type: bias, args: {size: 3}",
        "target: k9, type: parameter_drift, args: {factor: 2}",
        "no parameter k9",
    ),
    ("guard.rearm", "guard.rearmm", "rearm"),
    ("guard.rearm: auto", "guard.rearm: later", "later"),
    ("APPLICATION", "cstr2.yaml", "there is no application .*cstr2.yaml"),
]
JUDGED = [
    ("always(y.T < 140)", "always(y.Z < 140)", "column 8 .*no signal y.Z"),
    ("always(y.T < 140)", "always(mode == ACTVE)", "mode never says 'ACTVE'.*ACTIVE"),
    ("always(y.T < 140)", "always(y.T < )", "column 14"),
    ("bound: y.T", "bound: y.TT", "no signal y.TT"),
    ("low: 90, high: 140", "low: 130, high: 100", "nothing lies from 130 up to 100"),
    ("from: 20 min", "from: 3 h", "at 10800 s nothing can happen"),
    ("from: 20 min", "from: 20 min, until: 10 min", "ends at 600 s"),
    ("INIT, READY", "INIT, RAEDY", "mean READY"),
    ("mode_trace", "golden: {file: a.json, signals: {Z: {}}}\nmode_trace", "no signal Z"),
    ("mode_trace", "golden: {file: a.json, kpis: {iea.cB: {}}}\nmode_trace", "no KPI iea"),
    ("duration: 2 h", "duration: -2 h", "no scenario lasts -7200 s"),
    ("duration: 2 h", "duration: 1e12 h", "no more than 2000000 are kept in memory"),
    ("duration: 2 h", "duration: 2 s", "no cycle of 10 s"),
    ("duration: 2 h", "duratoin: 2 h", "unknown key.*mean duration"),
    ("tier: virtual", "tier: virtual\nclock: {speed: 5}", "a speed means nothing there"),
    ("tier: virtual", "tier: virtal", "mean virtual"),
    ("measures: F,", "measurs: F,", "unknown key.*mean measures"),
]
FAULTS = [
    ("type: bias", "kind: bias", "unknown key.*belong to solver_faults"),
    ("kind: cap", "type: cap", "unknown key.*belong to faults"),
    ("kind: cap", "kind: cpa", "mean cap"),
    ("type: bias", "type: infeasible", "fault of a solver.*under solver_faults"),
    ("size: 3", "size: 3 kg", "converts to degC"),
    (
        "target: T.PV, type: bias, args: {size: 3}",
        "target: F, type: stiction, args: {band: 3 %}",
        "band of stiction is a plain number, and this is '3 %'.*loop's output",
    ),
    ("type: bias, args: {size: 3}", "type: out_of_range, args: {value: 99}", "lies inside"),
]


@pytest.mark.parametrize(("old", "new", "told"), [*COMMANDS, *PLANT, *JUDGED, *FAULTS])
def test_a_mistake_is_told_with_its_line_before_anything_runs(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    path = written(tmp_path, old, new)
    lines = path.read_text("utf-8").splitlines()
    line = next(i for i, text in enumerate(lines, 1) if new.splitlines()[-1] in text) if new else 0
    with pytest.raises(LoopwrightError, match=told) as caught:
        variants(path)
    place = re.match(rf"{re.escape(str(path))}:(\d+):(\d+)", caught.value.where)
    assert place, caught.value.where
    if new and "\n" not in new:
        assert int(place[1]) == line


def test_amounts_take_the_units_of_their_tags(tmp_path: Path) -> None:
    def args(fault: str) -> dict[str, float]:
        old = "target: T.PV, type: bias, args: {size: 3}"
        return dict(load_scenario(written(tmp_path, old, fault)).faults[0].args)

    assert args("target: T.PV, type: bias, args: {size: 3 K}") == {"size": 3.0}
    assert args("target: T.PV, type: drift, args: {rate_per_s: 6 K/min}") == {"rate_per_s": 0.1}
    found = args("target: T.PV, type: out_of_range, args: {value: 600 K}")
    assert found["value"] == pytest.approx(326.85)
    assert args("target: feed, type: delay, args: {delay_ms: 0.2 s}") == {"delay_ms": 200.0}
    clamp = "target: F, type: clamp_write, args: {low: 10 1/h, high: 0.5 1/min}"
    assert args(clamp) == {"low": 10.0, "high": pytest.approx(30.0)}


def test_a_value_out_of_range_stays_for_the_controller_to_refuse(tmp_path: Path) -> None:
    scenario = load_scenario(written(tmp_path, "target: cB, value: 1.0", "target: F, value: 99"))
    assert scenario.commands[1].value == 99.0


def test_a_tier_from_outside_may_leave_the_speed_aside(tmp_path: Path) -> None:
    path = written(tmp_path, "tier: virtual", "tier: realtime\nclock: {speed: 5}")
    forced = load_scenario(path, {"tier": "virtual"})
    assert forced.tier == "virtual"
    path.write_text(forced.text, "utf-8")
    assert load_scenario(path).tier == "virtual"


@pytest.mark.parametrize("lane", [lane for lane in LANES if lane != "quality"])
def test_the_example_of_every_lane_in_the_guide_can_be_run(tmp_path: Path, lane: Lane) -> None:
    example = LANES[lane].example
    old = "{at: 5 min, until: 6 min, target: T.PV, type: bias, args: {size: 3}}"
    (fault,) = load_scenario(written(tmp_path, old, example), {"tier": "wire"}).faults
    assert fault.lane == lane
    assert f"  - {example}\n" in (CONFIG.parent / "docs" / "hil.md").read_text("utf-8")


def test_a_missing_golden_run_is_told_before_the_run(tmp_path: Path) -> None:
    path = written(tmp_path, "mode_trace", "golden: {file: gone.json}\nmode_trace")
    with pytest.raises(
        LoopwrightError, match=r"no golden run .*gone\.json.*--update-golden"
    ) as found:
        suite_of(Asked((path,), tmp_path / "out"), ExitStack())
    assert found.value.where.startswith(f"{path}:27:16")
    assert suite_of(Asked((path,), tmp_path / "out", update_golden=True), ExitStack()).jobs


def test_a_refused_command_can_be_asserted(tmp_path: Path) -> None:
    path = written(tmp_path, "target: cB, value: 1.0", "target: F, value: 99")
    changes = {
        "duration": "30 min",
        "faults": [],
        "solver_faults": [],
        "profiles": [],
        "assertions": [
            {"temporal": f"eventually(refused_commands has '{word}')"} for word in WORDS
        ],
    }
    run = run_scenario(load_scenario(path, changes), tmp_path / "run", check_replay=False)
    told = {check.name: check.outcome for check in run.verdict.checks if "refused_c" in check.name}
    assert [*told.values()] == ["passed", "failed"]
