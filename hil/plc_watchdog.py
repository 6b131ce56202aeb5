"""The PLC's side of the handshake: is the controller alive, and is this its newest frame?"""

from __future__ import annotations

from controller.settings.application import Handshake
from hil.plc_memory import DeviceMemory

_WORD = 0x1_0000
# A frame whose sequence lies in the older half of the 16-bit circle was sent before the last one
# (serial number arithmetic, RFC 1982).
_OLDER_HALF = 0x8000
_ROUNDING_S = 1e-6  # sums of scan times that should equal the watchdog time must not pass it


class DeviceWatch:
    """Heartbeat, sequence and epoch of one device, and the watchdog on them."""

    def __init__(self, memory: DeviceMemory, handshake: Handshake, watchdog_s: float) -> None:
        self.memory = memory
        self.running = True
        self.echo_frozen = False
        self.alive = False
        self.engaged = False
        self.trips = 0
        self.stale_frames = 0
        self._watchdog_s = watchdog_s
        self._quiet_s = 0.0
        self._read_heartbeat = memory.reader(handshake.heartbeat)
        self._read_sequence = memory.reader(handshake.sequence)
        self._read_epoch = memory.reader(handshake.epoch) if handshake.epoch else None
        self._echo_heartbeat = memory.writer(handshake.heartbeat_echo)
        self._echo_sequence = (
            memory.writer(handshake.sequence_echo) if handshake.sequence_echo else None
        )
        self.forget()

    def forget(self) -> None:
        """Trust nothing that is in the memory now: the heartbeat must move first."""
        self.alive = False
        self._quiet_s = 0.0
        self._heartbeat = self._seen = self._read_heartbeat()
        self._sequence = self._read_sequence()
        self._epoch = self._read_epoch() if self._read_epoch else 0

    def look(self, dt_s: float) -> None:
        """One scan of the watchdog; the memory's lock is held.

        A new epoch is a restarted controller: it is alive once its heartbeat moves, no sooner.
        """
        heartbeat, sequence = self._read_heartbeat(), self._read_sequence()
        if self._read_epoch is not None and self._read_epoch() != self._epoch:
            self.forget()
            return
        if heartbeat != self._heartbeat:
            if int(sequence - self._sequence) % _WORD < _OLDER_HALF:
                self.alive = True
                self._quiet_s = 0.0
                self._heartbeat = self._seen = heartbeat
                self._sequence = sequence
                return
            self.stale_frames += heartbeat != self._seen
        self._seen = heartbeat
        self._quiet_s += dt_s
        if self.alive and self._quiet_s > self._watchdog_s + _ROUNDING_S:
            self.alive = False
            # A controller that has handed back may fall silent: nobody loses anything then.
            self.trips += self.engaged

    def echo(self) -> None:
        """Answer with the last accepted frame; the memory's lock is held."""
        if self.echo_frozen:
            return
        self._echo_heartbeat(self._heartbeat)
        if self._echo_sequence is not None:
            self._echo_sequence(self._sequence)
