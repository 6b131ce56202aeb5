"""The verbs of the harness: demo, hil and report, found by the entry point group."""

from __future__ import annotations

import argparse
from pathlib import Path

from controller.settings.quantity import QuantityError, seconds
from controller.terminal import Verb, json_flag, messages, print_json, progress_bar, results
from hil.campaign import commands as campaign_commands
from hil.compare import commands as compare_commands
from hil.demo import demo_document, demo_table, run_demo
from hil.interrupts import INTERRUPTED, end_in_order
from hil.scenario import TIERS
from hil.seeds import seed_of
from hil.suite import commands as suite_commands
from hil.suite.shown import bar_of
from hil.swarm import commands as swarm_commands


def _duration(text: str) -> float:
    try:
        return seconds(text)
    except QuantityError as error:
        raise argparse.ArgumentTypeError(f"{error}; write 8h or 30 min") from error


# --- demo ------------------------------------------------------------------------------------


def _configure_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=_duration, help="simulated time, e.g. 8h")
    parser.add_argument("--out", type=Path, default=Path("loopwright-demo"), help="data directory")
    parser.add_argument("--seed", type=seed_of, help="seed of noise, laboratory and faults")
    parser.add_argument("--tier", choices=TIERS, help="wire (real sockets) or virtual")
    json_flag(parser)


def _demo(arguments: argparse.Namespace) -> int:
    end_in_order()
    console = messages()
    with progress_bar() as bar:
        run, report, elapsed_s = run_demo(
            arguments.out,
            tier=arguments.tier,
            seed=arguments.seed,
            duration_s=arguments.duration,
            progress=bar_of(bar, "demo"),
        )
    if arguments.json:
        print_json(demo_document(run, elapsed_s))
    else:
        results().print(demo_table(run, elapsed_s))
        results().print(f"report: {report}", markup=False, soft_wrap=True)
        results().print(f"data:   {run.directory}", markup=False, soft_wrap=True)
        for check in run.verdict.checks:
            if check.outcome != "passed":
                console.print(f"{check}", style="bold red", markup=False)
    return 0 if run.verdict.passed else 1


# --- hil -------------------------------------------------------------------------------------

ACTIONS = (
    suite_commands.run,
    swarm_commands.swarm,
    compare_commands.compare,
    compare_commands.what_if,
    campaign_commands.campaign,
)


def _configure_hil(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for action in ACTIONS:
        section = actions.add_parser(
            action.name,
            help=action.summary,
            description=action.summary,
            epilog=f"example:\n  {action.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.configure(section)
        section.set_defaults(act=action.execute)


def _hil(arguments: argparse.Namespace) -> int:
    end_in_order()
    try:
        return int(arguments.act(arguments))
    except KeyboardInterrupt:
        messages().print("interrupted; what was finished is kept", style="yellow")
        return INTERRUPTED


# --- report ----------------------------------------------------------------------------------


def _configure_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", type=Path, help="data directory of a run")
    parser.add_argument("--out", type=Path, help="HTML file (default: report.html beside the data)")
    json_flag(parser)


def _report(arguments: argparse.Namespace) -> int:
    from hil.report.write import write_report

    path = write_report(arguments.data, arguments.out)
    if arguments.json:
        print_json({"report": str(path)})
    else:
        results().print(f"report: {path}", markup=False, soft_wrap=True)
    return 0


demo = Verb(
    "demo",
    "One simulated day of a self-optimizing reactor over real S7 and Modbus sockets.",
    "loopwright demo",
    _configure_demo,
    _demo,
)
hil = Verb(
    "hil",
    "Run hardware-in-the-loop scenarios, swarms and campaigns; compare their runs.",
    "loopwright hil run config/scenarios --tier wire --junit out.xml",
    _configure_hil,
    _hil,
)
report = Verb(
    "report",
    "Write one self-contained HTML report of a run.",
    "loopwright report loopwright-demo",
    _configure_report,
    _report,
)
