"""The report of a run: what must be in it, from a scenario run or from a journal alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from controller.errors import JournalError, ReplayError, ScenarioError
from controller.historian.events import EventStore
from controller.historian.journal import open_journal
from controller.signal import NS_PER_S
from hil.faults.schedule import Fault
from hil.faults.solver import ClockOffsets
from hil.judge.temporal_check import temporal_check
from hil.judge.verdict import Verdict
from hil.report.data import read_history, read_journal
from hil.report.series import Span, absences, broken, decimate, plateaus, spans
from hil.report.write import write_report
from hil.runner import HISTORY_FILE, run_scenario
from hil.scenario import load_scenario
from hil.scenario.load import load_economics
from hil.world import START_NS

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
JOURNAL_FILES = "*.db*"
VOID = frozenset({"meta", "br", "img", "link"})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo that takes control, with lab results and two faults."""
    demo = load_scenario(ROOT / "config/scenarios/demo.yaml")
    scenario = replace(
        demo,
        commands=tuple(replace(c, at_s=60.0) for c in demo.commands if c.text == "auto"),
        labs=tuple(
            replace(lab, every_s=120.0, first_s=0.0, delay_s=(30.0, 90.0)) for lab in demo.labs
        ),
        faults=(Fault(300, 420, "FA.PV", "freeze"), Fault(480, 510, "TR.PV", "nan")),
    )
    directory = tmp_path_factory.mktemp("report") / "run"
    run_scenario(scenario, directory, tier="virtual", duration_s=720, check_replay=False)
    return directory


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def quick(copy: Path) -> Path:
    """Without the scenario, so that no optimum is computed."""
    (copy / "scenario.yaml").unlink()
    return copy


def bare(run: Path, target: Path) -> Path:
    """Only the journal, as a real run leaves it."""
    target.mkdir()
    for file in run.glob(JOURNAL_FILES):
        shutil.copy(file, target)
    return target


class Elements(HTMLParser):
    """Checks that elements nest, and collects attributes and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_the_headline_tells_the_verdict_by_shape_and_word(page: str) -> None:
    text = Elements(page).text
    assert "✘ FAILED" in text
    assert "Scenario demo, seed 1, tier virtual." in text
    assert "2026-01-01 00:00:00 UTC to 2026-01-01 00:11:30 UTC" in text
    assert "✔ passed" in text
    assert "? untested" in text


@pytest.mark.parametrize(
    "words",
    [
        "unsafe writes seen on the wire 0",
        "profit before 3",
        "profit at the plant's optimum 75.8",
        "Controlled variable xA",
        "Controlled variable xG",
        "Manipulated variable F_B",
        "Manipulated variable T_R",
        "Disturbance F_A",
        "Modes, solver, faults",
        "Time to solve",
        "freeze FA.PV",
        "nan TR.PV",
        "ACTIVE",
        "lab, ±2 σ",
        "best possible in steady state",
        "high limit 0.12",
        "T_R, °C",
        "F_B, kg/s",
        "time since 2026-01-01 00:00 UTC, min",
        "READY → ACTIVE: the PLCs echo the heartbeat",
        "travel of the setpoint, T_R",
        "loopwright hil run demo.yaml --tier virtual --seed 1",
        "casadi",
        "Replay: not replayed.",
        "What shaped the targets",
    ],
)
def test_the_page_contains(page: str, words: str) -> None:
    assert words in Elements(page).text


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    assert "://" not in page.replace("<!DOCTYPE html>", "").split("<details>")[0]
    elements = Elements(page)
    tags = {tag for tag, _, _ in elements.attributes}
    assert not tags & {"script", "img", "link", "iframe", "object", "image"}
    ids = [value for _, name, value in elements.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in elements.attributes:
        if name in ("src", "href", "xlink:href"):
            assert value[0] == "#"
            assert value[1:] in ids
    for reference in re.findall(r"url\(#([^)]*)\)", page):
        assert reference in ids


def test_colours_come_from_the_page(page: str) -> None:
    styles = page.split("</style>", 1)
    defined = set(re.findall(r"(--[\w-]+):", styles[0]))
    drawn = page[page.index("<svg") :]
    assert set(re.findall(r"var\((--[\w-]+)\)", drawn)) <= defined
    assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", drawn)


def test_the_same_run_gives_the_same_page(run: Path, page: str, tmp_path: Path) -> None:
    again = write_report(run, tmp_path / "sub" / "again.html")
    assert again.read_text(encoding="utf-8") == page
    assert [p.name for p in again.parent.iterdir()] == ["again.html"]


def test_a_journal_alone_is_enough(run: Path, tmp_path: Path) -> None:
    page = write_report(bare(run, tmp_path / "data")).read_text(encoding="utf-8")
    text = Elements(page).text
    assert "RECORDED: no verdict" in text
    assert "estimated objective" in text
    assert "Controlled variable xA" in text
    assert "time in control (ACTIVE)" in text
    assert "lab, ±2 σ" in text
    for absent in ("freeze FA.PV", "best possible", "Checks", "hil run", "profit of the plant"):
        assert absent not in text


def test_text_from_outside_is_escaped(quick: Path) -> None:
    nasty = '<img src=x onerror=alert(1)> & "$a_b$" \'\x00'
    verdict = json.loads((quick / "verdict.json").read_text())
    verdict |= {"title": nasty, "scenario": nasty, "violations": [nasty]}
    verdict["control_endings"] = [nasty, "100.4 s: it was killed"]
    verdict["checks"][0]["name"] = nasty
    verdict["kpis"][nasty] = 1.0
    (quick / "verdict.json").write_text(json.dumps(verdict))
    with EventStore(quick) as events:
        events.append(START_NS, "cycle", {"cycle": 1, "text": nasty})
    page = write_report(quick).read_text(encoding="utf-8")
    elements = Elements(page)
    assert "<img" not in page
    assert "\x00" not in page
    shown = nasty.replace("\x00", "\ufffd")
    assert elements.text.count(shown) >= 6
    assert "100.4 s: it was killed" in elements.text
    assert not [name for _, name, _ in elements.attributes if name.startswith("on")]


def test_what_words_decide_holds_or_does_not(quick: Path) -> None:
    """A formula about modes alone has an infinite margin, which is no number to show."""
    history = read_history(quick / HISTORY_FILE)
    assert history is not None
    kept = temporal_check("eventually mode == ACTIVE", history)
    broken = temporal_check("always mode == ACTIVE", history)
    early = temporal_check("always[0, 90 min] (mode != MANUAL)", history)
    assert [c.outcome for c in (kept, broken, early)] == ["passed", "failed", "untested"]
    assert str(broken).startswith("always mode == ACTIVE: failed (broken at 0 s, mode ")
    verdict = json.loads((quick / "verdict.json").read_text())
    bare = Verdict("a", "a", "virtual", 1, "1", (kept, broken, early), {})
    verdict["checks"] = bare.plain()["checks"]
    (quick / "verdict.json").write_text(json.dumps(verdict))
    text = Elements(write_report(quick).read_text(encoding="utf-8")).text
    assert "✔ passed eventually mode == ACTIVE holds ≥ 0" in text
    assert "✘ failed always mode == ACTIVE does not hold ≥ 0" in text
    assert "? untested always[0, 90 min] (mode != MANUAL) not measured ≥ 0" in text


def test_a_refusal_stands_out_and_a_long_log_is_cut(quick: Path) -> None:
    with EventStore(quick) as events:
        events.append(START_NS, "cycle", {"cycle": 1, "text": "result a: outlier, chi-square 99"})
        for i in range(410):
            events.append(START_NS, "cycle", {"cycle": i, "text": f"remark {i}"})
    page = write_report(quick).read_text(encoding="utf-8")
    assert re.search(r'<tr class="abnormal">.*▲ result a: outlier', page)
    assert re.search(r"\d\d later events are left out", Elements(page).text)


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="data directory"):
        write_report(tmp_path / "nothing")


def test_a_journal_without_a_cycle_is_told(tmp_path: Path) -> None:
    path = ROOT / "config/williams_otto/williams-otto.yaml"
    text = path.read_text(encoding="utf-8")
    with open_journal(tmp_path, start_ns=START_NS, settings_text=text, settings_path=path, seed=1):
        pass
    with pytest.raises(ReplayError, match=r"no decided cycle.*has run for a cycle"):
        write_report(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"passed": true}'])
def test_a_damaged_verdict_is_told(copy: Path, content: bytes) -> None:
    (copy / "verdict.json").write_bytes(content)
    with pytest.raises(ReplayError, match=r"verdict\.json: it is not a verdict.*Run the scenario"):
        write_report(copy)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_damaged_history_is_told(copy: Path, size: int) -> None:
    path = copy / "history.npz"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ReplayError, match=r"history\.npz: it is not a history.*Run the scenario"):
        write_report(copy)


@pytest.mark.parametrize("content", ["a: [", "- 1", "scenario: 1\nid: x"])
def test_a_wrong_scenario_is_told(copy: Path, content: str) -> None:
    (copy / "scenario.yaml").write_text(content)
    with pytest.raises(ScenarioError, match=r"scenario\.yaml"):
        write_report(copy)


def test_a_place_that_cannot_be_written_is_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match="cannot be written"):
        write_report(bare(run, tmp_path / "data"), tmp_path / "file" / "report.html")


def test_an_optimum_that_cannot_be_computed_is_left_out_with_a_note(copy: Path) -> None:
    path = copy / "scenario.yaml"
    path.write_text(path.read_text().replace("williams_otto:optimum", "williams_otto:nothing"))
    text = Elements(write_report(copy).read_text(encoding="utf-8")).text
    assert "The plant's optimum is not known" in text
    assert "profit of the plant" in text
    assert "best possible" not in text


def test_files_beside_the_scenario_need_not_be_there(tmp_path: Path) -> None:
    """A copy lies apart from application, program and golden run; a report needs none of them."""
    for name, counts in (("awl/tank.hil.yaml", False), ("scenarios/demo.yaml", True)):
        copied = Path(shutil.copy(ROOT / "config" / name, tmp_path))
        assert (load_economics(copied) is not None) is counts


def test_an_optimum_beside_the_scenario_is_found_again(copy: Path, tmp_path: Path) -> None:
    verdict = json.loads((copy / "verdict.json").read_text())
    folder = tmp_path / "plant"
    folder.mkdir()
    (folder / "best.py").write_text("def best(**_):\n    return 71.5\n")
    text = (copy / "scenario.yaml").read_text()
    reference = "plant_models.williams_otto:optimum"
    assert reference in text
    (copy / "scenario.yaml").write_text(text.replace(reference, "best.py:best"))
    verdict["scenario_folder"] = "../plant"
    (copy / "verdict.json").write_text(json.dumps(verdict))
    assert "best possible" in write_report(copy).read_text(encoding="utf-8")
    (folder / "best.py").write_text("raise SystemError('broken')\n")
    text = Elements(write_report(copy).read_text(encoding="utf-8")).text
    assert "The plant's optimum is not known" in text


def test_a_run_says_where_its_scenario_lay_and_what_broke_when(run: Path) -> None:
    verdict = json.loads((run / "verdict.json").read_text())
    assert (run / verdict["scenario_folder"]).resolve() == ROOT / "config" / "scenarios"
    assert verdict["duration_s"] == 720
    assert verdict["faults"] == [
        {"begin_s": 300, "end_s": 420, "what": "freeze FA.PV"},
        {"begin_s": 480, "end_s": 510, "what": "nan TR.PV"},
    ]


def test_a_wrong_clock_moves_nothing_in_the_report(quick: Path) -> None:
    """From cycle 10 on the journal has times that are 900 s too great."""
    before = read_journal(quick)
    with EventStore(quick) as events:
        events.append(START_NS, "scenario", ClockOffsets.told(1, 10, 900 * NS_PER_S))
    after = read_journal(quick)
    moved = after.time_s - before.time_s
    assert set(moved.tolist()) == {0.0, -900.0}
    assert moved.tolist().index(-900.0) == 10
    assert [fan.time_s for fan in after.fans] == [fan.time_s for fan in before.fans][:1]
    off = "mode off by controller"
    assert [entry.time_s for entry in after.entries if entry.text == off] == [690.0 - 900.0]


def test_what_befell_the_controller_is_told_over_its_time(quick: Path) -> None:
    verdict = json.loads((quick / "verdict.json").read_text())
    verdict["control_endings"] = ["200 s: it was killed"]
    verdict["duration_s"] = 900
    verdict["kpis"]["cycles"] = 23.0
    (quick / "verdict.json").write_text(json.dumps(verdict))
    text = Elements(write_report(quick).read_text(encoding="utf-8")).text
    assert "00:03:20 ▲ the control process has ended: it was killed" in text
    assert "ABSENT: there was no cycle" in text
    assert re.search(r"23 cycles of 30 s \(24 in the journal\)", text)


# Series


def test_lines_break_and_the_controller_is_absent_where_cycles_are_missing() -> None:
    time = np.array([0.0, 10.0, 60.0, 70.0, 85.0])
    at, value = broken(time, np.arange(5.0), 10.0)
    assert at.tolist() == [0.0, 10.0, 20.0, 60.0, 70.0, 85.0]
    np.testing.assert_array_equal(value, [0.0, 1.0, np.nan, 2.0, 3.0, 4.0])
    found = absences(time, 10.0, 120.0, "x")
    assert found == (Span(20.0, 60.0, "x"), Span(95.0, 120.0, "x"))
    assert absences(time + 30.0, 10.0, 125.0, "x")[0] == Span(0.0, 30.0, "x")


@given(
    value=arrays(
        np.float64,
        st.integers(1, 400),
        elements=st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))),
    ),
    columns=st.integers(1, 20),
)
def test_decimation_keeps_extremes_ends_and_gaps(value: np.ndarray[Any, Any], columns: int) -> None:
    time = np.arange(value.size, dtype=np.float64)
    kept_time, kept = decimate(time, value, columns)
    assert kept.size <= max(5 * columns, min(value.size, 4 * columns))
    assert np.all(np.diff(kept_time) > 0)
    assert (kept_time[0], kept_time[-1]) == (time[0], time[-1])
    np.testing.assert_array_equal(kept, value[kept_time.astype(int)])
    assert np.isnan(kept).any() == np.isnan(value).any()
    if np.isfinite(value).any():
        assert np.nanmin(kept) == np.nanmin(value)
        assert np.nanmax(kept) == np.nanmax(value)


def test_a_spike_of_one_cycle_survives_a_long_run() -> None:
    value = np.zeros(100_000)
    value[54_321] = 7.0
    kept_time, kept = decimate(np.arange(100_000.0), value)
    assert kept.size <= 4000
    assert kept[kept_time == 54_321] == [7.0]


def test_spans_end_where_the_state_does_and_at_holes() -> None:
    time = np.array([0.0, 10.0, 20.0, 30.0, 500.0, 510.0])
    found = spans(time, ["a", "a", "", "b", "b", "b"], 10.0)
    assert found == (Span(0, 20, "a"), Span(30, 40, "b"), Span(500, 520, "b"))


def test_plateaus_are_the_long_stretches_in_order() -> None:
    levels = [(1.0,)] * 60 + [(i / 10.0,) for i in range(11, 31)] + [(3.5,)] * 20
    assert plateaus(levels, 4) == ((0, 59), (80, 99))
    assert plateaus(levels, 1) == ((0, 59),)
    assert plateaus([], 4) == ()


def test_kpis_have_words_and_units(page: str) -> None:
    """Differences of temperatures are in K, shares in percent."""
    rows: Mapping[str, str] = {
        name: f"{value} {unit}"
        for value, unit, name in re.findall(
            r'<td class="number">([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td></tr>', page
        )
    }
    assert rows["travel.T_R"].endswith(" K")
    assert rows["travel.F_B"].endswith(" kg/s")
    assert rows["active_share"].endswith(" %")
    assert rows["violation_integral.xA"].endswith(" s")
    assert rows["profit_before"].endswith(" EUR/s")
