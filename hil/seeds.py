"""Which seeds there are, and how they are written on a command line."""

from __future__ import annotations

from argparse import ArgumentTypeError

SEED_MAX = 2**31 - 1
"""The greatest seed. The least is 0; an integer parameter of an FMU holds all of them."""

SEEDS_MAX = 10_000
"""At once; more are a campaign, which spreads its runs and can be resumed."""

RANGE = f"whole numbers from 0 to {SEED_MAX}"


def is_seed(value: object) -> bool:
    return type(value) is int and 0 <= value <= SEED_MAX


def seed_of(text: str) -> int:
    """One seed.

    Raises:
        ArgumentTypeError: it is none.
    """
    # So many digits are too many, and longer ones cost time to read.
    if not text.isdecimal() or len(text) > 20 or not is_seed(int(text)):
        raise ArgumentTypeError(f"{text} is no seed; seeds are {RANGE}")
    return int(text)


def seeds_of(text: str) -> tuple[int, ...]:
    """Several, each once: `4`, `1-5` or `1,4,9`.

    Raises:
        ArgumentTypeError: one is none, or there are none, or too many.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ArgumentTypeError(f"{text} is no seed; write 4, 1-5 or 1,4,9 ({RANGE})")
        low = seed_of(first)
        high = seed_of(last) if dash else low
        if high < low:
            raise ArgumentTypeError(f"{part} holds no seed; write the lower one first")
        if high - low >= SEEDS_MAX:
            raise ArgumentTypeError(f"{part} are more than {SEEDS_MAX} seeds; use hil campaign")
        found |= dict.fromkeys(range(low, high + 1))
    return tuple(found)
