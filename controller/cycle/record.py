"""What one cycle saw, thought and did, and how it is written down.

A record is compared by its digest: BLAKE2b over everything but the timing, which is the only part
that replay ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np

from controller.cycle.guard import Move
from controller.cycle.state import Wishes
from controller.estimation.delayed import Fusion
from controller.mpc.problem import Plan, Target
from controller.signal import Snapshot
from plant_models.process import Vector


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What is believed of the plant now.

    Attributes:
        x: model states (nx,); disturbance: integrating disturbances (nw,).
        y: outputs (ny,), disturbances included; sigma: their standard deviations (ny,).
        innovation: measured minus predicted of this cycle's measurements, by output name.
        fusions: what each late result did.
        healthy: the numbers are finite.
    """

    x: Vector
    disturbance: Vector
    y: Vector
    sigma: Vector
    innovation: Mapping[str, float]
    fusions: tuple[Fusion, ...]
    healthy: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the parts of the cycle took, in milliseconds; ignored by replay."""

    lateness_ms: float = 0.0
    read_ms: float = 0.0
    step_ms: float = 0.0
    write_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One cycle: inputs by digest, decisions and their reasons.

    Attributes:
        snapshot_digest: of the snapshot it was decided from.
        mode, reason: application mode and why; doubts: what was wrong this cycle, in words.
        mv_status: per MV: ON, LOCAL, HIGH, LOW, TRACKING or DROPPED.
        cv_value: per CV, the estimated value; readings: trusted values by tag.
        resting: wanted resting values per MV (operator or optimizer).
        setpoints: wanted values of the CVs that have one.
        wishes: everything that operator and optimizer asked for and that still holds.
        events: what happened, in words, for the operator.
    """

    cycle: int
    time_ns: int
    snapshot_digest: str
    mode: str
    reason: str
    doubts: tuple[str, ...]
    mv_status: Mapping[str, str]
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
    digest: str = ""
    timing: Timing = field(default_factory=Timing)


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


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _encoder.encode(snapshot)


def decode_snapshot(data: bytes) -> Snapshot:
    """The snapshot written by `encode_snapshot`.

    Raises:
        msgspec.DecodeError: the bytes are not a snapshot.
    """
    return _snapshot_decoder.decode(data)


def digest_snapshot(snapshot: Snapshot) -> str:
    return _digest(encode_snapshot(snapshot))


def seal(record: Record) -> Record:
    """The record with its digest, which leaves out the timing."""
    bare = replace(record, digest="", timing=Timing())
    return replace(record, digest=_digest(_encoder.encode(bare)))


def encode_record(record: Record) -> bytes:
    return _encoder.encode(record)


def decode_record(data: bytes) -> dict[str, Any]:
    """The record as plain dictionaries and lists, keyed by field name.

    Raises:
        msgspec.DecodeError: the bytes are not a record.
    """
    return msgspec.msgpack.decode(data, type=dict[str, Any])


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
