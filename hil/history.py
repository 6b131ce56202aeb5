"""What really happened in a run: true plant values beside what the controller saw, per cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from controller.cycle.record import Record

Column = NDArray[np.float64]
CYCLE_COLUMNS = ("time_s", "cycle_ms", "solve_ms", "lateness_ms", "skipped", "late_writes")


@dataclass(slots=True)
class History:
    """Columns by name, one row a cycle; texts (mode, rung, faults, variables) are kept beside.

    Columns: `time_s`, `y.<plant output>`, `u.<plant input>`, `sp.<MV>` (setpoint in use),
    `cv.<CV>` (estimated), `wanted.<CV>` (setpoint), `cycle_ms` (reading, deciding and writing,
    without the sleep before), `solve_ms`, `lateness_ms` (all in real time), `skipped` (cycles
    missed before), `late_writes` (frames of the cycle before that came too late to be written).
    """

    columns: dict[str, list[float]] = field(default_factory=lambda: dict[str, list[float]]())
    texts: dict[str, list[str]] = field(default_factory=lambda: dict[str, list[str]]())

    def append(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        for name, number in numbers.items():
            column = self.columns.get(name)
            if column is None:
                column = self.columns[name] = []
            column.append(number)
        for name, text in texts.items():
            lines = self.texts.get(name)
            if lines is None:
                lines = self.texts[name] = []
            lines.append(text)

    def __len__(self) -> int:
        return len(self.columns.get("time_s", ()))

    def column(self, name: str) -> Column:
        return np.array(self.columns[name], dtype=np.float64)

    def named(self, prefix: str) -> dict[str, Column]:
        """Columns whose name begins with `prefix.`, without it."""
        return {
            name.removeprefix(prefix + "."): np.array(values, dtype=np.float64)
            for name, values in self.columns.items()
            if name.startswith(prefix + ".")
        }

    def save(self, path: Path) -> None:
        numbers = {f"n:{name}": np.array(v) for name, v in self.columns.items()}
        texts = {f"t:{name}": np.array(v) for name, v in self.texts.items()}
        np.savez_compressed(path, allow_pickle=False, **numbers, **texts)

    @staticmethod
    def load(path: Path) -> History:
        """Raises OSError or ValueError where the file is missing or no history."""
        with np.load(path, allow_pickle=False) as data:
            columns = {k[2:]: data[k].tolist() for k in data.files if k.startswith("n:")}
            texts = {k[2:]: data[k].tolist() for k in data.files if k.startswith("t:")}
        return History(columns, texts)


def refused_commands(record: Record) -> list[str]:
    """What operators asked for and the controller refused in a cycle: `setpoint F 99`."""
    if not record.events:
        return []
    mark = "refused: "
    refused = (event.removeprefix(mark) for event in record.events if event.startswith(mark))
    return [what.split(":")[0].split(" by ")[0] for what in refused]


def variable_texts(record: Record) -> Mapping[str, str]:
    """Which variables were not controlled as usual in a cycle, by what they were.

    MVs: local (the slave loop does not follow), limited (at a limit, or its output saturated).
    CVs: predicted, dropped, given_up (the target explains why a limit or setpoint is not kept).
    """
    constraints = record.target.constraints if record.target is not None else ()
    given_up = tuple([c.name for c in constraints if c.slack != 0.0])
    return _in_words(tuple(record.mv_status.items()), tuple(record.cv_status.items()), given_up)


_Statuses = tuple[tuple[str, str], ...]


@lru_cache(maxsize=256)
def _in_words(mvs: _Statuses, cvs: _Statuses, given_up: tuple[str, ...]) -> Mapping[str, str]:
    """The same few come for hours."""
    found = {
        "local": [name for name, status in mvs if status == "LOCAL"],
        "limited": [name for name, status in mvs if status in ("HIGH", "LOW")],
        "predicted": [name for name, status in cvs if status == "PREDICTED"],
        "dropped": [name for name, status in cvs if status == "DROPPED"],
        "given_up": list(dict.fromkeys(given_up)),
    }
    return MappingProxyType({kind: "; ".join(each) for kind, each in found.items()})
