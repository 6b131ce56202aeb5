"""Where the scenarios that ship with Loopwright lie, installed or in a checkout."""

from __future__ import annotations

from pathlib import Path

from controller.errors import ScenarioError


def shipped(name: str) -> Path:
    """A file under `config/`, e.g. `scenarios/demo.yaml`.

    Raises:
        ScenarioError: the installation is incomplete.
    """
    here = Path(__file__).resolve().parent
    for root in (here / "config", here.parent / "config"):
        if (root / name).exists():
            return root / name
    raise ScenarioError(
        f"the file {name} is not part of this installation",
        where=str(here),
        mend="Install loopwright again",
    )
