"""Everything that a scenario asserts, held against its run: KPIs, signals, modes, golden run."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controller.errors import ScenarioError
from controller.settings.problems import suggestion
from hil.history import History
from hil.judge.golden import golden_checks, golden_diff, golden_run
from hil.judge.golden_file import RunIdentity, read_golden, write_golden
from hil.judge.mode_trace import mode_trace_check
from hil.judge.temporal_check import bound_check, temporal_check
from hil.judge.verdict import Check, Verdict, judge
from hil.scenario.parts import Scenario
from hil.scenario.signals import no_signal, signals_of
from hil.temporal.evaluate import parse


def judged(
    scenario: Scenario, history: History, kpis: Mapping[str, float], version: str
) -> Verdict:
    """The verdict over a run.

    Raises:
        ScenarioError: an assertion names a signal that the run does not have, or the golden file
            cannot be read.
    """
    further: list[Check] = [
        bound_check(history, b.signal, b.low, b.high, b.from_s, b.until_s, b.severity)
        for b in scenario.bounds
    ]
    further += [temporal_check(t.formula, history, t.severity) for t in scenario.temporal]
    if scenario.mode_trace:
        further.append(mode_trace_check(_before_the_end(history), scenario.mode_trace))
    if scenario.golden is not None:
        kept = read_golden(scenario.golden.file)
        further += golden_checks(history, kpis, _identity(scenario), kept, scenario.golden)
    return judge(scenario, scenario.assertions, kpis, version, further)


def check_signals(scenario: Scenario, outputs: Collection[str], inputs: Collection[str]) -> None:
    """That every signal which is asserted or moved will exist, before anything runs.

    Args:
        outputs, inputs: of the plant.

    Raises:
        ScenarioError: a name that no signal of the run will have; the nearest is proposed.
    """
    for profile in scenario.profiles:
        if profile.input not in inputs:
            raise ScenarioError(
                f"the plant has no input {profile.input}",
                where=f"{scenario.path} profiles",
                mend=suggestion(profile.input, list(inputs)),
            )
    known = signals_of(scenario, outputs, inputs)
    for temporal in scenario.temporal:
        parse(temporal.formula).check_names(known)
    for bound in scenario.bounds:
        if bound.signal not in known:
            raise no_signal(bound.signal, known, f"{scenario.path} assertions")
    check_golden(scenario)


def check_golden(scenario: Scenario) -> None:
    """Raises ScenarioError where the golden run is missing that this one is to be held against."""
    golden = scenario.golden
    if golden is not None and not golden.file.is_file():
        raise ScenarioError(
            f"there is no golden run {golden.file}",
            where=golden.where,
            mend="Make it with --update-golden and commit it",
        )


def update_golden(scenario: Scenario, history: History, kpis: Mapping[str, float]) -> str:
    """Make this run the golden one; what that changes, in words. Empty without a golden section.

    Raises:
        ScenarioError: the run was never active, or the file cannot be written.
    """
    if scenario.golden is None:
        return ""
    try:
        old = read_golden(scenario.golden.file)
    except ScenarioError:
        old = None  # a damaged file is what a new one is for
    new = golden_run(history, kpis, _identity(scenario), scenario.golden)
    write_golden(new, scenario.golden.file)
    return golden_diff(old, new)


def _before_the_end(history: History) -> History:
    """Without the last cycle, in which the run hands back because it is over."""
    return History({"time_s": history.columns["time_s"][:-1]}, {"mode": history.texts["mode"][:-1]})


def _identity(scenario: Scenario) -> RunIdentity:
    return RunIdentity(scenario.name, scenario.tier, scenario.seed, scenario.duration_s)
