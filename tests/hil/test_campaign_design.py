"""Campaign files, designs, parcels, failure bounds and sensitivity: everything but the running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, rankdata

from controller.errors import ScenarioError
from hil.campaign import parcel as parcels
from hil.campaign.campaign_file import Campaign, Range, load_campaign
from hil.campaign.design import design_hash, draws_of
from hil.campaign.parcel import Parcel, pack, unpack
from hil.campaign.sensitivity import partial_rank_correlation, sensitivity
from hil.campaign.summary import failure_rate

CONFIG = Path(__file__).parents[2] / "config"
TEXT = """\
campaign: 1
id: small
title: A small one
scenario: cstr.yaml
seeds: {first: 5, count: 16}
mismatch:
  k10: [0.9, 1.1]
  plant.mismatch.kw: {low: 0.5, high: 2.0, scale: log}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    (tmp_path / "cstr.yaml").write_text("scenario: 1\n")

    def to_file(text: str) -> Path:
        path = tmp_path / "campaign.yaml"
        path.write_text(text)
        return path

    return to_file


@pytest.fixture
def campaign(write: Callable[[str], Path]) -> Campaign:
    return load_campaign(write(TEXT))


# --- the file --------------------------------------------------------------------------------


def test_a_short_name_is_a_factor_on_a_plant_parameter(campaign: Campaign) -> None:
    assert [r.path for r in campaign.mismatch] == ["plant.mismatch.k10", "plant.mismatch.kw"]
    assert [r.name for r in campaign.mismatch] == ["k10", "kw"]
    assert campaign.tier == "virtual"
    assert campaign.duration_s is None


@pytest.mark.parametrize(
    ("old", "new", "place", "said"),
    [
        ("seeds: {first: 5, count: 16}", "seeds: {first: 5}", ":5:1 seeds.count", "Add count"),
        ("id: small", "ident: small", ":2:1 ident", "unknown key"),
        ("count: 16", "count: 0", ":5:19 seeds.count", "greater than or equal to 1"),
        ("k10: [0.9, 1.1]", "k10: [1.1, 0.9]", ":7:3 mismatch.k10", "empty"),
        ("k10: [0.9, 1.1]", "k10: [1.1]", ":7:3 mismatch.k10", "does not fit"),
        ("k10: [0.9, 1.1]", "k10: [0.9, high]", ":7:3 mismatch.k10.high", "'high'"),
        ("low: 0.5", "low: 0.0", ":8:3 mismatch.plant.mismatch.kw", "logarithmic"),
        ("k10: [0.9", "kw: [0.9", ":8:3 mismatch.plant.mismatch.kw", "twice"),
        ("k10: [0.9", "seed: [0.9", ":7:3 mismatch.seed", "keys of their own"),
        ("seeds:", "kpis: [iae.*, iee.T]\nseeds:", ":5:15 kpis[1]", "no KPI is called iee.T"),
        ("cstr.yaml", "gone.yaml", ":4:11 scenario", "there is no scenario"),
    ],
)
def test_a_wrong_file_is_refused_where_it_is_wrong(
    write: Callable[[str], Path], old: str, new: str, place: str, said: str
) -> None:
    path = write(TEXT.replace(old, new))
    with pytest.raises(ScenarioError) as caught:
        load_campaign(path)
    assert caught.value.where == f"{path}{place}"
    assert said in str(caught.value)


def test_shipped_campaigns_load() -> None:
    for path in sorted((CONFIG / "campaigns").glob("*.yaml")):
        campaign = load_campaign(path)
        assert campaign.seeds >= 100, path


@pytest.mark.parametrize("pattern", ["*", "iae.*", "iae.cB", "share_*", "cycles", "*.cB", "vio*"])
def test_a_pattern_that_may_name_a_kpi_is_taken(write: Callable[[str], Path], pattern: str) -> None:
    assert load_campaign(write(f"{TEXT}kpis: ['{pattern}']\n")).kpis == (pattern,)


# --- the design ------------------------------------------------------------------------------


def test_a_latin_hypercube_has_one_plant_in_every_slice(campaign: Campaign) -> None:
    jobs = draws_of(campaign)
    k10 = np.array([job.values["plant.mismatch.k10"] for job in jobs])
    kw = np.array([job.values["plant.mismatch.kw"] for job in jobs])
    slices = np.floor((k10 - 0.9) / 0.2 * 16).astype(int)
    assert sorted(slices) == list(range(16))
    slices = np.floor(np.log(kw / 0.5) / np.log(4.0) * 16).astype(int)
    assert sorted(slices) == list(range(16))
    assert [job.seed for job in jobs] == list(range(5, 21))
    assert jobs == draws_of(campaign)
    assert jobs != draws_of(replace(campaign, design_seed=2))


@pytest.mark.parametrize("design", ["sobol", "random"])
def test_more_draws_of_an_open_design_keep_the_first(campaign: Campaign, design: str) -> None:
    campaign = replace(campaign, design=design)  # type: ignore[arg-type]
    few, many = draws_of(campaign.with_seeds(5)), draws_of(campaign.with_seeds(33))
    assert many[:5] == few
    assert len({job.values["plant.mismatch.k10"] for job in many}) == 33
    assert design_hash(campaign.with_seeds(5), "f") == design_hash(campaign.with_seeds(33), "f")


def test_a_latin_hypercube_of_more_jobs_is_another_design(campaign: Campaign) -> None:
    first = design_hash(campaign, "files")
    assert design_hash(campaign.with_seeds(17), "files") != first
    assert design_hash(campaign, "other files") != first
    assert design_hash(replace(campaign, duration_s=5.0), "files") != first
    assert design_hash(replace(campaign, title="Another", path=Path("x")), "files") == first


# --- the parcel ------------------------------------------------------------------------------


def test_a_parcel_holds_the_files_that_scenario_and_application_name(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "app").mkdir()
    (tmp_path / "scenarios" / "s.yaml").write_text(
        "application: ../app/a.yaml\nplant: {ref: 'mine.py:plant'}\n"
    )
    (tmp_path / "scenarios" / "mine.py").write_text("x = 1\n")
    (tmp_path / "scenarios" / "other.py").write_text("x = 2\n")
    (tmp_path / "app" / "a.yaml").write_text("model: {steps: steps.csv}\n")
    (tmp_path / "app" / "steps.csv").write_text("1,2\n")
    packed = pack(tmp_path / "scenarios" / "s.yaml")
    assert set(packed.files) == {
        "scenarios/s.yaml",
        "scenarios/mine.py",
        "app/a.yaml",
        "app/steps.csv",
    }
    digest = packed.digest
    (tmp_path / "app" / "steps.csv").write_text("1,3\n")
    assert pack(tmp_path / "scenarios" / "s.yaml").digest != digest


def test_a_parcel_refuses_absolute_paths_and_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("x: 1\n")
    scenario = tmp_path / "s.yaml"
    scenario.write_text(f"application: {tmp_path / 'a.yaml'}\n")
    with pytest.raises(ScenarioError, match="absolute path"):
        pack(scenario)
    scenario.write_text("application: a.yaml\n")
    monkeypatch.setattr(parcels, "SIZE_MAX", 10)
    with pytest.raises(ScenarioError, match="more than"):
        pack(scenario)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return parcels.scratch()


def test_an_unpacked_parcel_is_what_was_packed(scratch: Path) -> None:
    path = unpack(Parcel("a/s.yaml", {"a/s.yaml": b"one", "b/x.csv": b"two"}))
    assert path.read_bytes() == b"one"
    assert (path.parents[1] / "b" / "x.csv").read_bytes() == b"two"
    assert path.is_relative_to(scratch)
    assert scratch.stat().st_mode & 0o077 == 0


def test_a_file_that_was_changed_meanwhile_is_found(scratch: Path) -> None:
    parcel = Parcel("s.yaml", {"s.yaml": b"three"})
    path = unpack(parcel)
    path.write_bytes(b"four")
    parcels._unpacked.cache_clear()
    with pytest.raises(ScenarioError, match="not the file"):
        unpack(parcel)


def test_a_parcel_stays_inside_its_directory(scratch: Path) -> None:
    with pytest.raises(ScenarioError, match="leaves its directory"):
        unpack(Parcel("s.yaml", {"s.yaml": b"", "../../evil": b"x"}))


def test_a_directory_that_others_write_is_refused(scratch: Path) -> None:
    scratch.chmod(0o777)
    with pytest.raises(ScenarioError, match="others can write"):
        parcels.scratch()


# --- the bound -------------------------------------------------------------------------------


def test_no_failure_in_n_is_about_three_over_n() -> None:
    rate = failure_rate(0, 300)
    assert rate.high == pytest.approx(1.0 - 0.05 ** (1 / 300))
    assert rate.high == pytest.approx(3 / 300, rel=0.01)
    assert "about 3/n = 1 %" in str(rate)


@given(jobs=st.integers(1, 400), share=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_bounds_are_those_of_the_exact_binomial_test(jobs: int, share: float) -> None:
    failures = round(share * jobs)
    rate = failure_rate(failures, jobs)
    exact = binomtest(failures, jobs, alternative="less").proportion_ci(0.95, method="exact")
    assert rate.high == pytest.approx(exact.high, abs=1e-9)
    exact = binomtest(failures, jobs, alternative="greater").proportion_ci(0.95, method="exact")
    assert rate.low == pytest.approx(exact.low, abs=1e-9)
    assert rate.low <= rate.rate <= rate.high


# --- sensitivity -----------------------------------------------------------------------------

RANGES = (
    Range("plant.mismatch.a", 0.9, 1.1, "linear"),
    Range("plant.mismatch.b", 0.9, 1.1, "linear"),
    Range("plant.mismatch.c", 0.9, 1.1, "linear"),
)


def _drawn(jobs: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {r.path: rng.uniform(r.low, r.high, jobs) for r in RANGES}


def test_prcc_is_the_correlation_of_what_the_other_factors_leave() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.0, 0.0, 1.0]])
    y = np.exp(x[:, :1]) - 2.0 * x[:, 1:2] + 0.5 * rng.normal(size=(60, 1))
    prcc, srrc, share = partial_rank_correlation(x, y)
    ranks, target = rankdata(x, axis=0), rankdata(y[:, 0])
    full = np.column_stack([np.ones(60), ranks])
    fitted = full @ np.linalg.lstsq(full, target)[0]
    assert share[0] == pytest.approx(np.var(fitted) / np.var(target), abs=1e-6)
    for i in range(3):
        rest = np.delete(full, i + 1, axis=1)
        left_x = ranks[:, i] - rest @ np.linalg.lstsq(rest, ranks[:, i])[0]
        left_y = target - rest @ np.linalg.lstsq(rest, target)[0]
        assert prcc[i, 0] == pytest.approx(np.corrcoef(left_x, left_y)[0, 1], abs=1e-6)
    weights = np.linalg.lstsq(full, target)[0][1:]
    wanted = weights * np.std(ranks, axis=0) / np.std(target)
    np.testing.assert_allclose(srrc[:, 0], wanted, atol=1e-6)


def test_what_raises_lowers_and_leaves_a_kpi_is_told_apart() -> None:
    drawn = _drawn(120)
    a, b, _ = drawn.values()
    noise = np.random.default_rng(4).normal(0, 0.02, 120)
    found = sensitivity(RANGES, drawn, {"iae": np.exp(8 * a) * (1 + noise), "gap": a - b + noise})
    effects = {(e.kpi, e.factor): e for e in found.effects}
    assert effects["iae", "a"].prcc > 0.95
    assert effects["iae", "a"].certain
    assert abs(effects["iae", "b"].prcc) < 0.3
    assert not effects["iae", "c"].certain
    assert effects["gap", "b"].prcc < -0.8
    assert found.strongest(1)[0].factor == "a"
    assert found.explained["iae"] > 0.95
    for effect in found.effects:
        assert effect.low <= effect.prcc <= effect.high


def test_a_plant_that_hurts_when_it_is_wrong_either_way_is_found_by_its_distance() -> None:
    drawn = _drawn(120)
    found = sensitivity(RANGES, drawn, {"iae": (drawn["plant.mismatch.b"] - 1.0) ** 2})
    effects = {e.factor: e for e in found.effects}
    assert not effects["b"].certain
    assert effects["|b − 1|"].prcc > 0.95


def test_kpis_that_do_not_vary_or_are_rarely_known_are_left_out() -> None:
    drawn = _drawn(60)
    rare = np.full(60, np.nan)
    rare[:5] = np.arange(5)
    some = np.where(np.arange(60) % 2 == 0, drawn["plant.mismatch.a"], np.nan)
    found = sensitivity(RANGES, drawn, {"same": np.ones(60), "rare": rare, "some": some})
    assert found.kpis == ("some",)
    assert {e.factor: e.prcc for e in found.effects}["a"] > 0.99
    assert found.grid().shape == (1, 6)


def test_few_jobs_say_so_instead_of_a_number() -> None:
    assert sensitivity(RANGES, _drawn(5), {"x": np.arange(5.0)}).note.startswith("5 jobs are too")
    found = sensitivity(RANGES, _drawn(15), {"x": np.arange(15.0)})
    assert [factor.name for factor in found.factors] == ["a", "b", "c"]
    assert "distance" in found.note
