"""The bench measures the same problem on all sides, and tells what it found."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from controller.cli import main
from controller.mpc.ladder import PlannerState
from controller.mpc.problem import Plan
from hil.bench import commands
from hil.bench.case import BenchCase, Price
from hil.bench.cases import CASES
from hil.bench.cycle import measure_cycle
from hil.bench.document import document, tables
from hil.bench.growth import Growth, growth_case, measure_growth, reactors_in_series
from hil.bench.ladder_side import LadderSide, build_ladder, situation, target
from hil.bench.measure import (
    WARM_UP,
    CaseResult,
    SideResult,
    Times,
    geometric_mean,
    run_case,
    times_of,
)
from hil.bench.picture import draw
from hil.bench.plant import BenchPlant
from hil.bench.reference import ConvergedSide
from hil.bench.rungs import RungTimes
from hil.bench.side import Solved
from hil.bench.worker import Order
from plant_models.process import Vector

PORTABLE = (("sqp", 30),)


def small(name: str) -> BenchCase:
    """The case with a horizon short enough for a quick test; everything else stays."""
    return replace(CASES[name](), intervals=6)


def plan_of(case: BenchCase, x: Vector, u: Vector, rungs: Sequence[tuple[str, int]]) -> Plan:
    ladder = build_ladder(case, rungs, fast=False)
    return ladder(PlannerState(), situation(case, x, u), target(case))[1]


def spans(case: BenchCase) -> Vector:
    return np.array([v.span for v in case.inputs])


@pytest.mark.parametrize("name", ["cstr", "chain", "column"])
def test_production_and_reference_solve_the_same_problem(name: str) -> None:
    """The reference is written from the case alone: cost and first move must agree."""
    case = small(name)
    reference = ConvergedSide(case)
    u = reference.move(case.x0, case.u0)
    plan = plan_of(case, case.x0, case.u0, PORTABLE)
    assert reference.solved().accepted
    assert plan.rung == "sqp"
    assert plan.cost == pytest.approx(reference.solved().cost, rel=1e-3)
    assert plan.moves[0] / spans(case) == pytest.approx(u / spans(case), abs=1e-3)


def test_an_economic_cost_is_the_same_on_both_sides() -> None:
    """A cheap stand-in for the polymerization: concentration pays, a zone stops it."""
    case = replace(growth_case(4, 6), tracked=(), prices=(Price(0, -900.0),))
    case = replace(case, zones=(replace(case.zones[0], high=0.8, weight=5.0),))
    reference = ConvergedSide(case)
    u = reference.move(case.x0, case.u0)
    plan = plan_of(case, case.x0, case.u0, (("ipopt", 200),))
    assert reference.solved().cost < 0.0
    assert plan.cost == pytest.approx(reference.solved().cost, rel=1e-3)
    assert plan.moves[0] / spans(case) == pytest.approx(u / spans(case), abs=1e-3)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "degree", "elements"),
    [("cstr", 3, 2), ("polymerization", 3, 2), ("chain", 3, 1), ("column", 2, 1)],
)
def test_the_peer_solves_the_same_problem(name: str, degree: int, elements: int) -> None:
    """With a discretisation so fine on both sides that only the statement could differ."""
    from hil.bench.peer_side import DoMpcSide

    case = small(name)
    if name == "chain":
        # At its own step both discretisations leave out 0.3 %, each in its way.
        case = replace(case, step_s=0.05)
    peer, reference = DoMpcSide(case, degree, elements), ConvergedSide(case)
    ours, theirs = reference.move(case.x0, case.u0), peer.move(case.x0, case.u0)
    assert peer.solved().accepted
    assert peer.solved().cost == pytest.approx(reference.solved().cost, rel=1e-3)
    assert theirs / spans(case) == pytest.approx(ours / spans(case), abs=2e-3)


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_the_peer_has_the_last_node_s_zones_quadratic_penalties_and_rate_limits() -> None:
    """What do-mpc lacks and the bench adds, where it decides: far outside a zone, one interval."""
    from hil.bench.peer_side import DoMpcSide

    case = replace(CASES["column"](), intervals=1)
    far = replace(case, zones=(replace(case.zones[0], low=0.9999, high=1.1),))
    peer, reference = DoMpcSide(far), ConvergedSide(far)
    ours, theirs = reference.move(far.x0, far.u0), peer.move(far.x0, far.u0)
    reach = far.inputs[0].rate_per_s * far.step_s
    assert theirs[0] - far.u0[0] == pytest.approx(reach, abs=1e-6)
    assert theirs == pytest.approx(ours, abs=1e-5)
    slack = (0.9999 - far.x0[-1]) / 1e-3
    assert peer.solved().cost > 0.5 * slack**2
    assert peer.solved().cost == pytest.approx(reference.solved().cost, rel=1e-6)


def test_the_statement_of_costs_by_hand() -> None:
    case = CASES["cstr"]()
    y, u = np.array([1.0, 0.7, 141.0, 130.0]), np.array([24.5, -6000.0])
    before = np.array([15.0, -6000.0])
    tracking = (0.1 / 0.1) ** 2
    zone = 10.0 * (1.0 + 1.0)
    move = 10.0 * 0.95**2 * (9.5 / 95.0) ** 2
    assert case.stage_cost(y, u, before) == pytest.approx(tracking + zone + move)


def test_plants_of_one_seed_are_kicked_alike_and_others_not() -> None:
    case = CASES["cstr"]()
    runs = [BenchPlant(case, seed).advance(case.u0) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_the_plant_differs_from_the_model_and_is_upset_on_time() -> None:
    case = replace(CASES["cstr"](), kick=None, intervals=6)
    honest = replace(case, plant_parameters={}, upsets=())
    upset = replace(honest, upsets=(replace(case.upsets[0], step=1),))
    plain, wrong, upset_plant = (BenchPlant(c, 1) for c in (honest, case, upset))
    first = plain.advance(case.u0)
    assert not np.allclose(first, wrong.advance(case.u0), rtol=1e-6)
    assert np.array_equal(first, upset_plant.advance(case.u0))
    assert not np.allclose(plain.advance(case.u0), upset_plant.advance(case.u0), rtol=1e-6)


class Recorder:
    """A side that holds, and writes down that it was called."""

    built_s = 0.5

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def move(self, x: Vector, u_before: Vector) -> Vector:
        self.log.append(self.name)
        return u_before

    def solved(self) -> Solved:
        return Solved("hold", self.name != "peer", 0.0)


def test_sides_take_turns_and_pay_for_their_own_steps() -> None:
    log: list[str] = []
    case = CASES["cstr"]()
    build = {n: lambda _, n=n: Recorder(n, log) for n in ("peer", "ours", "reference")}
    told: list[tuple[int, int]] = []
    found = run_case(case, build, 10, lambda done, total, _: told.append((done, total)))
    assert log == ["peer", "ours", "reference"] * (10 + WARM_UP)
    assert told[-1] == (10 + WARM_UP, 10 + WARM_UP)
    assert found.cost_ratio(found.ours) == 1.0
    assert found.ours.rungs == {"hold": 10 + WARM_UP}
    assert found.ours.refusals == 0
    assert found.peer is not None
    assert found.peer.refusals == 10 + WARM_UP


def test_warm_up_is_left_out_of_the_times() -> None:
    times = times_of([1000.0] * WARM_UP + [1.0, 2.0, 3.0])
    assert times == Times(2.0, pytest.approx(2.98), 3.0)


def result(ours_ms: float, peer_ms: float, cost: float, reference: float) -> CaseResult:
    def side(ms: float, cost: float) -> SideResult:
        return SideResult(Times(ms, 2 * ms, 3 * ms), 1.0, cost, {"rti": 10}, 0)

    return CaseResult(
        CASES["cstr"](), 10, side(ours_ms, cost), side(50.0, reference), side(peer_ms, 2.0)
    )


def test_the_document_has_the_agreed_fields() -> None:
    cases = [result(1.0, 100.0, 1.01, 1.0), result(2.0, 800.0, -9.9, -10.0)]
    found = document(
        cases,
        None,
        [Growth("horizon", (10, 100), (1.0, 10.0), (1.0, 1.0), ("rti 25", "rti 25"))],
        [RungTimes("cstr", "sqp", 2.0, 3.0, 1)],
        1,
    )
    json.dumps(found)
    assert found["geomean_ratio"] == pytest.approx(200.0)
    assert found["rungs"] == [
        {"case": "cstr", "rung": "sqp", "median_ms": 2.0, "max_ms": 3.0, "refused": 1}
    ]
    first, second = found["cases"]
    assert first["name"] == "cstr"
    assert (first["median_ms"], first["p99_ms"], first["peer_median_ms"]) == (1.0, 2.0, 100.0)
    assert first["ratio"] == 100.0
    assert first["cost_ratio"] == pytest.approx(1.01)
    # Less was earned: worse, so above one, although the quotient is below.
    assert second["cost_ratio"] == pytest.approx(1.01)
    assert found["growth"][0]["exponent"] == pytest.approx(1.0)
    tables(found)


def test_without_a_peer_there_is_no_ratio() -> None:
    alone = replace(result(1.0, 1.0, 1.0, 1.0), peer=None)
    found = document([alone], None, [], [], None)
    assert found["geomean_ratio"] is None
    assert found["cases"][0]["ratio"] is None
    assert found["cases"][0]["peer_median_ms"] is None


def test_geometric_mean() -> None:
    assert geometric_mean([1.0, 100.0]) == pytest.approx(10.0)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture_is_drawn(ending: str, tmp_path: Path) -> None:
    growth = Growth("states", (4, 10), (1.0, 3.0), (1.0, 1.0), ("rti 25", "rti 25"))
    found = document([result(1.0, 100.0, 1.0, 1.0)], None, [growth], [], None)
    path = tmp_path / f"speed.{ending}"
    draw(found, path)
    magic = {"png": b"\x89PNG", "svg": b"<?xml"}[ending]
    assert path.read_bytes().startswith(magic)


def test_the_whole_cycle_is_measured_active_and_on_the_application() -> None:
    found = measure_cycle(60)
    assert found.cycles == 60
    assert sum(found.rungs.values()) >= 50
    assert "hold" not in found.rungs
    assert 0.0 < found.times.median_ms <= found.times.p99_ms <= found.times.max_ms
    assert 0.0 < found.rss_start_mb <= found.rss_end_mb + 5.0


def test_the_chain_that_grows_has_a_feasible_reference() -> None:
    case = growth_case(4, 5)
    assert len(reactors_in_series(7).x) == 7
    side = LadderSide(case, PORTABLE, fast=False)
    u = side.move(case.x0, case.u0)
    assert side.solved() == Solved("sqp", True, pytest.approx(side.solved().cost))
    assert np.all(u >= [0.05, 0.0])
    assert np.all(u <= [0.3, 2.0])


def test_growth_tells_which_solver_it_measured() -> None:
    def build(case: BenchCase) -> LadderSide:
        return LadderSide(case, (("ipopt", 200),), fast=False)

    told: list[tuple[int, int]] = []
    found = measure_growth(build, "horizon", (3, 5), lambda done, total: told.append((done, total)))
    assert found.sizes == (3, 5)
    assert found.rungs == ("ipopt 25", "ipopt 25")
    assert told == [(1, 2), (2, 2)]


# --- the verb ----------------------------------------------------------------------------------


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> list[Order]:
    """The verb with the measuring process replaced; the orders it was given."""
    orders: list[Order] = []
    monkeypatch.setattr("controller.cli._verbs", lambda: [commands.bench])

    def measured(order: Order) -> dict[str, object]:
        orders.append(order)
        return document([result(1.0, 100.0, 1.0, 1.0)], None, [], [], 0)

    monkeypatch.setattr(commands, "measure", measured)
    return orders


def test_json_is_one_document(verb: list[Order], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["bench", "--cases", "chain,cstr", "--steps", "20", "--cycles", "0", "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out)["geomean_ratio"] == pytest.approx(100.0)
    assert verb == [Order(("chain", "cstr"), 20, False, 0, False)]


def test_without_json_tables(verb: list[Order], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert "geometric mean 100.0" in capsys.readouterr().out
    assert verb[0].cases == tuple(CASES)


def test_a_missing_peer_is_told_before_anything_is_measured(
    verb: list[Order], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "find_spec", lambda _: None)
    assert main(["bench", "--peer", "do-mpc"]) == 2
    said = re.sub(r"\s+", " ", capsys.readouterr().err)
    assert "do-mpc is not installed" in said
    assert "pip install 'loopwright[bench]'" in said
    assert verb == []


@pytest.mark.parametrize(
    "wrong", [["--cases", "tank"], ["--steps", "3"], ["--cycles", "-1"], ["--cases", ","]]
)
def test_wrong_options_end_with_2(verb: list[Order], wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *wrong])
    assert ended.value.code == 2
    assert verb == []


@pytest.mark.parametrize("plot", ["speed.doc", "nowhere/speed.png"])
def test_a_picture_that_cannot_be_drawn_is_told_first(
    verb: list[Order], plot: str, tmp_path: Path
) -> None:
    assert main(["bench", "--plot", str(tmp_path / plot)]) == 2
    assert verb == []


def test_a_broken_measurement_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.cli._verbs", lambda: [commands.bench])
    monkeypatch.setattr(commands.sys, "executable", "/bin/false")
    assert main(["bench", "--cycles", "0"]) == 3
