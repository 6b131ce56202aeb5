"""`loopwright hil run` when something is wrong: a bad scenario, a damaged golden file, no place."""

from __future__ import annotations

import errno
import json
import multiprocessing as mp
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from controller.cli import main
from controller.errors import ProcessLost, ScenarioError
from controller.settings.yaml_core import read
from controller.terminal import results
from hil.history import History
from hil.interrupts import interrupts_held
from hil.judge import junit as junit_module
from hil.judge.verdict import Verdict
from hil.report import write as write_module
from hil.report.coverage_matrix import Covered
from hil.runner import run_scenario
from hil.scenario import in_tier, load_scenario
from hil.seeds import SEED_MAX
from hil.suite import commands as suite_commands
from hil.suite import running
from hil.suite.jobs import Job
from hil.suite.outcome import Finished
from hil.suite.shown import verdict_table

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
NO_RUNG = {"at": "0 s", "until": "1 min", "solver": "condensed", "kind": "cap"}
"""A linear model has this rung, and only the built application shows that this one has not."""


def _short(folder: Path, name: str, **changes: object) -> Path:
    """Two minutes of the reactor; judged by what always holds."""
    source = SCENARIOS / "cstr-setpoint.yaml"
    data: dict[str, Any] = read(source, source.read_text(encoding="utf-8")).data
    data |= {
        "id": name,
        "application": str(SCENARIOS.parent / "cstr" / "cstr.yaml"),
        "tier": "virtual",
        "duration": "2 min",
        "commands": [{"at": 0, "kind": "mode", "text": "auto"}],
        "profiles": [],
        "judge_from": 0,
        "assertions": [{"kpi": "active_share", "low": 0.1}],
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return path


def test_one_scenario_that_cannot_run_costs_no_other_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "scenarios"
    folder.mkdir()
    _short(folder, "a")
    _short(folder, "b", solver_faults=[NO_RUNG])
    _short(folder, "c")
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    code = main(["hil", "run", str(folder), "--out", str(out), "--junit", str(junit), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 2
    assert told["passed"] is False
    assert [(s["scenario"], s["passed"]) for s in told["scenarios"]] == [("a", True), ("c", True)]
    assert "no rung condensed" in told["errors"]["b"]
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("3", "1", "0")


def test_a_damaged_golden_file_is_renewed_and_one_file_takes_one_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text("{broken", encoding="utf-8")
    section = {"file": str(golden), "signals": {"cB": {"abs": 0.01}}}
    path = str(_short(tmp_path, "a", golden=section))
    out = str(tmp_path / "out")
    assert main(["hil", "run", path, "--out", out, "--update-golden"]) == 0
    assert json.loads(golden.read_text(encoding="utf-8"))["scenario"] == "a"
    assert main(["hil", "run", path, "--out", out]) == 0
    capsys.readouterr()
    assert main(["hil", "run", path, "--out", out, "--seed", "1,2", "--update-golden"]) == 2
    assert "2 runs would be written to the same golden file" in capsys.readouterr().err


def test_a_failed_run_becomes_no_golden_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text("kept", encoding="utf-8")
    section = {"file": str(golden), "signals": {"cB": {"abs": 0.01}}}
    wrong = [{"kpi": "active_share", "low": 2.0}]
    path = str(_short(tmp_path, "a", golden=section, assertions=wrong))
    assert main(["hil", "run", path, "--out", str(tmp_path / "out"), "--update-golden"]) == 1
    assert golden.read_text(encoding="utf-8") == "kept"
    told = capsys.readouterr().out
    assert "golden.json: not updated, for this run is no example" in told
    assert "active_share" in told


def test_a_failed_run_leaves_a_bundle_that_repeats_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _short(tmp_path, "a", assertions=[{"kpi": "active_share", "low": 2.0}])
    code = main(["hil", "run", str(path), "--out", str(tmp_path / "out"), "--seed", "5"])
    capsys.readouterr()
    assert code == 1
    (bundle,) = (tmp_path / "out").glob("*.loopwright.zip")
    path.unlink()
    assert main(["hil", "run", str(bundle), "--out", str(tmp_path / "again"), "--json"]) == 1
    checks = json.loads(capsys.readouterr().out)["scenarios"][0]["checks"]
    outcomes = {check["name"]: check["outcome"] for check in checks}
    assert outcomes["history_hash"] == "passed"
    assert outcomes["active_share"] == "failed"
    other = ["--seed", "6", "--out", str(tmp_path / "other")]
    assert main(["hil", "run", str(bundle), *other]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert (
        "a, run again: it did not do what the run in the bundle did: cycle 0 is the first" in told
    )
    assert "history_hash" not in told


def test_a_place_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _short(tmp_path, "a")
    for option in ("--out", "--html"):
        assert main(["hil", "run", str(path), option, str(path / "inside")]) == 2
        assert "cannot be made" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said_of_it"),
    [
        ({"plc.scan": "0 s"}, "no PLC scans every 0 s"),
        ({"plc.loops.F.reset": "-3 s"}, "plc.loops.F"),
        ({"plc.loops.F.output_range": [1, 0]}, "plc.loops.F"),
        ({"plc.loops.F.setpoint_rate": "0 1/h/min"}, "a rate above 0"),
        ({"plc.loops.F.setpoint_range": ["35 1/h", "5 1/h"]}, "the lower end first"),
        ({"plc.loops.F.gain": float("inf")}, "gain"),
    ],
)
def test_what_no_plc_can_do_is_refused_where_it_stands(
    change: dict[str, object], said_of_it: str
) -> None:
    with pytest.raises(ScenarioError, match=said_of_it) as caught:
        load_scenario(SCENARIOS / "cstr-setpoint.yaml", change)
    assert "cstr-setpoint.yaml:" in caught.value.where


def test_a_profile_of_an_input_that_is_not_there_is_refused_before_the_run(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIOS / "cstr-setpoint.yaml")
    wrong = replace(scenario, profiles=(replace(scenario.profiles[0], input="T9"),))
    with pytest.raises(ScenarioError, match="no input T9"):
        run_scenario(wrong, tmp_path / "data", tier="virtual")


def test_a_pause_does_not_outlast_the_run(tmp_path: Path) -> None:
    pause = {"at": "60 s", "until": "1 h", "target": "controller", "type": "pause"}
    changes = {"duration": "2 min", "faults": [pause], "commands[1].at": "50 s"}
    scenario = load_scenario(SCENARIOS / "lost-controller.yaml", changes)
    run = run_scenario(scenario, tmp_path / "data")
    assert run.verdict.kpis["control_endings"] == 0
    assert run.verdict.kpis["unsafe_writes"] == 0
    assert run.verdict.kpis["replay_identical"] == 1


def test_the_greatest_seed_runs(tmp_path: Path) -> None:
    path = _short(tmp_path, "a")
    out = str(tmp_path / "out")
    assert main(["hil", "run", str(path), "--seed", str(SEED_MAX), "--out", out]) == 0


def test_a_report_that_cannot_be_written_is_told_before_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = _short(tmp_path, "a"), tmp_path / "out"
    assert main(["hil", "run", str(path), "--out", str(out), "--junit", str(tmp_path)]) == 2
    assert "would be a directory" in capsys.readouterr().err
    assert main(["hil", "run", str(path), "--out", str(out), "--junit", str(path / "j.xml")]) == 2
    assert "cannot be made" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "nope"], "no scenario has the tag nope. The tags there are: smoke"),
        (["{path}"], "a would run twice. Name the file once"),
    ],
)
def test_what_would_run_nothing_or_twice_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    path = str(_short(tmp_path, "a"))
    filled = [word.format(path=path) for word in words]
    assert main(["hil", "run", path, *filled, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err


def test_several_that_break_are_all_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(_short(tmp_path, name, solver_faults=[NO_RUNG])) for name in ("a", "b")]
    assert main(["hil", "run", *paths, "--out", str(tmp_path / "out"), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["scenarios"], sorted(told["errors"])) == (False, [], ["a", "b"])


def _killed(folder: Path, name: str) -> Path:
    """A scenario with a fault that the virtual tier does not know."""
    kill = {"at": "60 s", "until": "90 s", "target": "controller", "type": "kill"}
    return _short(folder, name, tier="wire", faults=[kill])


def test_what_the_tier_that_is_asked_for_cannot_run_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, host = str(_short(tmp_path, "a")), str(_killed(tmp_path, "host"))
    junit = tmp_path / "junit.xml"
    common = ["--tier", "virtual", "--out", str(tmp_path / "out")]
    assert main(["hil", "run", sound, host, *common, "--junit", str(junit)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"host +│ virtual │ +3 │ left out", told)
    assert re.search(r"host: left out, .*kill means nothing in the virtual tier", told)
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    skipped = suite.find("testcase[@name='host']/skipped")
    assert skipped is not None
    assert "kill means nothing" in skipped.get("message", "")
    assert main(["hil", "run", host, *common]) == 2
    assert "there is nothing left to run" in capsys.readouterr().err


def test_a_tier_that_the_file_itself_names_is_no_reason_to_leave_it_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = _killed(tmp_path, "host")
    host.write_text(host.read_text().replace("tier: wire", "tier: virtual"))
    for words in ([], ["--tier", "virtual"]):
        assert main(["hil", "run", str(host), *words, "--out", str(tmp_path / "out")]) == 2
        assert "nothing left" not in capsys.readouterr().err
    scenarios, left_out = in_tier(host, {}, "wire")
    assert ([s.tier for s in scenarios], left_out) == (["wire"], ())


def test_of_a_matrix_those_variants_are_left_out_that_the_tier_cannot_run(tmp_path: Path) -> None:
    matrix: dict[str, list[Any]] = {
        "tier": ["wire", "realtime"],
        "faults[0].type": ["kill", "pause", "cable_cut"],
    }
    path = _killed(tmp_path, "host")
    data = yaml.safe_load(path.read_text()) | {"matrix": matrix}
    data["faults"][0]["target"] = "dcs"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(ScenarioError):
        in_tier(path, {}, "virtual")  # kill has another target: wrong in any tier
    matrix["faults[0]"] = [
        {"at": "60 s", "until": "90 s", "target": target, "type": kind}
        for target, kind in (("controller", "kill"), ("T.PV", "freeze"))
    ]
    del matrix["faults[0].type"]
    path.write_text(yaml.safe_dump(data | {"matrix": matrix}))
    scenarios, left_out = in_tier(path, {}, "virtual")
    assert [(s.tier, s.faults[0].type) for s in scenarios] == [("virtual", "freeze")]
    (one,) = left_out
    assert one.why == "kill means nothing in the virtual tier"
    assert "tier" not in one.scenario.variant


def test_every_variant_is_shown_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = Verdict("a[k10=0.95,kw=0.9]", "", "virtual", 1, "0", (), {"cycles": 12.0})
    finished = Finished(verdict, 1.0, "", covered=Covered("", {}))
    results().print(verdict_table([finished]))
    assert "a[k10=0.95,kw=0.9]" in capsys.readouterr().out


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_was_found_is_shown_though_the_disk_is_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = str(_short(tmp_path, "a")), str(tmp_path / "out")
    for module in (junit_module, write_module, suite_commands):
        monkeypatch.setattr(module, "write_whole", _full)
    reports = ["--junit", str(tmp_path / "j.xml"), "--html", str(tmp_path / "html")]
    assert main(["hil", "run", path, "--out", out, *reports]) == 3
    told = capsys.readouterr()
    assert re.search(r"a +│ virtual │ +3 │ +passed", told.out)
    assert told.err.count("No space left on device") == 3
    monkeypatch.setattr(History, "save", _full)
    assert main(["hil", "run", path, "--out", out]) == 3
    assert "the data of the run cannot be written: No space left" in capsys.readouterr().err


def test_a_run_whose_process_is_killed_costs_no_other_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_turn(work: Callable[[Job], Any], jobs: Sequence[Job], _: int) -> Generator[Any]:
        yield ProcessLost("its process was killed", mend="Take fewer")
        yield work(jobs[1])

    monkeypatch.setattr(running, "in_turn", in_turn)
    paths, junit = [str(_short(tmp_path, name)) for name in "ab"], tmp_path / "junit.xml"
    words = ["--jobs", "2", "--out", str(tmp_path / "out"), "--junit", str(junit)]
    assert main(["hil", "run", *paths, *words]) == 3
    told = capsys.readouterr()
    assert re.search(r"b +│ virtual │ +3 │ +passed", told.out)
    assert told.err == "error: a: its process was killed. Take fewer\n"
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("errors"), suite.get("failures")) == ("2", "1", "0")
    assert suite.find("testcase[@name='a']/error") is not None


def _hears_interrupts(answer: SimpleQueue[bool]) -> None:
    answer.put(signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def test_a_process_that_is_started_inside_never_hears_ctrl_c() -> None:
    context = mp.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=_hears_interrupts, args=(answer,))

    def start() -> None:
        with interrupts_held():
            process.start()
            os.kill(os.getpid(), signal.SIGINT)
            assert process.is_alive()

    # What was pressed meanwhile is heard here, and only here.
    with pytest.raises(KeyboardInterrupt):
        start()
    assert answer.get() is False
    process.join(30)
    assert process.exitcode == 0


def test_ctrl_c_ends_a_suite_and_its_processes_without_a_traceback(tmp_path: Path) -> None:
    path = _short(tmp_path, "a", duration="20 h")
    command = [sys.executable, "-m", "controller.cli", "hil", "run", str(path), "--seed", "1-2"]
    command += ["--jobs", "2", "--out", str(tmp_path / "out")]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SCENARIOS.parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        end = time.monotonic() + 60
        while len(list((tmp_path / "out").glob("*/samples.db"))) < 2:
            assert time.monotonic() < end
            assert run.poll() is None, run.communicate()
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)
        told, said = run.communicate(timeout=30)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == 130
    assert told == ""
    assert said == "interrupted; what was finished is kept\n"
