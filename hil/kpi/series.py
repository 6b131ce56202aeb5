"""Arithmetic over the true plant outputs and inputs of a run, such as profit or power."""

from __future__ import annotations

from typing import NamedTuple

import casadi as ca
import numpy as np

from controller.optimizer.expression import compile_expression
from hil.history import Column, History


def series(text: str, history: History) -> Column:
    """Value of an expression in every cycle; NaN where it is undefined.

    Raises:
        ModelError: it is no arithmetic, or names what the plant does not have.
    """
    expression = compile_expression(text)
    # A plant output hides an input of the same name: it is what really flows.
    columns = {
        name[2:]: values
        for prefix in ("u.", "y.")
        for name, values in history.columns.items()
        if name.startswith(prefix)
    }
    symbols = {name: ca.SX.sym(name) for name in columns}
    result = expression.symbolic(symbols)
    if not expression.names:
        return np.full(len(history), expression({}))
    # All cycles in one call: each is a column of the matrix.
    given = ca.vertcat(*(symbols[name] for name in expression.names))
    rows = np.array([columns[name] for name in expression.names], dtype=np.float64)
    found = np.array(ca.Function("series", [given], [result])(rows), dtype=np.float64)[0]
    return np.where(np.isfinite(found), found, np.nan)


class Standing(NamedTuple):
    """How long each row stands, and for how long none does (the controller is absent), s."""

    rows_s: Column
    absent_s: float


MISSED = 1.5
"""Periods after which a cycle that has not come was missed; as the loop counts them."""


def standing(time_s: Column, cycle_s: float, end_s: float) -> Standing:
    """A row stands until the next one; for a cycle only where the next one was missed.

    What is before the first row, between rows and after the last one up to `end_s` is absence.
    """
    # A clock that is set back makes no time.
    gaps_s = np.maximum(np.diff(np.append(time_s, end_s)), 0.0)
    rows_s = np.where(gaps_s > MISSED * cycle_s, cycle_s, gaps_s)
    late_s = float(time_s[0]) if time_s[0] > (MISSED - 1.0) * cycle_s else 0.0
    return Standing(rows_s, late_s + float(np.sum(gaps_s - rows_s)))
