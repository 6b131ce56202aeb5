"""Plants that the process may turn out to be: the linearized model with other gains and speeds.

Gains are wrong by factors of the sensors (one per CV) and of the actuators (one per MV); their
products stay inside the stated uncertainty of each CV. Time constants and dead times are longer or
shorter by half the largest share. A factor for every cell of its own would go too far: the
determinant of Wood and Berry's column could have either sign beyond 17 %, and no one controller
with integral action is stable for both (Skogestad & Postlethwaite 2005, chapter 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import casadi as ca
import numpy as np
from scipy.linalg import expm

from plant_models.process import ProcessModel, Vector, symbols

PACE_SHARE = 0.5
"""Time constants and dead times are uncertain by this part of the largest gain uncertainty."""
CORNERS, INNER = 16, 8
"""So many combinations of extreme gains are tried, and so many drawn from between."""


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One plant of the ensemble.

    Attributes:
        sensor: factor on each output's deviation (ny,); actuator: on each input's (nu,).
        pace: factor on all time constants and dead times.
    """

    name: str
    sensor: Vector
    actuator: Vector
    pace: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class OperatingPoint:
    """The model linearized where it rests: x (nx,), u (nu,), d (nd,), y (ny,) there; derivatives
    a (nx, nx), b (nx, nu), c (ny, nx), e (ny, nu) of f and h; dt_s as of the model."""

    x: Vector
    u: Vector
    d: Vector
    y: Vector
    a: Vector
    b: Vector
    c: Vector
    e: Vector
    dt_s: float


def linearize(model: ProcessModel, x: Vector, u: Vector, d: Vector) -> OperatingPoint:
    """The operating point at x (nx,), u (nu,), d (nd,)."""
    at = symbols(model)
    f, h = model.f(*at), model.h(*at)
    slopes = ca.Function("slopes", list(at), [ca.jacobian(g, v) for g in (f, h) for v in at[:2]])
    point = (x, u, d, model.p_nominal)
    a, b, c, e = (np.array(ca.densify(m), dtype=np.float64) for m in slopes(*point))
    y = np.array(model.h(*point), dtype=np.float64).ravel()
    return OperatingPoint(x, u, d, y, a, b, c, e, model.dt_s)


class LinearPlant:
    """A member of the ensemble, at rest at first; inputs are held over each cycle.

    A discrete model of another pace takes its samples earlier or later by the clock.
    """

    def __init__(self, point: OperatingPoint, member: Member, cycle_s: float) -> None:
        self._point, self._member = point, member
        self._x = np.zeros(point.x.size)
        self._taken, self._elapsed, self._due = 0, 0.0, 0.0
        if point.dt_s > 0.0:
            self._due = cycle_s / (point.dt_s * member.pace)
            self._a, self._b = point.a, point.b
            return
        nx, nu = point.b.shape
        block = np.zeros((nx + nu, nx + nu))
        block[:nx, :nx], block[:nx, nx:] = point.a, point.b
        moved = expm(block * (cycle_s / member.pace))
        self._a, self._b = moved[:nx, :nx], moved[:nx, nx:]

    def hold(self, u: Vector) -> Vector:
        """Outputs y (ny,) after one cycle with inputs u (nu,)."""
        point, member = self._point, self._member
        moved = (u - point.u) * member.actuator
        for _ in range(self._samples()):
            self._x = self._a @ self._x + self._b @ moved
        return point.y + member.sensor * (point.c @ self._x + point.e @ moved)

    def _samples(self) -> int:
        """How often the state advances in this cycle."""
        if self._due == 0.0:
            return 1
        self._elapsed += self._due
        count = int(self._elapsed + 1e-9) - self._taken
        self._taken += count
        return count


def nominal_member(point: OperatingPoint) -> Member:
    """The plant that is as the model says."""
    return Member("as the model", np.ones(point.y.size), np.ones(point.u.size))


def ensemble(
    point: OperatingPoint,
    shares: Mapping[int, float],
    inputs: Mapping[int, str],
    labels: Mapping[int, str],
    seed: int,
) -> tuple[Member, ...]:
    """The nominal plant, extreme ones, and some between them; the same for the same seed.

    A larger share moves every member further out in its own direction.

    Args:
        shares: by output, the share by which its gains may be wrong.
        inputs: by input that is moved, its name; labels: by output of `shares`, its name.
    """
    members = [nominal_member(point)]
    largest = max(shares.values(), default=0.0)
    if largest == 0.0:
        return tuple(members)
    size = len(shares) + len(inputs)
    generator = np.random.default_rng(seed)
    drawn = generator.uniform(-1.0, 1.0, (INNER, size + 1))
    corners = _corners(size, generator)
    # What oscillates does so sooner when it answers late; the fast ones only as a whole.
    ways = [*((*corner, 1.0) for corner in corners), (*corners[0], -1.0), (*corners[-1], -1.0)]
    members += [_member(point, shares, inputs, labels, way) for way in ways]
    members += [_member(point, shares, inputs, labels, tuple(row)) for row in drawn.tolist()]
    return tuple(members)


def _corners(size: int, generator: np.random.Generator) -> list[tuple[float, ...]]:
    """All combinations of extremes; where they are many, all high, all low, and some drawn."""
    if 2**size <= CORNERS:
        return list(product((1.0, -1.0), repeat=size))
    signs = np.where(generator.uniform(size=(CORNERS - 2, size)) < 0.5, -1.0, 1.0)
    return [(1.0,) * size, (-1.0,) * size, *(tuple(row) for row in signs.tolist())]


def _member(
    point: OperatingPoint,
    shares: Mapping[int, float],
    inputs: Mapping[int, str],
    labels: Mapping[int, str],
    way: tuple[float, ...],
) -> Member:
    """The plant that far out (-1 … 1) in every direction: sensors, actuators, pace."""
    common = min(shares.values())
    sensor, actuator = np.ones(point.y.size), np.ones(point.u.size)
    for (output, share), far in zip(shares.items(), way[: len(shares)], strict=True):
        edge = (1.0 + np.sign(far) * share) / np.sqrt(1.0 + np.sign(far) * common)
        sensor[output] = edge ** abs(far)
    for index, far in zip(inputs, way[len(shares) : -1], strict=True):
        actuator[index] = np.sqrt(1.0 + np.sign(far) * common) ** abs(far)
    pace = 1.0 + way[-1] * PACE_SHARE * max(shares.values())
    gains = [
        f"{labels[i]}/{inputs[j]} {100.0 * (sensor[i] * actuator[j] - 1.0):+.0f} %"
        for i in shares
        for j in inputs
    ]
    slower = f"{'slower' if pace > 1.0 else 'faster'} by {100.0 * abs(pace - 1.0):.0f} %"
    return Member(f"gains {', '.join(gains)}; {slower}", sensor, actuator, pace)
