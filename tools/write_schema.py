"""Writes config/loopwright.schema.json, by which editors complete and check application files.

python tools/write_schema.py           write it
python tools/write_schema.py --check   exit 1 when the file is not current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from controller.settings import json_schema

SCHEMA = Path(__file__).resolve().parents[1] / "config" / "loopwright.schema.json"


def rendered() -> str:
    """The schema as it stands in the file."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Exit code: 0 written or current, 1 out of date, 2 wrong use."""
    if arguments == ["--check"]:
        current = SCHEMA.is_file() and SCHEMA.read_text(encoding="utf-8") == rendered()
        if not current:
            print(f"{SCHEMA} is out of date; run python tools/write_schema.py", file=sys.stderr)
        return 0 if current else 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    SCHEMA.write_text(rendered(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
