"""One thread owns one connection to one device, so that a dead device never delays the cycle."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from controller.drivers.backoff import Backoff
from controller.drivers.block_plan import Limits, Request, place
from controller.drivers.block_read import BlockReader
from controller.drivers.link import Link
from controller.drivers.write_plan import WritePlan, plan_write
from controller.errors import (
    DeviceError,
    DeviceProtocolError,
    DeviceRefused,
    DeviceTimeout,
    SettingsError,
    WriteRefused,
)
from controller.ports import Clock, WriteReport
from controller.signal import Sample, Status, Tag, WriteOutcome


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the start of the process."""

    requests: int = 0
    reconnects: int = 0
    timeouts: int = 0


class _Job:
    """One read or write on its way through the owner thread.

    Attributes:
        frame: bytes to write, None to read.
        deadline_s: on the wait clock; later the answer is of no use.
        done: released by the owner thread when the result is there.
        on_wire: a request may be out, so a late answer may come in.
        dropped: the connection failed under it, and the backoff has counted that.
    """

    __slots__ = (
        "abandoned",
        "deadline_s",
        "done",
        "dropped",
        "finished",
        "frame",
        "on_wire",
        "report",
        "samples",
    )

    def __init__(self, frame: bytes | None, deadline_s: float) -> None:
        self.frame = frame
        self.deadline_s = deadline_s
        self.done = threading.Lock()
        self.done.acquire()
        self.on_wire = False
        self.dropped = False
        self.finished = False
        self.abandoned = False
        self.samples: Mapping[str, Sample] = {}
        self.report = WriteReport(WriteOutcome.NONE)


class OwnedConnection:
    """A `controller.ports.Transport` over a `Link`.

    Opening does not connect: the first `begin_read` does, on the owner thread. After any
    time-out or doubt the socket is dropped; a later `begin_read` reconnects when the backoff has
    elapsed, and reads before anything is written. Writes are never repeated.

    Args:
        name: of the device.
        driver: `s7` or `modbus`, decides how addresses are read.
        tags: all tags of the device.
        clock: stamps samples and measures the backoff.
        link: performs the requests.
        limits: largest requests of the device, for planning the write.
        timeout_s: longest time for one whole read, or one whole write with its read-back.
        seed: of the jitter.
        wait_clock_s: real time, for waiting on the network.

    Raises:
        SettingsError: a tag cannot be read or written as configured.
    """

    def __init__(
        self,
        name: str,
        driver: str,
        tags: Sequence[Tag],
        clock: Clock,
        link: Link,
        *,
        limits: Limits,
        timeout_s: float,
        seed: int = 0,
        wait_clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        if not timeout_s > 0.0:
            raise SettingsError(f"time-out {timeout_s} s", where=name, mend="Use e.g. 300 ms")
        self._name = name
        self._tags = tuple(tags)
        self._clock = clock
        self._link = link
        self._timeout_s = timeout_s
        self._wait_clock_s = wait_clock_s
        places = [(tag, place(driver, tag)) for tag in self._tags]
        self._read_names = tuple(tag.name for tag in self._tags if tag.access == "read")
        self._reader = BlockReader(
            (item for tag, item in places if tag.access == "read"),
            clock,
            timeout_s / 2.0,
            wait_clock_s,
        )
        self._reader.plan(limits)
        self._limits = limits
        self._write_plan = plan_write(
            (item for tag, item in places if tag.access == "write"), limits
        )
        # Devices of one application share a seed, but must not share their jitter.
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self._backoff = Backoff(clock, rng)
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._connected = False
        self._connects = self._requests = self._timeouts = 0
        self._last_error: DeviceError | None = None
        self._reading: _Job | Status | None = None
        self._writing: _Job | WriteReport | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def tags(self) -> Sequence[Tag]:
        return self._tags

    @property
    def connected(self) -> bool:
        return self._connected

    @property
    def last_error(self) -> DeviceError | None:
        """Why the last read was not wholly good; None when it was."""
        return self._last_error

    @property
    def statistics(self) -> Statistics:
        with self._lock:
            return Statistics(self._requests, max(0, self._connects - 1), self._timeouts)

    def __repr__(self) -> str:
        state = "" if self._connected else "not "
        return f"OwnedConnection({self._name}, {len(self._tags)} tags, {state}connected)"

    def begin_read(self) -> None:
        """Start reading all tags; reconnects first, when it is time to."""
        if self._reading is not None:
            raise RuntimeError(f"{self._name}: begin_read before finish_read")
        with self._lock:
            possible = not self._closed and (self._connected or self._backoff.elapsed)
        self._reading = self._submit(None) if possible else Status.BAD_NO_COMMUNICATION

    def finish_read(self) -> Mapping[str, Sample]:
        """Every read tag by name; at the latest `timeout_s` after `begin_read`."""
        job, self._reading = self._reading, None
        if job is None:
            raise RuntimeError(f"{self._name}: finish_read without begin_read")
        if isinstance(job, Status):
            return self._all_bad(job)
        if self._in_time(job):
            return job.samples
        return self._all_bad(
            Status.BAD_COMMUNICATION_ERROR if job.on_wire else Status.BAD_NO_COMMUNICATION
        )

    def begin_write(self, values: Mapping[str, float]) -> None:
        """Start writing one frame: a value for every write tag, or nothing at all."""
        if self._writing is not None:
            raise RuntimeError(f"{self._name}: begin_write before finish_write")
        frame = self._frame(values)
        self._writing = frame if isinstance(frame, WriteReport) else self._submit(frame)

    def finish_write(self) -> WriteReport:
        """What became of the frame; at the latest `timeout_s` after `begin_write`."""
        job, self._writing = self._writing, None
        if job is None:
            raise RuntimeError(f"{self._name}: finish_write without begin_write")
        if isinstance(job, WriteReport):
            return job
        if self._in_time(job):
            return job.report
        return WriteReport(
            WriteOutcome.FAILED,
            f"{self._name} did not confirm within {self._timeout_s:g} s; it may have arrived",
        )

    def close(self) -> None:
        """Drop the connection and end the owner thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._connected = False
        if self._thread is not None:
            self._link.abort()
            self._queue.put(None)
            self._thread.join(timeout=self._timeout_s + 1.0)

    # The caller's side

    def _submit(self, frame: bytes | None) -> _Job:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._own, name=f"device-{self._name}", daemon=True
            )
            self._thread.start()
        job = _Job(frame, self._wait_clock_s() + self._timeout_s)
        self._queue.put(job)
        return job

    def _in_time(self, job: _Job) -> bool:
        """Wait for a job; when it is late, give it up and cut the connection it used."""
        if job.done.acquire(timeout=max(0.0, job.deadline_s - self._wait_clock_s())):
            return True
        with self._lock:
            ending = job.finished or job.dropped
            if not ending:
                job.abandoned = True
                self._timeouts += 1
                self._last_error = DeviceTimeout(
                    f"no complete answer within {self._timeout_s:g} s",
                    where=self._name,
                    mend="Check the network, or raise the time-out of the device",
                )
                self._backoff.failed()
                if job.on_wire:
                    self._connected = False
                    self._link.abort()
        # One that ended in this very instant only has its result left to hand over.
        return ending and job.done.acquire(timeout=self._timeout_s)

    def _frame(self, values: Mapping[str, float]) -> bytes | WriteReport:
        """The bytes to write, or the report that nothing can be written."""
        if not values:
            return WriteReport(WriteOutcome.NONE)
        if self._write_plan is None:
            return WriteReport(WriteOutcome.REFUSED, f"{self._name} has no write tags")
        try:
            frame = self._write_plan.encode(values)
        except WriteRefused as error:
            return WriteReport(WriteOutcome.REFUSED, str(error))
        if not self._connected:
            return WriteReport(WriteOutcome.FAILED, f"{self._name} is not connected")
        return frame

    def _all_bad(self, status: Status) -> Mapping[str, Sample]:
        now_ns = self._clock.time_ns()
        return dict.fromkeys(self._read_names, Sample(None, status, now_ns, now_ns))

    # The owner thread's side

    def _own(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.abandoned:
                self._perform(job)
            with self._lock:
                job.finished = True
                late = job.abandoned and job.on_wire
            if late:
                self._link.close()
            job.done.release()
        self._link.close()

    def _perform(self, job: _Job) -> None:
        try:
            if job.frame is None:
                self._read(job)
            else:
                self._write(job, job.frame)
        except Exception as error:  # noqa: BLE001
            # A bug in a protocol library must show as a dead device, not as a dead thread.
            failure = DeviceProtocolError(f"{type(error).__name__}: {error}", where=self._name)
            self._drop(job, failure)
            job.samples = self._all_bad(Status.BAD_COMMUNICATION_ERROR)
            job.report = WriteReport(WriteOutcome.FAILED, str(failure))

    def _read(self, job: _Job) -> None:
        if not self._connected and not self._connect(job):
            job.samples = self._all_bad(Status.BAD_NO_COMMUNICATION)
            return
        if not self._go_on_wire(job):
            return
        result = self._reader.read(self._ask)
        job.samples = result.samples
        if result.dropped and result.error is not None:
            self._drop(job, result.error)
            if isinstance(result.error, DeviceTimeout):
                # A read that is late is given up whole, whichever thread notices first.
                job.samples = self._all_bad(Status.BAD_COMMUNICATION_ERROR)
            return
        with self._lock:
            if not job.abandoned:
                self._backoff.succeeded()
                if result.error is not None or not self._reader.refused:
                    self._last_error = result.error

    def _write(self, job: _Job, frame: bytes) -> None:
        plan = self._write_plan
        job.report = WriteReport(WriteOutcome.FAILED, f"{self._name} is not connected")
        if plan is None or not self._connected or not self._go_on_wire(job):
            return
        largest = self._limits.largest_write(plan.request.region)
        if plan.request.count > largest:
            job.report = WriteReport(
                WriteOutcome.REFUSED,
                f"the frame has {plan.request.count} addresses, this connection takes {largest}",
            )
            return
        try:
            self._count()
            self._link.write(plan.request, frame)
        except DeviceRefused as error:
            job.report = WriteReport(WriteOutcome.REFUSED, str(error))
            return
        except DeviceError as error:
            self._drop(job, error)
            job.report = WriteReport(WriteOutcome.FAILED, str(error))
            return
        job.report = self._verify(job, plan, frame)

    def _verify(self, job: _Job, plan: WritePlan, frame: bytes) -> WriteReport:
        """Read the block back: only what the device holds now counts as written."""
        try:
            read_back = self._ask(plan.request)
        except DeviceError as error:
            if not isinstance(error, DeviceRefused):
                self._drop(job, error)
            return WriteReport(WriteOutcome.FAILED, f"cannot be read back: {error}")
        if read_back == frame:
            return WriteReport(WriteOutcome.WRITTEN)
        return WriteReport(WriteOutcome.FAILED, "; ".join(plan.differences(frame, read_back)))

    def _connect(self, job: _Job) -> bool:
        try:
            limits = self._link.connect()
        except DeviceError as error:
            self._drop(job, error)
            return False
        self._limits = limits
        self._reader.plan(limits)
        with self._lock:
            self._connected = not self._closed
            self._connects += 1
        return True

    def _go_on_wire(self, job: _Job) -> bool:
        """Whether the job is still wanted. A connection that came up late is kept: on it nothing
        was asked, so nothing stale can arrive."""
        with self._lock:
            job.on_wire = not job.abandoned
            return job.on_wire

    def _ask(self, request: Request) -> bytes:
        self._count()
        data = self._link.read(request)
        if len(data) != request.size:
            raise DeviceProtocolError(
                f"{len(data)} bytes in the answer to {request}, {request.size} expected",
                where=self._name,
            )
        return data

    def _count(self) -> None:
        with self._lock:
            self._requests += 1

    def _drop(self, job: _Job, error: DeviceError) -> None:
        """Give the connection up. The backoff starts once per job, whoever notices first."""
        self._link.close()
        with self._lock:
            self._connected = False
            job.dropped = True
            if not job.abandoned:
                self._timeouts += isinstance(error, DeviceTimeout)
                self._last_error = error
                self._backoff.failed()
