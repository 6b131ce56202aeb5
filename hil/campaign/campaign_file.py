"""A campaign file: which scenario, how wrong the plant may be, how many seeds, what is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os.path import normpath
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from controller.errors import ScenarioError, SettingsError
from controller.settings.problems import suggestion
from controller.settings.schema import Quantity, Text
from controller.settings.yaml_core import decode, read
from hil.kpi_names import KPI_NAMES
from hil.scenario import Tier
from hil.scenario.file import Section
from hil.scenario.places import Places, shape_error
from hil.seeds import RANGE, SEED_MAX

DesignKind = Literal["latin_hypercube", "sobol", "random"]
Scale = Literal["linear", "log"]

JOBS_MAX = 1_000_000

MISMATCH = "plant.mismatch."
"""Where a scenario keeps factors on plant parameters; a name without a dot stands for one."""

_RESERVED = ("seed", "scenario", "tier", "duration", "matrix")


class RangeSection(Section):
    """Between what and what a value is drawn; `[low, high]` is short for a linear one."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    scale: Scale = "linear"


class SeedsSection(Section):
    """Scenario seeds: `count` of them, from `first` on; each is one job of every variant."""

    first: int = Field(default=1, ge=0, le=SEED_MAX, strict=True)
    count: int = Field(ge=1, le=JOBS_MAX)


class CampaignFile(Section):
    """The raw shape of a campaign file."""

    campaign: Literal[1]
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    title: Text
    scenario: Text
    tier: Literal["virtual", "wire"] = "virtual"
    duration: Quantity | None = None
    seeds: SeedsSection
    design: DesignKind = "latin_hypercube"
    design_seed: int = Field(default=1, ge=0, le=SEED_MAX, strict=True)
    mismatch: dict[str, RangeSection] = Field(min_length=1)
    changes: dict[str, Any] = Field(default_factory=dict)
    kpis: list[str] = Field(default_factory=lambda: ["*"], min_length=1)
    replay_every: int = Field(default=0, ge=0)

    @field_validator("mismatch", mode="before")
    @classmethod
    def _short_ranges(cls, raw: Any) -> Any:
        """`[0.9, 1.1]` as low and high; anything else is left to the shape check."""
        if not isinstance(raw, dict):
            return raw
        return {
            name: {"low": value[0], "high": value[1]}
            if isinstance(value, list) and len(value) == 2
            else value
            for name, value in raw.items()
        }


@dataclass(frozen=True, slots=True)
class Range:
    """A dotted path into the scenario, and the values it is drawn from."""

    path: str
    low: float
    high: float
    scale: Scale

    @property
    def name(self) -> str:
        """As people say it: the parameter alone for a factor on it."""
        return self.path.removeprefix(MISMATCH)

    @property
    def centre(self) -> float:
        """What "far off" is counted from: the factor 1 if it is inside, else the middle."""
        if self.path.startswith(MISMATCH) and self.low < 1.0 < self.high:
            return 1.0
        return (self.low * self.high) ** 0.5 if self.scale == "log" else (self.low + self.high) / 2


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign, checked; seconds where the file has quantities.

    Attributes:
        duration_s: of every job; None leaves it to the scenario.
        seeds: how many runs of each variant of the scenario's matrix, with the scenario seeds
            first_seed, first_seed + 1, …; each seed comes with its own plant.
        changes: dotted changes of the scenario that all jobs share.
        kpis: patterns of the KPIs to keep, as of a shell.
        replay_every: each so many-th job is also replayed and compared; 0 is none.
    """

    id: str
    title: str
    path: Path
    text: str
    scenario: Path
    tier: Tier
    duration_s: float | None
    first_seed: int
    seeds: int
    design: DesignKind
    design_seed: int
    mismatch: tuple[Range, ...]
    changes: Mapping[str, Any]
    kpis: tuple[str, ...]
    replay_every: int

    def with_seeds(self, seeds: int) -> Campaign:
        """The campaign with another number of seeds.

        Raises:
            ScenarioError: the last of them is none.
        """
        _check_last_seed(self.first_seed, seeds, "--seeds")
        return replace(self, seeds=seeds)

    def __str__(self) -> str:
        return (
            f"{self.id}: {self.title}; {self.seeds} seeds, {self.design} over "
            f"{', '.join(r.name for r in self.mismatch)}, tier {self.tier}"
        )


def load_campaign(path: str | Path) -> Campaign:
    """Read a campaign file.

    Raises:
        ScenarioError: the file is missing or wrong, with file:line:column and the mend.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ScenarioError(
            f"cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error
    try:
        text = decode(path, raw)
        document = read(path, text)
    except SettingsError as error:
        raise ScenarioError(error.what, where=error.where, mend=error.mend) from error
    try:
        shape = CampaignFile.model_validate(document.data)
    except ValidationError as error:
        raise shape_error(document, error) from error
    places = Places(document)
    scenario = Path(normpath(path.parent / shape.scenario))
    if not scenario.is_file():
        raise ScenarioError(
            f"there is no scenario {scenario}",
            where=places.where("scenario"),
            mend="Give the path relative to the campaign file",
        )
    for name in shape.changes:
        _check_path(name, places.where("changes", name))
    for i, pattern in enumerate(shape.kpis):
        if not any(_may_be(pattern, name) for name in KPI_NAMES):
            raise ScenarioError(
                f"no KPI is called {pattern}",
                where=places.where("kpis", i),
                mend=suggestion(pattern, KPI_NAMES),
            )
    _check_last_seed(shape.seeds.first, shape.seeds.count, places.where("seeds"))
    return Campaign(
        id=shape.id,
        title=shape.title,
        path=path,
        text=text,
        scenario=scenario,
        tier=shape.tier,
        duration_s=None if shape.duration is None else places.seconds(shape.duration, "duration"),
        first_seed=shape.seeds.first,
        seeds=shape.seeds.count,
        design=shape.design,
        design_seed=shape.design_seed,
        mismatch=_ranges(shape, places),
        changes=shape.changes,
        kpis=tuple(shape.kpis),
        replay_every=shape.replay_every,
    )


def _check_last_seed(first: int, count: int, where: str) -> None:
    if first + count - 1 > SEED_MAX:
        raise ScenarioError(
            f"{count} seeds from {first} on end beyond the last one",
            where=where,
            mend=f"Begin lower, or take fewer; seeds are {RANGE}",
        )


def _ranges(shape: CampaignFile, places: Places) -> tuple[Range, ...]:
    found: dict[str, Range] = {}
    for name, section in shape.mismatch.items():
        where = places.where("mismatch", name)
        _check_path(name, where)
        path = name if "." in name else f"{MISMATCH}{name}"
        if not section.low < section.high:
            raise ScenarioError(
                f"the range from {section.low:g} to {section.high:g} is empty",
                where=where,
                mend="Write the lower value first; a fixed value belongs under changes",
            )
        if section.scale == "log" and section.low <= 0.0:
            raise ScenarioError(
                f"a logarithmic range cannot begin at {section.low:g}",
                where=where,
                mend="Begin above 0, or use scale: linear",
            )
        if path in found or path in shape.changes:
            raise ScenarioError(f"{path} is there twice", where=where, mend="Remove one of the two")
        found[path] = Range(path, section.low, section.high, section.scale)
    return tuple(found.values())


def _may_be(pattern: str, name: str) -> bool:
    """Whether some KPI of this name fits. A name that ends in `.` or `_` is completed by a variable
    or a mode, so only what stands before the first wildcard can rule it out."""
    head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    open_ended = name.endswith((".", "_"))
    if head == pattern and not open_ended:
        return pattern == name
    return name.startswith(head) or (open_ended and head.startswith(name))


def _check_path(name: str, where: str) -> None:
    if name.split(".", 1)[0] in _RESERVED:
        raise ScenarioError(
            f"{name} is not a change of the plant",
            where=where,
            mend="Seeds, tier, duration and scenario have keys of their own in a campaign",
        )
