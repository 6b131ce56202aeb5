"""What became of a job: a verdict, or none."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import LoopwrightError
from hil.judge.verdict import Verdict
from hil.report.coverage_matrix import Covered


@dataclass(frozen=True, slots=True)
class Finished:
    """What is left of a run when it is over.

    Attributes:
        golden: what became of the golden run, in words.
        bundle: where everything lies that reproduces a failure.
        unwritten: why its page or its bundle is missing.
    """

    verdict: Verdict
    elapsed_s: float
    directory: str
    covered: Covered
    golden: str = ""
    bundle: str = ""
    unwritten: LoopwrightError | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """A run that came to no verdict; the others go on."""

    name: str
    error: LoopwrightError
