"""The compiled real-time iteration as a rung of the ladder."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

from controller.errors import ModelError
from controller.mpc.instance import Instance
from controller.mpc.native.generate import RESULT_SIZE, VERDICTS
from controller.mpc.solvers import Answer, Trajectory
from controller.mpc.stage import Stage
from controller.mpc.verify import Certificate

# The QP must be solved as well as its certificate can see it. What nonlinearity leaves after the
# step may be larger: the next cycle goes on from there (Diehl, Bock & Schlöder 2005).
QP_TOLERANCES = (1e-6, 1e-5, 1e-5)
NLP_TOLERANCES = (1e-3, 1e-2, 1e-2)


class Verdict(IntEnum):
    """What the library says of its answer."""

    CONVERGED = VERDICTS["RTI_CONVERGED"]
    NOT_CONVERGED = VERDICTS["RTI_NOT_CONVERGED"]
    QP_REFUSED = VERDICTS["RTI_QP_REFUSED"]
    NOT_FINITE = VERDICTS["RTI_NOT_FINITE"]


_WORDS = {verdict.value: (verdict, verdict.name.lower()) for verdict in Verdict}


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded library; sizes are those it was compiled with."""

    path: Path
    calls: ctypes.CDLL
    argument_size: int
    iterate_size: int
    result_size: int


def load(path: Path, stage: Stage) -> Library:
    """Load a compiled library and check that it was made for this problem.

    Raises:
        ModelError: it cannot be loaded, or its sizes are not those of the problem.
    """
    try:
        calls = ctypes.CDLL(str(path))
        sizes: list[int] = []
        for name in ("rti_argument_size", "rti_iterate_size", "rti_result_size"):
            size = getattr(calls, name)
            size.restype = ctypes.c_size_t
            sizes.append(int(size()))
    except (OSError, AttributeError) as error:
        raise ModelError(f"{path} is no library of ours: {error}", mend="Delete it.") from error
    n, n_mv, n_cv = stage.horizon.intervals, len(stage.mvs), len(stage.cvs)
    ns, ny = stage.ns, len(stage.augmented.model.y)
    inner = stage.collocation.size if stage.collocation else 0
    wanted = [
        2 * ns + 3 * n_mv + ns * ns + n * (stage.nt + 6 * n_cv + 4 * n_mv),
        (n + 1) * ns + n * (n_mv + inner),
        RESULT_SIZE + n * (n_mv + ny),
    ]
    if sizes != wanted:
        raise ModelError(
            f"{path} was compiled for another problem: its sizes are {sizes}, not {wanted}",
            mend="Delete it.",
        )
    return Library(path, calls, *sizes)


class RealTimeIteration:
    """The rung: at most `budget` SQP iterations in compiled code, then its certificate.

    The library's workspace is scratch: every call writes all that it reads (tests compare answers
    after different histories), so this is a function of its arguments.
    """

    def __init__(
        self,
        library: Library,
        stage: Stage,
        budget: int,
        tolerances: tuple[float, ...] = (*QP_TOLERANCES, *NLP_TOLERANCES),
    ) -> None:
        self._library, self._budget = library, budget
        self._shape = (stage.horizon.intervals, len(stage.mvs), len(stage.augmented.model.y))
        self._collocation = stage.collocation
        self._states = (stage.horizon.intervals + 1) * stage.ns
        self._ns = stage.ns
        self._tolerances = np.array(tolerances, dtype=np.float64)
        calls = library.calls
        calls.rti_create.restype = ctypes.c_void_p
        calls.rti_destroy.argtypes = [ctypes.c_void_p]
        calls.rti_destroy.restype = None
        calls.rti_solve.argtypes = [
            *[ctypes.c_void_p] * 3,
            ctypes.c_int,
            *[ctypes.c_void_p] * 3,
        ]
        self._work = calls.rti_create()
        if not self._work:
            raise ModelError("no memory for the workspace of the compiled solver")
        # Buffers whose addresses are known spare asking each array for its own, which takes longer
        # than copying it.
        self._argument = np.zeros(library.argument_size)
        self._begin, self._end = np.zeros(library.iterate_size), np.zeros(library.iterate_size)
        self._result = np.zeros(library.result_size)
        n, n_mv, _ = self._shape
        states, inner = self._states, self._states + n * n_mv
        self._begin_parts = (
            self._begin[:states].reshape(n + 1, -1),
            self._begin[states:inner].reshape(n, n_mv),
            self._begin[inner:].reshape(n, -1),
        )
        self._addresses = (self._work, self._argument.ctypes.data, self._begin.ctypes.data)
        outputs = (self._tolerances, self._end, self._result)
        self._outputs = tuple(array.ctypes.data for array in outputs)

    def __del__(self) -> None:
        work = getattr(self, "_work", None)
        if work:
            self._library.calls.rti_destroy(work)

    def __call__(self, instance: Instance, begin: Trajectory) -> Answer:
        try:
            self._write(instance, begin)
        except ValueError as error:
            raise RuntimeError(f"these are not the sizes compiled for: {error}") from error
        code = self._library.calls.rti_solve(*self._addresses, self._budget, *self._outputs)
        verdict, word = _WORDS[code]
        iterate, result = self._end.copy(), self._result.copy()
        figures = result[:RESULT_SIZE].tolist()
        n, n_mv, ny = self._shape
        inner, outputs = self._states + n * n_mv, RESULT_SIZE + n * n_mv
        return Answer(
            Trajectory(
                iterate[: self._states].reshape(-1, self._ns),
                iterate[self._states : inner].reshape(n, n_mv),
                inner=iterate[inner:].reshape(n, -1) if self._collocation else None,
            ),
            result[RESULT_SIZE:outputs].reshape(n, n_mv),
            result[outputs:].reshape(n, ny),
            figures[4],
            int(figures[1]),
            f"{word}, {int(figures[2])} QP iterations",
            _certificate(verdict, figures),
        )

    def _write(self, instance: Instance, begin: Trajectory) -> None:
        self._argument[:] = instance.flat
        s, v, inner = self._begin_parts
        s[:] = begin.s
        v[:] = begin.v
        if self._collocation is not None:
            given = begin.inner
            inner[:] = self._collocation.between(begin.s) if given is None else given


def _certificate(verdict: Verdict, figures: list[float]) -> Certificate:
    primal, stationarity, complementarity = figures[8:11]
    match verdict:
        case Verdict.CONVERGED:
            fault = ""
        case Verdict.NOT_FINITE:
            fault = "the answer is not finite"
        case Verdict.QP_REFUSED:
            worst = ", ".join(f"{value:.1e}" for value in figures[5:8])
            fault = f"the QP is not solved (residuals {worst})"
        case Verdict.NOT_CONVERGED:
            fault = (
                f"not converged: defect {primal:.1e}, stationarity {stationarity:.1e}, "
                f"complementarity {complementarity:.1e}"
            )
    return Certificate(primal, stationarity, complementarity, fault)
