"""Dead time in sampled models: exact sampling of delayed inputs, and the inputs of samples ago.

An input is held over a sample. One delayed by m whole samples and a part of one changes inside a
sample, so two neighbouring past inputs act on the step, each for its own share of the time.

Source: Åström & Wittenmark (1997), Computer-Controlled Systems, 3rd ed., section 2.3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from plant_models.variable import Variable

Matrix = NDArray[np.float64]

LONGEST_CHAIN = 1000
"""Past samples of one input that a model may remember: beyond it no QP is solved in a cycle."""
ON_A_SAMPLE = 1e-9
"""Share of a sample that is rounding, not dead time."""


@dataclass(frozen=True, slots=True, eq=False)
class DelayedStep:
    """x(k + 1) = phi x(k) + newer u(k - samples) + older u(k - samples - 1).

    `older` is zero where the dead time is a whole number of samples.
    """

    phi: Matrix
    samples: int
    newer: Matrix
    older: Matrix

    @property
    def memory(self) -> int:
        """How many past samples of the input it needs."""
        return self.samples + int(bool(self.older.any()))


def zero_order_hold(a: Matrix, b: Matrix, dt_s: float) -> tuple[Matrix, Matrix]:
    """(phi (n, n), gamma (n, m)) of dx/dt = a x + b u over dt_s seconds with u held.

    Source: Van Loan (1978), Computing integrals involving the matrix exponential, IEEE TAC 23.
    """
    n, m = b.shape
    block = np.zeros((n + m, n + m))
    block[:n, :n], block[:n, n:] = a, b
    power = np.asarray(expm(block * dt_s), dtype=np.float64)
    return power[:n, :n], power[:n, n:]


def delayed_step(a: Matrix, b: Matrix, dt_s: float, delay_s: float) -> DelayedStep:
    """Exact sampling of dx/dt = a x(t) + b u(t - delay_s) with u held over samples of dt_s.

    Raises:
        ValueError: the dead time is negative, or needs more past samples than a model may hold.
    """
    if not 0.0 <= delay_s < float("inf"):
        raise ValueError(f"a dead time of {delay_s:g} s is not a time")
    whole = int(delay_s / dt_s + ON_A_SAMPLE) if delay_s / dt_s < 2 * LONGEST_CHAIN else -1
    if whole < 0 or whole > LONGEST_CHAIN:
        raise ValueError(
            f"a dead time of {delay_s:g} s is more than {LONGEST_CHAIN} samples of {dt_s:g} s; "
            "take a longer sample time"
        )
    late_s = delay_s - whole * dt_s
    phi, gamma = zero_order_hold(a, b, dt_s)
    if late_s <= ON_A_SAMPLE * dt_s:
        return DelayedStep(phi, whole, gamma, np.zeros_like(gamma))
    phi_rest, newer = zero_order_hold(a, b, dt_s - late_s)
    _, older = zero_order_hold(a, b, late_s)
    return DelayedStep(phi, whole, newer, phi_rest @ older)


def delay_chain(variable: Variable, samples: int, dt_s: float) -> tuple[Variable, ...]:
    """States that hold what the input was 1, 2, … samples ago; they start at its nominal value."""
    return tuple(
        Variable(
            f"{variable.name} delay {k}",
            variable.unit,
            variable.low,
            variable.high,
            variable.nominal,
            f"{variable.name} {k * dt_s:g} s ago",
        )
        for k in range(1, samples + 1)
    )


def shift(a: Matrix, b: Matrix, first: int, samples: int, column: int) -> None:
    """Write into a (nx, nx) and b (nx, nu) the chain of `samples` states that starts at `first`."""
    if samples:
        b[first, column] = 1.0
    for k in range(1, samples):
        a[first + k, first + k - 1] = 1.0
