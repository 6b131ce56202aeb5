"""The demo: one scenario run whole, replayed, reported and summed up in a table."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.table import Table

from controller.errors import ScenarioError
from hil.resources import shipped
from hil.runner import HISTORY_FILE, SCENARIO_FILE, VERDICT_FILE, Run, run_scenario
from hil.scenario import Scenario, Tier, load_scenario
from hil.witness import Progress

SCENARIO = "scenarios/demo.yaml"


def run_demo(
    out: Path,
    *,
    tier: Tier | None = None,
    seed: int | None = None,
    duration_s: float | None = None,
    progress: Progress | None = None,
) -> tuple[Run, Path, float]:
    """Run, replay and report. Returns the run, the report and the seconds of run and replay.

    Raises:
        ScenarioError: `out` holds something that is not an earlier demo.
    """
    from hil.report.write import write_report

    _clear(out)
    begun = perf_counter()
    run = run_scenario(
        _shortened(load_scenario(shipped(SCENARIO)), duration_s),
        out,
        tier=tier,
        seed=seed,
        duration_s=duration_s,
        progress=progress,
    )
    elapsed_s = perf_counter() - begun
    return run, write_report(out), elapsed_s


def _shortened(scenario: Scenario, duration_s: float | None) -> Scenario:
    """A demo that ends early is judged by what holds at any time: safe writes and replay.

    Its end is the last twelfth of it, as two hours are of a day.
    """
    if duration_s is None or duration_s >= scenario.duration_s or scenario.economics is None:
        return scenario
    end_s = (duration_s * 11.0 / 12.0, duration_s)
    always = ("unsafe_writes", "replay_identical")
    return replace(
        scenario,
        economics=replace(scenario.economics, end_s=end_s),
        assertions=tuple(a for a in scenario.assertions if a.kpi in always),
    )


def _clear(out: Path) -> None:
    """Make way for a new demo: only the files of an earlier demo are removed."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    marker = out / SCENARIO_FILE
    wanted = shipped(SCENARIO).read_bytes()
    ours = out.is_dir() and marker.is_file() and marker.read_bytes() == wanted
    known = {
        *(f"{name}{tail}" for name in ("events.db", "samples.db") for tail in ("", "-wal", "-shm")),
        "control.lock",
        VERDICT_FILE,
        HISTORY_FILE,
        SCENARIO_FILE,
        "report.html",
    }
    if not ours or {path.name for path in out.iterdir()} - known:
        raise ScenarioError(
            "this directory holds something that this demo has not written",
            where=str(out),
            mend="Choose another directory with --out",
        )
    for path in out.iterdir():
        path.unlink()


_ROWS = (
    ("profit before (PLC alone)", "profit_before", "{:.2f} {unit}"),
    ("profit at the end", "profit_end", "{:.2f} {unit}"),
    ("profit at the plant's true optimum", "profit_optimum", "{:.2f} {unit}"),
    ("gap at the end", "gap_end", "{:.2%}"),
    ("lab samples judged", "lab_samples", "{:.0f}"),
    ("  of them violating by more than 1e-3", "lab_violation_share", "{:.1%}"),
    ("off-spec product", "off_spec_kg", "{:,.0f} kg"),
    ("  of", "product_kg", "{:,.0f} kg"),
    ("sheds", "sheds", "{:.0f}"),
    ("watchdog trips in the PLCs", "watchdog_trips", "{:.0f}"),
    ("write requests seen on the wire", "wire_writes", "{:.0f}"),
    ("  outside limits", "unsafe_writes", "{:.0f}"),
    ("solve time, median", "solve_ms_p50", "{:.1f} ms"),
    ("  99th percentile", "solve_ms_p99", "{:.1f} ms"),
    ("cycle of the controller with its sockets, median", "cycle_ms_p50", "{:.1f} ms"),
    ("  99th percentile", "cycle_ms_p99", "{:.1f} ms"),
)


def demo_table(run: Run, elapsed_s: float) -> Table:
    """What mattered, in one table."""
    kpis = run.verdict.kpis
    hours = kpis.get("cycles", 0.0) * run.cycle_s / 3600.0
    table = Table(
        title=f"{hours:g} h in {elapsed_s:.0f} s, replay included",
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    for label, name, form in _ROWS:
        value = kpis.get(name, float("nan"))
        table.add_row(label, form.format(value, unit=run.unit) if isfinite(value) else "–")
    if run.replayed is not None:
        replayed = f"{run.replayed.identical} of {run.replayed.cycles} cycles identical"
        table.add_row("replay", replayed)
    table.add_row("verdict", "passed" if run.verdict.passed else "FAILED")
    return table


_NAMED = (
    "profit_before",
    "profit_end",
    "profit_optimum",
    "gap_end",
    "unsafe_writes",
    "watchdog_trips",
    "replayed_cycles",
    "replay_identical",
    "solve_ms_p50",
    "solve_ms_p99",
    "cycles",
)


def demo_document(run: Run, elapsed_s: float) -> dict[str, Any]:
    """The demo as one JSON document: `passed`, `checks`, `kpis`."""
    plain = run.verdict.plain()
    kpis: dict[str, Any] = {name: plain["kpis"].get(name) for name in _NAMED}
    kpis |= plain["kpis"]
    for name in ("unsafe_writes", "watchdog_trips", "replayed_cycles", "cycles", "sheds"):
        if kpis.get(name) is not None:
            kpis[name] = round(kpis[name])
    kpis["replay_identical"] = run.replayed is not None and run.replayed.passed
    kpis["elapsed_s"] = round(elapsed_s, 1)
    return {
        "passed": plain["passed"],
        "checks": plain["checks"],
        "kpis": kpis,
        "seed": plain["seed"],
        "tier": plain["tier"],
        "version": plain["version"],
    }
