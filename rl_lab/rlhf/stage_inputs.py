"""What the result of a stage follows from, hashed: the same hash, the same result.

A stage's inputs are its part of the recipe, the files that part names, the seed, threads, versions
and kind of device, and the inputs of the stages it stands on.
"""

import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rl_lab.health import Health
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.stages import GOES_ON, NEEDS, VERSION

MODEL_FILES = ("config.json", "pieces.json")
"""What the directory of a model has: a transformer's, a linear one's."""

Circumstances = dict[str, Any]
"""`threads`, `device` and `versions`: what bits depend on besides recipe, files and code."""


def circumstances(recipe: LanguageRecipe, device: str) -> Circumstances:
    """Those of this process."""
    packages = ("rl-lab", "torch", "transformers")
    versions = {package: version(package) for package in packages}
    return {"threads": recipe.threads, "device": device, "versions": versions}


def hashes(recipe: LanguageRecipe, under: Circumstances) -> dict[str, str]:
    """Hash of the inputs of each stage of the recipe, made under some circumstances."""
    found: dict[str, str] = {}
    for name in recipe.stages:
        section = getattr(recipe, name)
        settings = _settings_that_count(name, section)
        own_seed = name in ("data", "judges") or getattr(section, "seed", None) is not None
        content = {
            "stage": name,
            "version": VERSION[name],
            "settings": settings,
            "files": {text: _hash_of_file(text) for text in sorted(set(_texts_in(settings)))},
            "seed": None if own_seed else recipe.seed,
            **under,
            "stands_on": {need: found[need] for need in NEEDS[name] if need in found},
        }
        if name == "data":  # the same whatever computes it
            content |= {"threads": None, "device": None, "versions": None}
        found[name] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return found


def _settings_that_count(name: str, section: Any) -> Any:
    """A stage's settings as plain data, without those that do not change what it makes."""
    settings = plain(section)
    if name in GOES_ON:
        del settings["checkpoint_every"]
    if name == "reward" and not section.linear:  # as before there were any
        del settings["linear"]
    if name == "ppo":
        settings["checkpoint_every"] = 2  # what results made before it was left out are filed under
        if section.health == Health():  # what finished with it has met no NaN
            del settings["health"]
        if section.token_bias is None:
            del settings["token_bias"]
    return settings


def plain(section: Any) -> Any:
    """A section, or a dict of sections, as plain data."""
    if isinstance(section, BaseModel):
        return section.model_dump(mode="json")
    return {name: plain(inner) for name, inner in section.items()}


def _texts_in(settings: Any) -> Iterator[str]:
    """Every text in plain settings that may be the name of a file or directory."""
    if isinstance(settings, str):
        yield settings.rpartition(".py:")[0] + ".py" if ".py:" in settings else settings
    elif isinstance(settings, dict | list):
        for inner in settings.values() if isinstance(settings, dict) else settings:
            yield from _texts_in(inner)


def _hash_of_file(text: str) -> str | None:
    """SHA-256 of the file, or of all files of the model's directory, of that name; else None."""
    path = Path(text)
    try:
        of_model = [f"{place}{file}" for place in ("", "members/*/") for file in MODEL_FILES]
        model = path.is_dir() and any(any(path.glob(pattern)) for pattern in of_model)
        files = sorted(path.rglob("*")) if model else [path]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():
                digest.update(str(file.relative_to(path) if path.is_dir() else "").encode())
                with file.open("rb") as content:
                    digest.update(hashlib.file_digest(content, "sha256").digest())
    except OSError:
        return None
    return digest.hexdigest() if any(file.is_file() for file in files) else None
