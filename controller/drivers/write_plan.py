"""The one request that carries every value we write to a device, so that they arrive together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from controller.drivers.block_plan import Item, Limits, Request, address_order, check_forbidden
from controller.drivers.codec import bit_in_byte
from controller.errors import SettingsError, WriteRefused


@dataclass(frozen=True, slots=True)
class WritePlan:
    """The one request that carries all write tags of a device."""

    request: Request
    items: tuple[Item, ...]

    def encode(self, values: Mapping[str, float]) -> bytes:
        """The bytes of one frame.

        Args:
            values: engineering value of every write tag, by name.

        Raises:
            WriteRefused: a value must not leave this process, one is missing, or one is not ours.
        """
        expected, given = {item.name for item in self.items}, set(values)
        if given != expected:
            strange, missing = sorted(given - expected), sorted(expected - given)
            raise WriteRefused(
                f"not a write tag: {', '.join(strange)}"
                if strange
                else f"without a value: {', '.join(missing)}"
            )
        data = bytearray(self.request.size)
        unit, start = self.request.region.unit_bytes, self.request.start
        for item in self.items:
            item.codec.encode_into(data, (item.start - start) * unit, values[item.name])
        return bytes(data)

    def differences(self, written: bytes, read_back: bytes) -> tuple[str, ...]:
        """In words, every tag whose bytes did not come back as they were written."""
        unit, start = self.request.region.unit_bytes, self.request.start
        found: list[str] = []
        for item in self.items:
            offset = (item.start - start) * unit
            before = item.codec.decode(written, offset)
            after = item.codec.decode(read_back, offset)
            span = slice(offset, offset + item.codec.span)
            same = (
                before == after
                if item.codec.tag.type == "bool"
                else written[span] == read_back[span]
            )
            if not same:
                found.append(f"{item.name}: wrote {before}, reads back {after}")
        return tuple(found)


def plan_write(items: Iterable[Item], limits: Limits) -> WritePlan | None:
    """The single request for all write tags of a device; None when there are none.

    Setpoints, heartbeat and sequence must arrive together, and bytes that belong to somebody
    else must not be overwritten: so the tags have to lie side by side, without overlap.

    Raises:
        SettingsError: names the tags between which something is wrong.
    """
    ordered = sorted(items, key=address_order)
    if not ordered:
        return None
    region = ordered[0].region
    for item in ordered:
        _check_writable(item)
        if item.region != region:
            raise SettingsError(
                f"write tags {ordered[0].name} in {region} and {item.name} in {item.region} "
                "cannot go in one request",
                where=item.name,
                mend="Put all write tags of a device side by side in one data block or area",
            )
    _check_bits(ordered)
    for before, after in pairwise(ordered):
        _check_neighbours(before, after)
    request = Request(region, ordered[0].start, ordered[-1].stop - ordered[0].start)
    if request.count > limits.largest_write(region):
        raise SettingsError(
            f"the write tags need {request.count} addresses of {region} in one request, "
            f"the device takes {limits.largest_write(region)}",
            where=f"{ordered[0].name} to {ordered[-1].name}",
            mend="Write fewer or shorter values",
        )
    names = f"{ordered[0].name} to {ordered[-1].name}"
    check_forbidden(region, request.start, request.stop, names, limits)
    return WritePlan(request, tuple(ordered))


def _check_writable(item: Item) -> None:
    tag = item.codec.tag
    if item.region.area in ("input", "discrete", "I"):
        raise SettingsError(
            f"{item.region} cannot be written",
            where=f"{tag.name} ({tag.address})",
            mend="Use a data block, flags, holding registers or coils",
        )
    if tag.type.startswith("string"):
        raise SettingsError(
            "a text cannot be a write tag",
            where=f"{tag.name} ({tag.address})",
            mend="Write a number",
        )


def _check_bits(ordered: Sequence[Item]) -> None:
    """Refuse bools that share their byte or register with bits that nobody here owns."""
    owned: dict[int, list[Item]] = {}
    for item in ordered:
        if item.codec.tag.type == "bool" and item.region.area != "coil":
            owned.setdefault(item.start, []).append(item)
    for items in owned.values():
        whole = 8 * items[0].region.unit_bytes
        if len({item.codec.address.bit for item in items}) < whole:
            tag = items[0].codec.tag
            raise SettingsError(
                f"writing this bit would overwrite its {whole - len(items)} neighbours",
                where=f"{tag.name} ({tag.address})",
                mend=f"Use a whole {'byte or word' if whole == 8 else 'register'} for it, e.g. "
                f"{'DB20.DBW6:UINT' if whole == 8 else 'holding:103:uint16'} with the value 0 or 1",
            )


def _check_neighbours(before: Item, after: Item) -> None:
    both = (
        f"{before.name} ({before.codec.tag.address}) and {after.name} ({after.codec.tag.address})"
    )
    if after.start > before.stop:
        gap = Request(before.region, before.stop, after.start - before.stop)
        raise SettingsError(
            f"between the write tags {both} lies {gap}, which is not ours to overwrite",
            where=after.name,
            mend="Put the write tags side by side, or add write tags for what lies between",
        )
    if after.start < before.stop and not _separate_bits(before, after):
        raise SettingsError(
            f"the write tags {both} overlap",
            where=after.name,
            mend="Give each its own address",
        )


def _separate_bits(before: Item, after: Item) -> bool:
    one, other = before.codec, after.codec
    if one.tag.type != "bool" or other.tag.type != "bool":
        return False
    return (one.gather, bit_in_byte(one.address)) != (other.gather, bit_in_byte(other.address))
