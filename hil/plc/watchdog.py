"""The PLC's side of the handshake: is the controller alive, and is this its newest frame?"""

from __future__ import annotations

from collections.abc import Sequence

from controller.settings.application import Handshake
from hil.plc_memory import DeviceMemory

_WORD = 0x1_0000
# A frame whose sequence lies in the older half of the 16-bit circle was sent before the last one
# (serial number arithmetic, RFC 1982).
_OLDER_HALF = 0x8000
_ROUNDING_S = 1e-6  # sums of scan times that should equal the watchdog time must not pass it


class DeviceWatch:
    """Heartbeat, sequence and epoch of one device, and the watchdog on them.

    Attributes:
        words: tags of heartbeat, sequence and, where there is one, epoch.
        echo_words: tags of their echoes; echo: what was last answered in them.
    """

    def __init__(self, memory: DeviceMemory, handshake: Handshake, watchdog_s: float) -> None:
        self.memory = memory
        self.running = True
        self.echo_frozen = False
        self.alive = False
        self.trips = 0
        self.stale_frames = 0
        self._watchdog_s = watchdog_s
        self._quiet_s = 0.0
        words = (handshake.heartbeat, handshake.sequence, handshake.epoch)
        self.words = tuple(word for word in words if word)
        echoes = (handshake.heartbeat_echo, handshake.sequence_echo)
        self.echo_words = tuple(word for word in echoes if word)
        self._command = memory.block(self.words)
        self.echo = [0.0] * len(self.echo_words)
        self.forget()

    def forget(self) -> None:
        """Trust nothing that is in the memory now: the heartbeat must move first."""
        self.alive = False
        self._quiet_s = 0.0
        self._heartbeat, self._sequence, *self._epoch = self._command.read()
        self._seen = self._heartbeat

    def look(self, words: Sequence[float], dt_s: float) -> bool:
        """One scan of the watchdog; `words` are the values of the tags in `words`.

        True where it finds the controller dead that was alive until now. A new epoch is a
        restarted controller: it is alive once its heartbeat moves, no sooner.
        """
        heartbeat, sequence, *epoch = words
        if epoch != self._epoch:
            self.forget()
            return False
        if heartbeat != self._heartbeat:
            if int(sequence - self._sequence) % _WORD < _OLDER_HALF:
                self.alive = True
                self._quiet_s = 0.0
                self._heartbeat = self._seen = heartbeat
                self._sequence = sequence
                return False
            self.stale_frames += heartbeat != self._seen
        self._seen = heartbeat
        self._quiet_s += dt_s
        died = self.alive and self._quiet_s > self._watchdog_s + _ROUNDING_S
        if died:
            self.alive = False
        return died

    def answer(self) -> list[float]:
        """Heartbeat and sequence of the last accepted frame, for the tags in `echo_words`."""
        if not self.echo_frozen:
            self.echo = [self._heartbeat, self._sequence][: len(self.echo_words)]
        return self.echo
