"""What the README says of coverage is what was measured."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_readme_has_the_tables_that_were_measured() -> None:
    printed = subprocess.run(
        [sys.executable, "scripts/coverage", "--kept"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert printed.strip() in (ROOT / "README.md").read_text(encoding="utf-8")
