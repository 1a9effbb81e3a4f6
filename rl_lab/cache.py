"""Where the lab keeps what it fetched or finished once, for every experiment."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """`$RL_LAB_CACHE`, or `~/.cache/rl-lab`. It can be deleted at any time."""
    root = os.environ.get("RL_LAB_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "rl-lab"
