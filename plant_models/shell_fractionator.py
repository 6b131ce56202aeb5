"""Shell heavy oil fractionator: three draws, seven outputs, dead times of up to 28 min.

The standard problem of constrained predictive control. All variables are deviations, made
dimensionless; every gain is uncertain, and those of one input move together.
"""

from __future__ import annotations

from collections.abc import Sequence

from plant_models.integrate import ModelPlant
from plant_models.process import ProcessModel
from plant_models.transfer_function import FOPDT, transfer_matrix
from plant_models.variable import Variable

SOURCE = (
    "Prett & Morari (1987), The Shell Process Control Workshop, Butterworths; the Shell standard "
    "control problem of Prett & García (1988), Fundamental Process Control"
)

MINUTE_S = 60.0

INPUTS = (
    Variable("u1", "1", -0.5, 0.5, 0.0, "top draw"),
    Variable("u2", "1", -0.5, 0.5, 0.0, "side draw"),
    Variable("u3", "1", -0.5, 0.5, 0.0, "bottoms reflux duty"),
)
DISTURBANCES = (
    Variable("l1", "1", -0.5, 0.5, 0.0, "intermediate reflux duty"),
    Variable("l2", "1", -0.5, 0.5, 0.0, "upper reflux duty"),
)
OUTPUTS = tuple(
    Variable(f"y{i + 1}", "1", -5.0, 5.0, 0.0, text)
    for i, text in enumerate(
        (
            "top end point",
            "side end point",
            "top temperature",
            "upper reflux temperature",
            "side draw temperature",
            "intermediate reflux temperature",
            "bottoms reflux temperature",
        )
    )
)
# Rows y1 … y7, columns u1, u2, u3, l1, l2: gain, its uncertainty, time constant and dead time in
# minutes.
_TABLE = (
    ((4.05, 2.11, 50, 27), (1.77, 0.39, 60, 28), (5.88, 0.59, 50, 27), (1.20, 0.12, 45, 27),
     (1.44, 0.16, 40, 27)),
    ((5.39, 3.29, 50, 18), (5.72, 0.57, 60, 14), (6.90, 0.89, 40, 15), (1.52, 0.13, 25, 15),
     (1.83, 0.13, 20, 15)),
    ((3.66, 2.29, 9, 2), (1.65, 0.35, 30, 20), (5.53, 0.67, 40, 2), (1.16, 0.08, 11, 0),
     (1.27, 0.08, 6, 0)),
    ((5.92, 2.34, 12, 11), (2.54, 0.24, 27, 12), (8.10, 0.32, 20, 2), (1.73, 0.02, 5, 0),
     (1.79, 0.04, 19, 0)),
    ((4.13, 1.71, 8, 5), (2.38, 0.93, 19, 7), (6.23, 0.30, 10, 2), (1.31, 0.03, 2, 0),
     (1.26, 0.02, 22, 0)),
    ((4.06, 2.39, 13, 8), (4.18, 0.35, 33, 4), (6.53, 0.72, 9, 1), (1.19, 0.08, 19, 0),
     (1.17, 0.01, 24, 0)),
    ((4.38, 3.11, 33, 20), (4.42, 0.73, 44, 22), (7.20, 1.33, 19, 0), (1.14, 0.18, 27, 0),
     (1.26, 0.18, 32, 0)),
)  # fmt: skip


def model(
    dt_s: float = 4.0 * MINUTE_S,
    uncertainty: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    outputs: Sequence[str] = ("y1", "y2", "y3", "y4", "y5", "y6", "y7"),
) -> ProcessModel:
    """Fractionator model, sampled: inputs u1 … u3, measured disturbances l1 and l2.

    Args:
        uncertainty: of the gains of u1, u2, u3, l1 and l2, each from -1 to 1.
        outputs: the outputs to keep; y1, y2 and y7 are the controlled ones of the benchmark.

    Raises:
        ValueError: an output is unknown, an uncertainty is not between -1 and 1, or dt_s is not
            positive or too short for the dead times.

    Source: `SOURCE`.
    """
    sources = (*INPUTS, *DISTURBANCES)
    if len(uncertainty) != len(sources) or any(not -1.0 <= e <= 1.0 for e in uncertainty):
        raise ValueError(f"uncertainty {list(uncertainty)}: expected five numbers from -1 to 1")
    kept = [v for v in OUTPUTS if v.name in outputs]
    if len(kept) != len(outputs):
        known = ", ".join(v.name for v in OUTPUTS)
        raise ValueError(f"outputs {', '.join(outputs)}: expected some of {known}, each once")
    cells = {
        (y.name, v.name): FOPDT(
            gain + doubt * share, float(tau) * MINUTE_S, float(delay) * MINUTE_S
        )
        for y, row in zip(OUTPUTS, _TABLE, strict=True)
        for v, share, (gain, doubt, tau, delay) in zip(sources, uncertainty, row, strict=True)
        if y in kept
    }
    return transfer_matrix(
        "Shell heavy oil fractionator", INPUTS, DISTURBANCES, kept, cells, dt_s, source=SOURCE
    )


def plant(
    dt_s: float = MINUTE_S, uncertainty: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0)
) -> ModelPlant:
    """The fractionator as a plant at rest, moving every dt_s seconds."""
    return ModelPlant(model(dt_s, uncertainty))
