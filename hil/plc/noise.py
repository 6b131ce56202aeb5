"""Measurement noise of the transmitters: seeded, Gaussian, one sigma per tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from controller.errors import ScenarioError

SCANS_AT_ONCE = 64


class GaussianNoise:
    """White noise for a fixed list of tags, all drawn at once so that a scan stays cheap."""

    def __init__(self, tags: Sequence[str], sigma: Mapping[str, float], seed: int) -> None:
        """`sigma` is per tag in the tag's unit; tags without one are noise-free.

        Raises:
            ScenarioError: a sigma is negative or belongs to a tag that is not measured.
        """
        for tag, value in sigma.items():
            if tag not in tags or not value >= 0.0:
                raise ScenarioError(
                    f"no noise of sigma {value} can be put on {tag}",
                    where=f"noise.{tag}",
                    mend=f"Take sigma ≥ 0 and one of the measured tags: {', '.join(tags)}",
                )
        self._sigma = np.array([sigma.get(tag, 0.0) for tag in tags], dtype=np.float64)
        self._is_quiet = not self._sigma.any()
        self._silence = [0.0] * len(tags)
        self._rng = np.random.default_rng(seed)
        self._drawn: list[list[float]] = []

    def draw(self) -> list[float]:
        """One value per tag, in the tag's unit, in the order of `tags`."""
        if self._is_quiet:
            return self._silence
        if not self._drawn:
            # The same stream as scan by scan, at a tenth of the price; the next one is at the end.
            shape = (SCANS_AT_ONCE, self._sigma.size)
            self._drawn = (self._sigma * self._rng.standard_normal(shape)).tolist()[::-1]
        return self._drawn.pop()
