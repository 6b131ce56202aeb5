"""A temporal formula as a tree: signals, comparisons, and what must hold when."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from controller.cycle.mode import Mode
from controller.errors import ScenarioError
from controller.settings.problems import suggestion

Order = Literal["<", "<=", ">", ">=", "==", "!="]
Operation = Literal["+", "-", "*", "/"]

OPPOSITE: Mapping[Order, Order] = {
    "<": ">=",
    "<=": ">",
    ">": "<=",
    ">=": "<",
    "==": "!=",
    "!=": "==",
}

TEXTS = (
    "mode",
    "rung",
    "faults",
    "refused",
    "refused_commands",
    "local",
    "limited",
    "predicted",
    "dropped",
    "given_up",
)
"""Columns of words that every history has; all but mode and rung are lists with `; ` between."""

WORDS: Mapping[str, tuple[str, ...]] = {"mode": tuple(Mode)}
"""What a column of words may say, where that is known beforehand."""


@dataclass(frozen=True, slots=True)
class Window:
    """Seconds from the row on which a formula is held; inf: to the end of the run."""

    begin_s: float = 0.0
    end_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Signal:
    """A column of the history; `at` is its place in the text, from 1."""

    name: str
    at: int


@dataclass(frozen=True, slots=True)
class Arithmetic:
    operation: Operation
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Absolute:
    of: Term


@dataclass(frozen=True, slots=True)
class Compare:
    order: Order
    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Says:
    """A column of words says this word, or has it among its words (`listed`); or does not."""

    signal: Signal
    word: str
    word_at: int
    listed: bool
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Not:
    of: Logic


@dataclass(frozen=True, slots=True)
class Both:
    left: Logic
    right: Logic


@dataclass(frozen=True, slots=True)
class Either:
    left: Logic
    right: Logic


@dataclass(frozen=True, slots=True)
class Always:
    window: Window
    of: Logic


@dataclass(frozen=True, slots=True)
class Eventually:
    window: Window
    of: Logic


@dataclass(frozen=True, slots=True)
class Until:
    """`right` comes true in the window, and `left` is true in every row before that row."""

    window: Window
    left: Logic
    right: Logic


@dataclass(frozen=True, slots=True)
class Release:
    """The opposite of Until: `right` holds in the window as long as `left` has not been true."""

    window: Window
    left: Logic
    right: Logic


Term = Number | Signal | Arithmetic | Absolute
Logic = Compare | Says | Not | Both | Either | Always | Eventually | Until | Release


@dataclass(frozen=True, slots=True)
class Formula:
    """A temporal formula, as written and as a tree."""

    text: str
    tree: Logic

    @property
    def names(self) -> tuple[str, ...]:
        """The signals that it speaks of, in the order of the text."""
        return tuple(dict.fromkeys(signal.name for signal, _ in _signals(self.tree)))

    def check_names(
        self,
        known: Collection[str],
        texts: Collection[str] = TEXTS,
        words: Mapping[str, Collection[str]] = WORDS,
    ) -> None:
        """Compare its names with those of a history.

        Args:
            known: columns of numbers.
            texts: columns of words.
            words: what a column of words may say.

        Raises:
            ScenarioError: a name or word is unknown; points at it and suggests the nearest.
        """
        for signal, says in _signals(self.tree):
            there = texts if says is not None else known
            if signal.name not in there:
                kind = "column of words" if says is not None else "signal"
                other = known if says is not None else texts
                mend = suggestion(signal.name, sorted(there))
                if signal.name in other:
                    mend = (
                        "It is a number: compare it with a number"
                        if says is not None
                        else f'Words are compared with a word: {signal.name} == "…"'
                    )
                raise error(self.text, signal.at, f"the run has no {kind} {signal.name}", mend)
            if says is not None and says.word not in words.get(signal.name, (says.word,)):
                raise error(
                    self.text,
                    says.word_at,
                    f"{signal.name} never says {says.word!r}",
                    suggestion(says.word, words[signal.name]),
                )

    def __str__(self) -> str:
        return self.text


def error(text: str, at: int, what: str, mend: str) -> ScenarioError:
    """What is wrong in column `at` of `text`, counted from 1."""
    return ScenarioError(what, where=f"column {at} of '{text}'", mend=mend)


def affirmed(tree: Logic, holds: bool = True) -> Logic:
    """The same formula, or its opposite, with negation moved into comparisons and words.

    A value that is no number then breaks what is said of it, in the positive and in the negative.
    """
    match tree:
        case Compare(order, left, right):
            return tree if holds else Compare(OPPOSITE[order], left, right)
        case Says(signal, word, word_at, listed, positive):
            return Says(signal, word, word_at, listed, positive is holds)
        case Not(of):
            return affirmed(of, not holds)
        case Both(left, right) | Either(left, right):
            both = isinstance(tree, Both) is holds
            return (Both if both else Either)(affirmed(left, holds), affirmed(right, holds))
        case Always(window, of) | Eventually(window, of):
            always = isinstance(tree, Always) is holds
            return (Always if always else Eventually)(window, affirmed(of, holds))
        case Until(window, left, right) | Release(window, left, right):
            until = isinstance(tree, Until) is holds
            kind = Until if until else Release
            return kind(window, affirmed(left, holds), affirmed(right, holds))


def _signals(tree: Logic | Term) -> Iterator[tuple[Signal, Says | None]]:
    """Every signal in the tree; with what it says, where it is a column of words."""
    match tree:
        case Number():
            return
        case Signal():
            yield tree, None
        case Says(signal):
            yield signal, tree
        case Not(of) | Always(_, of) | Eventually(_, of) | Absolute(of):
            yield from _signals(of)
        case Compare(_, left, right) | Arithmetic(_, left, right):
            yield from _signals(left)
            yield from _signals(right)
        case Both(left, right) | Either(left, right):
            yield from _signals(left)
            yield from _signals(right)
        case Until(_, left, right) | Release(_, left, right):
            yield from _signals(left)
            yield from _signals(right)
