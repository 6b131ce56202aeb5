"""The way of lab results and commands into the event log of a controller that may be stopped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

import apsw

from controller.errors import JournalError
from controller.historian.events import EventStore
from controller.signal import Command, QualityResult


class PatientMail:
    """Appends in order; what finds the event log locked waits for the next delivery.

    A process that is stopped in the middle of a commit keeps the event log locked for as long as
    it is stopped, and the laboratory does not stop with it.
    """

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._waiting: deque[Callable[[], int]] = deque()

    def add_quality_result(self, result: QualityResult) -> None:
        """Append a lab result, now or later. Raises JournalError unless the log is only locked."""
        self._waiting.append(partial(self._store.add_quality_result, result))
        self.deliver()

    def add_command(self, command: Command) -> None:
        """Append a command, now or later. Raises JournalError unless the log is only locked."""
        self._waiting.append(partial(self._store.add_command, command))
        self.deliver()

    def deliver(self) -> None:
        """Append what is waiting, as far as the log is not locked."""
        while self._waiting:
            try:
                self._waiting[0]()
            except JournalError as error:
                if isinstance(error.__cause__, apsw.BusyError):
                    return
                raise
            self._waiting.popleft()
