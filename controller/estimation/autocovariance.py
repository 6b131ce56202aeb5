"""Noise covariances from the innovations that a filter left behind: autocovariance least squares.

A filter with the right covariances leaves white innovations. What is left in the innovations of a
filter with wrong ones tells, through their autocovariances, what the right ones are: a linear
least-squares problem whose unknowns must be positive semidefinite.

Source: Odelson, Rajamani & Rawlings 2006; of many covariances that fit equally well the one with
the smallest trace is taken, Rajamani & Rawlings 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cvxpy as cp
import numpy as np
from cvxpy.error import SolverError
from scipy.linalg import solve_discrete_are

from controller.errors import ModelError
from controller.estimation.evaluation import Matrix
from plant_models.process import Vector

Structure = Literal["full", "diagonal"]

# An autocovariance of n samples is known to about 1/sqrt(n): with fewer than that many per lag
# the answer would be made of noise.
SAMPLES_PER_LAG = 20
# A filter that forgets slower than that needs more samples to settle than anyone records.
SLOWEST_MODE = 0.9995
# The transient of a wrong initial state is over when so much of it is left.
FORGOTTEN = 1e-3
# Share of the largest singular value below which a direction of the covariances is not seen.
BLIND = 1e-8


@dataclass(frozen=True, slots=True, eq=False)
class NoiseCovariances:
    """What drives the process and what disturbs the sensors.

    Attributes:
        q: covariance of the process noise gained in one cycle, (nw, nw).
        r: covariance of the measurement noise, (ny, ny).
        gain: of the steady Kalman filter with them, x after correction = x + gain innovation,
            (nx, ny).
        unexplained: share of the autocovariances (their norm) that q and r do not explain.
        samples: how many innovations were used.
    """

    q: Matrix
    r: Matrix
    gain: Matrix
    unexplained: float
    samples: int

    def per_hour(self, cycle_s: float) -> Matrix:
        """q as covariance gained per hour, (nw, nw), for cycles of cycle_s seconds."""
        return self.q * (3600.0 / cycle_s)


def autocovariance_least_squares(
    a: Matrix,
    c: Matrix,
    gain: Matrix,
    innovations: Matrix,
    lags: int,
    *,
    noise_input: Matrix | None = None,
    structure: Structure = "full",
    trace_weight: float = 0.0,
) -> NoiseCovariances:
    """The covariances that explain the innovations of a filter with a constant gain.

    x+ = a x + noise_input w, y = c x + v, estimated by x̂+ = a (x̂ + gain (y - c x̂)).

    Args:
        a, c: of the discrete model of one cycle, (nx, nx) and (ny, nx).
        gain: by which the filter corrected, (nx, ny).
        innovations: y - c x̂ of consecutive cycles without its initial transient, (T, ny).
        lags: how many autocovariances to use, the one at lag 0 included.
        noise_input: where process noise enters, (nx, nw); None: everywhere.
        structure: whether q and r are full or diagonal.
        trace_weight: prefers a smaller trace of q; with it a q that the innovations alone do not
            settle becomes unique.

    Raises:
        ModelError: the shapes do not fit; too few or not finite innovations; the filter is not
            stable; the model is not observable; the innovations do not settle q.
    """
    nx, ny = a.shape[0], c.shape[0]
    g = np.eye(nx) if noise_input is None else np.asarray(noise_input, dtype=np.float64)
    _check_shapes(a, c, gain, innovations, g)
    _check_data(innovations, lags)
    _check_filter(a, c, gain)
    scale_y = np.sqrt(np.mean(np.square(innovations), axis=0))
    if not np.all(scale_y > 0.0):
        still = ", ".join(str(i) for i in np.flatnonzero(scale_y == 0.0))
        raise ModelError(
            f"the innovations of measurement {still} are all zero",
            mend="Leave out a measurement that never moves.",
        )
    scaled = innovations / scale_y
    wanted = _autocovariances(scaled, lags)
    pattern_q = _pattern(g.shape[1], structure)
    pattern_r = _pattern(ny, structure)
    design = _design(a, c / scale_y[:, None], gain * scale_y, g, lags, pattern_q, pattern_r)
    columns = np.linalg.norm(design, axis=0)
    if trace_weight == 0.0:
        _check_settled(design, columns, g.shape[1], len(pattern_q))
    sizes = np.where(columns > 0.0, columns, 1.0)
    q, r, left = _solve(design / sizes, wanted, sizes, pattern_q, pattern_r, trace_weight)
    r = r * np.outer(scale_y, scale_y)
    return NoiseCovariances(q, r, _steady_gain(a, c, g @ q @ g.T, r), left, innovations.shape[0])


def covariances_from_data(
    a: Matrix,
    b: Matrix,
    c: Matrix,
    gain: Matrix,
    inputs: Matrix,
    outputs: Matrix,
    lags: int,
    *,
    noise_input: Matrix | None = None,
    structure: Structure = "full",
    trace_weight: float = 0.0,
) -> NoiseCovariances:
    """As `autocovariance_least_squares`, from what was recorded.

    Runs the filter with the constant gain over inputs (T, nu) and outputs (T, ny), where inputs[k]
    acts between outputs[k] and outputs[k + 1], and leaves out the transient of its initial state.
    """
    if inputs.shape[0] != outputs.shape[0]:
        raise ModelError(
            f"{inputs.shape[0]} inputs and {outputs.shape[0]} outputs do not belong together",
            mend="Give both for the same cycles.",
        )
    _check_shapes(a, c, gain, outputs, np.eye(a.shape[0]))
    _check_filter(a, c, gain)
    skip = settling_cycles(a, c, gain)
    innovations = fixed_gain_innovations(a, b, c, gain, inputs, outputs)[skip:]
    return autocovariance_least_squares(
        a,
        c,
        gain,
        innovations,
        lags,
        noise_input=noise_input,
        structure=structure,
        trace_weight=trace_weight,
    )


def fixed_gain_innovations(
    a: Matrix, b: Matrix, c: Matrix, gain: Matrix, inputs: Matrix, outputs: Matrix
) -> Matrix:
    """Innovations (T, ny) of the filter with a constant gain that starts from x̂ = 0."""
    x = np.zeros(a.shape[0])
    found = np.empty_like(outputs)
    for k, (u, y) in enumerate(zip(inputs, outputs, strict=True)):
        found[k] = y - c @ x
        x = a @ (x + gain @ found[k]) + b @ u
    return found


def settling_cycles(a: Matrix, c: Matrix, gain: Matrix) -> int:
    """Cycles until a thousandth of the filter's initial error is left."""
    slowest = float(np.max(np.abs(np.linalg.eigvals(a - a @ gain @ c))))
    return 0 if slowest <= FORGOTTEN else int(np.ceil(np.log(FORGOTTEN) / np.log(slowest)))


def _check_shapes(a: Matrix, c: Matrix, gain: Matrix, data: Matrix, g: Matrix) -> None:
    nx, ny = a.shape[0], c.shape[0]
    wanted = {"a": (nx, nx), "c": (ny, nx), "gain": (nx, ny), "noise_input": (nx, g.shape[-1])}
    given = {"a": a.shape, "c": c.shape, "gain": gain.shape, "noise_input": g.shape}
    for name, shape in wanted.items():
        if given[name] != shape:
            raise ModelError(
                f"{name} has the shape {given[name]}, but with {nx} states and {ny} measurements "
                f"it must be {shape}",
                mend="Take all matrices from one model.",
            )
    if data.ndim != 2 or data.shape[1] != ny:
        raise ModelError(
            f"the data have the shape {data.shape}, but there are {ny} measurements",
            mend="Give one row a cycle and one column a measurement.",
        )


def _check_data(innovations: Matrix, lags: int) -> None:
    samples = innovations.shape[0]
    if lags < 1:
        raise ModelError(f"{lags} lags say nothing", mend="Use about the settling time in cycles.")
    if samples < SAMPLES_PER_LAG * lags:
        raise ModelError(
            f"{samples} innovations are too few for {lags} lags",
            mend=f"Record at least {SAMPLES_PER_LAG * lags} cycles after the filter has settled, "
            "or use fewer lags.",
        )
    broken = np.flatnonzero(~np.isfinite(innovations).all(axis=1))
    if broken.size:
        raise ModelError(
            f"the innovation {broken[0]} is not a finite number ({broken.size} are not)",
            mend="Use a stretch of cycles in which everything was measured.",
        )


def _check_filter(a: Matrix, c: Matrix, gain: Matrix) -> None:
    nx = a.shape[0]
    rows = [c]
    for _ in range(nx - 1):
        rows.append(rows[-1] @ a)
    # Rows of powers of a differ by orders of magnitude: each counts by its direction.
    stacked = np.vstack(rows)
    length = np.linalg.norm(stacked, axis=1, keepdims=True)
    rank = int(np.linalg.matrix_rank(stacked / np.where(length > 0.0, length, 1.0), tol=1e-10))
    if rank < nx:
        raise ModelError(
            f"the measurements show {rank} of {nx} states: the model is not observable",
            mend="Measure more, or leave out the states that nothing shows.",
        )
    slowest = float(np.max(np.abs(np.linalg.eigvals(a - a @ gain @ c))))
    if not slowest < SLOWEST_MODE:
        raise ModelError(
            f"the filter with this gain does not settle: its slowest mode is {slowest:.6g} a cycle",
            mend=f"Use a gain with all eigenvalues of a - a gain c below {SLOWEST_MODE}.",
        )


def _check_settled(design: Matrix, columns: Vector, nw: int, nq: int) -> None:
    """Every entry of q and r must leave a trace of its own in the autocovariances."""
    sizes = np.where(columns > 0.0, columns, 1.0)
    singular = np.linalg.svd(design / sizes, compute_uv=False)
    rank = int(np.sum(singular > BLIND * singular[0]))
    if rank < design.shape[1]:
        raise ModelError(
            f"the innovations settle {rank} of the {design.shape[1]} entries of the covariances "
            f"({nq} of the process noise on {nw} channels)",
            mend="Let the noise enter in fewer places (noise_input), choose structure diagonal, "
            "use more lags, or give a trace_weight.",
        )


def _autocovariances(innovations: Matrix, lags: int) -> Vector:
    """Mean of y[k + j] y[k]ᵀ for j = 0 … lags - 1, (lags ny ny,), row by row."""
    count = innovations.shape[0]
    found = [innovations[j:].T @ innovations[: count - j] / (count - j) for j in range(lags)]
    return np.concatenate([matrix.ravel() for matrix in found])


def _pattern(size: int, structure: Structure) -> list[tuple[int, int]]:
    """The independent entries of a symmetric matrix."""
    if structure == "diagonal":
        return [(i, i) for i in range(size)]
    return [(i, j) for i in range(size) for j in range(i + 1)]


def _unit(size: int, entry: tuple[int, int]) -> Matrix:
    i, j = entry
    unit = np.zeros((size, size))
    unit[i, j] = unit[j, i] = 1.0
    return unit


def _design(
    a: Matrix,
    c: Matrix,
    gain: Matrix,
    g: Matrix,
    lags: int,
    pattern_q: list[tuple[int, int]],
    pattern_r: list[tuple[int, int]],
) -> Matrix:
    """Autocovariances caused by each entry of q and r, (lags ny ny, nq + nr).

    The error of the prediction obeys e+ = (a - a gain c) e + g w - a gain v, with a covariance p;
    at lag 0 the innovations have c p cᵀ + r, at lag j c Āʲ p cᵀ - c Āʲ⁻¹ a gain r.
    """
    closed, injected = a - a @ gain @ c, a @ gain
    ny = c.shape[0]
    columns: list[Vector] = []
    causes = [(g @ _unit(g.shape[1], e) @ g.T, np.zeros((ny, ny))) for e in pattern_q]
    for entry in pattern_r:
        unit = _unit(ny, entry)
        causes.append((injected @ unit @ injected.T, unit))
    for process, sensor in causes:
        p = _stationary(closed, process)
        rows = [c @ p @ c.T + sensor]
        carried = closed @ p @ c.T - injected @ sensor
        for _ in range(lags - 1):
            rows.append(c @ carried)
            carried = closed @ carried
        columns.append(np.concatenate([row.ravel() for row in rows]))
    return np.array(columns).T


def _stationary(closed: Matrix, noise: Matrix) -> Matrix:
    """p = closed p closedᵀ + noise for a noise (n, n) that need not be definite, by doubling."""
    p, power = noise, closed
    # The slowest mode allowed has died out, to rounding, after 2¹⁷ cycles.
    for _ in range(17):
        p = p + power @ p @ power.T
        power = power @ power
    return p


def _solve(
    design: Matrix,
    wanted: Vector,
    sizes: Vector,
    pattern_q: list[tuple[int, int]],
    pattern_r: list[tuple[int, int]],
    trace_weight: float,
) -> tuple[Matrix, Matrix, float]:
    """Least squares over positive semidefinite q and r; q, r and the share left unexplained."""
    count = len(pattern_q)
    entries = cp.Variable(design.shape[1])
    q = _assembled(entries, sizes, pattern_q, 0)
    r = _assembled(entries, sizes, pattern_r, count)
    misfit: Any = cp.sum_squares(design @ entries - wanted)
    traces = [k for k, (i, j) in enumerate(pattern_q) if i == j]
    price: Any = trace_weight * cp.sum(entries[traces])
    problem = cp.Problem(cp.Minimize(misfit + price), [q >> 0, r >> 0])
    try:
        problem.solve(solver=cp.CLARABEL)
    except SolverError as error:
        raise _unsolved(str(error)) from error
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE) or entries.value is None:
        raise _unsolved(str(problem.status))
    left = float(np.linalg.norm(design @ entries.value - wanted) / np.linalg.norm(wanted))
    return _definite(q.value), _definite(r.value), left


def _unsolved(reason: str) -> ModelError:
    return ModelError(
        f"no covariances could be found: {reason}",
        mend="Use more data, or let the noise enter in fewer places.",
    )


def _assembled(
    entries: cp.Variable, sizes: Vector, pattern: list[tuple[int, int]], offset: int
) -> Any:
    """The symmetric matrix of its independent entries, each in its own scale."""
    size = 1 + max(i for i, _ in pattern)
    units = [_unit(size, e) / sizes[offset + k] for k, e in enumerate(pattern)]
    flat = np.array([unit.ravel() for unit in units]).T
    return cp.reshape(flat @ entries[offset : offset + len(pattern)], (size, size), order="C")


def _definite(matrix: Matrix) -> Matrix:
    """Without the rounding of the solver: symmetric, no negative eigenvalue."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _steady_gain(a: Matrix, c: Matrix, noise: Matrix, r: Matrix) -> Matrix:
    """Gain of the steady Kalman filter, (nx, ny).

    Raises:
        ModelError: there is none, because r is singular or an unstable mode gains no noise.
    """
    try:
        p = solve_discrete_are(a.T, c.T, noise, r)
        gain = np.linalg.solve(c @ p @ c.T + r, c @ p).T
    except (np.linalg.LinAlgError, ValueError) as error:
        raise ModelError(
            f"the covariances found have no steady filter: {error}",
            mend="Use more data, or choose structure diagonal; a sensor without noise, or an "
            "integrator without process noise, has none.",
        ) from error
    return gain
