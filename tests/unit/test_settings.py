"""A settings file becomes an application: names checked, numbers in the units of the model."""

# ruff: noqa: E501  (the file under test has one tag a line)

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from controller.errors import ModelError, SettingsError
from controller.settings import (
    Disturbance,
    GuardSettings,
    ModbusRtuDevice,
    ModbusTcpDevice,
    S7Device,
    Settings,
    changed,
    load,
    parse,
    plant_reference,
)
from controller.settings.devices import in_unit
from controller.settings.plant_reference import GROUP
from controller.signal import Tag

EXAMPLE = Path(__file__).parents[2] / "config" / "williams_otto" / "williams-otto.yaml"

PLANT = """
import casadi as ca
from plant_models.process import ProcessModel
from plant_models.variable import Variable


def heated_tank(sensors: int = 1, integrating: bool = False) -> ProcessModel:
    x, u, d, p = (ca.SX.sym(n, k) for n, k in (("x", 3), ("u", 2), ("d", 1), ("p", 2)))
    dx = ca.vertcat((u[1] - x[0]) / p[0], (u[0] - x[1]) / 5, (p[1] * d[0] - x[2]) / p[0])
    f = ca.Function("f", [x, u, d, p], [dx * (0 if integrating else 1) + int(integrating)])
    h = ca.Function("h", [x, u, d, p], [x])
    temperature = Variable("T", "degC", 0, 150, 60)
    flow = Variable("F", "kg/s", 0, 10, 2)
    salt = Variable("w", "1", 0, 1, 0.3)
    return ProcessModel(
        "heated tank",
        x=(temperature, flow, salt),
        u=(Variable("F_sp", "kg/s", 0, 10, 2), Variable("T_sp", "degC", 0, 150, 60)),
        d=(Variable("F_in", "kg/s", 0, 5, 1),),
        y=(temperature, flow, salt),
        p=(Variable("lag", "s", 1, 600, 60), Variable("k", "1", 0, 1, 0.3)),
        f=f,
        h=h,
    )


def number() -> float:
    return 3.0


def broken() -> ProcessModel:
    raise RuntimeError("no licence")


def odd_unit() -> ProcessModel:
    model = heated_tank()
    from dataclasses import replace
    return replace(model, p=(Variable("lag", "furlongs", 1, 600, 60), model.p[1]))
""".replace("furlongs", "wibble")

BASE = """\
loopwright: 1
name: tank
cycle: 10 s
devices:
  plc:
    driver: s7
    host: plc.example
    timeout: 300 ms
    handshake: {heartbeat: HB, sequence: SEQ, heartbeat_echo: HBE}
  skid: {driver: modbus, host: 10.0.0.2, unit: 7, timeout: 0.5 s, forbidden: [[106, 119]]}
tags:
  HB: {device: plc, address: "DB1.DBW0:UINT", access: write}
  SEQ: {device: plc, address: "DB1.DBW2:UINT", access: write}
  T.REQ: {device: plc, address: "DB1.DBW4:UINT", access: write}
  T.SP: {device: plc, address: "DB1.DBD6:REAL", access: write, unit: K, range: [293.15, 393.15], write_tolerance: 0.01 K}
  F.REQ: {device: plc, address: "DB1.DBW10:UINT", access: write}
  F.SP: {device: plc, address: "DB1.DBD12:REAL", access: write, unit: kg/s, range: [0, 8]}
  HBE: {device: plc, address: "DB1.DBW20:UINT"}
  T.MODE: {device: plc, address: "DB1.DBW22:UINT"}
  T.SAT: {device: plc, address: "DB1.DBW24:UINT"}
  T.SPU: {device: plc, address: "DB1.DBD26:REAL", unit: degC, range: [0, 150]}
  T.PV: {device: plc, address: "DB1.DBD30:REAL", unit: K, range: [0 degC, 150 degC], rate_max: 2 K/s, stale_after: 30 s}
  F.MODE: {device: plc, address: "DB1.DBW34:UINT"}
  F.SAT: {device: plc, address: "DB1.DBW36:UINT"}
  F.SPU: {device: plc, address: "DB1.DBD38:REAL", unit: kg/s}
  F.PV: {device: skid, address: "holding:1:float32", byte_order: CDAB, unit: kg/h, scale: 0.1}
  FIN.PV: {device: skid, address: "holding:3:float32", unit: kg/s}
model: {plant: "plant.py:heated_tank", parameters: {lag: 1 min}}
measured:
  - {output: T, tag: T.PV, sigma: 0.2 K}
  - {output: F, tag: F.PV, sigma: 36 kg/h, critical: false}
feedforward:
  - {input: F_in, tag: FIN.PV}
manipulated:
  - {name: TC, input: T_sp, setpoint: T.SP, request: T.REQ, in_use: T.SPU, mode: T.MODE, saturation: T.SAT,
     range: [30 degC, 110 degC], rate: 0.6 K/min, target: 333.15 K}
  - {name: FC, input: F_sp, setpoint: F.SP, request: F.REQ, in_use: F.SPU, mode: F.MODE, saturation: F.SAT,
     range: [1, 8], rate: 0.12 kg/s/min}
controlled:
  - {output: T, measured_by: T.PV, setpoint: 60 degC, weight: 10}
  - {output: w, measured_by: assay, zone: [5 %, 0.4]}
quality:
  assay: {kind: lab, measures: {w: 1 %}, delay_max: 2 h}
estimator:
  states: {T: 0.6 K/hour**0.5}
  disturbances:
    - {on: w, kind: output, walk: 0.01 1/hour**0.5}
    - {on: T_sp, kind: input, walk: 1 K/hour**0.5}
mpc: {step: 20 s, horizon: 30, iterations: [30, 80]}
optimizer:
  maximise: "F * (1 - w) - 0.1 * T ** 2 + k * F_in - FC"
  unit: EUR/h
  quality: assay
  sigma: 0.5
  backoff: {w: 1 %}
  trust_region: {FC: 0.3 kg/s, TC: 3 K}
  probe: {FC: 0.2 kg/s, TC: 2 degC}
  settle: 25 min
guard: {hold_cycles: 5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plant.py").write_text(PLANT)
    return tmp_path


@pytest.fixture
def tank(folder: Path) -> Settings:
    (folder / "tank.yaml").write_text(BASE)
    return load(folder / "tank.yaml")


def test_devices_with_their_defaults(tank: Settings) -> None:
    plc, skid = tank.devices["plc"], tank.devices["skid"]
    assert isinstance(plc, S7Device)
    assert (plc.host, plc.port, plc.rack, plc.slot, plc.timeout_s) == (
        "plc.example",
        102,
        0,
        1,
        0.3,
    )
    assert plc.connection_type == "PG"
    assert plc.handshake is not None
    assert (plc.handshake.heartbeat, plc.handshake.epoch) == ("HB", None)
    assert isinstance(skid, ModbusTcpDevice)
    assert (skid.port, skid.unit, skid.timeout_s, skid.max_gap) == (502, 7, 0.5, 10)
    assert skid.forbidden == ((106, 119),)


def test_modbus_on_a_serial_line(folder: Path) -> None:
    line = "{driver: modbus-rtu, port: /dev/ttyUSB0, baudrate: 9600, parity: N, unit: 3}"
    start = BASE.index("{driver: modbus,")
    text = BASE[:start] + line + BASE[BASE.index("\n", start) :]
    skid = parse(text, folder / "tank.yaml").devices["skid"]
    assert skid == ModbusRtuDevice("skid", "/dev/ttyUSB0", 9600, "N", 3, 0.5)


def test_numbers_are_in_the_units_of_the_model(tank: Settings) -> None:
    assert tank.cycle_s == 10.0
    assert tank.measured[0].sigma == 0.2
    assert tank.measured[1].sigma == pytest.approx(0.01)
    assert [m.critical for m in tank.measured] == [True, False]
    tc, fc = tank.manipulated
    assert (tc.low, tc.high, tc.target) == (30.0, 110.0, pytest.approx(60.0))
    assert tc.rate_per_s == pytest.approx(0.01)
    assert fc.rate_per_s == pytest.approx(0.002)
    assert fc.target is None
    temperature, salt = tank.controlled
    assert (temperature.setpoint, temperature.low) == (60.0, float("-inf"))
    assert (salt.low, salt.high, salt.setpoint) == (0.05, 0.4, None)
    assert tank.quality["assay"].sigma == {"w": 0.01}
    assert tank.quality["assay"].delay_max_s == 7200.0
    assert tank.estimator.states["T"] == pytest.approx(0.6)
    assert tank.estimator.disturbances == (
        Disturbance("w", "output", 0.01),
        Disturbance("T_sp", "input", 1.0),
    )
    assert tank.optimizer is not None
    assert tank.optimizer.trust_region == {"FC": 0.3, "TC": 3.0}
    assert tank.optimizer.probe["TC"] == 2.0
    assert (tank.optimizer.settle_s, tank.optimizer.points) == (1500.0, 25)
    assert (tank.mpc.step_s, tank.mpc.horizon, tank.mpc.iterations) == (20.0, 30, (30, 80))
    assert tank.guard == GuardSettings(hold_cycles=5)


def test_a_bound_tag_is_scaled_to_the_unit_of_its_variable(tank: Settings) -> None:
    pv = tank.tags["T.PV"]
    assert (pv.unit, pv.scale, pv.offset) == ("degC", 1.0, -273.15)
    assert (pv.low, pv.high) == (pytest.approx(0.0), pytest.approx(150.0))
    assert (pv.rate_max_per_s, pv.stale_after_s) == (2.0, 30.0)
    flow = tank.tags["F.PV"]
    assert flow.unit == "kg/s"
    assert flow.scale == pytest.approx(0.1 / 3600)
    setpoint = tank.tags["T.SP"]
    assert (setpoint.low, setpoint.high) == (pytest.approx(20.0), pytest.approx(120.0))
    assert setpoint.write_tolerance == pytest.approx(0.01)


def test_a_tag_already_in_its_unit_keeps_every_bit() -> None:
    tag = Tag("a", "d", "x", "", scale=0.1, offset=0.3, unit="degC", low=1 / 3, high=2 / 3)
    assert in_unit(tag, "degC") == tag


def test_an_address_is_kept_as_written_and_has_no_type_yet(tank: Settings) -> None:
    assert tank.tags["T.PV"].address == "DB1.DBD30:REAL"
    assert {tag.type for tag in tank.tags.values()} == {""}


def test_parameters_reach_the_model(tank: Settings, folder: Path) -> None:
    assert tank.model.p_nominal[0] == 60.0
    text = BASE.replace("{lag: 1 min}", "{lag: 2 min, sensors: 2}")
    assert parse(text, folder / "tank.yaml").model.p_nominal[0] == 120.0


def test_optional_sections_may_be_left_out(folder: Path) -> None:
    text = BASE.replace("  - {output: w, measured_by: assay, zone: [5 %, 0.4]}\n", "")
    for section, following in (
        ("quality", "estimator"),
        ("estimator", "mpc"),
        ("optimizer", "guard"),
        ("feedforward", "manipulated"),
    ):
        text = text[: text.index(f"\n{section}:")] + text[text.index(f"\n{following}:") :]
    text = text[: text.index("guard:")]
    settings = parse(text, folder / "tank.yaml")
    assert settings.optimizer is None
    assert (settings.feedforward, dict(settings.quality)) == ((), {})
    assert settings.guard == GuardSettings()
    # One output disturbance on all that is measured or controlled, 1 % of its range per √hour.
    assert settings.estimator.disturbances == (
        Disturbance("T", "output", 1.5),
        Disturbance("F", "output", 0.1),
    )


def test_data_is_kept_beside_the_file(tank: Settings, folder: Path) -> None:
    assert tank.data_dir == folder / "data" / "tank"
    assert changed(tank, {"data_dir": "/var/lib/tank"}).data_dir == Path("/var/lib/tank")


def test_where_gives_line_and_column(tank: Settings) -> None:
    assert BASE.splitlines()[21].startswith('  T.PV: {device: plc, address: "DB1')
    assert tank.where("tags.T.PV.address") == f"{tank.path}:22:32"
    assert tank.where("tags.T.PV") == f"{tank.path}:22:3"
    assert tank.where("tags.T.PV.frozen_after") == f"{tank.path}:22:3"
    assert BASE.splitlines()[30].startswith("  - {output: F, tag: F.PV, sigma: 36 kg/h")
    assert tank.where("measured[1].sigma") == f"{tank.path}:31:35"
    assert tank.where("measured[1]") == f"{tank.path}:31:5"
    assert tank.where("devices.plc.host") == f"{tank.path}:7:11"


def test_overrides(tank: Settings) -> None:
    new = changed(
        tank,
        {
            "guard.hold_cycles": 3,
            "guard.ready_cycles": 2,
            "devices.plc.port": 10102,
            "tags.T.PV.stale_after": "1 min",
            "manipulated.TC.rate": "1.2 K/min",
            "manipulated[1].rate": 0.5,
            "measured.F.critical": True,
            "model.parameters.k": 0.2,
        },
    )
    assert (new.guard.hold_cycles, new.guard.ready_cycles) == (3, 2)
    assert new.devices["plc"].port == 10102
    assert new.tags["T.PV"].stale_after_s == 60.0
    assert [m.rate_per_s for m in new.manipulated] == [pytest.approx(0.02), 0.5]
    assert new.measured[1].critical
    assert new.model.p_nominal[1] == 0.2
    assert tank.guard.hold_cycles == 5
    assert new.text == tank.text


def test_later_overrides_keep_the_earlier_ones(tank: Settings) -> None:
    new = changed(changed(tank, {"guard.hold_cycles": 3}), {"guard.ready_cycles": 2})
    assert (new.guard.hold_cycles, new.guard.ready_cycles) == (3, 2)
    assert dict(new.overrides) == {"guard.hold_cycles": 3, "guard.ready_cycles": 2}


def test_an_override_does_not_read_the_file_again(tank: Settings) -> None:
    tank.path.unlink()
    assert changed(tank, {"guard.hold_cycles": 3}).guard.hold_cycles == 3


def test_an_override_may_open_a_section_left_out(folder: Path) -> None:
    text = BASE[: BASE.index("guard:")]
    assert parse(text, folder / "t.yaml", {"guard.rearm": "auto"}).guard.rearm == "auto"


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("guard.hold_cycle", "Did you mean hold_cycles?"),
        ("gard.hold_cycles", "Did you mean guard?"),
        ("devices.plk.port", "Did you mean plc?"),
        ("tags.T.PW.stale_after", "Did you mean T.PV?"),
        ("manipulated.TX.rate", "Did you mean TC?"),
        ("manipulated[7].rate", "Known: TC, FC"),
        ("cycle.length", "None is defined"),
        ("tags.NEW", "Known: HB, SEQ"),
        ("", "Known: loopwright"),
    ],
)
def test_an_override_that_names_nothing(tank: Settings, override: str, mend: str) -> None:
    with pytest.raises(SettingsError, match="this override names nothing") as caught:
        changed(tank, {override: 3})
    assert caught.value.mend.startswith(mend)
    assert f"override {override}" in caught.value.where or "override guard" in caught.value.where


def test_a_wrong_override_is_told_as_an_override(tank: Settings) -> None:
    with pytest.raises(SettingsError) as caught:
        changed(tank, {"devices.plc.port": 70000, "cycle": "3 kg"})
    assert [p.where.removeprefix(f"{tank.path} ") for p in caught.value.problems] == [
        "override devices.plc.port"
    ]
    with pytest.raises(SettingsError, match="the value is in kg") as caught:
        changed(tank, {"cycle": "3 kg"})
    assert caught.value.where == f"{tank.path} override cycle"


def test_a_plant_by_the_name_of_its_entry_point(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("otto", "plant_models.williams_otto:two_reaction_model", GROUP)
    monkeypatch.setattr(plant_reference, "entry_points", lambda group: {GROUP: [point]}[group])
    assert plant_reference.find_factory("otto", folder)().name.startswith("Williams")  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="no plant called ota") as caught:
        plant_reference.find_factory("ota", folder)
    assert "(installed: otto)" in caught.value.mend


def test_the_application_prints_its_size(tank: Settings) -> None:
    assert str(tank).startswith("tank: 2 devices, 16 tags, 2 MVs, 2 CVs, every 10 s; heated tank")


def test_the_example_application() -> None:
    settings = load(EXAMPLE)
    assert settings.name == "williams-otto"
    assert [m.name for m in settings.manipulated] == ["F_B", "T_R"]
    assert settings.manipulated[1].rate_per_s == pytest.approx(0.5 / 60)
    assert settings.tags["TR.PV"].unit == "degC"
    assert settings.optimizer is not None
    assert settings.optimizer.backoff == {"xA": 5e-4, "xG": 5e-4}
