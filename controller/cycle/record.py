"""What one cycle saw, thought and did, and how it is written down.

What was decided is encoded once. Those bytes are kept, their BLAKE2b digest beside them, and replay
compares them bit for bit; timing lies outside, because it is the only part that replay ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from controller.cycle.guard import Move
from controller.cycle.state import Wishes
from controller.cycle.watch import CvStatus
from controller.estimation.delayed import Fusion
from controller.mpc.problem import Plan, Target
from controller.signal import Snapshot
from plant_models.process import Vector


class Estimate(msgspec.Struct, frozen=True, eq=False):
    """What is believed of the plant now.

    Attributes:
        x: model states (nx,); disturbance: integrating disturbances (nw,).
        y: outputs (ny,), disturbances included; sigma: their standard deviations (ny,).
        innovation: measured minus predicted of this cycle's measurements, by output name.
        fusions: what each late result did.
        healthy: the numbers are finite and near enough to where plants are run.
    """

    x: Vector
    disturbance: Vector
    y: Vector
    sigma: Vector
    innovation: Mapping[str, float]
    fusions: tuple[Fusion, ...]
    healthy: bool


class Timing(msgspec.Struct, frozen=True):
    """How long the parts of the cycle took, in milliseconds; ignored by replay."""

    lateness_ms: float = 0.0
    read_ms: float = 0.0
    step_ms: float = 0.0
    write_ms: float = 0.0


UNTIMED = Timing()


class Record(msgspec.Struct, frozen=True, eq=False):
    """One cycle: decisions and their reasons.

    Attributes:
        mode, reason: application mode and why; doubts: what was wrong this cycle, in words.
        mv_status: per MV: ON, LOCAL, HIGH, LOW, TRACKING or DROPPED.
        cv_status: per CV: GOOD, PREDICTED (nothing measures it now) or DROPPED (not controlled).
        cv_value: per CV, the estimated value; readings: trusted values by tag.
        resting: wanted resting values per MV (operator or optimizer).
        setpoints: wanted values of the CVs that have one.
        wishes: everything that operator and optimizer asked for and that still holds.
        events: what happened, in words, for the operator.
    """

    cycle: int
    time_ns: int
    mode: str
    reason: str
    doubts: tuple[str, ...]
    mv_status: Mapping[str, str]
    cv_status: Mapping[str, CvStatus]
    cv_value: Mapping[str, float]
    readings: Mapping[str, float]
    resting: Mapping[str, float]
    setpoints: Mapping[str, float]
    wishes: Wishes
    estimate: Estimate | None
    target: Target | None
    plan: Plan | None
    move: Move
    events: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Of everything above; worked out anew at every call."""
        return digest(encode_decision(self))


class Entry(msgspec.Struct, frozen=True):
    """A record as it is kept.

    Attributes:
        digest: of the bytes in `decided`; snapshot_digest: of the snapshot they were decided from.
        timing: fields of `Timing`.
        decided: the encoded Record.
    """

    digest: str
    snapshot_digest: str
    timing: dict[str, float]
    decided: msgspec.Raw


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType]
    raise TypeError(f"cannot write down a {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")
_wishes_decoder = msgspec.msgpack.Decoder(Wishes)
_snapshot_decoder = msgspec.msgpack.Decoder(Snapshot)
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_decision_decoder = msgspec.msgpack.Decoder(dict[str, Any])


def digest(data: bytes) -> str:
    """BLAKE2b of encoded bytes, 128 bits in hexadecimal."""
    return blake2b(data, digest_size=16).hexdigest()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _encoder.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot written by `encode_snapshot`.

    Raises:
        msgspec.DecodeError: the bytes are not a snapshot.
    """
    return _snapshot_decoder.decode(data)


def encode_decision(record: Record) -> bytes:
    """What was decided, without its digest and timing: what replay must find again."""
    return _encoder.encode(record)


def encode_record(record: Record, snapshot_digest: str = "", timing: Timing = UNTIMED) -> bytes:
    """The record as it is kept, with the digest of the kept snapshot it was decided from."""
    decided = encode_decision(record)
    times = msgspec.structs.asdict(timing)
    return _encoder.encode(Entry(digest(decided), snapshot_digest, times, msgspec.Raw(decided)))


def decode_entry(data: bytes) -> Entry:
    """The record as it is kept, what was decided still encoded.

    Raises:
        msgspec.DecodeError: the bytes are not a record.
    """
    return _entry_decoder.decode(data)


def decode_record(data: bytes) -> dict[str, Any]:
    """The record as plain dictionaries and lists, keyed by field name; besides the fields of
    Record there are `digest`, `snapshot_digest` and `timing`.

    Raises:
        msgspec.DecodeError: the bytes are not a record.
    """
    entry = decode_entry(data)
    return _decision_decoder.decode(entry.decided) | {
        "digest": entry.digest,
        "snapshot_digest": entry.snapshot_digest,
        "timing": entry.timing,
    }


def encode_wishes(wishes: Wishes) -> bytes:
    return _encoder.encode(wishes)


def decode_wishes(data: bytes) -> Wishes:
    """The wishes written by `encode_wishes`; none where nothing was written.

    Raises:
        msgspec.DecodeError: the bytes are no wishes.
    """
    return _wishes_decoder.decode(data) if data else Wishes()


def last_wishes(record: bytes) -> Wishes:
    """The wishes that held when a record was written: they outlive the process."""
    return msgspec.convert(decode_record(record)["wishes"], Wishes)


def differences(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields in which two decoded records differ, timing and digests left out."""
    ignored = {"timing", "digest"}
    return tuple(
        name
        for name in recorded
        if name not in ignored and not _same(recorded[name], replayed.get(name))
    )


def _same(a: object, b: object) -> bool:
    # By their encoding, so that NaN equals NaN.
    return _encoder.encode(a) == _encoder.encode(b)
