"""What really happened in a run: true plant values beside what the controller saw, per cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]


@dataclass(slots=True)
class History:
    """Columns by name, one row a cycle; texts (mode, rung, faults) are kept beside.

    Columns: `time_s`, `y.<plant output>`, `u.<plant input>`, `sp.<MV>` (setpoint in use),
    `cv.<CV>` (estimated), `cycle_ms`, `solve_ms` (both in real time).
    """

    columns: dict[str, list[float]] = field(default_factory=lambda: dict[str, list[float]]())
    texts: dict[str, list[str]] = field(default_factory=lambda: dict[str, list[str]]())

    def append(self, numbers: Mapping[str, float], texts: Mapping[str, str]) -> None:
        for name, number in numbers.items():
            self.columns.setdefault(name, []).append(number)
        for name, text in texts.items():
            self.texts.setdefault(name, []).append(text)

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
