"""Writes the JSON Schemas by which editors check files, and the table of faults in docs/hil.md.

python tools/write_schema.py           write it
python tools/write_schema.py --check   exit 1 when a file is not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from controller.settings import json_schema
from hil.campaign.campaign_file import CampaignFile
from hil.faults.markdown import faults_as_markdown
from hil.scenario.file import ScenarioFile

ROOT = Path(__file__).resolve().parents[1]
CONFIG, GUIDE = ROOT / "config", ROOT / "docs" / "hil.md"
BEGIN, END = "<!-- faults: written by tools/write_schema.py -->", "<!-- end of faults -->"


def rendered() -> dict[Path, str]:
    """Every schema as it stands in its file, and the guide with its table of faults."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    shapes = {"scenario": ScenarioFile, "campaign": CampaignFile}
    schemas = {"loopwright": json_schema()} | {
        name: {"$schema": draft, **shape.model_json_schema(), "title": f"Loopwright {name}"}
        for name, shape in shapes.items()
    }
    files = {
        CONFIG / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }
    return files | {GUIDE: with_faults(GUIDE.read_text(encoding="utf-8"))}


def with_faults(guide: str) -> str:
    """The guide with the table of faults between its marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, begin, rest = guide.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{GUIDE} needs the lines {BEGIN} and {END}")
    return f"{before}{begin}\n\n{faults_as_markdown()}\n{end}{after}"


def main(arguments: list[str]) -> int:
    """Exit code: 0 written or current, 1 out of date, 2 wrong use."""
    if arguments == ["--check"]:
        old = [
            path
            for path, text in rendered().items()
            if not path.is_file() or path.read_text(encoding="utf-8") != text
        ]
        for path in old:
            print(f"{path} is out of date; run python tools/write_schema.py", file=sys.stderr)
        return 1 if old else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    for path, text in rendered().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
