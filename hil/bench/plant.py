"""The plant of a case, integrated accurately, with the same chance for every controller."""

from __future__ import annotations

import casadi as ca
import numpy as np

from hil.bench.case import BenchCase
from plant_models.process import Vector

TOLERANCE = 1e-9
"""Of CVODES, relative and absolute: far below what the controllers' discretisation leaves out."""


class BenchPlant:
    """A case's plant: its own parameters, unmeasured upsets, and a kick to the state every step.

    Args:
        seed: of the kicks; two plants with the same seed get the same ones.
    """

    def __init__(self, case: BenchCase, seed: int) -> None:
        self._case = case
        self._model = case.model.with_parameters(case.plant_parameters)
        model = self._model
        x, u = ca.SX.sym("x", len(model.x)), ca.SX.sym("u", len(model.u))
        d, p = ca.SX.sym("d", len(model.d)), ca.DM(model.p_nominal)
        ode = {"x": x, "p": ca.vertcat(u, d), "ode": model.f(x, u, d, p)}
        options = {"abstol": TOLERANCE, "reltol": TOLERANCE}
        self._advance = ca.integrator("plant", "cvodes", ode, 0.0, case.step_s, options)
        self._observe = ca.Function("observe", [x, u, d], [model.h(x, u, d, p)])
        self._chance = np.random.default_rng(seed)
        self._d = case.d.copy()
        self._step = 0
        self.x = case.x0.copy()

    def advance(self, u: Vector) -> Vector:
        """Hold u (nu,) for one step; the outputs (ny,) at its end."""
        for upset in self._case.upsets:
            if upset.step == self._step:
                self._d[upset.index] = upset.value
        result = self._advance(x0=self.x, p=np.concatenate([u, self._d]))
        self.x = np.asarray(result["xf"], dtype=np.float64).ravel()
        if self._case.kick is not None:
            self.x = self.x + self._case.kick * self._chance.standard_normal(len(self.x))
        self._step += 1
        return self.observe(u)

    def observe(self, u: Vector) -> Vector:
        """Outputs (ny,) of the present state."""
        return np.asarray(self._observe(self.x, u, self._d), dtype=np.float64).ravel()
