"""The temporal evaluator against the definition, written down row by row and window by window."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hil.history import History
from hil.temporal.evaluate import Robustness, evaluate, parse
from hil.temporal.formula import (
    Always,
    Both,
    Compare,
    Either,
    Eventually,
    Logic,
    Not,
    Number,
    Says,
    Signal,
    Until,
    Window,
)

Bounds = tuple[float, float]

_ATOMS = st.one_of(
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["y.a", "y.b"]),
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        st.integers(-3, 3),
    ),
    st.sampled_from(["mode == ACTIVE", "mode != SHED", 'faults has "cut feed"']),
)
_BOUNDED = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
    lambda w: f"[{min(w)} s, {max(w)} s]"
)
_ANY_WINDOW = st.one_of(_BOUNDED, st.just(""), st.integers(0, 9).map("[{} s, end]".format))


def formulas(windows: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("not ({})".format, inner),
            st.builds("({}) and ({})".format, inner, inner),
            st.builds("({}) or ({})".format, inner, inner),
            st.builds("({}) implies ({})".format, inner, inner),
            st.builds("always{}({})".format, windows, inner),
            st.builds("eventually{}({})".format, windows, inner),
            st.builds("({}) until{} ({})".format, inner, windows, inner),
        )

    return st.recursive(_ATOMS, larger, max_leaves=6)


@st.composite
def runs(draw: st.DrawFn, longest_gap: int = 4) -> History:
    """A run with whole times, so that nothing depends on rounding."""
    count = draw(st.integers(1, 12))
    gaps = draw(st.lists(st.integers(1, longest_gap), min_size=count, max_size=count))
    number = st.integers(-4, 4)

    def rows(each: st.SearchStrategy[float | int | str]) -> list[float | int | str]:
        return draw(st.lists(each, min_size=count, max_size=count))

    return History(
        {
            "time_s": [float(sum(gaps[:i])) for i in range(count)],
            "y.a": [float(v) for v in rows(number)],
            "y.b": [float(v) for v in rows(number)],
        },
        {
            "mode": [str(v) for v in rows(st.sampled_from(["ACTIVE", "SHED"]))],
            "faults": [str(v) for v in rows(st.sampled_from(["", "cut feed", "a b; cut feed"]))],
        },
    )


class Definition:
    """Values by the definition, in O(rows²) per operator."""

    def __init__(self, history: History, *, margins: bool) -> None:
        self.columns, self.texts = history.columns, history.texts
        self.times = self.columns["time_s"]
        self.margins = margins
        gaps = sorted(b - a for a, b in pairwise(self.times))
        middle = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2 if gaps else 0.0
        self.end = self.times[-1] + middle

    def rows(self, i: int, window: Window) -> tuple[list[int], bool]:
        """The rows that stand at some time in the window, and whether it goes beyond the run."""
        begin, end = self.times[i] + window.begin_s, self.times[i] + window.end_s
        until = [*self.times[1:], self.end]
        inside = [
            j
            for j in range(i, len(self.times))
            if self.times[j] <= end and (until[j] > begin or (j == i and window.begin_s == 0))
        ]
        if window.begin_s > 0 and begin >= self.end:
            return [], True
        return inside, window.end_s < inf and end > self.end

    def compare(self, tree: Compare, i: int) -> float:
        assert isinstance(tree.left, Signal)
        assert isinstance(tree.right, Number)
        left, right = self.columns[tree.left.name][i], tree.right.value
        margin, true = {
            "<": (right - left, left < right),
            "<=": (right - left, left <= right),
            ">": (left - right, left > right),
            ">=": (left - right, left >= right),
            "==": (-abs(left - right), left == right),
            "!=": (abs(left - right), left != right),
        }[tree.order]
        return margin if self.margins else (1.0 if true else -1.0)

    def of(self, tree: Logic, i: int) -> Bounds:
        match tree:
            case Compare():
                value = self.compare(tree, i)
                return value, value
            case Says(signal, word, _, listed, holds):
                text = self.texts[signal.name][i]
                size = inf if self.margins else 1.0
                value = (
                    size if (word in (text.split("; ") if listed else [text])) is holds else -size
                )
                return value, value
            case Not(inner):
                low, high = self.of(inner, i)
                return -high, -low
            case Both(left, right) | Either(left, right):
                choose = min if isinstance(tree, Both) else max
                a, b = self.of(left, i), self.of(right, i)
                return choose(a[0], b[0]), choose(a[1], b[1])
            case Always(window, inner) | Eventually(window, inner):
                choose = min if isinstance(tree, Always) else max
                rows, beyond = self.rows(i, window)
                each = [self.of(inner, j) for j in rows] + [(-inf, inf)] * beyond
                return choose(v[0] for v in each), choose(v[1] for v in each)
            case Until(window, left, right):
                rows, beyond = self.rows(i, window)
                held = [self.of(left, k) for k in range(i, len(self.times))]
                low, high = -inf, -inf
                for j in rows:
                    comes = self.of(right, j)
                    low = max(low, min([comes[0], *(v[0] for v in held[: j - i])]))
                    high = max(high, min([comes[1], *(v[1] for v in held[: j - i])]))
                if beyond:
                    high = max(high, min(v[1] for v in held))
                return low, high
            case _:
                raise AssertionError(f"{tree} is not written by anyone")


def defined(text: str, history: History) -> Robustness:
    tree = parse(text).tree
    low, high = Definition(history, margins=False).of(tree, 0)
    margin = Definition(history, margins=True).of(tree, 0)
    if low < 0 < high:
        return Robustness(None, None, "untested")
    if low > 0:
        return Robustness(margin[0], None, "passed")
    return Robustness(margin[1], None, "failed")


def said(text: str, history: History) -> tuple[str, float | None]:
    found = evaluate(parse(text), history)
    return found.outcome, found.value


@settings(max_examples=250, deadline=None)
@given(formulas(_ANY_WINDOW), runs())
def test_equals_the_definition(text: str, history: History) -> None:
    wanted = defined(text, history)
    assert said(text, history) == (wanted.outcome, wanted.value)


@settings(max_examples=70, deadline=None)
@given(formulas(_ANY_WINDOW), formulas(_ANY_WINDOW), _ANY_WINDOW, runs())
def test_de_morgan(one: str, other: str, window: str, history: History) -> None:
    pairs = [
        (f"not (({one}) and ({other}))", f"(not ({one})) or (not ({other}))"),
        (f"not (({one}) or ({other}))", f"(not ({one})) and (not ({other}))"),
        (f"not always{window}({one})", f"eventually{window}(not ({one}))"),
        (f"not not ({one})", one),
    ]
    for left, right in pairs:
        assert said(left, history) == said(right, history)


@settings(max_examples=70, deadline=None)
@given(formulas(_ANY_WINDOW), runs())
def test_a_negation_has_the_opposite_margin(text: str, history: History) -> None:
    outcome, value = said(text, history)
    opposite = {"passed": "failed", "failed": "passed", "untested": "untested"}
    assert said(f"not ({text})", history) == (opposite[outcome], None if value is None else -value)


@settings(max_examples=70, deadline=None)
@given(formulas(_ANY_WINDOW), runs())
def test_the_sign_of_the_margin_is_the_truth(text: str, history: History) -> None:
    outcome, value = said(text, history)
    if outcome == "passed":
        assert value is not None
        assert value >= 0
    elif outcome == "failed":
        assert value is not None
        assert value <= 0


_RISING = st.recursive(
    st.builds("y.a {} {}".format, st.sampled_from([">", ">="]), st.integers(-3, 3)),
    lambda inner: st.one_of(
        st.builds("({}) and ({})".format, inner, inner),
        st.builds("({}) or ({})".format, inner, inner),
        st.builds("always{}({})".format, _ANY_WINDOW, inner),
        st.builds("eventually{}({})".format, _ANY_WINDOW, inner),
        st.builds("({}) until{} ({})".format, inner, _ANY_WINDOW, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=70, deadline=None)
@given(_RISING, runs(), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_a_larger_signal_never_lowers_what_asks_for_large_ones(
    text: str, history: History, more: list[int]
) -> None:
    raised = [a + b for a, b in zip(history.columns["y.a"], more, strict=False)]
    after = History({**history.columns, "y.a": raised}, history.texts)
    order = ("failed", "untested", "passed")
    before, now = said(text, history), said(text, after)
    assert order.index(now[0]) >= order.index(before[0])
    if before[0] == now[0] and before[1] is not None:
        assert now[1] is not None
        assert now[1] >= before[1]


@settings(max_examples=70, deadline=None)
@given(formulas(_BOUNDED), runs(longest_gap=1), st.integers(1, 12))
def test_what_a_shorter_run_decides_a_longer_one_confirms(
    text: str, history: History, rows: int
) -> None:
    shorter = History(
        {name: values[:rows] for name, values in history.columns.items()},
        {name: values[:rows] for name, values in history.texts.items()},
    )
    outcome, _ = said(text, shorter)
    if outcome != "untested":
        assert said(text, history)[0] == outcome


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000])
def test_windows_of_any_width_and_number(count: int) -> None:
    values = [float((7919 * i) % 101) for i in range(count)]
    history = History({"time_s": [float(i) for i in range(count)], "y.a": values})
    for width in {w for w in (0, 1, 2, 3, count // 2, count - 1) if w < count}:
        found = evaluate(parse(f"eventually[0, {width}](y.a >= 50)"), history)
        assert found.value == max(values[: width + 1]) - 50
