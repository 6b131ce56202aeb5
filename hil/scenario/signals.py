"""Which signals the history of a scenario's run will have, and that its assertions know them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from hil.history import CYCLE_COLUMNS
from hil.scenario.file import ScenarioFile
from hil.scenario.parts import Scenario
from hil.scenario.places import Places
from hil.temporal.parser import parse

PREFIXES = ("", "y.", "sp.", "u.", "cv.")
"""Which a golden signal may be written without."""


def signals_of(
    scenario: Scenario, outputs: Collection[str], inputs: Collection[str]
) -> Sequence[str]:
    """Columns of numbers in the history.

    Args:
        outputs, inputs: of the plant.
    """
    settings = scenario.settings
    return [
        *(f"y.{name}" for name in outputs),
        *(f"u.{name}" for name in inputs),
        *(f"sp.{mv.name}" for mv in settings.manipulated),
        *(f"{kind}.{cv.output}" for kind in ("cv", "wanted") for cv in settings.controlled),
        *CYCLE_COLUMNS,
    ]


def check_assertions(shape: ScenarioFile, known: Sequence[str], places: Places) -> None:
    """That every signal of an assertion, a formula and the golden run is one of those `known`.

    Raises:
        ScenarioError: with file:line:column; the nearest is proposed.
    """
    for i, assertion in enumerate(shape.assertions):
        if assertion.temporal:
            formula = parse(assertion.temporal)
            with places.told_inside("assertions", i, "temporal"):
                formula.check_names(known)
        elif assertion.bound and assertion.bound not in known:
            raise no_signal(assertion.bound, known, places.where("assertions", i, "bound"))
    if shape.golden is None:
        return
    for name in shape.golden.signals:
        if "*" not in name and not any(prefix + name in known for prefix in PREFIXES):
            raise no_signal(name, known, places.where("golden", "signals", name))


def no_signal(name: str, known: Sequence[str], where: str) -> ScenarioError:
    return ScenarioError(f"the run has no signal {name}", where=where, mend=suggestion(name, known))
