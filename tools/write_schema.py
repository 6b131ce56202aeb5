"""Writes the JSON Schemas by which editors check applications, scenarios and campaigns.

python tools/write_schema.py           write it
python tools/write_schema.py --check   exit 1 when the file is not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from controller.settings import json_schema
from hil.campaign.campaign_file import CampaignFile
from hil.scenario.file import ScenarioFile

CONFIG = Path(__file__).resolve().parents[1] / "config"


def rendered() -> dict[Path, str]:
    """Every schema as it stands in its file."""
    draft = "https://json-schema.org/draft/2020-12/schema"
    shapes = {"scenario": ScenarioFile, "campaign": CampaignFile}
    schemas = {"loopwright": json_schema()} | {
        name: {"$schema": draft, **shape.model_json_schema(), "title": f"Loopwright {name}"}
        for name, shape in shapes.items()
    }
    return {
        CONFIG / f"{name}.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


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
