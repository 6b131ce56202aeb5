"""What the copy of a scenario beside a run says, without building its plant or its application."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from controller.errors import ReplayError, SettingsError
from controller.settings.yaml_core import decode, read
from hil.runner import SCENARIO_FILE

CHANGES_FILE = "changes.json"
"""What a run changed of its scenario, by dotted path, where it changed anything."""


def changes_of(directory: Path) -> Mapping[str, Any]:
    """The changes of a run by dotted path; none where it changed nothing.

    Raises:
        ReplayError: the file is damaged.
    """
    path = directory / CHANGES_FILE
    if not path.exists():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError) as error:
        raise ReplayError(
            f"the changes of this run cannot be read: {error}",
            where=str(path),
            mend="Run the scenario again",
        ) from error


def scenario_value(directory: Path, dotted: str) -> Any:
    """A value of the scenario of a run, such as `plant.ref`; None where it says nothing of it.

    Raises:
        ReplayError: the copy of the scenario, or of its changes, is damaged.
    """
    changes = changes_of(directory)
    if dotted in changes:
        return changes[dotted]
    path = directory / SCENARIO_FILE
    if not path.exists():
        return None
    try:
        found: Any = read(path, decode(path, path.read_bytes())).data
    except (OSError, SettingsError) as error:
        raise ReplayError(
            f"the scenario of this run cannot be read: {error}",
            where=str(path),
            mend="Run the scenario again",
        ) from error
    for key in dotted.split("."):
        found = cast("Mapping[str, Any]", found).get(key) if isinstance(found, Mapping) else None
    return found
