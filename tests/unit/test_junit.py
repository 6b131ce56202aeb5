"""JUnit files: counts, failures in words, properties, and text of any kind."""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from controller.errors import JournalError
from hil.judge.junit import TimedVerdict, write_junit
from hil.judge.verdict import Check, Outcome, Verdict

# Children of a test case in the order of the widely used Jenkins schema.
CASE_ORDER = ("properties", "skipped", "failure", "system-out")


def check(name: str, outcome: Outcome, *, warn: bool = False) -> Check:
    value = None if outcome == "untested" else 2.0
    return Check(name, value, None, 1.0, outcome, "warn" if warn else "fail")


def verdict(
    *checks: Check,
    scenario: str = "demo",
    title: str = "A title",
    seed: int = 1,
    kpis: Mapping[str, float] | None = None,
) -> Verdict:
    return Verdict(scenario, title, "virtual", seed, "0.1.0", checks, kpis or {})


def written(tmp_path: Path, *verdicts: Verdict, seconds: float = 1.5) -> Element:
    path = tmp_path / "deep" / "junit.xml"
    write_junit([TimedVerdict(v, seconds) for v in verdicts], path)
    assert [p.name for p in path.parent.iterdir()] == ["junit.xml"]
    return ElementTree.parse(path).getroot()


def test_counts_tests_failures_and_skipped(tmp_path: Path) -> None:
    suite = written(
        tmp_path,
        verdict(check("gap", "passed"), scenario="a"),
        verdict(check("gap", "failed"), scenario="b"),
        verdict(check("gap", "untested"), check("share", "untested"), scenario="c"),
        verdict(check("gap", "untested"), check("share", "passed"), scenario="d"),
    )
    assert suite.tag == "testsuite"
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped", "time")} == {
        "tests": "4",
        "failures": "2",
        "errors": "0",
        "skipped": "1",
        "time": "6.000",
    }
    outcomes = {
        case.get("name"): next((c.tag for c in case if c.tag in ("failure", "skipped")), "passed")
        for case in suite
    }
    assert outcomes == {"a": "passed", "b": "failure", "c": "skipped", "d": "failure"}


def test_a_failure_tells_the_failed_checks_in_words_and_only_those(tmp_path: Path) -> None:
    suite = written(tmp_path, verdict(check("gap", "failed"), check("share", "passed")))
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.text == "gap = 2, wanted ≤ 1: failed"
    assert failure.get("message") == failure.text


def test_a_warning_does_not_fail_but_is_told(tmp_path: Path) -> None:
    suite = written(tmp_path, verdict(check("gap", "failed", warn=True), check("x", "passed")))
    case = suite[0]
    assert suite.get("failures") == "0"
    assert case.find("failure") is None
    assert "gap = 2" in (case.findtext("system-out") or "")


def test_every_kpi_is_a_property(tmp_path: Path) -> None:
    kpis = {"gap": 0.1, "none": nan}
    suite = written(tmp_path, verdict(check("gap", "passed"), seed=7, kpis=kpis))
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["kpi.gap"] == "0.1"
    assert properties["kpi.none"] == "not measured"
    assert properties["seed"] == "7"
    assert properties["version"] == "0.1.0"


def test_the_order_of_elements_is_that_of_the_schema(tmp_path: Path) -> None:
    checks = (check("gap", "failed"), check("x", "failed", warn=True))
    suite = written(tmp_path, verdict(*checks))
    for case in suite:
        assert {"classname", "name", "time"} == set(case.keys())
        places = [CASE_ORDER.index(child.tag) for child in case]
        assert places == sorted(places)


def test_text_of_any_kind_is_escaped(tmp_path: Path) -> None:
    nasty = "a<b>&\"'\x00\x1b\ud800 ]]>"
    shown = "a<b>&\"'\ufffd\ufffd\ufffd ]]>"
    suite = written(tmp_path, verdict(check(nasty, "failed"), scenario=nasty, title=nasty))
    assert suite[0].get("name") == shown
    assert shown in (suite.findtext("testcase/failure") or "")


def test_the_same_scenario_with_several_seeds_gives_distinct_names(tmp_path: Path) -> None:
    suite = written(tmp_path, *(verdict(check("gap", "passed"), seed=s) for s in (1, 2)))
    assert [case.get("name") for case in suite] == ["demo (seed 1)", "demo (seed 2)"]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="JUnit file cannot be written"):
        write_junit([], tmp_path / "file" / "junit.xml")
