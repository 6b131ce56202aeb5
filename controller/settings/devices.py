"""Devices and tags: from their sections to `Device` and `Tag`, with the checks between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from controller.settings import quantity
from controller.settings.application import (
    Device,
    Handshake,
    ModbusRtuDevice,
    ModbusTcpDevice,
    S7Device,
)
from controller.settings.context import Context
from controller.settings.quantity import QuantityError
from controller.settings.schema import (
    HandshakeSection,
    ModbusSection,
    S7Section,
    TagSection,
)
from controller.settings.yaml_core import KeyPath
from controller.signal import Tag


def resolve_devices(context: Context, cycle_s: float) -> dict[str, Device]:
    """Every device; all of them must be able to answer within one cycle."""
    devices: dict[str, Device] = {}
    total_s = 0.0
    for name, section in context.raw.devices.items():
        path: KeyPath = ("devices", name)
        timeout_s = context.seconds((*path, "timeout"), section.timeout)
        if total_s <= cycle_s < total_s + timeout_s:
            context.add(
                (*path, "timeout"),
                f"the time-outs of all devices add up to more than the cycle of {cycle_s:g} s",
                "Shorten the time-outs, or lengthen cycle",
            )
        total_s += timeout_s
        handshake = _handshake(context, path, section.handshake)
        if isinstance(section, S7Section):
            devices[name] = S7Device(
                name,
                _line(context, (*path, "host"), section.host),
                section.port,
                section.rack,
                section.slot,
                timeout_s,
                section.connection_type,
                handshake,
            )
            continue
        forbidden = tuple(
            _forbidden(context, (*path, "forbidden", i), f) for i, f in enumerate(section.forbidden)
        )
        if isinstance(section, ModbusSection):
            devices[name] = ModbusTcpDevice(
                name,
                _line(context, (*path, "host"), section.host),
                section.port,
                section.unit,
                timeout_s,
                section.max_gap,
                forbidden,
                handshake,
            )
        else:
            devices[name] = ModbusRtuDevice(
                name,
                _line(context, (*path, "port"), section.port),
                section.baudrate,
                section.parity,
                section.unit,
                timeout_s,
                section.max_gap,
                forbidden,
                handshake,
            )
    return devices


def _line(context: Context, path: KeyPath, text: str) -> str:
    """A host name or the path of a serial line, without blanks."""
    if not text.strip() or any(c.isspace() for c in text.strip()):
        context.add(path, f"found {text!r}, expected one name", "Write it without blanks")
    return text.strip()


def _forbidden(context: Context, path: KeyPath, pair: Sequence[int]) -> tuple[int, int]:
    first, last = pair
    if first > last:
        context.add(path, f"first {first} is above last {last}", "Write [first, last]")
    return first, last


def _handshake(
    context: Context, path: KeyPath, section: HandshakeSection | None
) -> Handshake | None:
    if section is None:
        return None
    for role in ("heartbeat", "sequence", "epoch", "heartbeat_echo", "sequence_echo"):
        name: str | None = getattr(section, role)
        if name is None:
            continue
        place = (*path, "handshake", role)
        context.tag(place, name, "read" if role.endswith("_echo") else "write")
        tag = context.raw.tags.get(name)
        if tag is not None and tag.device != path[1]:
            context.add(
                place,
                f"tag {name} is on device {tag.device}, but this handshake is with {path[1]}",
                f"Name a tag on {path[1]}",
            )
    return Handshake(
        section.heartbeat,
        section.sequence,
        section.heartbeat_echo,
        section.epoch,
        section.sequence_echo,
    )


def resolve_tags(context: Context) -> None:
    """Fills `context.tags`, each tag in its own unit and without its type."""
    write_addresses: dict[str, KeyPath] = {}
    for name, section in context.raw.tags.items():
        path: KeyPath = ("tags", name)
        if context.known((*path, "device"), "device", section.device, context.raw.devices):
            is_s7 = isinstance(context.raw.devices[section.device], S7Section)
            if is_s7 and section.byte_order != "ABCD":
                context.add(
                    (*path, "byte_order"),
                    f"found {section.byte_order}, but S7 is always ABCD",
                    "Remove byte_order",
                )
        if section.access == "write":
            address = f"{section.device} {''.join(section.address.split()).casefold()}"
            if address in write_addresses:
                context.add(
                    (*path, "address"),
                    f"{section.address} on {section.device} is written by tag "
                    f"{write_addresses[address][1]} already",
                    "Give each written tag its own address",
                )
            write_addresses.setdefault(address, path)
        if section.scale == 0:
            context.add((*path, "scale"), "found 0, expected a factor", "Write 1 for none")
        context.tags[name] = _tag(context, path, section)


def _tag(context: Context, path: KeyPath, section: TagSection) -> Tag:
    unit = section.unit
    try:
        quantity.check_unit(unit)
    except QuantityError as error:
        context.add((*path, "unit"), error.what, error.mend)
        # Not a second problem for every number of this tag.
        section = section.model_copy(
            update={"range": None, "rate_max": None, "write_tolerance": 0.0}
        )
    low, high = float("-inf"), float("inf")
    if section.range is not None:
        low, high = context.pair((*path, "range"), section.range, unit)
    rate = 0.0
    if section.rate_max is not None:
        rate = context.positive((*path, "rate_max"), section.rate_max, unit, per="s")
    return Tag(
        name=str(path[1]),
        device=section.device,
        address=section.address,
        type="",
        byte_order=section.byte_order,
        scale=float(section.scale),
        offset=float(section.offset),
        unit=unit,
        low=low,
        high=high,
        rate_max_per_s=rate,
        stale_after_s=context.seconds((*path, "stale_after"), section.stale_after, zero=True),
        frozen_after_s=context.seconds((*path, "frozen_after"), section.frozen_after, zero=True),
        access=section.access,
        write_tolerance=context.positive(
            (*path, "write_tolerance"), section.write_tolerance, unit, zero=True
        ),
    )


def in_unit(tag: Tag, unit: str) -> Tag:
    """The same tag with its engineering value in another unit of the same dimension.

    Unchanged, to the last bit, where the units agree.
    """
    a, b = quantity.affine(tag.unit, unit)
    if (a, b) == (1.0, 0.0):
        return replace(tag, unit=unit)
    return replace(
        tag,
        scale=a * tag.scale,
        offset=a * tag.offset + b,
        unit=unit,
        low=a * tag.low + b,
        high=a * tag.high + b,
        rate_max_per_s=a * tag.rate_max_per_s,
        write_tolerance=a * tag.write_tolerance,
    )
