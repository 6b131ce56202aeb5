"""Campaigns over a scenario with a matrix: every variant meets every plant, and is told apart."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from controller.errors import ScenarioError
from controller.settings.yaml_core import read
from hil.campaign import campaign as campaigns
from hil.campaign.campaign import orders_of, run_campaign
from hil.campaign.campaign_file import Campaign, load_campaign
from hil.campaign.job import execute
from hil.campaign.order import Order, Row
from hil.campaign.page import write_page
from hil.campaign.parcel import pack
from hil.campaign.shards import read_rows
from hil.campaign.summary import document, failure_rate, over_variants, summarize, tables
from hil.seeds import SEED_MAX

SCENARIOS = Path(__file__).parents[2] / "config" / "scenarios"
HOLD = "overrides.guard.hold_cycles"


@pytest.fixture(autouse=True)
def _own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def _campaign(folder: Path, matrix: dict[str, Any], **more: Any) -> Campaign:
    source = SCENARIOS / "cstr-setpoint.yaml"
    data: dict[str, Any] = read(source, source.read_text(encoding="utf-8")).data
    data["application"] = os.path.relpath(SCENARIOS.parent / "cstr" / "cstr.yaml", folder)
    data |= {"matrix": matrix, "commands": data["commands"][:1], "profiles": []}
    data |= {"judge_from": 0, "assertions": [{"kpi": "unsafe_writes", "high": 0}]}
    (folder / "s.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    asked: dict[str, Any] = {"campaign": 1, "id": "c", "title": "C", "scenario": "s.yaml"}
    asked |= {"duration": "60 s", "seeds": {"first": 7, "count": 2}, "design": "sobol"}
    asked |= {"mismatch": {"k10": [0.95, 1.05]}, **more}
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(asked))
    return load_campaign(path)


def _orders(campaign: Campaign) -> list[Order]:
    return orders_of(campaign, pack(campaign.scenario))


def test_every_variant_meets_every_plant_and_more_seeds_keep_the_numbers(tmp_path: Path) -> None:
    campaign = _campaign(tmp_path, {HOLD: [3, 7], "plant.x0.T": [130.0, 134.0]})
    orders = _orders(campaign)
    names = [f"hold_cycles={hold},T={t}" for hold in (3, 7) for t in (130, 134)]
    assert [(o.number, o.seed, o.variant) for o in orders] == [
        (4 * i + j, 7 + i, name) for i in range(2) for j, name in enumerate(names)
    ]
    assert len({o.values["plant.mismatch.k10"] for o in orders}) == 2
    assert orders[6].changes == {HOLD: 7, "plant.x0.T": 130.0}
    grown = _orders(campaign.with_seeds(3))
    assert [o.number for o in grown] == list(range(12))
    assert grown[:8] == orders


def test_rows_in_the_shards_are_named_and_workers_keep_to_a_variant(tmp_path: Path) -> None:
    asked: list[str] = []

    def serial(orders: Sequence[Order]) -> Any:
        asked.extend(order.variant for order in orders)
        yield from map(execute, orders)

    out = tmp_path / "out"
    rows = run_campaign(_campaign(tmp_path, {HOLD: [3, 7]}), out, serial)
    assert asked == ["hold_cycles=3"] * 2 + ["hold_cycles=7"] * 2
    assert [row["error"] for row in rows] == [""] * 4
    held = [r for s in (out / "results").glob("*.parquet") for r in pq.read_table(s).to_pylist()]
    named = {row["job"]: row["variant"] for row in held}
    assert named == {0: "hold_cycles=3", 1: "hold_cycles=7", 2: "hold_cycles=3", 3: "hold_cycles=7"}
    assert read_rows(out) == rows


def test_what_the_campaign_says_no_longer_varies(tmp_path: Path) -> None:
    matrix = {"seed": [1, 2], "plant.mismatch.k10": [0.9, 1.1], "plant.mismatch.kw": [0.9, 1.1]}
    campaign = _campaign(tmp_path, matrix, changes={"plant.mismatch.kw": 1.0})
    assert [(o.seed, o.variant) for o in _orders(campaign)] == [(7, ""), (8, "")]


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        ({"tier": ["virtual", "wire"]}, "varies tier, which the campaign settles"),
        ({"duration": ["1 min", "2 min"]}, "varies duration"),
        ({HOLD: [3, 3]}, "holds hold_cycles=3 more than once"),
        ({"plant.mismatch.nope": [1, "two"]}, "plant.mismatch.nope"),
    ],
)
def test_a_matrix_that_makes_no_sense_here_is_refused_before_any_job(
    tmp_path: Path, matrix: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        _orders(_campaign(tmp_path, matrix))
    assert said in str(caught.value)


def test_too_many_jobs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaigns, "JOBS_MAX", 3)
    with pytest.raises(ScenarioError, match="2 variants of the scenario with 2 seeds each"):
        _orders(_campaign(tmp_path, {HOLD: [3, 7]}))


def _row(order: Order) -> Row:
    k10 = order.values["plant.mismatch.k10"]
    bad = order.variant == "hold_cycles=7" and k10 > 1.04
    told: Row = {"passed": not bad, "failed": "iae.cB failed" if bad else "", "error": ""}
    # One variant is far worse than the other, which must not hide what the plant does.
    far = 100.0 if order.variant == "hold_cycles=7" else 0.0
    return order.frame | told | {"wall_s": 1.0, "kpi.iae.cB": far + k10, "kpi.cycles": 12.0}


def test_summary_and_page_tell_the_variants_apart(tmp_path: Path) -> None:
    campaign = replace(_campaign(tmp_path, {HOLD: [3, 7]}), seeds=32)
    found = summarize(campaign, [_row(order) for order in _orders(campaign)])
    told = json.loads(json.dumps(document(found)))
    bad = told["failures"]
    assert bad > 0
    assert told["jobs"] == 64
    assert [(v["variant"], v["jobs"], v["failures"]) for v in told["variants"]] == [
        ("hold_cycles=3", 32, 0),
        ("hold_cycles=7", 32, bad),
    ]
    # The same plants twice are not twice as much evidence.
    assert told["failure_rate_at_most"] == failure_rate(bad, 32).high
    assert told["variants"][1]["medians"]["iae.cB"] == pytest.approx(101.0, abs=0.02)
    assert {job["variant"] for job in told["failed_jobs"]} == {"hold_cycles=7"}
    effects = {(e["kpi"], e["factor"]): e["prcc"] for e in told["sensitivity"]["effects"]}
    assert effects["iae.cB", "k10"] > 0.99
    assert str(tables(found)[0].title).startswith("2 variants")
    write_page(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<h2>Variants</h2>" in page
    assert "hold_cycles=7" in page
    assert f"{bad} of 64 failed" in page


def test_no_failure_of_any_variant_is_told_of_the_plants_that_were_met() -> None:
    alone = failure_rate(0, 30)
    both = over_variants([alone, alone])
    assert (both.jobs, both.high) == (60, alone.high)
    assert "about 3/n = 10 %" in str(both)
    assert "in the worst variant" in str(both)
    assert str(over_variants([alone])) == str(alone)


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ({"first": -1, "count": 2}, "greater than or equal to 0"),
        ({"first": 10**30, "count": 2}, "less than or equal to 2147483647"),
        ({"first": SEED_MAX, "count": 2}, "2 seeds from 2147483647 on end beyond"),
    ],
)
def test_seeds_that_are_none_are_refused_where_they_stand(
    tmp_path: Path, seeds: dict[str, int], said: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        _campaign(tmp_path, {HOLD: [3]}, seeds=seeds)
    assert said in str(caught.value)
    assert "c.yaml:" in caught.value.where
    assert "seeds" in caught.value.where


def test_more_seeds_than_there_are_left_are_refused(tmp_path: Path) -> None:
    campaign = _campaign(tmp_path, {HOLD: [3]}, seeds={"first": SEED_MAX, "count": 1})
    assert _orders(campaign)[0].seed == SEED_MAX
    with pytest.raises(ScenarioError, match="beyond the last one") as caught:
        campaign.with_seeds(2)
    assert caught.value.where == "--seeds"
