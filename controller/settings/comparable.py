"""Whether one application can decide the cycles that were journalled with another one."""

from __future__ import annotations

from controller.errors import SettingsError
from controller.settings.application import Settings
from controller.signal import Tag


def check_comparable(kept: Settings, other: Settings) -> None:
    """Whether the snapshots of one application can be decided by the other one.

    Weights, limits, horizon, model, estimator and CVs may differ. The cycle, the MVs and what is
    read for them may not.

    Raises:
        SettingsError: they differ in that; every difference is listed.
    """
    problems: list[SettingsError] = []

    def differ(what: str, path: str) -> None:
        mend = "A what-if needs the same MVs, tags and cycle; run the scenario with this file"
        problems.append(SettingsError(what, where=other.where(path), mend=mend))

    if kept.cycle_s != other.cycle_s:
        differ(f"a cycle of {other.cycle_s:g} s; the journal has {kept.cycle_s:g} s", "cycle")
    before = {mv.name: mv for mv in kept.manipulated}
    named = {mv.name for mv in other.manipulated}
    for name in before:
        if name not in named:
            differ(f"the journal has an MV {name}, this file has none", "manipulated")
    for number, mv in enumerate(other.manipulated):
        path = f"manipulated[{number}]"
        if mv.name not in before:
            differ(f"the journal has no MV {mv.name}", path)
            continue
        ours, theirs = kept.tags[before[mv.name].setpoint], other.tags[mv.setpoint]
        if (ours.unit, ours.device) != (theirs.unit, theirs.device):
            differ(
                f"{mv.name} is set in {theirs.unit} on {theirs.device}, in the journal in "
                f"{ours.unit} on {ours.device}",
                path,
            )
    for name, tag in other.tags.items():
        if tag.access == "read":
            why = _unlike(kept.tags.get(name), tag)
            if why:
                differ(f"tag {name} {why}", f"tags.{name}")
    for name, device in other.devices.items():
        if name not in kept.devices:
            differ(f"the journal has no device {name}", f"devices.{name}")
        elif device.handshake != kept.devices[name].handshake:
            differ(f"device {name} has another handshake in the journal", f"devices.{name}")
    if problems:
        raise SettingsError(
            problems[0].what,
            where=problems[0].where,
            mend=problems[0].mend,
            problems=tuple(problems),
        )


def _unlike(kept: Tag | None, tag: Tag) -> str:
    """Why the kept samples of a tag do not tell what this one would read; empty: they do."""
    if kept is None or kept.access != "read":
        return "is not read in the journal"
    for field_name in ("unit", "scale", "offset"):
        ours, theirs = getattr(kept, field_name), getattr(tag, field_name)
        if ours != theirs:
            return f"has {field_name} {theirs}, in the journal {ours}"
    return ""
