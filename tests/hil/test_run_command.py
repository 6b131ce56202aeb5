"""`loopwright hil run` when something is wrong: a bad scenario, a damaged golden file, no place."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from controller.cli import main
from controller.errors import ScenarioError
from controller.settings.yaml_core import read
from hil.interrupts import interrupts_held
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.seeds import SEED_MAX

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"


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
    plant = {"ref": "plant_models.van_de_vusse:actuated_plant", "mismatch": {"nope": 1.1}}
    _short(folder, "b", plant=plant)
    _short(folder, "c")
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    code = main(["hil", "run", str(folder), "--out", str(out), "--junit", str(junit), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert code == 2
    assert told["passed"] is False
    assert [(s["scenario"], s["passed"]) for s in told["scenarios"]] == [("a", True), ("c", True)]
    assert "no parameter nope" in told["errors"]["b"]
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
    scenario = load_scenario(SCENARIOS / "cstr-setpoint.yaml", {"profiles[0].input": "T9"})
    with pytest.raises(ScenarioError, match="no input T9"):
        run_scenario(scenario, tmp_path / "data", tier="virtual")


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
    plant = {"ref": "plant_models.van_de_vusse:actuated_plant", "mismatch": {"nope": 1.1}}
    paths = [str(_short(tmp_path, name, plant=plant)) for name in ("a", "b")]
    assert main(["hil", "run", *paths, "--out", str(tmp_path / "out"), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["scenarios"], sorted(told["errors"])) == (False, [], ["a", "b"])


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
