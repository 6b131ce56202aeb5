"""What only campaigns need, and what to install when it is missing."""

from __future__ import annotations

from importlib.util import find_spec

from controller.errors import ScenarioError


def require(package: str, purpose: str) -> None:
    """
    Raises:
        ScenarioError: the package is not installed.
    """
    if find_spec(package) is None:
        raise ScenarioError(
            f"{package} is not installed",
            where=purpose,
            mend="Install it with: pip install 'loopwright[campaign]'",
        )
