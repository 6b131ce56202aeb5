"""Tries a compiled solver on hostile numbers, in a process of its own: `python -m … LIBRARY`."""

from __future__ import annotations

import ctypes
import sys

import numpy as np

TRIALS = 24
BUDGET = 3


def main(path: str) -> int:
    """0 when the library returned from every trial with a verdict of its own."""
    calls = ctypes.CDLL(path)
    sizes: list[int] = []
    for name in ("rti_argument_size", "rti_iterate_size", "rti_result_size"):
        size = getattr(calls, name)
        size.restype = ctypes.c_size_t
        sizes.append(int(size()))
    calls.rti_create.restype = ctypes.c_void_p
    calls.rti_solve.argtypes = [*[ctypes.c_void_p] * 3, ctypes.c_int, *[ctypes.c_void_p] * 3]
    calls.rti_destroy.argtypes = [ctypes.c_void_p]
    generator = np.random.default_rng(0)
    tolerances = np.full(6, 1e-6)
    work = calls.rti_create()
    for trial in range(TRIALS):
        argument, guess = (_hostile(generator, size, trial) for size in sizes[:2])
        # A border of known numbers around what the library may write.
        out, result = np.full(sizes[1] + 16, 7.0), np.full(sizes[2] + 16, 7.0)
        verdict = calls.rti_solve(
            work,
            argument.ctypes.data,
            guess.ctypes.data,
            BUDGET,
            tolerances.ctypes.data,
            out[8:].ctypes.data,
            result[8:].ctypes.data,
        )
        borders = np.concatenate([out[:8], out[-8:], result[:8], result[-8:]])
        if verdict not in range(4) or not np.all(borders == 7.0):
            print(f"trial {trial}: verdict {verdict}, or wrote outside", file=sys.stderr)
            return 1
    calls.rti_destroy(work)
    return 0


def _hostile(generator: np.random.Generator, size: int, trial: int) -> np.ndarray:
    numbers = generator.normal(0.0, 10.0 ** generator.integers(-3, 12), size)
    strange = (np.nan, np.inf, -np.inf, 0.0, 1e300, -1e-300)[trial % 6]
    numbers[generator.random(size) < (trial % 4) / 8] = strange
    return numbers


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
