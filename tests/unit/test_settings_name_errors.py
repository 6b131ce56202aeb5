"""Names in a settings file: unknown, given twice, or used against their declaration."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_settings_errors import Mistake, check, file, label

__all__ = ["file"]

MISTAKES = [
    # Names.
    Mistake(
        '{device: skid, address: "holding:3',
        '{device: skit, address: "holding:3',
        "skit",
        "tags.FIN.PV.device",
        "there is no device skit",
        "Did you mean skid?",
    ),
    Mistake(
        "tag: T.PV,",
        "tag: T.PX,",
        "T.PX",
        "measured[0].tag",
        "there is no tag T.PX",
        "Did you mean T.PV?",
    ),
    Mistake(
        "{output: F,",
        "{output: G,",
        "G",
        "measured[1].output",
        "there is no model output G",
        "Known: T, F, w",
    ),
    Mistake(
        "{input: F_in",
        "{input: F_im",
        "F_im",
        "feedforward[0].input",
        "there is no model disturbance F_im",
        "Did you mean F_in?",
    ),
    Mistake(
        "input: T_sp,",
        "input: T_sb,",
        "T_sb",
        "manipulated[0].input",
        "there is no model input T_sb",
        "Did you mean T_sp?",
    ),
    Mistake(
        "measured_by: assay",
        "measured_by: asay",
        "asay",
        "controlled[1].measured_by",
        "there is no tag or quality source asay",
        "Did you mean assay?",
    ),
    Mistake(
        "measures: {w: 1 %}",
        "measures: {w: 1 %, v: 2}",
        "v: 2",
        "quality.assay.measures.v",
        "there is no output v",
    ),
    Mistake(
        "states: {T:", "states: {TT:", "TT", "estimator.states.TT", "there is no model state TT"
    ),
    Mistake(
        "{on: w,",
        "{on: W,",
        "W",
        "estimator.disturbances[0].on",
        "there is no model output W",
        "Did you mean w?",
    ),
    Mistake(
        "quality: assay",
        "quality: essay",
        "essay",
        "optimizer.quality",
        "there is no quality source essay",
    ),
    Mistake(
        "{FC: 0.3 kg/s,",
        "{FD: 0.3 kg/s, FC: 1,",
        "FD",
        "optimizer.trust_region.FD",
        "there is no MV FD",
        "Did you mean FC?",
    ),
    Mistake(
        "backoff: {w:",
        "backoff: {F:",
        "F:",
        "optimizer.backoff.F",
        "there is no controlled output F",
    ),
    Mistake(
        "{lag: 1 min}",
        "{log: 1 min}",
        "log",
        "model.parameters.log",
        "there is no model parameter log",
        "Did you mean lag?",
    ),
    Mistake(
        "heartbeat: HB",
        "heartbeat: HD",
        "HD",
        "devices.plc.handshake.heartbeat",
        "there is no tag HD",
        "Did you mean HB?",
    ),
    # Direction and ownership of tags.
    Mistake(
        "in_use: F.SPU",
        "in_use: F.SP",
        "F.SP",
        "manipulated[1].in_use",
        "tag F.SP is read here, but declared access: write",
    ),
    Mistake(
        "setpoint: F.SP",
        "setpoint: F.SPU",
        "F.SPU",
        "manipulated[1].setpoint",
        "tag F.SPU is written here, but declared access: read",
        "Name another tag, or declare it access: write",
    ),
    Mistake(
        "setpoint: F.SP",
        "setpoint: T.SP",
        "T.SP",
        "manipulated[1].setpoint",
        "write tag T.SP is already at manipulated[0].setpoint",
    ),
    Mistake(
        "heartbeat: HB, sequence: SEQ",
        "heartbeat: HB, sequence: HB",
        "",
        "devices.plc.handshake.sequence",
        "write tag HB is already at",
    ),
    Mistake(
        '"DB1.DBD12:REAL',
        '"db1.DBD6 :REAL',
        '"db1',
        "tags.F.SP.address",
        "is written by tag T.SP already",
    ),
    Mistake(
        "heartbeat_echo: HBE",
        "heartbeat_echo: FIN.PV",
        "FIN.PV",
        "devices.plc.handshake.heartbeat_echo",
        "tag FIN.PV is on device skid, but this handshake is with plc",
    ),
    Mistake(
        "    handshake: {heartbeat: HB, sequence: SEQ, heartbeat_echo: HBE}\n",
        "",
        "",
        "manipulated[0].setpoint",
        "device plc has no handshake",
        "Add devices.plc.handshake",
    ),
    Mistake(
        "F.REQ: {device: plc",
        "F.REQ: {device: skid",
        "",
        "manipulated[1].request",
        "tag F.REQ is on device skid, the setpoint on plc",
    ),
    # Twice.
    Mistake(
        "input: F_sp",
        "input: T_sp",
        "T_sp",
        "manipulated[1].input",
        "input T_sp is already at manipulated[0].input",
    ),
    Mistake(
        "{name: FC,",
        "{name: TC,",
        "TC",
        "manipulated[1].name",
        "MV TC is already at manipulated[0].name",
    ),
    Mistake(
        "{output: F,",
        "{output: T,",
        "T,",
        "measured[1].output",
        "output T is already at measured[0].output",
    ),
    Mistake(
        "{output: w, m",
        "{output: T, m",
        "T, m",
        "controlled[1].output",
        "output T is already at controlled[0].output",
    ),
    Mistake(
        "quality:\n  assay:",
        "quality:\n  HBE: {kind: lab, measures: {w: 1 %}, delay_max: 2 h}\n  assay:",
        "HBE",
        "quality.HBE",
        "HBE is the name of a tag already",
    ),
    # Sources of CVs.
    Mistake(
        "measured_by: T.PV",
        "measured_by: FIN.PV",
        "FIN.PV",
        "controlled[0].measured_by",
        "tag FIN.PV is not listed in measured for output T",
    ),
    Mistake(
        "measured_by: T.PV",
        "measured_by: assay",
        "assay",
        "controlled[0].measured_by",
        "assay does not measure T",
    ),
]


@pytest.mark.parametrize("mistake", MISTAKES, ids=label)
def test_a_wrong_name_is_told_where_it_stands(mistake: Mistake, file: Path) -> None:
    check(mistake, file)
