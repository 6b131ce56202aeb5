"""The verb `hil swarm`: runs a swarm, shrinks what fails, and says how to run it again."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from controller.errors import ProcessLost
from controller.settings.quantity import QuantityError, seconds
from controller.terminal import (
    Verb,
    json_flag,
    messages,
    print_error,
    print_json,
    progress_bar,
    results,
)
from hil.bundle import SUFFIX, write_bundle
from hil.interrupts import INTERRUPTED
from hil.invariants.judge import Invariant
from hil.resources import shipped
from hil.seeds import seed_of
from hil.swarm.coverage import swarm_coverage
from hil.swarm.episode import Episode, cut
from hil.swarm.run import (
    EPISODE_CYCLES,
    Ground,
    Outcome,
    Swarm,
    drawn,
    make_ground,
    run_episode,
    swarm_hash,
    swarm_outcomes,
)
from hil.swarm.shrink import Fails, shrunk
from hil.swarm.written import written

SCENARIOS = (
    "scenarios/cstr-setpoint.yaml",
    "scenarios/wood-berry.yaml",
    "scenarios/laboratory.yaml",
)
"""One of each application that ships: reactor, column, reactor with a laboratory."""
CYCLES = 20_000
_SHORTEST = 60


@dataclass(frozen=True, slots=True)
class Kept:
    """What was left of a failing episode: the smallest story, as a scenario and as a bundle."""

    scenario: Path
    bundle: Path
    story: Episode
    runs: int


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number; write 1 or more")
    return int(text)


def _cycles(text: str) -> int:
    try:
        number = round(float(text)) if "e" in text else int(text)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no number; write 20000 or 1e6") from error
    if number < _SHORTEST:
        raise argparse.ArgumentTypeError(f"{text} cycles are too few; write {_SHORTEST} or more")
    return number


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except QuantityError as error:
        raise argparse.ArgumentTypeError(f"{error}; write 60s or 5 min") from error


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenarios",
        nargs="*",
        type=Path,
        metavar="SCENARIO",
        help="plants and PLCs to take turns with (default: those that ship)",
    )
    parser.add_argument("--cycles", type=_cycles, default=CYCLES, help=f"in all ({CYCLES})")
    parser.add_argument("--seed", type=seed_of, default=1, help="of everything that is drawn (1)")
    parser.add_argument(
        "--episode", type=_cycles, default=EPISODE_CYCLES, help=f"cycles ({EPISODE_CYCLES})"
    )
    parser.add_argument("--tier", choices=["virtual", "wire"], default="virtual")
    parser.add_argument("--jobs", type=_count, default=1, help="processes")
    parser.add_argument(
        "--shrink", type=_duration, default=60.0, help="time to shrink a failing episode (60s)"
    )
    parser.add_argument("--keep", type=_count, default=3, help="failing episodes to shrink (3)")
    parser.add_argument(
        "--out", type=Path, default=Path("loopwright-swarm"), help="what failing episodes leave"
    )
    json_flag(parser)


def _execute(arguments: argparse.Namespace) -> int:
    paths = arguments.scenarios or [shipped(name) for name in SCENARIOS]
    swarm = Swarm(
        scenarios=tuple(str(path) for path in paths),
        cycles=arguments.cycles,
        seed=arguments.seed,
        tier=arguments.tier,
        episode=arguments.episode,
    )
    messages().print(
        f"loopwright {version('loopwright')}, seed {swarm.seed}: {swarm.cycles} cycles in "
        f"{len(swarm.lengths)} episodes",
        markup=False,
    )
    begun_s = perf_counter()
    outcomes, lost = _watched(swarm, arguments.jobs)
    elapsed_s = perf_counter() - begun_s
    # Ctrl-C: the episodes before it have told something all the same.
    interrupted = len(outcomes) + len(lost) < len(swarm.lengths)
    failed = [outcome for outcome in outcomes if outcome.failed]
    kept = {
        outcome.number: keep(swarm, outcome, arguments.out, arguments.shrink)
        for outcome in failed[: 0 if interrupted else arguments.keep]
    }
    tried = swarm_coverage((o.scenario, o.begun, o.offered) for o in outcomes)
    document = {**_document(swarm, outcomes, kept, elapsed_s), "coverage": tried.plain()}
    document["interrupted"] = interrupted
    if lost:
        document["errors"] = [str(error) for error in lost]
    if arguments.json:
        print_json(document)
    else:
        results().print(tried.table())
        _tell(document, failed, kept)
    for error in lost:
        print_error(error, as_json=False)
    if interrupted:
        text = f"interrupted after {len(outcomes)} of {len(swarm.lengths)} episodes"
        messages().print(text, style="yellow")
        return INTERRUPTED
    return max((error.exit_code for error in lost), default=1 if failed else 0)


def _watched(swarm: Swarm, jobs: int) -> tuple[list[Outcome], list[ProcessLost]]:
    """The outcomes, and the episodes that were lost with their process; with a progress bar on a
    terminal; fewer than all after Ctrl-C."""
    found: list[Outcome] = []
    lost: list[ProcessLost] = []
    failed = 0
    with suppress(KeyboardInterrupt), progress_bar() as bar:
        task = bar.add_task("swarm", total=swarm.cycles, numbers="")
        for outcome in swarm_outcomes(swarm, jobs):
            if isinstance(outcome, ProcessLost):
                lost.append(outcome)
                continue
            found.append(outcome)
            failed += outcome.failed
            bar.update(task, advance=outcome.cycles, numbers=f"{failed} failed")
    return found, lost


def keep(swarm: Swarm, outcome: Outcome, out: Path, limit_s: float) -> Kept:
    """Shrink a failing episode; write the smallest as a scenario, and its run as a bundle.

    Raises:
        ScenarioError: hypothesis is not installed, or the directory cannot be written.
    """
    path = swarm.scenarios[swarm.turn(outcome.number).ground]
    ground = make_ground(path, swarm.tier)
    story, runs = drawn(swarm, outcome.number, ground), 0
    if limit_s > 0.0:
        fails = _fails_alike(ground, outcome)
        if outcome.violations:
            short = cut(story, outcome.first_cycle, ground.scenario.settings.cycle_s)
            story = short if fails(short) else story
        story, runs = shrunk(story, fails, limit_s)
    name = f"swarm-{outcome.scenario}-{swarm.seed}-{outcome.number}"
    why = ", ".join(sorted(outcome.kinds))
    found = replace(written(ground.scenario, story, name, why), tier=swarm.tier)
    with tempfile.TemporaryDirectory(prefix="loopwright-swarm-") as folder:
        directory = Path(folder) / "run"
        again = run_episode(ground, story, directory)
        # The bundle reproduces what its own scenario does: the words of the file, not of the base.
        (directory / "scenario.yaml").write_text(found.text, encoding="utf-8")
        said = again.violations or (again.unrecovered,)
        bundle = write_bundle(out / f"{name}{SUFFIX}", found, directory, said)
    scenario = out / f"{name}.yaml"
    head = f"# Keep it beside {ground.scenario.path.name}: its paths begin there.\n"
    scenario.write_text(head + found.text, encoding="utf-8")
    return Kept(scenario, bundle, story, runs)


def _fails_alike(ground: Ground, outcome: Outcome) -> Fails:
    """Whether an episode breaks one of the invariants that this one broke."""
    replayed = Invariant.REPLAY in outcome.kinds

    def fails(episode: Episode) -> bool:
        with tempfile.TemporaryDirectory(prefix="loopwright-swarm-") as folder:
            found = run_episode(ground, episode, Path(folder) / "run", check_replay=replayed)
        return bool(found.kinds & outcome.kinds)

    return fails


def _document(
    swarm: Swarm, outcomes: Sequence[Outcome], kept: dict[int, Kept], elapsed_s: float
) -> dict[str, Any]:
    cycles = sum(outcome.cycles for outcome in outcomes)
    return {
        "version": version("loopwright"),
        "cycles": cycles,
        "seed": swarm.seed,
        "tier": swarm.tier,
        "episodes": len(outcomes),
        "history_hash": swarm_hash(outcomes),
        "violations": [
            {"episode": o.number, "scenario": o.scenario, "what": text}
            for o in outcomes
            for text in o.violations
        ],
        "unrecovered": [
            {"episode": o.number, "scenario": o.scenario, "what": o.unrecovered}
            for o in outcomes
            if o.unrecovered
        ],
        "slow": [{"episode": o.number, "scenario": o.scenario} for o in outcomes if o.slow],
        "kept": [
            {"episode": number, "scenario": str(each.scenario), "bundle": str(each.bundle)}
            for number, each in kept.items()
        ],
        "elapsed_s": round(elapsed_s, 1),
        "cycles_per_s": round(cycles / elapsed_s) if elapsed_s > 0 else 0,
    }


def _tell(document: dict[str, Any], failed: Sequence[Outcome], kept: dict[int, Kept]) -> None:
    say = results()
    for outcome in failed:
        for text in [*outcome.violations[:3], outcome.unrecovered]:
            if text:
                say.print(f"episode {outcome.number}, {outcome.scenario}: {text}", markup=False)
    for number, each in kept.items():
        say.print(f"episode {number}: {each.story}, after {each.runs} runs", markup=False)
        say.print(f"  again: loopwright hil run {each.bundle}", markup=False)
        say.print(f"  as a scenario: {each.scenario}", markup=False)
    say.print(
        f"loopwright {document['version']}, seed {document['seed']}: {document['cycles']} cycles, "
        f"{document['episodes']} episodes, {len(document['violations'])} violations, "
        f"{len(document['unrecovered'])} unrecovered, {document['cycles_per_s']} cycles/s",
        markup=False,
    )
    say.print(f"history {document['history_hash']}", markup=False)


swarm = Verb(
    "swarm",
    "Random faults and mismatch by seed: invariants every cycle, and a way back after.",
    "loopwright hil swarm --cycles 20000 --seed 7 --jobs 2",
    _configure,
    _execute,
)
