"""Step-response (dynamic matrix) models: the answer of every output to a step, sample by sample.

Coefficient k is the output k samples after a unit step of the input, minus what it was before.
After the last coefficient a stable output stays; an integrating one goes on with its last slope.

Source: Cutler & Ramaker (1980), Dynamic matrix control, Joint Automatic Control Conference;
reduction: Kung (1978), A new identification and model reduction algorithm via singular value
decomposition, 12th Asilomar Conference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from plant_models.dead_time import LONGEST_CHAIN, delay_chain, shift
from plant_models.process import ProcessModel, names
from plant_models.state_space import state_space
from plant_models.variable import Variable

Matrix = NDArray[np.float64]
Coefficients = Mapping[tuple[str, str], Sequence[float]]


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """State space of the stable part: states and a (n, n), b (n, m), c (ny, n)."""

    states: tuple[Variable, ...]
    a: Matrix
    b: Matrix
    c: Matrix


def step_response(
    name: str,
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    coefficients: Coefficients,
    dt_s: float,
    *,
    disturbances: Sequence[Variable] = (),
    integrating: Sequence[str] = (),
    tolerance: float | None = None,
    source: str = "",
) -> ProcessModel:
    """A sampled model that has the given step responses, around nominal values.

    Args:
        coefficients: by (output, input or disturbance), in output units per input unit; shorter
            ones go on as they end. A missing pair is no effect.
        dt_s: time between two coefficients in seconds.
        integrating: outputs that go on with the slope of their last two coefficients.
        tolerance: None keeps every coefficient exactly, with one state per past sample of each
            input. A number lets a smaller, balanced model stand in whose step responses are off
            by at most this share of the largest coefficient of their output; the error that
            is left is told in `source`.

    Raises:
        ValueError: a name is unknown, a response is empty, too long or not finite, an
            integrating one has fewer than two coefficients, or nothing acts on an output.
    """
    sources = (*inputs, *disturbances)
    if not 0.0 < dt_s < float("inf"):
        raise ValueError(f"model {name}: a sample time of {dt_s} s is not a time")
    _check(name, names(outputs), names(sources), coefficients, integrating)
    impulse, slope = _impulses(outputs, sources, coefficients, integrating)
    rows = [i for i, y in enumerate(outputs) if y.name in integrating]
    form = _chains(sources, impulse, dt_s)
    if tolerance is not None:
        form, error = _balanced(outputs, sources, impulse, tolerance)
        source = f"{source} (reduced: step responses off by {error:.2g} of the largest)".strip()
    n, n_int = len(form.states), len(rows)
    a, b = np.zeros((n + n_int, n + n_int)), np.zeros((n + n_int, len(sources)))
    c = np.zeros((len(outputs), n + n_int))
    a[:n, :n], b[:n], c[:, :n] = form.a, form.b, form.c
    integrals: list[Variable] = []
    for k, row in enumerate(rows):
        y = outputs[row]
        a[n + k, n + k], c[row, n + k] = 1.0, 1.0
        b[n + k] = slope[row]
        low, high = y.low - y.nominal, y.high - y.nominal
        integrals.append(Variable(f"{y.name} integral", y.unit, low, high, 0.0, "integrated"))
    nu = len(inputs)
    return state_space(
        name,
        states=[*form.states, *integrals],
        inputs=inputs,
        outputs=outputs,
        disturbances=disturbances,
        a=a,
        b=b[:, :nu],
        bd=b[:, nu:],
        c=c,
        dt_s=dt_s,
        source=source,
    )


def _impulses(
    outputs: Sequence[Variable],
    sources: Sequence[Variable],
    coefficients: Coefficients,
    integrating: Sequence[str],
) -> tuple[Matrix, Matrix]:
    """Impulse responses (N, ny, m) without what integrates, and slopes (ny, m) per sample."""
    length = max(len(response) for response in coefficients.values())
    impulse = np.zeros((length, len(outputs), len(sources)))
    slope = np.zeros((len(outputs), len(sources)))
    for row, y in enumerate(outputs):
        for column, v in enumerate(sources):
            response = coefficients.get((y.name, v.name))
            if response is None:
                continue
            moves = np.diff(np.asarray(response, dtype=np.float64), prepend=0.0)
            if y.name in integrating:
                slope[row, column] = moves[-1]
            impulse[: moves.size, row, column] = moves - slope[row, column]
    return impulse, slope


def _chains(sources: Sequence[Variable], impulse: Matrix, dt_s: float) -> _Form:
    """One state per past sample of each input, as many as any output needs."""
    lengths = [
        int(np.max(np.nonzero(impulse[:, :, j].any(axis=1))[0], initial=-1)) + 1
        for j in range(len(sources))
    ]
    chains = [delay_chain(v, k, dt_s) for v, k in zip(sources, lengths, strict=True)]
    n = sum(lengths)
    a, b = np.zeros((n, n)), np.zeros((n, len(sources)))
    c = np.zeros((impulse.shape[1], n))
    at = 0
    for column, length in enumerate(lengths):
        shift(a, b, at, length, column)
        c[:, at : at + length] = impulse[:length, :, column].T
        at += length
    return _Form(tuple(v for chain in chains for v in chain), a, b, c)


def _balanced(
    outputs: Sequence[Variable],
    sources: Sequence[Variable],
    impulse: Matrix,
    tolerance: float,
) -> tuple[_Form, float]:
    """The smallest balanced model whose step responses stay within the tolerance, and its error.

    The Hankel matrix of the whole finite response is its own balanced realisation: cutting it is
    balanced truncation, which keeps the model stable.
    """
    length, ny, m = impulse.shape
    reach = np.max(np.abs(np.cumsum(impulse, axis=0)), axis=0)
    span = np.array([v.span for v in sources])
    per_output = np.maximum(np.max(reach, axis=1, initial=0.0), 1e-300)
    weight = span / np.max(span)
    scaled = impulse / per_output[None, :, None] * weight[None, None, :]
    padded = np.concatenate([scaled, np.zeros_like(scaled)])
    index = np.arange(length)[:, None] + np.arange(length)[None, :]

    def hankel(first: int) -> Matrix:
        return padded[index + first].transpose(0, 2, 1, 3).reshape(length * ny, length * m)

    left, sigma, right = np.linalg.svd(hankel(0), full_matrices=False)
    shifted = left.T @ hankel(1) @ right.T
    root = np.sqrt(np.maximum(sigma, 1e-300))
    full_a = shifted / root[:, None] / root[None, :]
    full_b = root[:, None] * right[:, :m] / weight[None, :]
    full_c = per_output[:, None] * left[:ny] * root[None, :]
    order, most = 0, int(np.sum(sigma > 1e-14 * max(float(sigma[0]), 1e-300)))
    error = float("inf")
    while error > tolerance and order < most:
        order += 1
        answers = _simulated(full_a[:order, :order], full_b[:order], full_c[:, :order], length)
        gap = np.abs(np.cumsum(answers - impulse, axis=0)).max(axis=(0, 2))
        error = float(np.max(gap / per_output))
    a, b, c = full_a[:order, :order], full_b[:order], full_c[:, :order]
    swing = span @ np.abs(_simulated(a, b, np.eye(order), 2 * length)).sum(axis=0).T
    states = tuple(
        Variable(f"mode {k + 1}", "1", -float(v), float(v), 0.0, "balanced state of the responses")
        for k, v in enumerate(np.maximum(swing, 1e-9))
    )
    return _Form(states, a, b, c), error


def _simulated(a: Matrix, b: Matrix, c: Matrix, length: int) -> Matrix:
    """Impulse response c a^k b, k = 0 … length - 1, shape (length, rows of c, columns of b)."""
    answers: list[Matrix] = []
    for _ in range(length):
        answers.append(c @ b)
        b = a @ b
    return np.stack(answers)


def _check(
    model: str,
    outputs: Sequence[str],
    sources: Sequence[str],
    coefficients: Coefficients,
    integrating: Sequence[str],
) -> None:
    for output in integrating:
        if output not in outputs:
            known = ", ".join(outputs)
            raise ValueError(f"model {model}: no output {output} to integrate; there are {known}")
    for (output, source), response in coefficients.items():
        where = f"model {model}, response {output} <- {source}"
        if output not in outputs:
            raise ValueError(f"{where}: no output {output}; there are {', '.join(outputs)}")
        if source not in sources:
            raise ValueError(f"{where}: no input {source}; there are {', '.join(sources)}")
        if not np.isfinite(np.asarray(response, dtype=np.float64)).all():
            raise ValueError(f"{where}: a coefficient is not finite")
        least = 2 if output in integrating else 1
        if not least <= len(response) <= LONGEST_CHAIN:
            raise ValueError(
                f"{where}: {len(response)} coefficients, expected {least} to {LONGEST_CHAIN}"
            )
    for kind, known, place in (("output", outputs, 0), ("input", sources, 1)):
        idle = [n for n in known if n not in {key[place] for key in coefficients}]
        if idle:
            raise ValueError(f"model {model}: {kind} {', '.join(idle)} has no response")
