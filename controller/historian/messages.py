"""Lab results, commands and proposals as they are kept in the event log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np

from controller.errors import JournalError
from controller.signal import Command, Proposal, QualityResult, Snapshot

QUALITY_RESULT = "quality_result"
QUALITY_CORRECTION = "quality_correction"
COMMAND = "command"
PROPOSAL = "proposal"

MESSAGE_KINDS = (QUALITY_RESULT, QUALITY_CORRECTION, COMMAND, PROPOSAL)

MessageKey = tuple[str, str]
"""Kind and id of a message; a correction has the key of the result it corrects."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A better value for a lab result that is already in the log, with who and why."""

    corrects: int
    """Id of the event that held the value until now."""
    result: QualityResult
    who: str = ""
    why: str = ""


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} {value!r} cannot be kept")


# Sorted keys: the same content always gives the same bytes, so equality is that of bytes.
_encoder = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic")
_decode_result = msgspec.msgpack.Decoder(QualityResult).decode
_decode_correction = msgspec.msgpack.Decoder(Correction).decode
_decode_command = msgspec.msgpack.Decoder(Command).decode
_decode_proposal = msgspec.msgpack.Decoder(Proposal).decode
_decode_body = msgspec.msgpack.Decoder(dict[str, Any]).decode


def encode_body(
    body: Mapping[str, object] | QualityResult | Command | Proposal | Correction,
) -> bytes:
    """The msgpack bytes of an event's body. Raises JournalError for what msgpack cannot hold."""
    try:
        return _encoder.encode(body)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise JournalError(
            f"an event's body cannot be written: {error}",
            mend="Use numbers, text, lists and mappings",
        ) from error


def decode_body(body: bytes) -> dict[str, Any]:
    """An event's body as a mapping. Raises JournalError if it is not msgpack."""
    try:
        return _decode_body(body)
    except msgspec.DecodeError as error:
        raise _unreadable("an event's body", error) from error


def decode_result(kind: str, body: bytes) -> QualityResult:
    """The lab result inside a `quality_result` or a `quality_correction` event."""
    try:
        if kind == QUALITY_CORRECTION:
            return _decode_correction(body).result
        return _decode_result(body)
    except msgspec.DecodeError as error:
        raise _unreadable(kind, error) from error


def decode_command(body: bytes) -> Command:
    try:
        return _decode_command(body)
    except msgspec.DecodeError as error:
        raise _unreadable(COMMAND, error) from error


def decode_proposal(body: bytes) -> Proposal:
    try:
        return _decode_proposal(body)
    except msgspec.DecodeError as error:
        raise _unreadable(PROPOSAL, error) from error


def decode_correction(body: bytes) -> Correction:
    try:
        return _decode_correction(body)
    except msgspec.DecodeError as error:
        raise _unreadable(QUALITY_CORRECTION, error) from error


def message_keys(snapshot: Snapshot) -> tuple[MessageKey, ...]:
    """Keys of the messages that this snapshot brings into a decision."""
    if not (snapshot.quality_results or snapshot.commands or snapshot.proposals):
        return ()
    return (
        *((QUALITY_RESULT, result.result_id) for result in snapshot.quality_results),
        *((COMMAND, command.command_id) for command in snapshot.commands),
        *((PROPOSAL, proposal.proposal_id) for proposal in snapshot.proposals),
    )


def _unreadable(what: str, error: Exception) -> JournalError:
    return JournalError(
        f"{what} in the event log cannot be read ({error})",
        mend="Verify the hash chain to find where the log was changed, and restore a backup",
    )
