"""The verb `bench`: how fast the controller thinks, beside a peer, in the same run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import LoopwrightError, ScenarioError
from controller.terminal import Verb, json_flag, print_json, results
from hil.bench.cases import CASES
from hil.bench.document import tables
from hil.bench.measure import WARM_UP
from hil.bench.worker import SINGLE_THREADED, Order

CYCLES = 2000
STEPS_LEAST = 10
CYCLES_LEAST = 50


def _count(least: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is no number of at least {least}")
        return int(text)

    return parse


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in CASES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(unknown) or 'nothing'} is no case; there are {', '.join(CASES)}"
        )
    return names


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--peer", choices=("do-mpc",), help="measure this beside it, in turns")
    parser.add_argument(
        "--cases", type=_names, default=tuple(CASES), help=f"some of {','.join(CASES)}"
    )
    parser.add_argument(
        "--steps",
        type=_count(STEPS_LEAST),
        help=f"closed-loop steps per case, after {WARM_UP} of warm-up (default: the case's own)",
    )
    parser.add_argument(
        "--cycles",
        type=_count(0),
        default=CYCLES,
        help=f"whole cycles of the CSTR application (default {CYCLES}, 0: leave out)",
    )
    parser.add_argument(
        "--growth", action="store_true", help="also over horizons of 10–200 and 4–100 states"
    )
    parser.add_argument(
        "--rungs", action="store_true", help="also every solver of the ladder on its own"
    )
    parser.add_argument(
        "--hil",
        action="store_true",
        help="instead: cycles per second of the harness, virtual and wire tier, --cycles a run",
    )
    parser.add_argument("--plot", type=Path, help="draw the result: a .png, .svg or .pdf file")
    json_flag(parser)


def _execute(arguments: argparse.Namespace) -> int:
    from hil.bench.picture import check_ending, draw

    if arguments.plot is not None:
        check_ending(arguments.plot)
    if arguments.peer is not None and find_spec("do_mpc") is None:
        raise ScenarioError(
            "do-mpc is not installed",
            where=f"--peer {arguments.peer}",
            mend="Install it with: pip install 'loopwright[bench]'",
        )
    if arguments.hil:
        if arguments.plot is not None:
            raise ScenarioError(
                "there is no picture of the harness", where="--plot", mend="Take --json instead"
            )
        return _tell(measure(harness_order(arguments.cycles)), as_json=arguments.json)
    order = Order(
        cases=arguments.cases,
        steps=arguments.steps,
        peer=arguments.peer is not None,
        cycles=arguments.cycles,
        growth=arguments.growth,
        rungs=arguments.rungs,
    )
    found = measure(order)
    if arguments.plot is not None:
        draw(found, arguments.plot)
    return _tell(found, as_json=arguments.json)


def harness_order(cycles: int) -> Order:
    """The harness and nothing else.

    Raises:
        ScenarioError: too few cycles to be measured.
    """
    if cycles < CYCLES_LEAST:
        raise ScenarioError(
            f"{cycles} cycles are too few to measure a rate",
            where="--cycles",
            mend=f"Take {CYCLES_LEAST} or more",
        )
    return Order((), None, False, 0, False, harness=cycles)


def _tell(found: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json(found)
    else:
        results().print(tables(found))
    return 0


def measure(order: Order) -> dict[str, Any]:
    """Measure in a process of its own; its progress shows on our stderr.

    Raises:
        LoopwrightError: that process broke; what it said is on stderr.
    """
    command = [sys.executable, "-m", "hil.bench.worker", msgspec.json.encode(order).decode()]
    environment = os.environ | SINGLE_THREADED
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise LoopwrightError(
            f"the measurement ended with code {done.returncode}",
            where="bench",
            mend="What it said stands above; try one case alone with --cases",
        )
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return found


bench = Verb(
    "bench",
    "Measure how fast the controller thinks, beside a peer if wanted, in the same run.",
    "loopwright bench --peer do-mpc",
    _configure,
    _execute,
)
