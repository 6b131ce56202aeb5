"""What a measurement found, as one JSON document and as tables for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Group
from rich.table import Table

from hil.bench.cycle import CycleResult
from hil.bench.growth import Growth
from hil.bench.harness import HarnessRate
from hil.bench.measure import WARM_UP, CaseResult, SideResult, geometric_mean
from hil.bench.rungs import RungTimes

Document = Mapping[str, Any]


def document(
    cases: Sequence[CaseResult],
    cycle: CycleResult | None,
    growths: Sequence[Growth],
    rungs: Sequence[RungTimes],
    core: int | None,
    harness: Sequence[HarnessRate] = (),
) -> dict[str, Any]:
    """Everything that was measured, in plain numbers."""
    ratios = [ratio for case in cases if (ratio := case.ratio) is not None]
    return {
        "cases": [_case(case) for case in cases],
        "geomean_ratio": geometric_mean(ratios) if ratios else None,
        "cycle": None if cycle is None else _cycle(cycle),
        "growth": [asdict(growth) | {"exponent": growth.exponent} for growth in growths],
        "rungs": [asdict(times) for times in rungs],
        "harness": [
            asdict(rate) | {"cycles_per_s": rate.median, "rates": list(rate.rates)}
            for rate in harness
        ],
        "machine": {
            "processor": _processor(),
            "core": core,
            "python": platform.python_version(),
            "loopwright": _version("loopwright"),
            "casadi": _version("casadi"),
            "do_mpc": _version("do-mpc"),
        },
        "warm_up_steps": WARM_UP,
    }


def _case(result: CaseResult) -> dict[str, Any]:
    case, ours, peer = result.case, result.ours, result.peer
    found = {
        "name": case.name,
        "states": len(case.model.x),
        "intervals": case.intervals,
        "steps": result.steps,
        "median_ms": ours.times.median_ms,
        "p99_ms": ours.times.p99_ms,
        "max_ms": ours.times.max_ms,
        "peer_median_ms": None if peer is None else peer.times.median_ms,
        "ratio": result.ratio,
        "cost_ratio": result.cost_ratio(ours),
        "rungs": dict(ours.rungs),
        "built_s": ours.built_s,
        "reference_median_ms": result.reference.times.median_ms,
        "reference_refusals": result.reference.refusals,
    }
    return found | ({} if peer is None else _peer(result, peer))


def _peer(result: CaseResult, peer: SideResult) -> dict[str, Any]:
    return {
        "peer_p99_ms": peer.times.p99_ms,
        "peer_max_ms": peer.times.max_ms,
        "peer_cost_ratio": result.cost_ratio(peer),
        "peer_refusals": peer.refusals,
        "peer_built_s": peer.built_s,
    }


def _cycle(cycle: CycleResult) -> dict[str, Any]:
    return {
        "cycles": cycle.cycles,
        "median_ms": cycle.times.median_ms,
        "p99_ms": cycle.times.p99_ms,
        "max_ms": cycle.times.max_ms,
        "rungs": dict(cycle.rungs),
        "rss_start_mb": cycle.rss_start_mb,
        "rss_end_mb": cycle.rss_end_mb,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def tables(found: Document) -> Group:
    """The document for people."""
    parts: list[Any] = []
    if found["cases"]:
        parts.append(_case_table(found))
    if found["geomean_ratio"] is not None:
        parts.append(_peer_table(found))
    if found["cycle"] is not None:
        parts.append(_cycle_table(found["cycle"]))
    parts += [_growth_table(growth) for growth in found["growth"]]
    if found["rungs"]:
        parts.append(_rung_table(found["rungs"]))
    if found["harness"]:
        parts += [_harness_table(found["harness"]), _part_table(found["harness"])]
    return Group(*parts)


def _case_table(found: Document) -> Table:
    table = Table(title="One step of the controller, ms; cost over that of converged IPOPT")
    columns = ("case", "nx", "N", "median", "p99", "max", "cost", "solved by", "built")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for case in found["cases"]:
        table.add_row(
            case["name"],
            str(case["states"]),
            str(case["intervals"]),
            *(_ms(case[key]) for key in ("median_ms", "p99_ms", "max_ms")),
            f"{case['cost_ratio']:.4f}",
            " ".join(f"{rung} {count}" for rung, count in case["rungs"].items()),
            f"{case['built_s']:.1f} s",
        )
    return table


def _peer_table(found: Document) -> Table:
    table = Table(title=f"do-mpc in the same run; geometric mean {found['geomean_ratio']:.1f}×")
    for number, column in enumerate(("case", "median", "p99", "max", "cost", "built", "ratio")):
        table.add_column(column, justify="left" if number == 0 else "right")
    for case in found["cases"]:
        table.add_row(
            case["name"],
            *(_ms(case[key]) for key in ("peer_median_ms", "peer_p99_ms", "peer_max_ms")),
            f"{case['peer_cost_ratio']:.4f}",
            f"{case['peer_built_s']:.1f} s",
            f"{case['ratio']:.1f}×",
        )
    return table


def _cycle_table(cycle: Document) -> Table:
    table = Table(title="The whole cycle, validate to guard, CSTR application")
    for column in ("cycles", "median", "p99", "max", "memory at start", "at the end"):
        table.add_column(column, justify="right")
    table.add_row(
        str(cycle["cycles"]),
        *(f"{_ms(cycle[key])} ms" for key in ("median_ms", "p99_ms", "max_ms")),
        *(f"{cycle[key]:.1f} MB" for key in ("rss_start_mb", "rss_end_mb")),
    )
    return table


def _harness_table(rates: Sequence[Document]) -> Table:
    table = Table(title="CSTR in the harness: loop, journal, wire watch, invariants")
    for number, column in enumerate(("tier", "processes", "cycles", "cycles/s", "of repeats")):
        table.add_column(column, justify="left" if number == 0 else "right")
    for rate in rates:
        table.add_row(
            rate["tier"],
            str(rate["processes"]),
            str(rate["cycles"]),
            f"{rate['cycles_per_s']:.0f}",
            " ".join(f"{each:.0f}" for each in rate["rates"]),
        )
    return table


def _part_table(rates: Sequence[Document]) -> Table:
    taken = [rate for rate in rates if rate["parts_ms"]]
    table = Table(title="Where the time of a cycle goes, median ms")
    table.add_column("tier")
    for part in taken[0]["parts_ms"]:
        table.add_column(part, justify="right")
    for rate in taken:
        table.add_row(rate["tier"], *(_ms(each) for each in rate["parts_ms"].values()))
    return table


def _growth_table(growth: Document) -> Table:
    table = Table(title=f"Time over {growth['over']}: exponent {growth['exponent']:.2f}")
    table.add_column(growth["over"], justify="right")
    table.add_column("median, ms", justify="right")
    table.add_column("built, s", justify="right")
    table.add_column("solved by")
    columns = (growth[key] for key in ("sizes", "median_ms", "built_s", "rungs"))
    for size, median_ms, built_s, rungs in zip(*columns, strict=True):
        table.add_row(str(size), _ms(median_ms), f"{built_s:.1f}", rungs)
    return table


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100.0 else f"{value:.0f}"


def _rung_table(rungs: Sequence[Document]) -> Table:
    table = Table(title="Every solver of the ladder on the same instances, ms")
    for number, column in enumerate(("case", "rung", "median", "max", "refused")):
        table.add_column(column, justify="left" if number < 2 else "right")
    for times in rungs:
        table.add_row(
            times["case"],
            times["rung"],
            _ms(times["median_ms"]),
            _ms(times["max_ms"]),
            str(times["refused"]),
        )
    return table
