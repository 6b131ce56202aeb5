"""Numbers in a settings file: wrong units, wrong order, out of range; and models that fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_settings_errors import Mistake, check, file, label

__all__ = ["file"]

MISTAKES = [
    # Units.
    Mistake(
        "sigma: 0.2 K",
        "sigma: 0.2 kg/s",
        "0.2 kg/s",
        "measured[0].sigma",
        "the value is in kg/s, expected a unit that converts to degC",
    ),
    Mistake(
        "rate: 0.6 K/min",
        "rate: 0.6 K",
        "0.6 K",
        "manipulated[0].rate",
        "the value is in K, expected a unit that converts to degC/s",
    ),
    Mistake(
        "cycle: 10 s",
        "cycle: 10 m",
        "10 m",
        "cycle",
        "the value is in m, expected a unit that converts to s",
    ),
    Mistake("cycle: 10 s", "cycle: 10 sx", "10 sx", "cycle", "'sx' is not a unit"),
    Mistake(
        "{w: 1 %}",
        "{w: 1 kg}",
        "1 kg",
        "quality.assay.measures.w",
        "the value is in kg, expected a number without unit",
    ),
    Mistake("unit: kg/h", "unit: kgg/h", "kgg/h", "tags.F.PV.unit", "'kgg/h' is not a unit"),
    Mistake(
        "unit: kg/h",
        "unit: bar",
        "",
        "measured[1].tag",
        "tag F.PV is in bar, but F of the model is in kg/s",
    ),
    Mistake("{lag: 1 min}", "{lag: 1 K}", "1 K", "model.parameters.lag", "the value is in K"),
    Mistake(
        "sigma: 0.2 K",
        "sigma: 0.2 dBm",
        "0.2 dBm",
        "measured[0].sigma",
        "'dBm' is a logarithmic unit",
    ),
    # Numbers.
    Mistake("cycle: 10 s", "cycle: 0 s", "0 s", "cycle", "found 0 s, expected more than zero"),
    Mistake(
        "rate: 0.6 K/min",
        "rate: 0 K/min",
        "0 K/min",
        "manipulated[0].rate",
        "found 0 K/min, expected more than zero",
    ),
    Mistake(
        "stale_after: 30 s",
        "stale_after: -1 s",
        "-1 s",
        "tags.T.PV.stale_after",
        "expected zero or more",
    ),
    Mistake("scale: 0.1", "scale: 0", "0}", "tags.F.PV.scale", "found 0, expected a factor"),
    Mistake(
        "zone: [5 %, 0.4]",
        "zone: [0.4, 0.4]",
        "zone",
        "controlled[1].zone",
        "low 0.4 is not below high 0.4",
    ),
    Mistake(
        "range: [1, 8]",
        "range: [8, 1]",
        "range",
        "manipulated[1].range",
        "low 8 is not below high 1",
    ),
    Mistake(
        "range: [1, 8]",
        "range: [1, 9]",
        "range",
        "manipulated[1].range",
        "the range 1 … 9 kg/s is not inside that of setpoint tag F.SP, 0 … 8 kg/s",
    ),
    Mistake(
        "range: [1, 8]",
        "range: [-1, 8]",
        "range",
        "manipulated[1].range",
        "leaves that of model input F_sp",
    ),
    Mistake(
        "unit: kg/s, range: [0, 8]",
        "unit: kg/s",
        "",
        "manipulated[1].setpoint",
        "setpoint tag F.SP has no range",
    ),
    Mistake(
        "target: 333.15 K",
        "target: 120 degC",
        "120",
        "manipulated[0].target",
        "120 degC is outside the range 30 … 110 degC",
    ),
    Mistake(
        "setpoint: 60 degC",
        "setpoint: 160 degC",
        "160",
        "controlled[0].setpoint",
        "160 degC is outside that of the model",
    ),
    Mistake(
        "setpoint: 60 degC",
        "setpoint: 60 degC, zone: [1, 2]",
        "",
        "controlled[0]",
        "found zone and setpoint, expected one",
    ),
    Mistake(", setpoint: 60 degC", "", "", "controlled[0]", "found neither zone nor setpoint"),
    Mistake(
        "step: 20 s",
        "step: 5 s",
        "5 s",
        "mpc.step",
        "the step of 5 s is shorter than the cycle of 10 s",
    ),
    Mistake(
        "timeout: 0.5 s",
        "timeout: 9.8 s",
        "9.8 s",
        "devices.skid.timeout",
        "the time-outs of all devices add up to more than the cycle",
    ),
    Mistake(
        "host: plc.example", "host: ' '", "' '", "devices.plc.host", "found ' ', expected one name"
    ),
    Mistake(
        "[106, 119]",
        "[119, 106]",
        "[119",
        "devices.skid.forbidden[0]",
        "first 119 is above last 106",
    ),
    Mistake(
        'address: "DB1.DBD30:REAL"',
        'byte_order: DCBA, address: "DB1.DBD30:REAL"',
        "DCBA",
        "tags.T.PV.byte_order",
        "found DCBA, but S7 is always ABCD",
    ),
    Mistake(
        "probe: {FC: 0.2 kg/s",
        "probe: {FC: 0.4 kg/s",
        "0.4",
        "optimizer.probe.FC",
        "a probing step of 0.4 is longer than the trust region of 0.3",
    ),
    Mistake(", TC: 2 degC}", "}", "", "optimizer.probe", "TC has no probing step"),
    # The objective, to the character.
    Mistake("F * (1 - w)", "v * (1 - w)", "v", "optimizer.maximise", "there is no variable v"),
    Mistake(
        "F * (1 - w)",
        "F * (1 - v)",
        "v)",
        "optimizer.maximise",
        "there is no variable v",
        "Known: T, F, w, F_in",
    ),
    Mistake(
        "F * (1 - w)", "F * max(1, w)", "max", "optimizer.maximise", "max(1, w) is not arithmetic"
    ),
    Mistake(
        "F * (1 - w)", "F * 1 w", "", "optimizer.maximise", "this is not an arithmetic expression"
    ),
    # The model.
    Mistake(
        "{lag: 1 min}",
        "{sensors: 2 kg}",
        "2 kg",
        "model.parameters.sensors",
        "sensors is an argument of plant.py:heated_tank, which knows no units",
    ),
    Mistake(
        "heated_tank",
        "heatet_tank",
        '"plant.py',
        "model.plant",
        "plant.py has no factory heatet_tank",
        "It has: ProcessModel",
    ),
    Mistake("plant.py:", "plan.py:", '"plan.py', "model.plant", "there is no file"),
    Mistake(
        "plant.py:heated_tank",
        "no_such_package:x",
        '"no_such',
        "model.plant",
        "cannot import no_such_package: ModuleNotFoundError",
    ),
    Mistake(
        "plant.py:heated_tank",
        "unheard_of",
        '"unheard_of',
        "model.plant",
        "no plant called unheard_of is installed",
    ),
    Mistake(
        'plant.py:heated_tank", parameters: {lag: 1 min}',
        'plant.py:number"',
        '"plant.py',
        "model.plant",
        "plant.py:number returns float, not a ProcessModel",
    ),
    Mistake(
        'plant.py:heated_tank", parameters: {lag: 1 min}',
        'plant.py:broken"',
        '"plant.py',
        "model.plant",
        "plant.py:broken failed: RuntimeError: no licence",
    ),
    Mistake(
        'plant.py:heated_tank", parameters: {lag: 1 min}',
        'plant.py:odd_unit"',
        '"plant.py',
        "model.plant",
        "unit of model variable lag: 'wibble' is not a unit",
    ),
    Mistake(
        "{lag: 1 min}",
        "{integrating: 1}",
        "",
        "model.plant",
        "no steady state at the nominal point",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=label)
def test_a_wrong_number_is_told_where_it_stands(mistake: Mistake, file: Path) -> None:
    check(mistake, file)
