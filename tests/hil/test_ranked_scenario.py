"""Which CV gives way is decided by rank and nothing else: with ranks exchanged it is the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controller.cycle.record import decode_record
from controller.historian.reader import open_reader
from controller.settings import changed
from hil.runner import Run, run_scenario
from hil.scenario import load_scenario

RANKS = Path(__file__).parents[2] / "config" / "scenarios" / "ranks.yaml"
DURATION_S = 3600.0
CONFLICT = 80  # cycles: the feed has risen long ago


def _run(directory: Path, ranks: dict[str, int]) -> Run:
    scenario = load_scenario(RANKS)
    controlled: Any = scenario.settings.overrides["controlled"]
    swapped = [{**cv, "rank": ranks[cv["output"]]} for cv in controlled]
    settings = changed(scenario.settings, {"controlled": swapped})
    return run_scenario(
        replace(scenario, settings=settings),
        directory,
        tier="virtual",
        duration_s=DURATION_S,
        check_replay=False,
    )


@pytest.mark.parametrize(("kept", "given"), [("XB", "XD"), ("XD", "XB")])
def test_the_lower_rank_gives_way_and_it_is_told_why(kept: str, given: str, tmp_path: Path) -> None:
    run = _run(tmp_path / "data", {kept: 1, given: 2})
    kpis = run.verdict.kpis
    assert kpis[f"given_up.{kept}"] == 0
    assert kpis[f"given_up.{given}"] > 50
    with open_reader(run.directory) as reader:
        row = next(iter(reader.cycles(1, from_cycle=CONFLICT)))
    assert row.record is not None
    sentences = [c["sentence"] for c in decode_record(row.record)["target"]["constraints"]]
    assert any(
        text.startswith(f"{given} (rank 2) gives ") and f"because {kept} (rank 1" in text
        for text in sentences
    ), sentences
