"""A disturbed cable: a TCP proxy between controller and PLC that cuts, loses, refuses, distorts.

One thread and one selector carry all connections of a device. Bytes are forwarded in whole
protocol frames (TPKT for S7, MBAP for Modbus), so that a listener sees exactly what reaches the
PLC, and nothing that the fault swallowed. What happens to a frame is decided in
`hil.link.faults`; here is what happens to connections.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Self

from hil.faults.kinds import Driver, LinkFault
from hil.link.door import LOOPBACK, Door, DoorState
from hil.link.faults import Direction, FrameFaults, LineFaults, checked_link_fault, link_fault
from hil.link.frames import Framer
from hil.plc_memory import Place

FrameListener = Callable[[Direction, bytes], None]

_CHUNK_BYTES = 65536
_CONNECT_S = 1.0
_ORDER_S = 5.0  # an order that the proxy thread has not carried out by then never will be
_LINGER_RST = struct.pack("ii", 1, 0)  # close() sends RST instead of FIN
_NO_ARGS: Final[Mapping[str, float]] = MappingProxyType({})
_SILENT: Final = frozenset((LinkFault.CABLE_CUT, LinkFault.HALF_OPEN))


class _Pipe:
    """One direction of one connection."""

    __slots__ = ("direction", "framer", "last_due_ns", "link", "sink", "source")

    def __init__(
        self,
        link: _Link,
        source: socket.socket,
        sink: socket.socket,
        direction: Direction,
        driver: Driver,
    ) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.direction: Direction = direction
        self.framer = Framer(driver)
        self.last_due_ns = 0


class _Link:
    """One connection: the controller's socket and ours to the PLC."""

    __slots__ = ("black_hole", "doomed", "faults", "is_open", "pipes", "sockets")

    def __init__(self, faults: FrameFaults) -> None:
        self.faults = faults
        self.sockets: list[socket.socket] = []
        self.pipes: list[_Pipe] = []  # the way to the PLC first
        self.black_hole = False
        self.doomed = False  # reset as soon as the controller says anything
        self.is_open = True


class FaultProxy:
    """Listens on loopback in place of a PLC and passes everything on, faults permitting.

    Attributes:
        connections: accepted so far.
        dropped_bytes: swallowed by a cut cable, a half-open connection or a lossy line.
    """

    def __init__(
        self,
        driver: Driver,
        upstream_port: int,
        *,
        upstream_host: str = LOOPBACK,
        seed: int = 0,
        on_frame: FrameListener | None = None,
        port: int = 0,
        layout: Iterable[Place] = (),
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        storm_clock_ns: Callable[[], int] | None = None,
        speed: float = 1.0,
    ) -> None:
        """Start listening at once.

        Args:
            driver: `s7` or `modbus`, for the framing.
            upstream_port, upstream_host: of the PLC's server.
            seed: of losses, refusals and jitter; connections and directions do not share streams.
            on_frame: called in the proxy's thread with each frame just before it is passed on.
            port: to listen on; 0 takes a free one.
            layout: where the PLC keeps values, for byte_order and word_order.
            monotonic_ns: real time for delays; sockets know no other.
            storm_clock_ns: paces a reconnect storm, real time where it is left out. With a
                lock-step clock the connections break when the first frame after the break
                arrives, which no controller can tell from one that broke in its sleep.
            speed: how much faster than real time the scenario goes on, without a storm clock.
        """
        self.connections = 0
        self.dropped_bytes = 0
        self._driver: Driver = driver
        self._upstream = (upstream_host, upstream_port)
        self._line = LineFaults(driver, seed, layout)
        self._on_frame = on_frame
        self._now = monotonic_ns
        self._storm_now = storm_clock_ns or (lambda: int(monotonic_ns() * speed))
        self._speed = speed
        self._wakes_for_storms = storm_clock_ns is None
        self._links: set[_Link] = set()
        self._late: list[tuple[int, int, _Pipe, bytes]] = []
        self._late_count = 0
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ, None)
        self._running = True
        self._door = Door(port, self._watch_door)
        self.port = self._door.port
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    @property
    def faults(self) -> frozenset[LinkFault]:
        return frozenset(self._line.active)

    def begin(self, fault: str, args: Mapping[str, float] = _NO_ARGS) -> None:
        """Raise a fault; it is in force when this returns.

        Raises:
            ScenarioError: no such fault on this protocol, or a wrong argument
                (`hil.link.faults.checked_link_fault`).
        """
        checked_link_fault(self._driver, fault, args)  # here, where the caller can hear of it
        self._order(lambda: self._begin(fault, args))

    def end(self, fault: str) -> None:
        """End a fault. Connections that went dead under a cut cable or half open are closed.

        Raises:
            ScenarioError: there is no such fault.
        """
        kind = link_fault(fault)
        self._order(lambda: self._end(kind))

    def close(self) -> None:
        """Close every connection and end the thread."""
        if not self._running:
            return
        self._order(self._finish)
        self._thread.join(_ORDER_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Everything below runs in the proxy's thread.

    def _run(self) -> None:
        while self._running:
            events = self._selector.select(self._until_next())
            if self._line.breaks(self._storm_now()):
                self._reset_all()
            for key, _ in events:
                if isinstance(key.data, _Pipe):
                    self._receive(key.data)
                elif key.fileobj is self._wake_in:
                    self._obey()
                elif self._door.is_of(key.fileobj):
                    self._accept()
            if self._late:
                self._send_late()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _until_next(self) -> float | None:
        """Seconds until something is due without anybody asking; None: nothing is."""
        waits = [self._late[0][0] - self._now()] if self._late else []
        break_ns = self._line.next_break_ns
        if self._wakes_for_storms and break_ns is not None:
            waits.append(round((break_ns - self._storm_now()) / self._speed))
        return max(0.0, min(waits) / 1e9) if waits else None

    def _order(self, action: Callable[[], None]) -> None:
        done = threading.Event()
        self._orders.append((action, done))
        self._wake_out.send(b"!")
        if not done.wait(_ORDER_S):
            raise RuntimeError(f"the proxy on port {self.port} does not answer")

    def _obey(self) -> None:
        self._wake_in.recv(_CHUNK_BYTES)
        while self._orders:
            action, done = self._orders.popleft()
            try:
                action()
            finally:
                done.set()

    def _begin(self, fault: str, args: Mapping[str, float]) -> None:
        kind = self._line.begin(fault, args, self._storm_now())
        if kind in _SILENT:
            for link in self._links:
                link.black_hole = True
        elif kind in (LinkFault.RESET, LinkFault.REFUSE):
            self._reset_all()
        self._set_door()

    def _end(self, kind: LinkFault) -> None:
        if kind not in self._line.active:
            return
        self._line.end(kind)
        self._set_door()
        if kind is LinkFault.RESET:
            for link in [link for link in self._links if link.doomed]:
                self._close(link, reset=True)
        elif kind in _SILENT and not self._line.active.keys() & _SILENT:
            for link in [link for link in self._links if link.black_hole]:
                self._close(link)

    def _set_door(self) -> None:
        """Behind a cut cable nobody learns that nobody listens."""
        if LinkFault.CABLE_CUT in self._line.active:
            self._door.set(DoorState.SILENT)
        elif LinkFault.REFUSE in self._line.active:
            self._door.set(DoorState.SHUT)
        else:
            self._door.set(DoorState.OPEN)

    def _watch_door(self, listener: socket.socket, watched: bool) -> None:
        if watched:
            self._selector.register(listener, selectors.EVENT_READ, None)
        else:
            self._selector.unregister(listener)

    def _finish(self) -> None:
        self._running = False
        for link in tuple(self._links):
            self._close(link)
        self._door.close()

    def _accept(self) -> None:
        client = self._door.accept()
        if client is None:
            return  # it went away between select and accept
        self.connections += 1
        link = _Link(FrameFaults(self._line, self.connections))
        link.sockets.append(client)
        self._links.add(link)
        if LinkFault.RESET in self._line.active:
            # Not at once: whether connecting or the first request fails would be a matter of luck.
            link.doomed = True
            self._carry(link, client, client, "to_plc")
            return
        try:
            plc = socket.create_connection(self._upstream, _CONNECT_S)
        except OSError:
            self._close(link, reset=True)
            return
        link.sockets.append(plc)
        self._carry(link, client, plc, "to_plc")
        self._carry(link, plc, client, "from_plc")

    def _carry(
        self, link: _Link, source: socket.socket, sink: socket.socket, direction: Direction
    ) -> None:
        source.setblocking(False)
        source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe = _Pipe(link, source, sink, direction, self._driver)
        link.pipes.append(pipe)
        self._selector.register(source, selectors.EVENT_READ, pipe)

    def _receive(self, pipe: _Pipe) -> None:
        link = pipe.link
        if not link.is_open:
            return  # closed by an earlier event of the same select
        try:
            chunk = pipe.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(link, reset=True)
            return
        if link.doomed:
            self._close(link, reset=True)
            return
        if link.black_hole:
            # A peer that gives up is not noticed on the other side of a cut cable either.
            self.dropped_bytes += len(chunk)
            if not chunk:
                self._selector.unregister(pipe.source)
                link.pipes.remove(pipe)
            return
        if not chunk:
            self._close(link)
            return
        for frame in pipe.framer.frames(chunk):
            self._pass(pipe, frame)

    def _pass(self, pipe: _Pipe, frame: bytes) -> None:
        passage = pipe.link.faults.passage(pipe.direction, frame)
        if passage is None:
            self.dropped_bytes += len(frame)
            return
        if passage.direction != pipe.direction:
            pipe = pipe.link.pipes[1]  # a refused request turns round
        if passage.delay_ns:
            self._queue(pipe, passage.frame, self._now() + passage.delay_ns)
        elif pipe.last_due_ns:
            self._queue(pipe, passage.frame, pipe.last_due_ns)
        else:
            self._forward(pipe, passage.frame)

    def _queue(self, pipe: _Pipe, frame: bytes, due_ns: int) -> None:
        pipe.last_due_ns = max(due_ns, pipe.last_due_ns)
        self._late_count += 1
        heapq.heappush(self._late, (pipe.last_due_ns, self._late_count, pipe, frame))

    def _send_late(self) -> None:
        now = self._now()
        while self._late and self._late[0][0] <= now:
            due_ns, _, pipe, frame = heapq.heappop(self._late)
            if due_ns == pipe.last_due_ns:
                pipe.last_due_ns = 0  # the queue of this pipe is empty
            if pipe.link.black_hole:
                self.dropped_bytes += len(frame)
            elif pipe.link.is_open:
                self._forward(pipe, frame)

    def _forward(self, pipe: _Pipe, frame: bytes) -> None:
        if self._on_frame is not None:
            self._on_frame(pipe.direction, frame)
        try:
            sent = pipe.sink.send(frame)
        except OSError:
            sent = 0
        if sent < len(frame):
            # Gone, or it has stopped reading long enough to fill the kernel's buffers.
            self._close(pipe.link, reset=True)

    def _reset_all(self) -> None:
        """No RST gets through where nothing gets through."""
        for link in [link for link in self._links if not link.black_hole]:
            self._close(link, reset=True)

    def _close(self, link: _Link, *, reset: bool = False) -> None:
        if not link.is_open:
            return
        link.is_open = False
        self._links.discard(link)
        for pipe in link.pipes:
            self._selector.unregister(pipe.source)
        for end in link.sockets:
            if reset:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
            end.close()
