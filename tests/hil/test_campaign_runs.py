"""Campaigns that run: rows, failures that are never lost, kills, and what comes out at the end."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from controller.errors import DeviceError, ScenarioError
from hil.campaign import campaign as campaigns
from hil.campaign import job as job_module
from hil.campaign.campaign import orders_of, run_campaign
from hil.campaign.campaign_file import Campaign, load_campaign
from hil.campaign.commands import campaign as verb
from hil.campaign.job import execute, failed_checks
from hil.campaign.local_processes import on_processes
from hil.campaign.order import Order, Row
from hil.campaign.page import write_page
from hil.campaign.parcel import pack
from hil.campaign.summary import document, summarize
from hil.judge.verdict import Check
from tests.hil.deadly_work import deadly

ROOT = Path(__file__).parents[2]
TEXT = """\
campaign: 1
id: small
title: A <small> one
scenario: {scenario}
duration: 80 s
seeds: {{first: 1, count: {count}}}
design: sobol
mismatch: {{k10: [0.95, 1.05], kw: {{low: 0.8, high: 1.25, scale: log}}}}
changes: {{judge_from: 30 s, assertions: [{{kpi: unsafe_writes, high: 0}}]}}
"""
START = """\
from argparse import ArgumentParser
from hil.campaign.commands import campaign as verb
parser = ArgumentParser()
verb.configure(parser)
raise SystemExit(verb.execute(parser.parse_args()))
"""


SCENARIO = ROOT / "config" / "scenarios" / "cstr-setpoint.yaml"


def small_campaign(folder: Path, count: int, scenario: Path = SCENARIO) -> Path:
    path = folder / "campaign.yaml"
    path.write_text(TEXT.format(scenario=os.path.relpath(scenario, folder), count=count))
    return path


def run_verb(arguments: Sequence[str]) -> int:
    """The verb as the command line runs it."""
    parser = argparse.ArgumentParser()
    verb.configure(parser)
    return verb.execute(parser.parse_args(arguments))


def raw_jobs(directory: Path) -> list[int]:
    """Job numbers in all shards, as they stand there."""
    shards = sorted((directory / "results").glob("shard-*.parquet"))
    return [row["job"] for shard in shards for row in pq.read_table(shard).to_pylist()]


def wait_for(happened: Callable[[], object], what: str, seconds: float = 80.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {seconds} s"
        time.sleep(0.02)


def own_temporary(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Campaign:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return load_campaign(small_campaign(tmp_path, 4))


def _orders(campaign: Campaign) -> list[Order]:
    return orders_of(campaign, pack(campaign.scenario))


def serial(orders: Sequence[Order]) -> Iterator[Row]:
    yield from map(execute, orders)


def _told(row: Row) -> Row:
    """A row without what depends on the machine."""
    return {k: v for k, v in row.items() if "_ms" not in k and "wall_s" not in k}


# --- jobs ------------------------------------------------------------------------------------


def test_a_job_is_a_row_of_its_seed_its_plant_and_its_kpis(loaded: Campaign) -> None:
    order = _orders(loaded)[3]
    row = execute(order)
    assert (row["job"], row["seed"], row["passed"], row["error"]) == (3, 4, True, "")
    assert row["x.plant.mismatch.k10"] == order.values["plant.mismatch.k10"] != 1.0
    assert row["kpi.cycles"] == 8.0
    assert row["kpi.iae.cB"] > 0.0
    assert row["wall_s"] > 0.0
    assert row["code"] == order.code
    kept = execute(replace(order, kpis=("iae.*", "cycles")))
    assert sorted(name for name in kept if name.startswith("kpi.")) == ["kpi.cycles", "kpi.iae.cB"]


def test_an_application_used_again_decides_as_a_new_one(
    loaded: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []
    real = job_module.build_application
    monkeypatch.setattr(
        job_module, "build_application", lambda *a, **k: built.append(a) or real(*a, **k)
    )
    first, second = _orders(loaded)[1:3]
    monkeypatch.setattr(job_module, "_applications", job_module._Applications())
    rows = [_told(execute(order)) for order in (first, second, first)]
    assert len(built) == 1
    monkeypatch.setattr(job_module, "_applications", job_module._Applications())
    alone = _told(execute(second))
    assert len(built) == 2
    assert rows[1] == alone
    assert rows[0] == rows[2] != rows[1]
    # Other settings are another application.
    execute(replace(first, changes={**first.changes, "overrides.guard.hold_cycles": 7}))
    assert len(built) == 3


def test_a_job_needs_nothing_but_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    here = tmp_path / "here"
    for part in ("scenarios", "cstr"):
        shutil.copytree(ROOT / "config" / part, here / part)
    path = small_campaign(here, 1, here / "scenarios" / "cstr-setpoint.yaml")
    (order,) = _orders(load_campaign(path))
    shutil.rmtree(here)
    row = execute(order)
    assert (row["passed"], row["error"]) == (True, "")


def test_what_breaks_inside_a_job_is_a_row_that_failed(loaded: Campaign) -> None:
    order = _orders(loaded)[0]
    row = execute(replace(order, values={"plant.mismatch.no_such": 1.1}))
    assert row["passed"] is False
    assert row["error"].startswith("ScenarioError: ")
    assert "no_such" in row["error"]
    row = execute(replace(order, changes={"plant.ref": "builtins:exit"}))
    assert row["passed"] is False
    assert row["error"]


def test_a_failed_verdict_is_told_with_its_checks(loaded: Campaign) -> None:
    asserted = {"assertions": [{"kpi": "iae.cB", "high": 0.0}, {"kpi": "gap_end", "high": 1.0}]}
    row = execute(replace(_orders(loaded)[0], changes=asserted))
    assert row["passed"] is False
    assert row["failed"] == "iae.cB failed; gap_end untested"
    assert row["error"] == ""


def test_other_code_is_refused(loaded: Campaign) -> None:
    order = replace(_orders(loaded)[0], code="0.0.1+abc")
    with pytest.raises(ScenarioError, match=r"the campaign 0\.0\.1\+abc") as caught:
        execute(order)
    assert "same version everywhere" in caught.value.mend


def test_a_sample_of_the_jobs_is_replayed(
    loaded: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def refuse(*_: object, check_replay: bool, **__: object) -> None:
        asked.append(check_replay)
        raise ScenarioError("not now")

    monkeypatch.setattr(job_module, "run_scenario", refuse)
    for order in _orders(replace(loaded, replay_every=3)):
        assert execute(order)["error"] == "ScenarioError: not now"
    assert asked == [True, False, False, True]


def test_replay_is_judged_only_where_there_was_one() -> None:
    check = Check("replay_identical", None, 1.0, None, "untested")
    warning = Check("iae.cB", 2.0, None, 1.0, "failed", "warn")
    assert failed_checks([check, warning], replayed=False) == []
    assert failed_checks([check, warning], replayed=True) == [check]


# --- campaigns -------------------------------------------------------------------------------


def test_a_campaign_continues_and_grows(loaded: Campaign, tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def counting(orders: Sequence[Order]) -> Iterator[Row]:
        asked.append([order.number for order in orders])
        yield from serial(orders)

    def interrupted(orders: Sequence[Order]) -> Iterator[Row]:
        yield from serial(orders[:3])
        raise KeyboardInterrupt

    out, seen = tmp_path / "out", []
    with pytest.raises(KeyboardInterrupt):
        run_campaign(loaded, out, interrupted, shard_rows=2)
    assert raw_jobs(out) == [0, 1, 2]
    rows = run_campaign(loaded, out, counting, lambda *state: seen.append(state))
    grown = run_campaign(loaded.with_seeds(6), out, counting)
    again = run_campaign(loaded, out, counting)
    assert asked == [[3], [4, 5]]
    assert seen == [(3, 4, 0), (4, 4, 0)]
    assert [row["job"] for row in grown] == list(range(6))
    assert rows == again == grown[:4]


def test_a_row_that_comes_twice_counts_once_and_a_lost_one_is_told(
    loaded: Campaign, tmp_path: Path
) -> None:
    def careless(orders: Sequence[Order]) -> Iterator[Row]:
        first, second = serial(orders[:2])
        yield from (first, second, first)

    with pytest.raises(DeviceError, match="2 jobs gave no row, the first is 2"):
        run_campaign(loaded, tmp_path / "out", careless)
    assert raw_jobs(tmp_path / "out") == [0, 1]


def test_a_changed_scenario_does_not_continue(loaded: Campaign, tmp_path: Path) -> None:
    run_campaign(loaded.with_seeds(1), tmp_path / "out", serial)
    changed = replace(loaded, changes={**loaded.changes, "judge_from": "40 s"})
    with pytest.raises(ScenarioError, match="another design"):
        run_campaign(changed, tmp_path / "out", serial)


def test_a_misspelt_path_is_one_error_before_any_job(loaded: Campaign, tmp_path: Path) -> None:
    changed = replace(loaded, changes={"judge_form": "40 s"})
    with pytest.raises(ScenarioError, match="unknown key"):
        run_campaign(changed, tmp_path / "out", serial)
    assert not (tmp_path / "out").exists()


def test_a_sealed_shard_survives_time_as_well_as_count(
    loaded: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaigns, "SHARD_S", 0.0)
    run_campaign(loaded.with_seeds(2), tmp_path / "out", serial)
    assert len(list((tmp_path / "out" / "results").iterdir())) == 2


# --- processes that die ----------------------------------------------------------------------


def test_a_job_that_kills_its_process_fails_alone(loaded: Campaign) -> None:
    # Without parcel: unpacking one imports all of the controller, in every process.
    light: Any = None
    orders = [replace(order, parcel=light) for order in _orders(loaded.with_seeds(6))]
    rows = {row["job"]: row for row in on_processes(orders, 1, deadly)}
    assert sorted(rows) == [0, 1, 2, 3, 4, 5]
    assert [job for job, row in rows.items() if not row["passed"]] == [2]
    assert rows[2]["error"] == "its process died, twice"


@pytest.mark.slow
def test_after_kill_9_a_campaign_runs_only_what_is_missing(tmp_path: Path) -> None:
    """The whole process tree is real: the verb, its worker, SIGKILL, and the verb again."""
    jobs, out = 12, tmp_path / "out"
    command = [sys.executable, "-c", START, str(small_campaign(tmp_path, jobs)), "--jobs", "1"]
    command += ["--out", str(out), "--shard-rows", "2", "--json"]
    environment = own_temporary(tmp_path)
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: list((out / "results").glob("*.parquet")), "the first shard")
        first.kill()
        first.communicate()  # Ends when the orphaned worker has closed our pipe, too.
    finally:
        first.kill()
    held = {shard: shard.read_bytes() for shard in (out / "results").glob("shard-*.parquet")}
    done = raw_jobs(out)
    assert 0 < len(done) < jobs
    again = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=80, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["jobs"] == jobs
    assert sorted(raw_jobs(out)) == list(range(jobs))
    assert all(shard.read_bytes() == data for shard, data in held.items())


# --- what comes out --------------------------------------------------------------------------


def _row(number: int, campaign: Campaign, **more: Any) -> Row:
    values = _orders(campaign)[number].values
    k10 = values["plant.mismatch.k10"]
    base: Row = {"job": number, "seed": number + 1, "variant": "", "code": "0.1.0"}
    base |= {f"x.{path}": value for path, value in values.items()}
    base |= {"wall_s": 1.0, "error": ""}
    bad = k10 > 1.04
    base |= {"passed": not bad, "failed": "iae.cB failed" if bad else ""}
    return base | {"kpi.iae.cB": k10**2, "kpi.cycles": 10.0, "kpi.solve_ms_p50": k10} | more


def test_summary_picture_and_page_tell_the_same(loaded: Campaign, tmp_path: Path) -> None:
    campaign = loaded.with_seeds(64)
    rows = [_row(number, campaign) for number in range(64)]
    rows[7] |= {"passed": False, "failed": "", "error": "ModelError: <b>no</b> steady state"}
    rows[7].pop("kpi.iae.cB")
    found = summarize(campaign, rows)
    told = json.loads(json.dumps(document(found)))
    bad = sum(not row["passed"] for row in rows)
    assert (told["jobs"], told["failures"]) == (64, bad)
    assert told["failure_rate_at_most"] > bad / 64
    assert told["failed_checks"] == {"iae.cB failed": bad - 1}
    assert told["errors"] == {"ModelError: <b>no</b> steady state": [7]}
    assert told["failed_jobs"][0]["values"].keys() == {"plant.mismatch.k10", "plant.mismatch.kw"}
    effects = {(e["kpi"], e["factor"]): e for e in told["sensitivity"]["effects"]}
    assert effects["iae.cB", "k10"]["prcc"] > 0.99
    assert effects["failed", "k10"]["certain"]
    assert not any(kpi.startswith("solve_ms") for kpi, _ in effects)

    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert f"{bad} of 64 failed" in page
    assert "A &lt;small&gt; one" in page
    assert "&lt;b&gt;no&lt;/b&gt;" in page
    assert page.count("<svg ") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_the_verb_writes_results_summary_page_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("hil.campaign.commands.on_processes", lambda orders, *_: serial(orders))
    out = tmp_path / "out"
    arguments = [str(small_campaign(tmp_path, 50)), "--seeds", "8", "--out", str(out), "--json"]
    arguments += ["--html", str(tmp_path / "c.html"), "--picture", str(tmp_path / "c.png")]
    assert run_verb(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((out / "summary.json").read_text())
    assert (told["jobs"], told["failures"]) == (8, 0)
    assert told["failure_rate_at_most"] == pytest.approx(1 - 0.05 ** (1 / 8))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert "0 of 8 failed" in (tmp_path / "c.html").read_text()
    assert run_verb(arguments[:-5]) == 0
    assert "about 3/n = 37.5 %" in capsys.readouterr().out


def test_a_picture_of_no_kind_is_refused_before_the_first_job(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="no kind of picture"):
        run_verb([str(small_campaign(tmp_path, 4)), "--picture", "c.gif"])
