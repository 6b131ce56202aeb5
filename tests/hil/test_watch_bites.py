"""A deliberately broken controller is caught on the wire: the checks can fail."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import controller.cycle.step as step_module
from controller.cycle.guard import Move, guard
from hil.runner import run_scenario
from hil.scenario import load_scenario

SCENARIO = Path(__file__).parents[2] / "config" / "scenarios" / "reactor-faults.yaml"
TEMPERATURE = ("reactor", "TR.SP", "TR.REQ")

Frames = dict[str, dict[str, float]]


def _without_rate(frames: Frames, cycle: int) -> None:
    if "reactor" in frames and frames["reactor"]["TR.REQ"] and cycle % 2:
        frames["reactor"]["TR.SP"] += 3.0


def _outside(frames: Frames, cycle: int) -> None:
    if "reactor" in frames and frames["reactor"]["TR.REQ"]:
        frames["reactor"]["TR.SP"] = 99.9999


def _heartbeat_back(frames: Frames, cycle: int) -> None:
    for device, word in (("reactor", "R.HB"), ("feed_skid", "S.HB")):
        if device in frames and cycle % 5 == 0:
            frames[device][word] = 7


@pytest.mark.parametrize("sabotage", [_without_rate, _outside, _heartbeat_back])
def test_unsafe_writes_are_counted(
    sabotage: Callable[[Frames, int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycles = 0

    def broken(*arguments: Any) -> Move:
        nonlocal cycles
        cycles += 1
        move = guard(*arguments)
        frames: Frames = {device: dict(words) for device, words in move.frames.items()}
        sabotage(frames, cycles)
        sent: Mapping[str, Mapping[str, float]] = frames
        return replace(move, frames=sent)

    monkeypatch.setattr(step_module, "guard", broken)
    scenario = replace(load_scenario(SCENARIO), faults=())
    run = run_scenario(
        scenario, tmp_path / "data", tier="virtual", duration_s=3600.0, check_replay=False
    )
    assert run.verdict.kpis["active_share"] > 0
    assert run.verdict.kpis["unsafe_writes"] > 0
    failed = [check.name for check in run.verdict.checks if check.outcome == "failed"]
    assert "unsafe_writes" in failed
    assert not run.verdict.passed
