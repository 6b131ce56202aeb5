"""A scenario whose PLC is a Statement List program: the same run in every tier, and errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from controller.app import build_application
from controller.errors import ScenarioError
from controller.signal import NS_PER_S
from hil.bundle import history_hash, open_bundle, write_bundle
from hil.plc import awl
from hil.plc.awl import AwlPlc
from hil.plc.awl_cpu import AwlCpu
from hil.plc_memory import DeviceMemory
from hil.rig import Rig, build_rig
from hil.runner import Run, run_scenario
from hil.scenario import load_scenario
from hil.swarm.stage import stage_of
from hil.world import START_NS, LockstepClock

pytestmark = pytest.mark.peer

SHIPPED = Path(__file__).parents[2] / "config" / "awl"
SCENARIO = SHIPPED / "tank.hil.yaml"
# The watchdog needs 30 s to take the loop, the controller two minutes to get it back.
CUT = [{"at": "2 min", "until": "3 min", "target": "tank", "type": "cable_cut"}]
SHORT = {
    "duration": "5 min",
    "commands": [
        {"at": 0, "kind": "mode", "text": "auto"},
        {"at": "30 s", "kind": "setpoint", "target": "T", "value": 63},
    ],
    "profiles": [],
    "faults": CUT,
    "mode_trace": ["OFF", "INIT", "READY", "ACTIVE", "SHED", "INIT", "READY", "ACTIVE", "..."],
    "assertions": [{"kpi": "watchdog_trips", "low": 1, "high": 1}],
}


def _run(directory: Path, *, check_replay: bool = False, **changes: object) -> Run:
    scenario = load_scenario(SCENARIO, {**SHORT, **changes})
    return run_scenario(scenario, directory, check_replay=check_replay)


def _rig(stack: ExitStack, path: Path = SCENARIO, **changes: object) -> Rig:
    scenario = load_scenario(path, {**SHORT, "tier": "virtual", **changes})
    return build_rig(stack, scenario, LockstepClock(lambda _: None))


@pytest.fixture(name="tank")
def _tank(tmp_path: Path) -> Path:
    """The example in a folder of its own, to be spoilt."""
    shutil.copytree(SHIPPED, tmp_path / "awl", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "awl" / SCENARIO.name


def _spoil(tank: Path, old: str, new: str, name: str = "loopwright.awl") -> None:
    path = tank.parent / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_program_sheds_by_its_watchdog_and_every_tier_sees_the_same_run(tmp_path: Path) -> None:
    runs = [_run(tmp_path / t, tier=t, check_replay=True) for t in ("virtual", "wire")]
    again = _run(tmp_path / "again", tier="virtual")
    for run in runs:
        assert run.verdict.passed, run.verdict.checks
        assert run.verdict.kpis["unsafe_writes"] == 0
        assert isnan(run.verdict.kpis["plc_clamped_writes"])  # the program does not tell
        assert run.verdict.kpis["invariant_violations"] == 0
        assert run.replayed is not None
        assert run.replayed.passed
    virtual, wire = (run.history for run in runs)
    assert virtual.texts["mode"] == wire.texts["mode"]
    for name in ("sp.TJ", "u.heater", "y.T"):
        assert virtual.columns[name] == wire.columns[name], name
    assert max(virtual.columns["sp.TJ"]) > 70.0  # it really led the loop
    assert history_hash(tmp_path / "virtual") == history_hash(tmp_path / "again")
    assert virtual.columns["sp.TJ"] == again.history.columns["sp.TJ"]
    # While the cable was cut the program held its setpoint.
    in_use, time_s = np.array(virtual.columns["sp.TJ"]), np.array(virtual.columns["time_s"])
    alone = in_use[(time_s > 125) & (time_s < 185)]
    assert np.ptp(alone) == 0.0


def test_stop_means_no_scans_and_run_begins_in_local(tmp_path: Path) -> None:
    stop = {"at": "2 min", "until": "160 s", "target": "tank", "type": "stop"}
    run = _run(
        tmp_path, tier="virtual", faults=[stop], assertions=[{"kpi": "active_share", "low": 0}],
        mode_trace=[],
    )  # fmt: skip
    columns, local = run.history.columns, run.history.texts["local"]
    time_s = np.array(columns["time_s"])
    heater, in_use = np.array(columns["u.heater"]), np.array(columns["sp.TJ"])
    stopped = (time_s >= 120) & (time_s < 160)
    assert np.ptp(heater[stopped]) == 0.0
    first = int(np.searchsorted(time_s, 160))
    assert "TJ" in local[first : first + 2]
    assert abs(heater[first] - heater[first - 1]) < 1.0  # percent: it begins where it stood
    assert np.max(np.abs(np.diff(in_use))) <= 1.0 + 1e-3  # 0.1 K a scan, ten scans a cycle
    assert run.verdict.kpis["watchdog_trips"] == 0  # nobody's heartbeat failed
    assert run.verdict.kpis["invariant_violations"] == 0
    assert local[-2] == ""


def test_power_up_has_no_bump() -> None:
    with ExitStack() as stack:
        plc = _rig(stack, **{"plant.arguments": {"UA": 2.0}}).plc
        assert plc.inputs()["heater"] == pytest.approx(27.867, abs=0.1)  # it kept the plant at rest


def test_only_a_loop_that_nobody_handed_back_is_a_trip_of_the_watchdog() -> None:
    with ExitStack() as stack:
        plc = _rig(stack, faults=[]).plc
        assert isinstance(plc, AwlPlc)
        memory, scans = _memory(plc), iter(range(1, 200))

        def scan(count: int, request: int | None = None) -> tuple[int, float]:
            for _ in range(count):
                number = next(scans)
                if request is not None:
                    frame = {"HB": number, "SEQ": number, "EPOCH": 1, "TJ.REQ": request}
                    for tag, value in (frame | {"TJ.SP": 70.0}).items():
                        memory.set(tag, value)
                plc.scan(START_NS + number * NS_PER_S, 1.0)
            return int(memory.get("TJ.MODE")) & 1, plc.statistics.watchdog_trips["tank"]

        assert scan(3, request=1) == (1, 0)
        assert scan(2, request=0) == (0, 0)  # handed back
        assert scan(2, request=1) == (1, 0)
        assert scan(29) == (1, 0)
        assert scan(2) == (0, 1)  # 30 scans without a heartbeat
        assert plc.statistics.mode_switches == {"TJ": 4}


def test_frozen_heartbeat_is_shown_though_the_program_answers() -> None:
    with ExitStack() as stack:
        rig = _rig(stack, faults=[])
        plc = rig.plc
        assert isinstance(plc, AwlPlc)
        frame = {"HB": 7, "SEQ": 3, "EPOCH": 1}
        memory = _memory(plc)
        for tag, value in frame.items():
            memory.set(tag, value)
        plc.scan(START_NS + NS_PER_S, 1.0)
        plc.freeze_heartbeat("tank", True)
        before = memory.get("HBE"), memory.get("SEQE")
        memory.set("HB", 8)
        memory.set("SEQ", 4)
        plc.scan(START_NS + 2 * NS_PER_S, 1.0)
        assert (memory.get("HBE"), memory.get("SEQE")) == before
        plc.freeze_heartbeat("tank", False)
        plc.scan(START_NS + 3 * NS_PER_S, 1.0)
        assert (memory.get("HBE"), memory.get("SEQE")) == (8, 4)


@pytest.mark.parametrize(("target", "program_sees"), [("DB21.TANK_FIELD", True), ("T.PV", False)])
def test_a_transmitter_fails_before_or_behind_the_program(target: str, program_sees: bool) -> None:
    with ExitStack() as stack:
        fault = {"at": "1 s", "until": "5 s", "target": target, "type": "bias", "args": {"size": 9}}
        rig = _rig(stack, faults=[fault])
        plc = rig.plc
        assert isinstance(plc, AwlPlc)
        memory, cell = _memory(plc), _memory(plc).cells["T.PV"]
        program = plc._program["DB20"]
        rig.world.run_until(START_NS + 3 * NS_PER_S)
        assert memory.get("T.PV") == pytest.approx(69.0, abs=0.5)
        seen = cell.decode(program, cell.place.byte)
        assert seen == pytest.approx(69.0 if program_sees else 60.0, abs=0.5)
        rig.world.run_until(START_NS + 7 * NS_PER_S)
        assert memory.get("T.PV") == pytest.approx(60.0, abs=0.5)


def test_scans_keep_their_pace_whatever_the_steps_of_the_world() -> None:
    """The program counts scans: half a scan later is no scan."""
    with ExitStack() as stack:
        plc = _rig(stack, faults=[]).plc
        assert isinstance(plc, AwlPlc)
        scanned: list[int] = []
        plc._cpu.scan = scanned.append  # type: ignore[method-assign]
        for step in range(1, 31):
            plc.scan(START_NS + step * NS_PER_S * 7 // 10, 0.7)
        assert len(scanned) == 21


WORDS = """
DATA_BLOCK DB 20
  STRUCT
    WORDS : ARRAY [0 .. 21] OF WORD;
  END_STRUCT;
BEGIN
END_DATA_BLOCK

ORGANIZATION_BLOCK OB 1
BEGIN
      L     PIW 256;
      T     PQW 272;
      T     DB20.DBW 26;
      CALL  SFC 64 (RET_VAL := MD 100);
      AN    M 0.0;
      L     S5T#10S;
      SD    T 1;
      A     T 1;
      =     DB20.DBX 25.0;
END_ORGANIZATION_BLOCK
"""


def test_words_of_the_periphery_are_scaled_and_timers_live_in_the_scenarios_time(
    tank: Path,
) -> None:
    (tank.parent / "loopwright.awl").write_text(WORDS, encoding="utf-8")
    wired = {
        "plc.inputs": {"PIW256": {"measures": "TJ", "range": [0, 100]}},
        "plc.outputs": {"PQW272": {"drives": "heater", "range": [0, 200]}},
    }
    with ExitStack() as stack:
        rig = _rig(stack, tank, **wired, faults=[])
        plc = rig.plc
        assert isinstance(plc, AwlPlc)
        begun = rig.plc.outputs()["TJ"]
        memory = _memory(plc)
        assert memory.get("TJ.SAT") == round(begun / 100 * 27648)
        # 69 percent of 27648 is 138 of 200 percent: no heater goes beyond full power.
        assert plc.inputs()["heater"] == 100.0
        rig.world.run_until(START_NS + 9 * NS_PER_S)
        assert memory.get("TJ.MODE") == 0
        rig.world.run_until(START_NS + 11 * NS_PER_S)
        assert memory.get("TJ.MODE") == 1
        assert plc.statistics.mode_switches == {"TJ": 1}


def test_the_bundle_of_a_run_holds_the_program(tmp_path: Path) -> None:
    run = _run(tmp_path / "data", tier="virtual", duration="1 min", faults=[], mode_trace=[])
    scenario = load_scenario(SCENARIO, {**SHORT, "tier": "virtual"})
    write_bundle(tmp_path / "b.zip", scenario, run.directory, [])
    with open_bundle(tmp_path / "b.zip") as bundle:
        found = load_scenario(bundle.scenario)
        assert found.awl is not None
        assert found.awl.program.read_bytes() == (SHIPPED / "loopwright.awl").read_bytes()


def test_a_program_may_use_the_names_of_its_symbol_table(tank: Path) -> None:
    _spoil(tank, "DATA_BLOCK DB 21", 'DATA_BLOCK "Settings"')
    with ExitStack() as stack, pytest.raises(ScenarioError, match="Settings"):
        _rig(stack, tank)
    names = tank.parent / "symbols.asc"
    names.write_text(f"126,{'Settings':24}DB    21    DB    21  {'':80}\n", encoding="ascii")
    with ExitStack() as stack:
        plc = _rig(stack, tank, **{"plc.symbols": names.name}).plc
        assert plc.setpoint_in_use("TJ.SP") == pytest.approx(68.36)
    names.write_text("no table\n", encoding="ascii")
    with ExitStack() as stack, pytest.raises(ScenarioError, match=r"symbols\.asc.*symbol table"):
        _rig(stack, tank, **{"plc.symbols": names.name})


def test_a_program_that_does_not_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "loop.awl"
    path.write_text("ORGANIZATION_BLOCK OB 1\nBEGIN\nA:    JU    A;\nEND_ORGANIZATION_BLOCK\n")
    with pytest.raises(ScenarioError, match=r"loop\.awl:3: .* OB 1: .*endless loop"):
        AwlCpu(path, 0).scan(0)


BROKEN: list[tuple[Callable[[Path], None], str]] = [
    (
        lambda tank: _spoil(tank, "      L     #EPOCH;", "      LL    #EPOCH;"),
        r"loopwright\.awl:73: the program cannot be translated: .*LL",
    ),
    (
        lambda tank: _spoil(tank, "DATA_BLOCK DB 20", "DATA_BLOCK DB 30"),
        r"loopwright\.awl:\d+: the program cannot be translated",
    ),
    (
        lambda tank: (tank.parent / "loopwright.awl").write_text(
            "DATA_BLOCK DB 21\nSTRUCT\nX : REAL;\nEND_STRUCT;\nBEGIN\nEND_DATA_BLOCK\n"
            "ORGANIZATION_BLOCK OB 1\nBEGIN\n NOP 0;\nEND_ORGANIZATION_BLOCK\n"
        ),
        r"tank\.hil\.yaml:22:12 plc\.program: loopwright\.awl has no DB20, where the tags of tank",
    ),
    (
        lambda tank: _spoil(tank, "    TANK : REAL; ", "    TANK : WORD; "),
        r"tank\.hil\.yaml:22:12 .*DB20 .* has 42 bytes, and the tag T\.PV at .* ends at 44",
    ),
    (
        lambda tank: _spoil(tank, "ORGANIZATION_BLOCK OB 1\n", "ORGANIZATION_BLOCK OB 35\n"),
        r"no OB 1",
    ),
]


@pytest.mark.parametrize(("spoil", "said_of_it"), BROKEN)
def test_what_is_wrong_with_a_program_is_told(
    tank: Path, spoil: Callable[[Path], None], said_of_it: str
) -> None:
    spoil(tank)
    with ExitStack() as stack, pytest.raises(ScenarioError, match=said_of_it):
        _rig(stack, tank)


@pytest.mark.parametrize(
    ("changes", "said_of_it"),
    [
        (
            {"plc.inputs": {"DB21.PV_FIELD": "TK"}},
            r"plc\.inputs\.DB21\.PV_FIELD: there is no plant output called 'TK'",
        ),
        ({"plc.outputs": {"DB20.DBD36": "heat"}}, "no plant input called 'heat'.*heater"),
        ({"plc.inputs": {"DB21.PV": "TJ"}}, r"no field of DB21 .* called 'PV'.*PV_FIELD"),
        ({"plc.inputs": {"DB99.DBD0": "TJ"}}, "has no DB99"),
        ({"plc.inputs": {"DB21.DBD90": "TJ"}}, "lies beyond the 48 bytes of DB21"),
        ({"plc.inputs": {"DB21.PERMIT": "TJ"}}, "is a BOOL, which carries no signal"),
        ({"plc.inputs": {"PIW256": "TJ"}}, "is a WORD, 0 … 27648 of a range"),
        ({"plc.outputs": {"DB20.OUT": {"drives": "heater", "range": [0, 1]}}}, "needs no range"),
        ({"plant.x0": {"TK": 3}}, "state of the plant called 'TK'"),
        (
            {"profiles": [], "faults": [
                {"at": 1, "until": 2, "target": "heater", "type": "feed_change", "args": {"to": 1}}
            ]},
            "heater is the output of a loop",
        ),
    ],
)  # fmt: skip
def test_wiring_that_program_or_plant_does_not_have_is_told(
    changes: dict[str, object], said_of_it: str
) -> None:
    with ExitStack() as stack, pytest.raises(ScenarioError, match=said_of_it):
        _rig(stack, **changes)


@pytest.mark.parametrize(
    ("changes", "said_of_it"),
    [
        ({"plc.program": "none.awl"}, r"yaml:22:12 plc\.program: there is no file .*none\.awl"),
        ({"plc.program": ""}, "needs a program"),
        ({"plc.inputs": {}}, "no signal of the plant is wired to the inputs"),
        ({"plc.inputs": {"PQW256": "TJ"}}, "no address for inputs"),
        ({"plc.inputs": {"M4": "TJ"}}, "wired to 'M4'"),
        ({"plc.inputs": {"DB21.DBX4.0": "TJ"}}, r"wired to 'DB21\.DBX4\.0'"),
        ({"plc.inputs": {"IW4": "TJ", "PEW 4": "T"}}, "IW4 and PEW 4 are the same place"),
        ({"plc.outputs": {"QW4": "heater", "QW6": "heater"}}, "the same plant input, heater"),
        ({"plc.outputs": {"QW4": {"drives": "heater", "range": [1, 1]}}}, r"the range \[1, 1\]"),
        ({"plc.indicators": {"T.PV": "T"}}, "indicators means nothing to a PLC of the kind awlsim"),
        ({"plc.kind": "virtual"}, "program means nothing to a PLC of the kind virtual"),
        ({"plant": None}, "of the kind awlsim needs a plant"),
        (
            {"application": "../williams_otto/williams-otto.yaml", "faults": []},
            r"plc\.kind: .*runs in one S7 PLC, .*reactor \(s7\), feed_skid \(modbus\)",
        ),
        (
            {"faults": [{"at": 1, "until": 2, "target": "TJ", "type": "refuse_write"}]},
            r"faults\[0\]\.type: refuse_write is a fault of a virtual PLC's loop",
        ),
        (
            {"faults": [{"at": 1, "until": 2, "target": "TJ.OUT", "type": "nan"}]},
            "no sensor for nan called 'TJ.OUT'",
        ),
    ],
)
def test_what_does_not_go_with_such_a_plc_is_refused(
    changes: dict[str, object], said_of_it: str
) -> None:
    with pytest.raises(ScenarioError, match=said_of_it):
        load_scenario(SCENARIO, {**SHORT, **changes})


def test_without_awlsim_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awl, "find_spec", lambda _: None)
    with ExitStack() as stack, pytest.raises(ScenarioError, match=r"loopwright\[awlsim\]"):
        _rig(stack)


def test_a_swarm_does_not_take_such_a_plc() -> None:
    scenario = load_scenario(SCENARIO)
    with pytest.raises(ScenarioError, match="runs a program of its own"):
        stage_of(scenario, build_application(scenario.settings, 1))


def _memory(plc: AwlPlc) -> DeviceMemory:
    return plc._memory
