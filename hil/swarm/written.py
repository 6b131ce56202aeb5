"""An episode as a scenario file, which says by its assertions what the swarm demands."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from hil.faults.solver import SolverFault
from hil.scenario import Scenario, load_scenario
from hil.scenario.parts import ScheduledCommand
from hil.swarm.episode import Episode, staged
from hil.swarm.recovery import STEADY_CYCLES, spec


def written(base: Scenario, episode: Episode, name: str, why: str) -> Scenario:
    """The episode as a scenario whose text can be kept beside the base's file and run from there.

    Raises:
        ScenarioError: the base's file has changed meanwhile.
    """
    return load_scenario(Path(base.path), as_changes(base, episode, name, why))


def as_changes(base: Scenario, episode: Episode, name: str, why: str) -> Mapping[str, object]:
    """The changes that make the base scenario's file into this episode's."""
    scenario = staged(base, episode)
    return {
        "id": name,
        "title": f"Found by the swarm: {why}",
        "tags": ["swarm"],
        "requirements": [],
        "tier": scenario.tier,
        "duration": scenario.duration_s,
        "seed": scenario.seed,
        "plant.mismatch": dict(scenario.mismatch),
        "plc.noise": dict(scenario.noise),
        "profiles": [],
        **_labs(episode),
        "commands": [_plain_command(c) for c in scenario.commands],
        "faults": [
            {
                "at": f.at_s,
                "until": f.until_s,
                "target": f.target,
                "type": f.type,
                "args": dict(f.args),
            }
            for f in scenario.faults
        ],
        "solver_faults": [_plain_solver_fault(f) for f in scenario.solver_faults],
        "economics": None,
        "judge_from": episode.quiet_s,
        "mode_trace": [],
        "budgets": {},
        "golden": None,
        "matrix": {},
        "assertions": _assertions(base, episode),
    }


def _labs(episode: Episode) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, lab in episode.labs.items():
        found[f"lab.{name}.delay"] = list(lab.delay_s)
        found[f"lab.{name}.drop"] = lab.drop
        found[f"lab.{name}.outlier"] = lab.outlier
    return found


def _plain_command(command: ScheduledCommand) -> dict[str, object]:
    plain: dict[str, object] = {"at": command.at_s, "kind": command.kind.value}
    if command.target:
        plain["target"] = command.target
    if command.value is not None:
        plain["value"] = command.value
    if command.text:
        plain["text"] = command.text
    return plain


def _plain_solver_fault(fault: SolverFault) -> dict[str, object]:
    plain: dict[str, object] = {
        "at": fault.at_s,
        "until": fault.until_s,
        "solver": fault.solver,
        "kind": fault.kind,
    }
    return plain | ({"delay": fault.delay_s} if fault.delay_s else {})


def _assertions(base: Scenario, episode: Episode) -> list[dict[str, object]]:
    """Nothing unsafe at any time; at the end in control and within the spec."""
    cycle_s = base.settings.cycle_s
    last_s = (episode.cycles - 2) * cycle_s  # the very last cycle hands back
    first_s = last_s - (STEADY_CYCLES - 1) * cycle_s
    found: list[dict[str, object]] = [
        {"kpi": "unsafe_writes", "high": 0},
        {"kpi": "invariant_violations", "high": 0},
    ]
    if first_s < episode.quiet_s:
        return found  # cut short: there is no quiet to recover in
    found.append({"temporal": f"always[{first_s:g}, {last_s:g}](mode == ACTIVE)"})
    for cv in base.settings.controlled:
        low, high = spec(cv, base.settings)
        limits = {name: value for name, value in (("low", low), ("high", high)) if isfinite(value)}
        if limits:
            found.append({"bound": f"y.{cv.output}", **limits, "from": first_s, "until": last_s})
    return found
