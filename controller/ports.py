"""What the loop needs of the outside world: a clock, devices, a journal and an inbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controller.signal import (
    Command,
    Proposal,
    QualityResult,
    Sample,
    Snapshot,
    Tag,
    WriteOutcome,
)


class Clock(Protocol):
    """The only source of time. Wall time is for stamps, monotonic time for deadlines."""

    def time_ns(self) -> int:
        """Nanoseconds since the Unix epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never run backwards."""
        ...

    def sleep_until(self, monotonic_ns: int) -> None:
        """Return at the given monotonic time, or at once if it is past."""
        ...


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of one frame: the outcome and, where it failed, why in words."""

    outcome: WriteOutcome
    detail: str = ""


class Transport(Protocol):
    """One device: a PLC or a skid, read whole and written whole, once a cycle.

    No method raises for an operating error: a dead device shows as Bad samples and a failed
    report. `begin_*` starts the work without waiting, so that all devices work in parallel;
    `finish_*` waits for it, at most for the device's time-out.
    """

    @property
    def name(self) -> str: ...

    @property
    def tags(self) -> Sequence[Tag]: ...

    def begin_read(self) -> None: ...

    def finish_read(self) -> Mapping[str, Sample]:
        """Every tag with access `read`, by name."""
        ...

    def begin_write(self, values: Mapping[str, float]) -> None:
        """Start writing one frame: engineering values by tag name, all in one request."""
        ...

    def finish_write(self) -> WriteReport: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Messages:
    """What arrived in the inbox since the last poll, in order of arrival."""

    quality_results: tuple[QualityResult, ...] = ()
    commands: tuple[Command, ...] = ()
    proposals: tuple[Proposal, ...] = ()


class Inbox(Protocol):
    """Where lab results, commands and proposals wait, durably, for the next cycle."""

    def poll(self, time_ns: int) -> Messages:
        """New messages that are due at `time_ns`."""
        ...


class Journal(Protocol):
    """Keeps what was seen and what was decided. Raises JournalError when it cannot."""

    def append_snapshot(self, snapshot: Snapshot) -> str:
        """Returns the digest of what is kept, for the record that is decided from it."""
        ...

    def append_record(self, cycle: int, time_ns: int, record: bytes) -> None:
        """`record` is the encoded Record of that cycle (controller.cycle.record)."""
        ...

    def append_event(self, time_ns: int, kind: str, body: Mapping[str, object]) -> None:
        """Durable when it returns: mode changes, sheds, limits, alarms."""
        ...

    def rest(self, until_ns: int) -> None:
        """The loop sleeps until then, monotonic ns: the time to save what must not wait so long."""
        ...

    def close(self) -> None: ...
