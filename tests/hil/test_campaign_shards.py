"""Parquet shards of a campaign: whole or not at all, one campaign per directory."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from controller.errors import JournalError, ScenarioError
from hil.campaign import extras, shards
from hil.campaign.shards import Identity, opened, read_rows

IDENTITY = Identity("small", "A small one", "d" * 64, "0.1.0+abc", "s.yaml")


def _row(job: int, **more: Any) -> dict[str, Any]:
    row = {"job": job, "seed": job + 1, "passed": True, "failed": "", "error": "", "code": "1"}
    return row | {"wall_s": 0.5, "x.plant.mismatch.k": 1.5} | more


def test_rows_come_back_by_number_whatever_their_kpis(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(3, **{"kpi.iae": 2.5}), _row(1, passed=False, error="x")])
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0, **{"kpi.iae": None, "kpi.ise": 1.0})])
        rows = place.rows()
    assert [row["job"] for row in rows] == [0, 1, 3]
    assert rows[2]["kpi.iae"] == 2.5
    assert rows[0]["kpi.ise"] == 1.0
    assert rows[1] == _row(1, passed=False, error="x", **{"kpi.iae": None})
    assert len(list((tmp_path / "results").iterdir())) == 2


def test_a_draft_of_a_killed_process_is_no_result(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0)])
    (tmp_path / "results" / "shard-000002.draft").write_bytes(b"PAR1 half")
    with opened(tmp_path, IDENTITY, "text") as place:
        assert [row["job"] for row in place.rows()] == [0]
    assert not list((tmp_path / "results").glob("*.draft"))


def test_a_job_in_two_shards_counts_once(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0, wall_s=1.0)])
        place.seal([_row(0, wall_s=2.0), _row(1)])
        assert [(row["job"], row["wall_s"]) for row in place.rows()] == [(0, 1.0), (1, 0.5)]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"id": "large"}, "holds the campaign small, not large"),
        ({"design": "e" * 64}, "results of another design"),
        ({"code": "0.1.0+def"}, "this is 0.1.0.def"),
    ],
)
def test_a_directory_takes_one_campaign(tmp_path: Path, other: dict[str, str], said: str) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0)])
    with (
        pytest.raises(ScenarioError, match=said) as caught,
        opened(tmp_path, replace(IDENTITY, **other), "other"),
    ):
        pass
    assert "--out" in caught.value.mend
    assert (tmp_path / "campaign.yaml").read_text() == "text"


def test_a_directory_without_results_takes_any_campaign(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text"):
        pass
    with opened(tmp_path, replace(IDENTITY, design="e" * 64), "other") as place:
        place.seal([_row(0)])
    assert (tmp_path / "campaign.yaml").read_text() == "other"


def test_results_of_nobody_knows_what_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0)])
    (tmp_path / "campaign.json").unlink()
    with (
        pytest.raises(ScenarioError, match="nothing says of what"),
        opened(tmp_path, IDENTITY, "text"),
    ):
        pass


def test_two_processes_cannot_work_in_one_directory(tmp_path: Path) -> None:
    with (
        opened(tmp_path, IDENTITY, "text"),
        pytest.raises(JournalError, match="another process"),
        opened(tmp_path, IDENTITY, "text"),
    ):
        pass


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    with opened(tmp_path, IDENTITY, "text") as place:
        shard = place.seal([_row(0)])
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ScenarioError, match="damaged") as caught:
        read_rows(tmp_path)
    assert caught.value.where == str(shard)


def test_a_full_disk_is_told_and_what_was_sealed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(0)])
        with monkeypatch.context() as patched:
            patched.setattr(pq, "write_table", full)
            with pytest.raises(JournalError, match="No space left"):
                place.seal([_row(1)])
    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_whole", full)
        with (
            pytest.raises(JournalError, match="No space left") as caught,
            opened(tmp_path, IDENTITY, "text"),
        ):
            pass
    assert caught.value.where == str(tmp_path / "campaign.yaml")
    with opened(tmp_path, IDENTITY, "text") as place:
        place.seal([_row(1)])
        assert [row["job"] for row in place.rows()] == [0, 1]


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ScenarioError) as caught:
        extras.require("pyarrow", "Parquet shards")
    assert "pip install 'loopwright[campaign]'" in str(caught.value)
