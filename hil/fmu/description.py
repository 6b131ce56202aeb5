"""Reads from modelDescription.xml what must be known before an FMU may be loaded at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from controller.errors import ScenarioError

DEPTH_MAX = 32
"""The FMI schemas nest less than ten deep."""

# The name becomes a file name and a symbol's prefix: FMI wants a C identifier.
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")


@dataclass(frozen=True, slots=True)
class Description:
    """FMI major version, model name, and the name of the co-simulation library."""

    fmi: Literal[2, 3]
    name: str
    identifier: str


class _StrictBuilder(ElementTree.TreeBuilder):
    """Builds the tree, and stops at what no model description has."""

    depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        """Entities, and with them files and web pages to be read, come only by a DOCTYPE."""
        del name, pubid, system
        raise ScenarioError(
            "the FMU is refused: modelDescription.xml has a DOCTYPE, which can hide entity bombs "
            "and foreign files",
            mend="Remove it: FMI describes models by a schema",
        )

    def start(self, tag: str, attrs: dict[str, str], /) -> ElementTree.Element:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ScenarioError(
                f"the FMU is refused: modelDescription.xml nests more than {DEPTH_MAX} deep",
                mend="Export it again",
            )
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ElementTree.Element:
        self.depth -= 1
        return super().end(tag)


def read_description(xml: bytes) -> Description:
    """What modelDescription.xml says of version and kind.

    Raises:
        ScenarioError: not well-formed, dangerous, not FMI 2 or 3, or not for co-simulation.
    """
    try:
        parser = ElementTree.XMLParser(target=_StrictBuilder())
        parser.feed(xml)
        root: ElementTree.Element = parser.close()
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise ScenarioError(
            f"modelDescription.xml is malformed: {error}", mend="Export the FMU again"
        ) from error
    version = root.get("fmiVersion", "")
    if root.tag != "fmiModelDescription" or not re.fullmatch(r"2\.0|3\.0(\.\d+)?", version):
        raise ScenarioError(
            f"modelDescription.xml describes no FMI 2 or FMI 3 model (fmiVersion {version!r})",
            mend="Export it as FMI 2.0 or FMI 3.0 for co-simulation",
        )
    section = root.find("CoSimulation")
    if section is None:
        others = ("ModelExchange", "ScheduledExecution")
        kinds = [kind for kind in others if root.find(kind) is not None]
        raise ScenarioError(
            f"the FMU is not for co-simulation (it offers {', '.join(kinds) or 'nothing'})",
            mend="Export it for co-simulation, so that it brings its own solver",
        )
    identifier = section.get("modelIdentifier", "")
    if not _IDENTIFIER.fullmatch(identifier):
        raise ScenarioError(
            f"the FMU is refused: the model identifier {identifier!r} is no C identifier",
            mend="Export it again",
        )
    if not root.get("guid" if version.startswith("2") else "instantiationToken"):
        raise ScenarioError(
            "the FMU has no GUID (FMI 2) or instantiation token (FMI 3)", mend="Export it again"
        )
    return Description(
        2 if version.startswith("2") else 3, root.get("modelName") or identifier, identifier
    )
