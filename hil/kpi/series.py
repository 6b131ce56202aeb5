"""Arithmetic over the true plant outputs and inputs of a run, such as profit or power."""

from __future__ import annotations

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


def durations_s(history: History, cycle_s: float) -> Column:
    """How long each row stands: until the next one, the last for a cycle."""
    # A clock that is set back makes no time.
    return np.append(np.maximum(np.diff(history.column("time_s")), 0.0), cycle_s)
