"""The golden run as a file: text whose lines tell on a pull request what a change did.

JSON, one KPI and one row of signals a line, numbers with 7 digits (5e-7 of their size at most).
A long run is kept in at most 400 rows; a row of several cycles tells the smallest and the largest
value in them, so that no peak is lost.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.metadata import version
from math import isfinite, nan
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from controller.errors import ScenarioError
from hil.history import Column, History
from hil.judge.mode_trace import mode_sequence

FORMAT = 1
ROWS_MAX = 400
ROUNDING = 5e-7
"""Relative error of a number in the file."""
REAL_TIME_KPIS = ("cycle_ms*", "solve_ms*", "jitter_ms*", "wall_s", "late_writes", "deadline_*")
"""They differ from machine to machine and are kept only where a scenario asks for them."""

_MEND = "Make it again with --update-golden"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What a run was a run of."""

    scenario: str
    tier: str
    seed: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class GoldenRun:
    """A run that was found good.

    Attributes:
        versions: of loopwright, casadi and python that made it.
        active: whether control was ever active.
        modes: with the time each began.
        times_s: of the first cycle of each row.
        low, high: per signal the smallest and largest value of each row; NaN where it had none.
    """

    identity: RunIdentity
    versions: Mapping[str, str]
    active: bool
    modes: tuple[tuple[float, str], ...]
    kpis: Mapping[str, float]
    times_s: Column
    low: Mapping[str, Column]
    high: Mapping[str, Column]


def versions() -> dict[str, str]:
    """What computes the numbers of a run."""
    return {
        "loopwright": version("loopwright"),
        "casadi": version("casadi"),
        "python": platform.python_version(),
    }


def golden_of(
    history: History,
    kpis: Mapping[str, float],
    identity: RunIdentity,
    signals: Sequence[str],
    wanted_kpis: Sequence[str] = (),
) -> GoldenRun:
    """What is kept of a run.

    Args:
        signals: columns of the history.
        wanted_kpis: KPIs in real time that are kept all the same.
    """
    times_s = history.column("time_s")
    begins = np.arange(0, times_s.size, max(1, -(-times_s.size // ROWS_MAX)))
    modes = tuple(
        (round(float(times_s[row]), 6), mode)
        for row, mode in mode_sequence(history.texts.get("mode", ()))
    )
    extremes = {name: row_extremes(history.column(name), begins) for name in signals}
    return GoldenRun(
        identity=identity,
        versions=versions(),
        active=any(mode == "ACTIVE" for _, mode in modes),
        modes=modes,
        kpis={
            name: _rounded(value)
            for name, value in sorted(kpis.items())
            if isfinite(value) and (name in wanted_kpis or not matches(name, REAL_TIME_KPIS))
        },
        times_s=times_s[begins].round(6),
        low={name: _all_rounded(low) for name, (low, _) in extremes.items()},
        high={name: _all_rounded(high) for name, (_, high) in extremes.items()},
    )


def row_extremes(values: Column, begins: NDArray[np.intp]) -> tuple[Column, Column]:
    """Smallest and largest value from each begin to the next; NaN where any is no number."""
    return np.minimum.reduceat(values, begins), np.maximum.reduceat(values, begins)


def matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def write_golden(run: GoldenRun, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        ScenarioError: it cannot be written.
    """
    head = {
        "golden": FORMAT,
        "scenario": run.identity.scenario,
        "tier": run.identity.tier,
        "seed": run.identity.seed,
        "duration_s": run.identity.duration_s,
        "versions": dict(run.versions),
        "active": run.active,
        "columns": ["time_s", *run.low],
    }
    lines = [f"  {json.dumps(key)}: {_json(value)}" for key, value in head.items()]
    lines.append(_block("modes", "[]", [_json([t, mode]) for t, mode in run.modes]))
    kpis = [f"{json.dumps(name)}: {_json(value)}" for name, value in run.kpis.items()]
    lines.append(_block("kpis", "{}", kpis))
    cells = [
        [_cell(a, b) for a, b in zip(run.low[n].tolist(), run.high[n].tolist(), strict=True)]
        for n in run.low
    ]
    rows = zip(run.times_s.tolist(), *cells, strict=True)
    lines.append(_block("rows", "[]", [_json(list(row)) for row in rows]))
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise ScenarioError(
            f"the golden run cannot be written: {error.strerror}", where=str(path)
        ) from error


def read_golden(path: Path) -> GoldenRun | None:
    """The golden run in a file; None where there is no such file.

    Raises:
        ScenarioError: it cannot be read or is no golden run.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError("the golden run cannot be read", where=str(path), mend=_MEND) from error
    try:
        return _read(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ScenarioError("this is no golden run", where=str(path), mend=_MEND) from error


def _read(data: dict[str, Any]) -> GoldenRun:
    if data["golden"] != FORMAT:
        raise ValueError("another format")
    names = cast("list[str]", data["columns"])[1:]
    rows = cast("list[list[Any]]", data["rows"])
    if any(len(row) != len(names) + 1 for row in rows) or not rows:
        raise ValueError("rows do not fit the columns")
    ends = {
        name: np.array([_ends(row[i]) for row in rows], dtype=np.float64)
        for i, name in enumerate(names, start=1)
    }
    times_s = np.array([row[0] for row in rows], dtype=np.float64)
    if not np.all(np.diff(times_s) > 0):
        raise ValueError("times do not increase")
    return GoldenRun(
        identity=RunIdentity(
            str(data["scenario"]), str(data["tier"]), int(data["seed"]), float(data["duration_s"])
        ),
        versions={str(k): str(v) for k, v in data["versions"].items()},
        active=data["active"] is True,
        modes=tuple((float(t), str(mode)) for t, mode in data["modes"]),
        kpis={str(k): float(v) for k, v in data["kpis"].items()},
        times_s=times_s,
        low={name: values[:, 0] for name, values in ends.items()},
        high={name: values[:, 1] for name, values in ends.items()},
    )


def _ends(cell: Any) -> tuple[float, float]:
    if cell is None:
        return nan, nan
    if isinstance(cell, list):
        low, high = cast("list[float]", cell)
        return float(low), float(high)
    return float(cell), float(cell)


def _cell(low: float, high: float) -> float | list[float] | None:
    if not (isfinite(low) and isfinite(high)):
        return None
    return low if low == high else [low, high]


def _rounded(value: float) -> float:
    return float(f"{value:.7g}")


def _all_rounded(values: Column) -> Column:
    return np.array([_rounded(value) for value in values.tolist()], dtype=np.float64)


def _json(value: object) -> str:
    """On one line; whole numbers without a point."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, list):
        return f"[{', '.join(_json(item) for item in cast('list[object]', value))}]"
    return json.dumps(value, ensure_ascii=False)


def _block(key: str, brackets: str, lines: Sequence[str]) -> str:
    inner = ",\n".join(f"    {line}" for line in lines)
    body = f"\n{inner}\n  " if lines else ""
    return f"  {json.dumps(key)}: {brackets[0]}{body}{brackets[1]}"
