"""Shrinks an episode that fails to the smallest one that still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from controller.errors import ScenarioError
from hil.faults.schedule import Fault
from hil.faults.solver import SolverFault
from hil.scenario.parts import ScheduledCommand
from hil.swarm.draw import digits
from hil.swarm.episode import Episode

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

_EIGHTHS = 8
_KEPT_OF = 7
_EXAMPLES_MAX = 1000

_Lasting = TypeVar("_Lasting", Fault, SolverFault)
Fails = Callable[[Episode], bool]


class _TimeIsUp(BaseException):
    """Ends a search at once; hypothesis takes every Exception for another failure to look into."""


@dataclass(slots=True)
class Shrinking:
    """A search for the smallest failing episode.

    After single parts alone, and single parts left out, hypothesis varies which parts are kept and
    how much of each fault's length; what it holds simplest is the shortest story. Every story is
    run once at most, and when the time is up no new one is: the smallest found so far stands.

    Attributes:
        fails: whether an episode fails as the original did; the original itself must.
        deadline_s: of the monotonic clock; no story is begun after it.
        runs: stories that were run.
    """

    original: Episode
    fails: Fails
    deadline_s: float
    runs: int = 0
    smallest: Episode = field(init=False)
    _known: dict[str, bool] = field(default_factory=lambda: dict[str, bool]())

    def __post_init__(self) -> None:
        self.smallest = self.original

    def still_fails(self, episode: Episode) -> bool:
        """Run it, unless that is known or the time is up; remember the smallest that fails."""
        key = repr(episode)
        if key not in self._known:
            if monotonic() >= self.deadline_s:
                raise _TimeIsUp
            self.runs += 1
            self._known[key] = self.fails(episode)
        if self._known[key] and size(episode) < size(self.smallest):
            self.smallest = episode
        return self._known[key]


def shrunk(original: Episode, fails: Fails, limit_s: float) -> tuple[Episode, int]:
    """The smallest failing episode that is found in `limit_s` seconds, and how many were run.

    Raises:
        ScenarioError: hypothesis is not installed.
    """
    try:
        from hypothesis import HealthCheck, Phase, find, settings
        from hypothesis.errors import HypothesisException
    except ImportError as error:
        raise ScenarioError(
            "shrinking a failing episode needs hypothesis, which is not installed",
            where="hil swarm",
            mend="Install it with: pip install hypothesis, or leave --shrink at 0 s",
        ) from error
    search = Shrinking(original, fails, monotonic() + limit_s)
    profile = settings(
        max_examples=_EXAMPLES_MAX,
        database=None,
        derandomize=True,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
            HealthCheck.filter_too_much,
        ],
    )
    # Where the time is up or nothing smaller fails, the smallest so far stands.
    with suppress(HypothesisException, _TimeIsUp):
        for episode in _alone(original):  # most failures have one cause
            if search.still_fails(episode):
                break
        else:
            _leave_out(search)
        find(_stories(search.smallest), search.still_fails, settings=profile)
    return search.smallest, search.runs


def size(episode: Episode) -> tuple[int, float]:
    """What makes a story long: its parts first, then how long its faults last."""
    lengths = [f.until_s - f.at_s for f in (*episode.faults, *episode.solver_faults)]
    parts = len(lengths) + len(episode.commands) + len(episode.mismatch) + len(episode.labs)
    parts += episode.noise != 1.0
    return parts, sum(lengths)


def _alone(original: Episode) -> list[Episode]:
    bare = replace(
        original, commands=(), faults=(), solver_faults=(), mismatch={}, noise=1.0, labs={}
    )
    return [
        bare,
        *(replace(bare, faults=(fault,)) for fault in original.faults),
        *(replace(bare, solver_faults=(fault,)) for fault in original.solver_faults),
        *(replace(bare, commands=(command,)) for command in original.commands),
    ]


def _leave_out(search: Shrinking) -> None:
    """Every part in turn, as long as the rest still fails."""
    for name in ("faults", "solver_faults", "commands"):
        for part in getattr(search.original, name):
            rest = tuple(p for p in getattr(search.smallest, name) if p is not part)
            search.still_fails(replace(search.smallest, **{name: rest}))
    for name in search.original.mismatch:
        mismatch = {n: f for n, f in search.smallest.mismatch.items() if n != name}
        search.still_fails(replace(search.smallest, mismatch=mismatch))
    search.still_fails(replace(search.smallest, noise=1.0))
    search.still_fails(replace(search.smallest, labs={}))


def _stories(original: Episode) -> SearchStrategy[Episode]:
    """All stories inside a story. Zero, the simplest draw, leaves a part out."""
    from hypothesis import strategies as st

    kept = st.integers(0, _KEPT_OF)  # most stories keep most parts, so that one is found to fail
    eighths = st.integers(1, 2 * _EIGHTHS)

    @st.composite
    def story(draw: Any) -> Episode:
        def some(parts: Sequence[Any]) -> list[Any]:
            return [part for part in parts if draw(kept)]

        commands: list[ScheduledCommand] = some(original.commands)
        mismatch: list[str] = some(list(original.mismatch))
        faults: list[Fault] = some(original.faults)
        solver_faults: list[SolverFault] = some(original.solver_faults)
        return replace(
            original,
            commands=tuple(commands),
            mismatch={name: original.mismatch[name] for name in mismatch},
            noise=original.noise if draw(kept) else 1.0,
            labs=original.labs if draw(kept) else {},
            faults=tuple(_shortened(f, draw(eighths)) for f in faults),
            solver_faults=tuple(_shortened(f, draw(eighths)) for f in solver_faults),
        )

    return story()


def _shortened(fault: _Lasting, eighths: int) -> _Lasting:
    """The fault with so many eighths of its length, in whole seconds where it is longer."""
    if eighths >= _EIGHTHS:
        return fault
    length_s = (fault.until_s - fault.at_s) * eighths / _EIGHTHS
    until_s = digits(fault.at_s + max(1.0, float(round(length_s))), 9)
    return replace(fault, until_s=min(until_s, fault.until_s))
