"""The one check before a commit: format, lint, types, import rules, fast tests; under a minute.

python tools/check.py            everything below
python tools/check.py --fix      let ruff mend what it can first
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Format, lint, types, import rules, fast tests.")
    parser.add_argument("--fix", action="store_true", help="let ruff mend what it can first")
    parser.add_argument("--no-tests", action="store_true", help="leave the fast tests out")
    arguments = parser.parse_args()
    run = [sys.executable, "-m"]
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    linter = Path(sys.executable).with_name("lint-imports")
    steps = [
        ("format", [*run, "ruff", "format", *([] if arguments.fix else ["--check"]), "."]),
        ("lint", [*run, "ruff", "check", *(["--fix"] if arguments.fix else []), "."]),
        ("types", [*run, "pyright", "--pythonpath", sys.executable]),
        ("imports", [str(linter)]),
        ("schema", [sys.executable, "tools/write_schema.py", "--check"]),
    ]
    if not arguments.no_tests:
        steps.append(
            ("fast tests", [*run, "pytest", "-n", "2", "-m", "not slow and not peer", "tests/unit"])
        )
    failed: list[str] = []
    for name, command in steps:
        begun = time.perf_counter()
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        verdict = "ok" if done.returncode == 0 else "FAILED"
        print(f"{name:12} {verdict:7} {time.perf_counter() - begun:5.1f} s", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
