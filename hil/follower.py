"""Replays a run while it happens, in a process of its own: the second core checks the first."""

from __future__ import annotations

import multiprocessing as mp
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

from controller.app import application_of
from controller.errors import ReplayError
from controller.historian.reader import CycleRow, JournalReader
from controller.replay import Replay, Replayed
from hil.faults.solver import ClockOffsets, SolverFault, SolverFaults
from hil.interrupts import interrupts_held

# Often enough to keep up with the run, seldom enough not to slow it down.
LOOK_S = 0.25


class Follower:
    """A replay process on the journal in `directory`, which must exist when it starts.

    Args:
        solver_faults: of the run, counted from `start_ns`; the replay raises them again.
    """

    def __init__(
        self, directory: Path, solver_faults: Sequence[SolverFault] = (), start_ns: int = 0
    ) -> None:
        context = mp.get_context("spawn")
        self._finished: Event = context.Event()
        self._answers, answer = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_follow,
            args=(str(directory), self._finished, answer, tuple(solver_faults), start_ns),
            name="loopwright-replay",
            daemon=True,
        )
        with interrupts_held():
            self._process.start()
        answer.close()

    def finish(self, progress: Callable[[Replayed], None] | None = None) -> Replayed:
        """Wait until every cycle is replayed; the run must be over and its journal flushed.

        Raises:
            ReplayError: the replay broke.
        """
        self._finished.set()
        last: Replayed | None = None
        done = False
        try:
            while not done:
                answer: tuple[bool, Replayed] = self._answers.recv()
                done, last = answer
                if progress is not None:
                    progress(last)
        except EOFError:
            self._process.join()
            raise ReplayError(
                f"the replay process ended with code {self._process.exitcode}",
                where="replay",
                mend="Run loopwright replay on the data directory to see why",
            ) from None
        self._process.join()
        if last is None:
            raise ReplayError("the replay gave no answer", where="replay")
        return last

    def cancel(self) -> None:
        """End it without an answer."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._answers.close()


class _AnnouncingReader(JournalReader):
    """The journal, which says the true time of each cycle before it is decided again."""

    def __init__(self, directory: Path, faults: SolverFaults) -> None:
        super().__init__(directory)
        self._faults = faults
        self._offsets = ClockOffsets()
        self._next_event = 1

    def cycles(
        self,
        segment: int,
        *,
        from_ns: int | None = None,
        to_ns: int | None = None,
        from_cycle: int | None = None,
        to_cycle: int | None = None,
    ) -> Iterator[CycleRow]:
        rows = super().cycles(
            segment, from_ns=from_ns, to_ns=to_ns, from_cycle=from_cycle, to_cycle=to_cycle
        )
        for row in rows:
            self._hear()
            self._faults.begin_cycle(row.time_ns - self._offsets.at(segment, row.cycle))
            yield row

    def _hear(self) -> None:
        """An event is in the log before the cycle that it concerns is in the journal."""
        for event in self.events(from_id=self._next_event):
            self._next_event = event.event_id + 1
            self._offsets.hear(event.body)


def _follow(
    directory: str,
    finished: Event,
    answers: Connection,
    solver_faults: Sequence[SolverFault],
    start_ns: int,
) -> None:
    faults = SolverFaults(solver_faults, start_ns)
    harness = mp.parent_process()
    with _AnnouncingReader(Path(directory), faults) as reader:
        run = Replay(
            reader,
            lambda segment: faults.inside(application_of(segment, Path(directory))),
        )
        said = 0.0
        while True:
            over = finished.is_set()
            for outcome in run.advance(over):
                if finished.is_set() and time.monotonic() - said > LOOK_S:
                    said = time.monotonic()
                    answers.send((False, outcome))
            if over:
                break
            if harness is not None and not harness.is_alive():
                return  # it was killed, and nobody waits for an answer
            finished.wait(LOOK_S)
        answers.send((True, run.outcome))
