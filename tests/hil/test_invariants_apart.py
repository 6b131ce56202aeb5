"""Invariants of a controller in another process: told late, killed, and started again."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from controller.cycle.record import Record
from controller.settings import Settings
from controller.signal import Snapshot
from hil.invariants.judge import Invariant, Invariants
from hil.link.frames import WireWrite
from hil.runner import run_scenario
from hil.scenario import load_scenario
from hil.world import START_NS

CSTR = Path(__file__).parents[2] / "config" / "scenarios" / "cstr-setpoint.yaml"
AUTO = {"at": 0, "kind": "mode", "text": "auto"}

Cycle = tuple[list[tuple[str, Sequence[WireWrite]]], Snapshot, Record]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, list[Cycle]]:
    """Thirty sound cycles: what was on the wire, what was seen and what was decided."""
    changes = {"tier": "virtual", "duration": 300, "profiles": [], "commands": [AUTO]}
    scenario = load_scenario(CSTR, changes)
    cycles: list[Cycle] = []
    writes: list[tuple[str, Sequence[WireWrite]]] = []
    check, observe = Invariants.check, Invariants.observe

    def heard(self: Invariants, device: str, frames: Sequence[WireWrite]) -> None:
        writes.append((device, frames))
        check(self, device, frames)

    def seen(self: Invariants, snapshot: Snapshot, record: Record) -> None:
        cycles.append((list(writes), snapshot, record))
        writes.clear()
        observe(self, snapshot, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Invariants, "check", heard)
        patch.setattr(Invariants, "observe", seen)
        run_scenario(scenario, tmp_path_factory.mktemp("told") / "run", check_replay=False)
    assert sum(bool(frames) for frames, _, _ in cycles) > 20
    return scenario.settings, cycles


def _hear(invariants: Invariants, cycle: Cycle) -> None:
    for device, writes in cycle[0]:
        invariants.check(device, writes)


@pytest.mark.parametrize("lockstep", [True, False])
def test_frames_seen_before_their_cycle_is_told_wait_for_it(
    told: tuple[Settings, list[Cycle]], lockstep: bool
) -> None:
    settings, cycles = told
    invariants = Invariants(settings, START_NS, lockstep=lockstep)
    _hear(invariants, cycles[0])
    for now, following in pairwise(cycles):
        _hear(invariants, following)  # on the wire already, the account of `now` comes only now
        invariants.observe(*now[1:])
    broken = {breach.invariant for breach in invariants.violations}
    assert (Invariant.JOURNALLED in broken) == lockstep
    assert bool(broken) == lockstep


def test_a_frame_that_nobody_decided_is_objected_to_later(
    told: tuple[Settings, list[Cycle]],
) -> None:
    settings, cycles = told
    invariants = Invariants(settings, START_NS, lockstep=False)
    stray = [WireWrite("holding", 0, bytes(range(12)))]
    for number, cycle in enumerate(cycles):
        _hear(invariants, cycle)
        if number == 15:
            invariants.check("feed", stray)
        invariants.observe(*cycle[1:])
    (breach,) = invariants.violations
    assert breach.invariant is Invariant.JOURNALLED
    assert breach.cycle == 20
    assert str(breach).startswith("cycle 20, journalled: a write to feed")


def test_a_killed_controller_starts_with_nothing_and_may_do_nothing(
    told: tuple[Settings, list[Cycle]],
) -> None:
    settings, cycles = told
    invariants = Invariants(settings, START_NS, lockstep=False)
    for cycle in cycles[:20]:
        _hear(invariants, cycle)
        invariants.observe(*cycle[1:])
    _hear(invariants, cycles[20])  # killed before it could tell
    for cycle in cycles[:25]:
        _hear(invariants, cycle)
        invariants.observe(*cycle[1:])
    assert invariants.violations == []
    # One that goes on after its start as if nothing had happened is caught.
    for cycle in cycles[10:13]:
        _hear(invariants, cycle)
        invariants.observe(*cycle[1:])
    assert {b.invariant for b in invariants.violations} == {Invariant.BEFORE_READY}
