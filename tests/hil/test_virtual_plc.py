"""The virtual PLC: handshake, watchdog, REMOTE and LOCAL, clamps, STOP."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from plc_bench import ADDRESSES, DEVICE, HANDSHAKE, LOOP, Bench

from controller.errors import ScenarioError
from controller.settings.application import Handshake
from controller.signal import NS_PER_S, Tag
from hil.plc.pid import PidTuning
from hil.plc.virtual import AT_HIGH, PERMIT, REMOTE, SlaveLoop, VirtualPlc
from hil.plc_memory import DeviceMemory
from plant_models.williams_otto import plant as williams_otto


def test_powers_up_in_local_at_rest() -> None:
    bench = Bench()
    assert bench.get("MODE") == PERMIT
    assert bench.get("SPU") == 50.0
    assert bench.get("OUT") == 30.0
    bench.scan(20)
    assert bench.get("PV") == pytest.approx(50.0)
    assert bench.get("DV") == 1.0


def test_a_frame_that_lay_in_memory_is_not_a_live_controller() -> None:
    bench = Bench()
    bench.command(60.0)
    bench.scan(5)
    assert bench.get("MODE") == PERMIT, "a new epoch is only trusted once its heartbeat moves"
    bench.command(60.0)
    bench.scan()
    assert bench.get("MODE") == REMOTE | PERMIT
    assert (bench.get("HBE"), bench.get("SEQE")) == (2, 2)


def test_remote_setpoint_is_followed_at_the_rate_of_the_plc_without_a_bump() -> None:
    bench = Bench()
    output = bench.get("OUT")
    bench.to_remote(80.0)
    assert bench.get("SPU") == pytest.approx(50.1)
    assert abs(bench.get("OUT") - output) < 2.0 * 0.1 * 2 + 0.1
    for cycle in range(200):
        bench.command(80.0)
        bench.scan(10)
        assert bench.get("SPU") == pytest.approx(min(80.0, 50.1 + cycle + 1.0), abs=1e-4)
    assert bench.get("PV") == pytest.approx(80.0, abs=0.05)
    assert bench.plc.is_remote("T")


def test_watchdog_trips_at_its_scan_and_holds_without_a_bump() -> None:
    bench = Bench()
    bench.to_remote(80.0)
    bench.scan(30)
    assert bench.get("MODE") == REMOTE | PERMIT, "exactly three cycles are still allowed"
    in_use = bench.get("SPU")
    bench.scan()
    assert bench.get("MODE") == PERMIT
    assert bench.get("SPU") == pytest.approx(in_use)
    assert bench.plc.statistics.watchdog_trips == {DEVICE: 1}
    bench.scan(100)
    assert bench.get("SPU") == pytest.approx(in_use)
    assert bench.plc.statistics.watchdog_trips == {DEVICE: 1}
    bench.command(80.0)
    bench.scan()
    assert bench.get("MODE") == REMOTE | PERMIT
    assert bench.get("SPU") == pytest.approx(in_use + 0.1)
    assert bench.plc.statistics.mode_switches == {"T": 3}


def test_watchdog_ramps_to_the_fallback_where_there_is_one() -> None:
    bench = Bench(replace(LOOP, fallback=40.0))
    bench.to_remote(52.0)
    bench.scan(31)
    assert bench.get("MODE") == PERMIT
    dropped_at = bench.get("SPU")
    bench.scan(10)
    assert bench.get("SPU") == pytest.approx(dropped_at - 1.0, abs=1e-4)
    bench.scan(200)
    assert bench.get("SPU") == 40.0


@pytest.mark.parametrize("fallback", [None, 40.0])
def test_releasing_the_request_holds(fallback: float | None) -> None:
    bench = Bench(replace(LOOP, fallback=fallback))
    bench.to_remote(60.0)
    bench.command(60.0, request=0)
    bench.scan(5)
    assert bench.get("MODE") == PERMIT
    assert bench.get("SPU") == pytest.approx(50.1)
    assert bench.plc.statistics.watchdog_trips == {DEVICE: 0}


def test_a_restarted_controller_takes_over_only_when_alive() -> None:
    bench = Bench()
    bench.to_remote(60.0)
    bench.command(60.0, epoch=6)
    bench.scan(3)
    assert bench.get("MODE") == PERMIT
    bench.command(60.0, epoch=6)
    bench.scan()
    assert bench.get("MODE") == REMOTE | PERMIT


def test_a_replayed_old_frame_does_not_feed_the_watchdog() -> None:
    bench = Bench()
    bench.to_remote(60.0)
    bench.command(60.0)
    bench.scan()
    bench.heartbeat -= 2
    bench.command(60.0)
    bench.scan(31)
    assert bench.get("MODE") == PERMIT
    assert bench.get("HBE") == 3
    statistics = bench.plc.statistics
    assert (statistics.stale_frames, statistics.watchdog_trips) == ({DEVICE: 1}, {DEVICE: 1})


def test_setpoints_are_clamped_and_nan_is_refused() -> None:
    bench = Bench(replace(LOOP, setpoint_rate_per_s=math.inf))
    bench.to_remote(200.0)
    assert bench.get("SPU") == 90.0
    bench.command(math.nan)
    bench.scan(3)
    assert bench.get("SPU") == 90.0
    bench.command(60.0)
    bench.scan()
    assert bench.get("SPU") == 60.0
    statistics = bench.plc.statistics
    assert (statistics.clamped, statistics.refused) == ({"T": 1}, {"T": 1})


def test_saturation_is_published() -> None:
    bench = Bench(replace(LOOP, setpoint_rate_per_s=math.inf))
    bench.to_remote(90.0)
    bench.scan(5)
    assert bench.get("SAT") == AT_HIGH
    assert bench.get("OUT") == 100.0


def test_the_operator_keeps_a_loop_local_and_moves_it() -> None:
    bench = Bench(replace(LOOP, fallback=40.0))
    bench.to_remote(60.0)
    bench.plc.begin_loop_fault("T", "mode_flip")
    bench.command(60.0)
    bench.scan(5)
    assert bench.get("MODE") == 0
    assert bench.get("SPU") == pytest.approx(50.1), "the operator is there: hold, no fallback"
    bench.plc.set_local_setpoint("T", 50.5)
    bench.scan(10)
    assert bench.get("SPU") == pytest.approx(50.5)
    bench.plc.end_loop_fault("T", "mode_flip")
    bench.scan()
    assert bench.get("MODE") == REMOTE | PERMIT


def test_stop_freezes_memory_and_outputs_and_restarts_in_local() -> None:
    bench = Bench()
    bench.to_remote(80.0)
    bench.plc.stop(DEVICE)
    before = {tag: bench.get(tag) for tag in ADDRESSES}
    bench.plc.set_input("feed", 1.5)
    for _ in range(5):
        bench.scan(10)
    assert {tag: bench.get(tag) for tag in ADDRESSES} == before
    assert bench.plc.inputs()["heat"] == pytest.approx(before["OUT"])
    assert bench.plc.outputs()["T"] < before["PV"] - 1.0, "the plant does not stop with its PLC"
    bench.plc.restart(DEVICE)
    bench.scan()
    assert bench.get("MODE") == PERMIT
    assert abs(bench.get("OUT") - before["OUT"]) < 1.0, "bumpless"
    bench.command(80.0)
    bench.scan()
    assert bench.get("MODE") == REMOTE | PERMIT
    assert bench.plc.statistics.watchdog_trips == {DEVICE: 0}


def test_noise_is_seeded_and_the_same_for_the_same_seed() -> None:
    runs: list[list[float]] = []
    for _ in range(2):
        bench = Bench(noise={"PV": 0.5})
        trend: list[float] = []
        for _ in range(200):
            bench.scan()
            trend.append(bench.get("PV") - bench.plc.outputs()["T"])
        runs.append(trend)
        assert bench.get("DV") == 1.0
    assert runs[0] == runs[1]
    assert 0.4 < float(np.std(runs[0])) < 0.6


def test_wrong_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(ScenarioError, match="mean heat"):
        Bench(replace(LOOP, drives="heet"))
    with pytest.raises(ScenarioError, match=r"MODF.*mean MODE"):
        Bench(replace(LOOP, mode="MODF"))
    with pytest.raises(ScenarioError, match="no noise"):
        Bench(noise={"SPU": 1.0})
    with pytest.raises(ScenarioError, match="same tag"):
        Bench(replace(LOOP, pv="DV"))
    with pytest.raises(ScenarioError, match="driven by the PLC"):
        Bench().plc.set_input("heat", 1.0)


def _williams_otto() -> tuple[VirtualPlc, DeviceMemory, DeviceMemory]:
    reactor_tags = [
        Tag(name, DEVICE, address, "uint16" if address.endswith("UINT") else "float32")
        for name, address in ADDRESSES.items()
        if name != "DV"
    ]
    registers = {
        "S.HB": 100, "S.SEQ": 101, "S.EPOCH": 102, "FB.REQ": 103, "FB.SP": 104, "S.HBE": 120,
        "S.SEQE": 121, "FB.MODE": 122, "FB.SAT": 123, "FB.SPU": 124, "FB.PV": 126,
        "FB.OUT": 128, "FA.PV": 130,
    }  # fmt: skip
    words = ("S.", "FB.REQ", "FB.MODE", "FB.SAT")
    skid_tags = [
        Tag(name, "skid", f"holding:{register}", "uint16")
        if name.startswith(words)
        else Tag(name, "skid", f"holding:{register}:float32", "float32", byte_order="CDAB")
        for name, register in registers.items()
    ]
    memory = {DEVICE: DeviceMemory(DEVICE, reactor_tags), "skid": DeviceMemory("skid", skid_tags)}
    temperature = replace(
        LOOP, measures="T_R", drives="T_J_sp", tuning=PidTuning(4.0, 400.0, 20.0, 180.0),
        start_setpoint=76.233,
    )  # fmt: skip
    flow = SlaveLoop(
        name="F_B", setpoint="FB.SP", request="FB.REQ", in_use="FB.SPU", mode="FB.MODE",
        saturation="FB.SAT", pv="FB.PV", output="FB.OUT", measures="F_B", drives="F_B_valve",
        tuning=PidTuning(5.0, 8.0, 0.0, 100.0), setpoint_low=0.0, setpoint_high=10.0,
        setpoint_rate_per_s=0.05, start_setpoint=4.633,
    )  # fmt: skip
    handshakes = {DEVICE: HANDSHAKE, "skid": Handshake("S.HB", "S.SEQ", "S.HBE", "S.EPOCH", None)}
    plc = VirtualPlc(
        williams_otto(), [temperature, flow], {"FA.PV": "F_A"}, memory, handshakes,
        cycle_s=30.0, watchdog_cycles=3, seed=1, noise={"PV": 0.05, "FB.PV": 0.01},
    )  # fmt: skip
    return plc, memory[DEVICE], memory["skid"]


def test_williams_otto_rests_and_follows_over_two_devices() -> None:
    plc, reactor, skid = _williams_otto()
    for cycle in range(60):
        for memory, prefix in ((reactor, ""), (skid, "S.")):
            memory.set(f"{prefix}HB", cycle + 1)
            memory.set(f"{prefix}SEQ", cycle + 1)
        reactor.set("REQ", 1)
        reactor.set("SP", 78.0)
        skid.set("FB.REQ", 1)
        skid.set("FB.SP", 5.0)
        for second in range(30):
            plc.scan((30 * cycle + second + 1) * NS_PER_S, 1.0)
    outputs = plc.outputs()
    assert outputs["T_R"] == pytest.approx(78.0, abs=0.3)
    assert outputs["F_B"] == pytest.approx(5.0, abs=0.03)
    assert skid.get("FA.PV") == pytest.approx(1.8275)
    assert plc.statistics.mode_switches == {"T": 1, "F_B": 1}


def test_a_scan_is_cheap() -> None:
    plc, _, _ = _williams_otto()
    best_s = math.inf
    for batch in range(10):
        start = time.perf_counter()
        for number in range(50):
            plc.scan((50 * batch + number) * NS_PER_S, 1.0)
        best_s = min(best_s, (time.perf_counter() - start) / 50)
    assert best_s < 150e-6
