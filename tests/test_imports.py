"""Imports point one way: commands -> rl | rlhf -> core, envs, reward_models."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What the files under a path must never import.
FORBIDDEN = {
    "envs": ("rl_lab", "reward_models"),
    "reward_models": ("rl_lab", "envs"),
    "rl_lab/rl": ("rl_lab.rlhf", "rl_lab.commands", "rl_lab.cli"),
    "rl_lab/rlhf": ("rl_lab.rl", "rl_lab.commands", "rl_lab.cli"),
    # Pure functions on numbers.
    "rl_lab/statistics": ("rl_lab.rl", "rl_lab.rlhf", "rl_lab.commands", "rl_lab.cli", "pandas"),
    "rl_lab/sweep": ("rl_lab.rl", "rl_lab.rlhf", "rl_lab.commands", "rl_lab.cli"),
    "rl_lab": ("rl_lab.rl", "rl_lab.rlhf", "rl_lab.commands", "rl_lab.cli"),
}


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return modules


def files_of(place: str) -> list[Path]:
    if place == "rl_lab":  # the core: its own files, without the packages inside and the entry
        return [path for path in (ROOT / place).glob("*.py") if path.name != "cli.py"]
    return sorted((ROOT / place).rglob("*.py"))


@pytest.mark.parametrize("place", FORBIDDEN)
def test_imports_point_one_way(place: str) -> None:
    files = files_of(place)
    assert files
    for path in files:
        for module in imported_modules(path):
            for forbidden in FORBIDDEN[place]:
                wrong = module == forbidden or module.startswith(f"{forbidden}.")
                assert not wrong, f"{path.relative_to(ROOT)} imports {module}"


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import rl_lab",
        "import rl_lab.cli",
        "from rl_lab.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
        "from rl_lab.cli import main\ntry:\n    main(['recipes'])\nexcept SystemExit:\n    pass",
        "import rl_lab.follow",
        "import rl_lab.rl.recipe",
    ],
)
def test_what_must_start_quickly_imports_nothing_heavy(code: str) -> None:
    loaded = modules_after(code)
    assert not loaded & {"torch", "numpy", "gymnasium", "stable_baselines3", "transformers"}


def test_help_does_not_even_import_pydantic() -> None:
    code = "from rl_lab.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    assert not modules_after(code) & {"pydantic", "yaml"}
