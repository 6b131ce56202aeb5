"""Reads every tag of a device, and keeps one refused address from spoiling its neighbours."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from controller.drivers.block_plan import Block, Item, Limits, Request, plan_reads
from controller.drivers.link import AddressRefused
from controller.errors import DeviceError, DeviceRefused
from controller.ports import Clock
from controller.signal import NS_PER_S, Sample, Status

# A refused tag is asked for again, at first soon (the refusal may have been a passing fault of a
# gateway), then rarely: each try costs a request.
_RETRY_FIRST_NS = 5 * NS_PER_S
_RETRY_LAST_NS = 60 * NS_PER_S


class ReadResult(Struct, frozen=True):
    """What one pass over all blocks gave.

    Attributes:
        samples: every read tag, by name.
        error: the last one, None when every tag was read.
        dropped: after this error nothing that arrives on the connection can be trusted.
    """

    samples: dict[str, Sample]
    error: DeviceError | None
    dropped: bool


class BlockReader:
    """The read requests of one device, and what was learnt about the addresses it refuses.

    A block that is refused is halved until the refused tag stands alone. The finer plan is kept;
    refused tags are tried again now and then, and the whole plan comes back when one answers.

    Args:
        items: places of all read tags.
        clock: stamps samples and paces the tries.
        patience_s: time in one pass after which no further block is halved; the rest of the
            search goes on in the next pass.
        wait_clock_s: what the patience is measured with: the time that answers take.
    """

    def __init__(
        self,
        items: Iterable[Item],
        clock: Clock,
        patience_s: float,
        wait_clock_s: Callable[[], float],
    ) -> None:
        self._items = tuple(items)
        self._clock = clock
        self._patience_s = patience_s
        self._wait_clock_s = wait_clock_s
        self._whole: tuple[Block, ...] = ()
        self._blocks: tuple[Block, ...] = ()
        self._refused: deque[Block] = deque()
        self._retry_at_ns = 0
        self._retry_after_ns = _RETRY_FIRST_NS

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._blocks

    @property
    def refused(self) -> tuple[str, ...]:
        """Names of the tags that the device refuses."""
        return tuple(name for block in self._refused for name in block.names)

    def plan(self, limits: Limits) -> None:
        """Start afresh, with the limits of a new connection."""
        self._whole = self._blocks = plan_reads(self._items, limits)
        self._refused.clear()
        self._retry_after_ns = _RETRY_FIRST_NS

    def read(self, ask: Callable[[Request], bytes]) -> ReadResult:
        """Read all blocks once.

        Args:
            ask: performs one request; raises DeviceError.
        """
        samples: dict[str, Sample] = {}
        error: DeviceError | None = None
        try:
            self._retry(ask)
        except DeviceError as failure:
            self._mark(samples, (*self._blocks, *self._refused), Status.BAD_COMMUNICATION_ERROR)
            return ReadResult(samples, failure, dropped=True)
        pending = deque(self._blocks)
        kept: list[Block] = []
        give_up_s = self._wait_clock_s() + self._patience_s
        while pending:
            block = pending.popleft()
            try:
                self._read_block(ask, block, samples)
                kept.append(block)
            except AddressRefused as failure:
                error = failure
                if len(block.items) == 1:
                    self._refuse(block)
                elif self._wait_clock_s() > give_up_s:
                    kept.extend(block.split())
                    self._mark(samples, (block,), Status.BAD_COMMUNICATION_ERROR)
                else:
                    pending.extendleft(reversed(block.split()))
            except DeviceRefused as failure:
                error = failure
                kept.append(block)
                self._mark(samples, (block,), Status.BAD_COMMUNICATION_ERROR)
            except DeviceError as failure:
                self._blocks = (*kept, block, *pending)
                self._mark(samples, (block, *pending), Status.BAD_COMMUNICATION_ERROR)
                self._mark(samples, self._refused, Status.BAD_CONFIGURATION_ERROR)
                return ReadResult(samples, failure, dropped=True)
        self._blocks = tuple(kept)
        self._mark(samples, self._refused, Status.BAD_CONFIGURATION_ERROR)
        return ReadResult(samples, error, dropped=False)

    def _read_block(
        self, ask: Callable[[Request], bytes], block: Block, samples: dict[str, Sample]
    ) -> None:
        sent_ns = self._clock.time_ns()
        data = ask(block.request)
        received_ns = self._clock.time_ns()
        # The PLC took the values somewhere between request and answer.
        source_ns = (sent_ns + received_ns) // 2
        good = Status.GOOD  # once: a member of an enumeration takes longer to find than to use
        for name, value in zip(block.names, block.decode(data), strict=True):
            samples[name] = Sample(value, good, source_ns, received_ns)

    def _refuse(self, block: Block) -> None:
        if not self._refused:
            self._retry_at_ns = self._clock.monotonic_ns() + self._retry_after_ns
        self._refused.append(block)

    def _retry(self, ask: Callable[[Request], bytes]) -> None:
        """Try one refused tag, when it is time; an answer brings the whole plan back.

        Raises:
            DeviceError: the connection can no longer be trusted.
        """
        if not self._refused or self._clock.monotonic_ns() < self._retry_at_ns:
            return
        try:
            ask(self._refused[0].request)
        except DeviceRefused:
            self._refused.rotate(-1)
            self._retry_after_ns = min(2 * self._retry_after_ns, _RETRY_LAST_NS)
            self._retry_at_ns = self._clock.monotonic_ns() + self._retry_after_ns
            return
        self._blocks = self._whole
        self._refused.clear()

    def _mark(
        self, samples: dict[str, Sample], blocks: Sequence[Block] | deque[Block], status: Status
    ) -> None:
        if not blocks:
            return
        now_ns = self._clock.time_ns()
        bad = Sample(None, status, now_ns, now_ns)
        for block in blocks:
            samples.update(dict.fromkeys(block.names, bad))
