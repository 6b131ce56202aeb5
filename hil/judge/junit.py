"""Verdicts as JUnit XML, the form in which continuous-integration servers show test results."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from controller.errors import JournalError
from hil.judge.verdict import Check, Verdict
from hil.whole_file import write_whole

# XML 1.0, section 2.2: no other character may stand in a document, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class TimedVerdict(NamedTuple):
    """A verdict and how long it took to reach it, in seconds of wall time."""

    verdict: Verdict
    seconds: float


def write_junit(
    runs: Sequence[TimedVerdict],
    path: Path,
    errors: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> None:
    """Write one test suite with one test case per run; every KPI is a property of its case.

    A run fails with each check of severity `fail` that failed or could not be measured; it is
    skipped if none of its checks could be measured. Warnings go to `system-out`.

    Args:
        errors: by run, why it came to no verdict.
        left_out: by run, why it was not begun.

    Raises:
        JournalError: the file cannot be written.
    """
    suite = _suite(runs, errors or {}, left_out or {})
    ElementTree.indent(suite)
    try:
        write_whole(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise JournalError(
            f"the JUnit file cannot be written: {error.strerror}",
            where=str(path),
            mend="Make room, or name a place that can be written",
        ) from error


def _suite(
    runs: Sequence[TimedVerdict], errors: Mapping[str, str], left_out: Mapping[str, str]
) -> Element:
    repeated = Counter((run.verdict.tier, run.verdict.scenario) for run in runs)
    cases = [
        _case(run, named_by_seed=repeated[run.verdict.tier, run.verdict.scenario] > 1)
        for run in runs
    ]
    suite = Element(
        "testsuite",
        name="loopwright",
        tests=str(len(cases) + len(errors) + len(left_out)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(len(errors)),
        skipped=str(sum(case.find("skipped") is not None for case in cases) + len(left_out)),
        time=f"{sum(run.seconds for run in runs):.3f}",
    )
    suite.extend(cases)
    for kind, told in (("error", errors), ("skipped", left_out)):
        for name, text in told.items():
            case = SubElement(suite, "testcase", classname="loopwright.hil", name=_allowed(name))
            SubElement(case, kind, type=kind, message=_allowed(text))
    return suite


def _case(run: TimedVerdict, *, named_by_seed: bool) -> Element:
    verdict = run.verdict
    name = f"{verdict.scenario} (seed {verdict.seed})" if named_by_seed else verdict.scenario
    case = Element(
        "testcase",
        classname=f"loopwright.hil.{verdict.tier}",
        name=_allowed(name),
        time=f"{run.seconds:.3f}",
    )
    properties = SubElement(case, "properties")
    facts = {
        "title": verdict.title,
        "seed": str(verdict.seed),
        "tier": verdict.tier,
        "version": verdict.version,
    }
    facts |= {
        f"kpi.{kpi}": repr(float(value)) if isfinite(value) else "not measured"
        for kpi, value in verdict.kpis.items()
    }
    for fact, text in facts.items():
        SubElement(properties, "property", name=_allowed(fact), value=_allowed(text))
    broken = [c for c in verdict.checks if c.outcome != "passed" and c.severity == "fail"]
    warned = [c for c in verdict.checks if c.outcome != "passed" and c.severity == "warn"]
    if verdict.checks and all(check.outcome == "untested" for check in verdict.checks):
        SubElement(case, "skipped", message=f"none of {len(verdict.checks)} checks was tested")
    elif broken:
        failure = SubElement(case, "failure", type="verdict", message=_summary(broken))
        failure.text = _lines(broken)
    if warned:
        SubElement(case, "system-out").text = "warnings:\n" + _lines(warned)
    return case


def _summary(checks: Sequence[Check]) -> str:
    return _allowed("; ".join(str(check) for check in checks))


def _lines(checks: Sequence[Check]) -> str:
    return _allowed("\n".join(str(check) for check in checks))


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
