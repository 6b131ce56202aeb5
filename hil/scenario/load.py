"""Reads scenario files: as they are, with changes, and in all variants of their matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

import yaml
from pydantic import ValidationError

from controller.errors import ScenarioError, SettingsError
from controller.settings.yaml_core import Document, decode, read
from hil.scenario.changes import Changes, lay_over, said
from hil.scenario.file import ScenarioFile
from hil.scenario.parts import Economics, Scenario
from hil.scenario.places import Places, shape_error
from hil.scenario.rehearsal import rehearse
from hil.scenario.resolve import check_clock, resolve, resolve_economics
from hil.seeds import RANGE, is_seed

_NOTHING: Final[Changes] = MappingProxyType({})
VARIANTS_MAX = 10_000


def load_scenario(
    path: str | Path, changes: Changes | None = None, *, variant: str = ""
) -> Scenario:
    """Read a scenario and the application it names; a matrix in it is left aside.

    Args:
        changes: values by dotted path, laid over the file: `{"seed": 4, "plant.mismatch.k10":
            1.05, "overrides.mpc.horizon": 30, "faults[0].until": "12 min"}`.
        variant: what the changed scenario is called beside its id.

    Raises:
        ScenarioError: the file is missing or wrong, with file:line:column and the mend.
        SettingsError: the application's file is wrong.
    """
    document, text = _read(Path(path))
    return _load(document, text, changes or _NOTHING, variant)


def variants(path: str | Path, changes: Changes | None = None) -> tuple[Scenario, ...]:
    """Every combination of the values in the scenario's matrix; one scenario without a matrix.

    Args:
        changes: laid over all of them; a path of the matrix that is changed no longer varies.

    Raises:
        ScenarioError, SettingsError: as `load_scenario`; or the matrix has too many combinations.
    """
    document, text = _read(Path(path))
    changes = changes or _NOTHING
    matrix = {p: v for p, v in _shape(document).matrix.items() if p not in changes}
    _check_seeds(matrix.get("seed", ()), document)
    count = 1
    for values in matrix.values():
        count *= len(values)
    if count > VARIANTS_MAX:
        line, column = document.position(("matrix",))
        raise ScenarioError(
            f"the matrix has {count} combinations, more than {VARIANTS_MAX}",
            where=f"{document.path}:{line}:{column} matrix",
            mend="Take values out of it; a campaign draws from ranges (loopwright hil campaign)",
        )
    found: list[Scenario] = []
    for values in product(*matrix.values()):
        chosen: dict[str, Any] = dict(zip(matrix, values, strict=True))
        fresh = read(document.path, text)
        # Runs that differ in the seed only are the same scenario, for statistics.
        name = said({path: value for path, value in chosen.items() if path != "seed"})
        found.append(_load(fresh, text, {**chosen, **changes}, name))
    return tuple(found)


def load_economics(path: Path) -> Economics | None:
    """How a scenario counts money; None where it does not.

    No file that the scenario names need be there, so a copy of it may lie anywhere.

    Raises:
        ScenarioError: the file is missing or no scenario.
    """
    document, _ = _read(path)
    return resolve_economics(_shape(document).economics, Places(document))


def _check_seeds(seeds: Sequence[object], document: Document) -> None:
    for i, seed in enumerate(seeds):
        if not is_seed(seed):
            line, column = document.position(("matrix", "seed", i))
            raise ScenarioError(
                f"{seed!r} is no seed",
                where=f"{document.path}:{line}:{column} matrix.seed[{i}]",
                mend=f"Seeds are {RANGE}",
            )


def _read(path: Path) -> tuple[Document, str]:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ScenarioError(
            f"cannot be read: {error.strerror}", where=str(path), mend="Check the path"
        ) from error
    try:
        text = decode(path, raw)
        return read(path, text), text
    except SettingsError as error:
        raise ScenarioError(error.what, where=error.where, mend=error.mend) from error


def _load(document: Document, text: str, changes: Changes, variant: str) -> Scenario:
    if "tier" not in changes:
        check_clock(_shape(document), document)
    if changes:
        lay_over(document, changes)
        text = _text(document)
    shape = _shape(document)
    scenario = resolve(shape, document, text, variant)
    rehearse(scenario, shape, Places(document))
    return replace(scenario, changes=MappingProxyType(dict(changes)))


def _shape(document: Document) -> ScenarioFile:
    try:
        return ScenarioFile.model_validate(document.data)
    except ValidationError as error:
        raise shape_error(document, error) from error


def _text(document: Document) -> str:
    """The changed scenario as a file of its own."""
    data = cast("Mapping[str, Any]", document.data)
    # A speed belongs to the realtime tier, and another may have been asked for.
    gone = {"matrix"} if data.get("tier") == "realtime" else {"matrix", "clock"}
    kept = {key: value for key, value in data.items() if key not in gone}
    return f"# {document.path.name}, with changes\n" + yaml.safe_dump(
        kept, allow_unicode=True, sort_keys=False
    )
