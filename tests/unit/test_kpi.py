"""Key performance indicators against numbers computed by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from math import inf, nan, sqrt
from pathlib import Path

import numpy as np
import pytest

from controller.errors import ModelError
from hil.history import History
from hil.kpi.control import capability, step_responses
from hil.kpi.kpis import kpis
from hil.kpi.series import series
from hil.kpi_names import KPI_NAMES
from hil.plc.virtual import PlcStatistics
from hil.scenario import load_scenario
from hil.scenario.parts import Economics, Scenario

CONFIG = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"


@cache
def scenario() -> Scenario:
    """Cycle 10 s; cB has a setpoint, T the zone from 105 to 125; MVs F and Q."""
    return replace(load_scenario(CONFIG), judge_from_s=0.0, violation_tolerance=0.5, economics=None)


def economics(energy: str = "") -> Economics:
    return Economics("F * cB - Q", "EUR/h", "F", (0.0, 20.0), (30.0, 50.0), "", {}, (), energy)


def history(rows: int = 6, **columns: list[float] | list[str]) -> History:
    """A quiet run; columns given replace it, with `__` for the point."""
    found = History(
        {
            "time_s": [10.0 * i for i in range(rows)],
            "y.cB": [1.0] * rows,
            "y.T": [110.0] * rows,
            "u.F": [2.0] * rows,
            "u.Q": [-1.0] * rows,
            "sp.F": [2.0] * rows,
            "sp.Q": [-1.0] * rows,
            "wanted.cB": [1.0] * rows,
            "cycle_ms": [1.0] * rows,
            "solve_ms": [0.5] * rows,
            "lateness_ms": [0.0] * rows,
            "skipped": [0.0] * rows,
            "late_writes": [0.0] * rows,
        },
        {
            "mode": ["ACTIVE"] * rows,
            **{
                name: [""] * rows
                for name in (
                    "refused",
                    "faults",
                    "local",
                    "limited",
                    "predicted",
                    "dropped",
                    "given_up",
                )
            },
            "rung": ["rti"] * rows,
        },
    )
    for name, values in columns.items():
        key = name.replace("__", ".")
        if isinstance(values[0], str):
            found.texts[key] = [str(v) for v in values]
        else:
            found.columns[key] = [float(v) for v in values]
    return found


def statistics(trips: int = 0, clamped: int = 0) -> PlcStatistics:
    return PlcStatistics(
        watchdog_trips={"feed": trips},
        stale_frames={},
        mode_switches={},
        clamped={"F": clamped},
        refused={},
    )


def found(
    run: History, lab: dict[str, dict[str, float]] | None = None, **changes: object
) -> dict[str, float]:
    # As long as its cycles, unless told otherwise.
    end_s = run.columns["time_s"][-1] + 10.0 if len(run) else 10.0
    changed = replace(scenario(), **{"duration_s": end_s, **changes})
    return kpis(changed, run, statistics(), lab or {}, 7, 0)


def test_every_kpi_has_a_name_that_scenarios_may_assert() -> None:
    lab = {str(i): {"T": 110.0 + i % 3, "time_s": 1.0 * i} for i in range(12)}
    wanted = [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    told = found(history(wanted__cB=wanted), lab, economics=economics("-Q"))
    for kpi in told:
        assert any(
            kpi == name or (name.endswith((".", "_")) and kpi.startswith(name))
            for name in KPI_NAMES
        ), kpi
    names = {"cpk.T", "settling_s.cB", "energy_per_in_spec_kg", "jitter_ms_p99", "fallback_s"}
    assert names <= set(told)
    assert len(set(KPI_NAMES)) == len(KPI_NAMES)


def test_an_empty_run_tells_nothing() -> None:
    assert found(History()) == {}


# Modes and rungs.


def test_seconds_in_modes_and_on_fallbacks() -> None:
    run = history(
        time_s=[0.0, 10.0, 20.0, 35.0, 40.0, 50.0],
        mode=["INIT", "ACTIVE", "ACTIVE", "SHED", "SHED", "ACTIVE"],
        rung=["", "rti", "hold", "", "", "lqr"],
    )
    told = found(run)
    # The row of 20 s stands for 15 s, the last for a cycle.
    assert told["time_in.init"] == 10.0
    assert told["time_in.active"] == 10.0 + 15.0 + 10.0
    assert told["time_in.shed"] == 5.0 + 10.0
    assert told["time_in.manual"] == 0.0
    assert told["fallback_s"] == 15.0 + 15.0 + 10.0
    assert told["share_shed"] == pytest.approx(15 / 60)
    assert told["time_in.absent"] == 0.0
    assert "share_absent" not in told
    assert (told["sheds"], told["activations"]) == (1.0, 2.0)
    assert told["rung_hold"] == told["rung_lqr"] == 1.0


def test_a_clock_that_is_set_back_makes_no_time() -> None:
    told = found(history(3, time_s=[0.0, 30.0, 20.0]))
    # From 0 s to 30 s two cycles were missed.
    assert told["time_in.active"] == 10.0 + 0.0 + 10.0
    assert told["time_in.absent"] == 20.0


def test_time_without_a_cycle_is_nobodys_control() -> None:
    """Down from 20 s to 60 s and from 80 s on, in a run of 100 s that began at 0 s."""
    run = history(4, time_s=[0.0, 10.0, 60.0, 70.0], mode=["INIT", "ACTIVE", "ACTIVE", "ACTIVE"])
    told = found(run, duration_s=100.0)
    assert told["share_init"] == pytest.approx(0.1)
    assert told["active_share"] == told["share_active"] == pytest.approx(0.3)
    assert told["share_absent"] == pytest.approx(0.6)
    assert told["time_in.absent"] == pytest.approx(60.0)
    late = found(history(2, time_s=[40.0, 50.0]), duration_s=60.0)
    assert (late["time_in.absent"], late["active_share"]) == (40.0, pytest.approx(1 / 3))


def test_solve_failures_are_counted_per_rung() -> None:
    told = found(history(refused=["", "rti", "rti; sqp", "", "tree; rti", ""]))
    assert told["solve_failures.rti"] == 3.0
    assert told["solve_failures.sqp"] == told["solve_failures.tree"] == 1.0
    assert told["solve_failures.ipopt"] == 0.0
    old = history()
    del old.texts["refused"]
    assert "solve_failures.rti" not in found(old)


def test_variables_that_were_not_controlled_as_usual() -> None:
    run = history(limited=["", "F", "F; Q", "", "", ""], given_up=["T", "T", "", "", "", ""])
    told = found(run)
    assert (told["mv_limited.F"], told["mv_limited.Q"], told["mv_local.F"]) == (2.0, 1.0, 0.0)
    assert (told["given_up.T"], told["given_up.cB"]) == (2.0, 0.0)


def test_lateness_and_missed_deadlines() -> None:
    run = history(
        lateness_ms=[0.0, 1.0, -2.0, 3.0, 4.0, 5.0], skipped=[0.0, 0.0, 2.0, 0.0, 0.0, 1.0]
    )
    told = found(run)
    assert told["jitter_ms_p50"] == 2.5
    assert told["jitter_ms_p99"] == pytest.approx(4.95)
    assert told["deadline_misses"] == 3.0
    old = history()
    del old.columns["lateness_ms"], old.columns["skipped"]
    assert not {"jitter_ms_p50", "deadline_misses"} & set(found(old))


# Setpoints.


def test_integral_errors() -> None:
    told = found(history(y__cB=[1.0, 1.5, 1.0, 0.8, 1.0, 1.0]))
    assert told["iae.cB"] == pytest.approx(10 * (0.5 + 0.2))
    assert told["ise.cB"] == pytest.approx(10 * (0.25 + 0.04))
    assert told["itae.cB"] == pytest.approx(10 * (10 * 0.5 + 30 * 0.2))
    assert told["offset_end.cB"] == 0.0
    told = found(history(sp__F=[2.0, 3.0, 2.5, 2.5, 2.0, 4.0]))
    assert (told["travel.F"], told["reversals.F"]) == (pytest.approx(4.0), 2.0)
    assert told["largest_move.F"] == 2.0


def responses(setpoint: list[float], truth: list[float]) -> tuple[float, float]:
    seconds = np.linspace(0.0, 10.0 * (len(setpoint) - 1), len(setpoint), dtype=np.float64)
    told = step_responses("cB", seconds, np.array(truth), np.array(setpoint))
    return told["overshoot.cB"], told["settling_s.cB"]


def test_step_response_by_hand() -> None:
    setpoint = [1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    truth = [1.0, 1.0, 1.0, 1.6, 2.3, 1.94, 2.04, 2.0]
    # Beyond the new setpoint by 0.3 of a step of 1; within 0.05 from 60 s on, changed at 20 s.
    assert responses(setpoint, truth) == (pytest.approx(0.3), 40.0)
    slower = [*truth[:6], 2.06, 2.0]
    assert responses(setpoint, slower) == (pytest.approx(0.3), 50.0)
    never = [*truth[:7], 2.06]
    assert responses(setpoint, never) == (pytest.approx(0.3), inf)
    at_once = [1.0, 1.0, *[2.0] * 6]
    assert responses(setpoint, at_once) == (0.0, 0.0)
    down = [3.0 - v for v in truth]
    assert responses([3.0 - v for v in setpoint], down) == (pytest.approx(0.3), 40.0)


def test_the_worst_of_several_changes_counts() -> None:
    setpoint = [1.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0]
    truth = [1.0, 2.0, 2.5, 2.0, 2.0, 0.0, 0.0]
    assert responses(setpoint, truth) == (pytest.approx(0.5), 20.0)
    # A response that the next change cuts short has not settled.
    assert responses(setpoint, [1.0, 2.0, 2.0, 2.5, 0.0, 0.0, 0.0])[1] == inf


def test_a_ramp_is_one_change() -> None:
    setpoint = [1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    truth = [1.0, 1.2, 1.7, 2.2, 2.7, 3.2, 3.0]
    assert responses(setpoint, truth) == (pytest.approx(0.1), 50.0)


def test_no_change_has_no_response() -> None:
    assert not step_responses("cB", np.arange(3.0), np.ones(3), np.ones(3))
    assert not step_responses("cB", np.arange(3.0), np.ones(3), np.array([nan, 1.0, 1.0]))
    assert "settling_s.cB" not in found(history())


def test_a_response_that_leaves_the_numbers_never_settles() -> None:
    assert responses([1.0, 2.0, 2.0], [1.0, nan, 2.0]) == (inf, 10.0)
    assert responses([1.0, 2.0, 2.0], [1.0, 2.0, nan]) == (inf, inf)


# Limits.


def test_violations_and_giveaway() -> None:
    told = found(history(y__T=[105.0, 115.0, 126.0, 125.25, 120.0, 104.0]))
    assert told["violation_max.T"] == 1.0
    assert told["violation_integral.T"] == pytest.approx(10 * (1.0 + 0.25 + 1.0))
    assert told["violation_share"] == pytest.approx(2 / 6)
    low = (0.0 + 10.0 + 21.0 + 20.25 + 15.0 + 0.0) / 6
    high = (20.0 + 10.0 + 0.0 + 0.0 + 5.0 + 21.0) / 6
    assert told["giveaway_low.T"] == pytest.approx(low)
    assert told["giveaway_high.T"] == pytest.approx(high)


def test_a_plant_that_leaves_the_numbers_keeps_no_limit() -> None:
    told = found(history(y__T=[110.0, nan, 110.0, 110.0, 110.0, 110.0]))
    assert told["violation_max.T"] == inf
    assert "giveaway_low.T" not in told


def test_only_what_is_judged_counts() -> None:
    run = history(y__T=[90.0, 90.0, 106.0, 106.0, 106.0, 106.0])
    told = found(run, judge_from_s=20.0)
    assert (told["violation_max.T"], told["giveaway_low.T"]) == (0.0, 1.0)
    assert found(run, judge_from_s=19.0)["violation_max.T"] == 0.0
    assert found(run, judge_from_s=10.0)["violation_max.T"] == 15.0


def test_capability_by_hand() -> None:
    samples = np.array([10.0, 11.0, 10.0, 11.0, 10.0, 11.0, 10.0, 11.0, 10.0, 11.0])
    told = capability("T", samples, 7.0, 13.0)
    # Mean 10.5; nearest limit at 2.5; mean moving range 1; standard deviation sqrt(2.5 / 9).
    assert told["cpk.T"] == pytest.approx(2.5 / (3 / 1.128))
    assert told["ppk.T"] == pytest.approx(2.5 / (3 * sqrt(2.5 / 9)))
    one_sided = capability("T", samples, -inf, 12.0)
    assert one_sided["cpk.T"] == pytest.approx(1.5 / (3 / 1.128))
    outside = capability("T", samples, 7.0, 10.0)
    assert outside["cpk.T"] == pytest.approx(-0.5 / (3 / 1.128))


def test_a_wandering_mean_lowers_ppk_only() -> None:
    still = np.tile([10.0, 11.0], 10)
    wandering = np.concatenate([np.tile([10.0, 11.0], 5), np.tile([13.0, 14.0], 5)])
    a, b = (capability("T", s, 0.0, 24.0) for s in (still, wandering))
    assert b["ppk.T"] < 0.5 * a["ppk.T"]
    assert b["cpk.T"] > 0.8 * a["cpk.T"]


def test_capability_asks_for_samples_limits_and_a_spread() -> None:
    samples = np.tile([10.0, 11.0], 5)
    assert not capability("T", samples[:9], 7.0, 13.0)
    assert not capability("T", samples, -inf, inf)
    assert not capability("T", np.full(10, 10.0), 7.0, 13.0)
    assert not capability("T", np.array([]), 7.0, 13.0)
    assert capability("T", np.append(samples, nan), 7.0, 13.0) == capability(
        "T", samples, 7.0, 13.0
    )


def test_lab_samples_are_taken_in_the_order_of_their_time() -> None:
    values = [110.0, 111.0, 112.0, 113.0, 114.0, 115.0, 116.0, 117.0, 118.0, 119.0]
    rows = {str(i): {"T": v, "time_s": 2.0 * i} for i, v in enumerate(values)}
    shuffled = dict(sorted(rows.items(), key=lambda item: item[1]["T"] % 3))
    told, again = found(history(), rows), found(history(), shuffled)
    assert told["cpk.T"] == again["cpk.T"] == pytest.approx(9.5 / (3 / 1.128))
    late = {str(i): {"T": v, "time_s": 100.0 - i} for i, v in enumerate(values)}
    assert "cpk.T" not in found(history(), {**late, "9": {"time_s": 0.0}}, judge_from_s=50.0)


# Money, product, energy.


def test_product_and_energy_per_kilogram_in_spec() -> None:
    run = history(
        y__T=[110.0, 110.0, 130.0, 110.0, 110.0, 110.0],
        u__F=[2.0, 2.0, 5.0, 2.0, 2.0, 2.0],
        u__Q=[-1.0, -1.0, -4.0, -1.0, -1.0, -1.0],
    )
    told = found(run, economics=economics("-Q"))
    assert (told["product_kg"], told["off_spec_kg"]) == (150.0, 50.0)
    # What went into the lost product is paid for by the rest.
    assert told["energy_per_in_spec_kg"] == pytest.approx(90.0 / 100.0)
    assert "energy_per_in_spec_kg" not in found(run, economics=economics())
    nothing_good = history(y__T=[130.0] * 6)
    assert "energy_per_in_spec_kg" not in found(nothing_good, economics=economics("-Q"))


def test_profit_in_its_windows() -> None:
    told = found(history(y__cB=[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]), economics=economics())
    assert (told["profit_before"], told["profit_end"]) == (3.0, 5.0)


def test_series_of_expressions() -> None:
    run = history(4, u__F=[1.0, 2.0, 0.0, 4.0])
    np.testing.assert_array_equal(series("cB + 2 * F", run), [3.0, 5.0, 1.0, 9.0])
    np.testing.assert_array_equal(series("7", run), [7.0] * 4)
    np.testing.assert_array_equal(series("1 / F", run), [1.0, 0.5, nan, 0.25])
    # A plant output goes before an input of the same name.
    run.columns["y.F"] = [3.0] * 4
    np.testing.assert_array_equal(series("F", run), [3.0] * 4)
    with pytest.raises(ModelError, match="nothing here is called X"):
        series("X + 1", run)


def test_what_the_plc_and_the_wire_tell() -> None:
    told = kpis(scenario(), history(), statistics(trips=3, clamped=4), {}, 7, 2)
    assert (told["wire_writes"], told["unsafe_writes"]) == (7.0, 2.0)
    assert (told["watchdog_trips"], told["plc_clamped_writes"]) == (3.0, 4.0)
