"""Recipes: one experiment a YAML file, typed, with overrides, and errors a person can act on.

This room knows how a recipe is found, read, changed and checked, whatever it describes. What an
experiment consists of is declared by the module that runs it: `rl_lab.rl.recipe.AgentRecipe`,
`rl_lab.rlhf.recipe.LanguageRecipe`.

A recipe may come from a stranger, so YAML is read as plain data only: see `rl_lab.plain_yaml`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from rl_lab.errors import UserError, nearest
from rl_lab.files import is_file, is_there
from rl_lab.plain_yaml import DEEPEST, FLOAT, MOST_CHARACTERS, key_lines, parse_yaml

BUILT_IN = Path(__file__).parent / "recipes"


class Section(BaseModel):
    """A group of recipe keys. Unknown keys are refused; a field's docstring is its help text."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, frozen=True
    )


RecipeType = TypeVar("RecipeType", bound=Section)


# --- finding -------------------------------------------------------------------------------------


def built_in_names() -> list[str]:
    """The names of the recipes that come with the lab, sorted."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def find(name: str) -> Path:
    """Return the file of a built-in recipe, or of a YAML path.

    Raises:
        UserError: no such recipe or file.
    """
    if name in built_in_names():
        return BUILT_IN / f"{name}.yaml"
    path = Path(name)
    if is_file(path):
        return path
    if is_there(path) and path.suffix in {".yaml", ".yml"}:  # a directory, or a pipe that hangs
        raise UserError(f"recipe {name!r} is no regular file")
    if path.suffix in {".yaml", ".yml"} or "/" in name:
        raise UserError(f"recipe file {name!r} does not exist")
    hint = nearest(name, built_in_names()) or "; `rl-lab recipes` lists them"
    raise UserError(f"unknown recipe {name!r}{hint}")


# --- overriding ----------------------------------------------------------------------------------


def parse_overrides(tokens: Sequence[str]) -> dict[str, Any]:
    """Turn `["--env.id", "Pendulum-v1", "--seed=3"]` into `{"env.id": "Pendulum-v1", "seed": 3}`.

    Values are YAML: `1e-3`, `true`, `[64, 64]` and `{normal: 0.1}` mean what they mean in a recipe.

    Raises:
        UserError: a token that is no `--key`, a key without a value, or a value that is no YAML.
    """
    overrides: dict[str, Any] = {}
    remaining = list(tokens)
    while remaining:
        token = remaining.pop(0)
        if not token.startswith("--"):
            raise UserError(f"unexpected {token!r}; overrides are written --section.field value")
        key, equals, value = token.removeprefix("--").partition("=")
        if not equals:
            if not remaining or remaining[0].startswith("--"):
                raise UserError(f"--{key} needs a value{nearest(key, TRAIN_OPTIONS)}")
            value = remaining.pop(0)
        if key.count(".") >= DEEPEST:
            raise UserError(f"--{key[:40]}...: nested deeper than {DEEPEST} sections")
        overrides[key] = parse_yaml(value, f"--{key}") if value else ""
    return overrides


# Options of `rl-lab train` that somebody may misspell among the overrides.
TRAIN_OPTIONS = (
    "seeds", "jobs", "name", "resume", "dry-run", "print-recipe", "json", "quiet", "fresh",
    "trust",
)  # fmt: skip


def override(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` with the value at each dotted key replaced; `data` is not changed.

    A key inside something that is no mapping (`env.normalize.rewards` where `normalize` is null)
    starts a new mapping there.

    Raises:
        UserError: a key has too many parts.
    """
    changed = dict(data)
    for key, value in overrides.items():
        if key.count(".") >= DEEPEST:
            raise UserError(f"{key[:40]}...: nested deeper than {DEEPEST} sections")
        first, dot, rest = key.partition(".")
        if dot:
            inner = changed.get(first)
            changed[first] = override(inner if isinstance(inner, Mapping) else {}, {rest: value})
        else:
            changed[first] = value
    return changed


# --- checking ------------------------------------------------------------------------------------


def load(
    recipe_type: type[RecipeType], name: str, overrides: Mapping[str, Any] | None = None
) -> RecipeType:
    """Find a recipe, read it, lay the overrides over it and check the result.

    Args:
        recipe_type: what the recipe must be.
        name: a built-in name or a YAML path.
        overrides: values by dotted key, as `parse_overrides` gives.

    Raises:
        UserError: no such recipe, bad YAML, an unknown key, a wrong type or value.
    """
    path, text, data = read(name)
    data.setdefault("name", path.stem)
    return check(recipe_type, data, overrides or {}, path=path, lines=key_lines(text))


def read(name: str) -> tuple[Path, str, dict[str, Any]]:
    """Find a recipe and return its file, text and data, as they are written there.

    Raises:
        UserError: there is no such recipe, it cannot be read, or is no YAML mapping.
    """
    path = find(name)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)  # one too many is enough to be refused
    except OSError as error:
        raise UserError(f"cannot read recipe {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read recipe {path}: {error}") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        kind = "empty" if data is None else f"a {type(data).__name__}"
        raise UserError(f"{path}: a recipe is a mapping of sections; this is {kind}")
    return path, text, data


def check(
    recipe_type: type[RecipeType],
    data: Mapping[str, Any],
    overrides: Mapping[str, Any],
    path: Path,
    lines: Mapping[str, int],
) -> RecipeType:
    """Validate `data` with `overrides` laid over it; the first fault found becomes a UserError."""
    try:
        return recipe_type.model_validate(override(data, overrides))
    except ValidationError as error:
        faults = error.errors(include_url=False)
        message = _sentence(recipe_type, faults[0], overrides, path, lines)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise UserError(message + more) from None


def _sentence(
    recipe_type: type[Section],
    fault: ErrorDetails,
    overrides: Mapping[str, Any],
    path: Path,
    lines: Mapping[str, int],
) -> str:
    """Say one pydantic fault as a sentence with its key, its value and its place."""
    known = dict(fields(recipe_type))
    # pydantic's location may end in the name of a union's member, which is no key of the recipe.
    keys = [str(part) for part in fault["loc"]]
    while len(keys) > 1 and ".".join(keys) not in lines and ".".join(keys) not in known:
        if fault["type"] == "extra_forbidden" or fault["loc"][-1] not in ("int", "float", "str"):
            break
        keys.pop()
    key = ".".join(keys)
    given = any(key == name or key.startswith(f"{name}.") for name in overrides)
    place = "command line" if given else path.name
    if place != "command line" and key in lines:
        place += f", line {lines[key]}"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r} ({place}){_nearest_key(key, known)}"
    if fault["type"] == "missing":
        return f"{key} is required ({path.name}); give it in the recipe or as --{key} VALUE"
    reason = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if not key:  # a fault between keys, of the recipe as a whole
        return f"{path.name}: {reason}"
    if isinstance(fault["input"], dict):  # a fault between the keys of a section
        return f"{key} ({place}): {reason}"
    return f"{key} = {fault['input']!r} ({place}): {reason}"


def _nearest_key(key: str, known: Mapping[str, Any]) -> str:
    """Name the closest key: of the same last part anywhere, then among siblings, then of all."""
    parent, _, leaf = key.rpartition(".")
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    if same_leaf:
        return f"; did you mean {same_leaf[0]!r}?"
    siblings = {
        name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent
    }
    if nearest(leaf, siblings):
        return nearest(key, siblings.values())
    return nearest(key, [*known, *TRAIN_OPTIONS])


def for_run(recipe: RecipeType, seed: int) -> RecipeType:
    """The recipe of one run: with its seed, and without `sweep`, which training does not read.

    Args:
        recipe: an agent's or a language experiment's.
        seed: of the run.
    """
    return recipe.model_copy(update={"seed": seed, "sweep": None})


# --- showing -------------------------------------------------------------------------------------


def fields(recipe_type: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every key of a recipe, dotted, with the docstring it was declared with."""
    for name, field in recipe_type.model_fields.items():
        yield f"{prefix}{name}", " ".join((field.description or "").split())
        section = section_of(field.annotation)
        if section is not None:
            yield from fields(section, f"{prefix}{name}.")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section a field holds, also when it may be null (`Section | None`)."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


class _Dumper(yaml.SafeDumper):
    """Block mappings, but lists of plain values on one line: `net_arch: [64, 64]`."""


def _represent_list(dumper: _Dumper, data: list[Any]) -> yaml.Node:
    plain = not any(isinstance(item, list | dict) for item in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=plain)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_implicit_resolver(*FLOAT)  # so that the string "1e-3" is quoted


def dump(recipe: Section) -> str:
    """Return the recipe, with every default filled in, as YAML that `load` reads back equal.

    It is plain ASCII: whatever a recipe holds, printing it does nothing to a terminal.
    """
    return yaml.dump(
        recipe.model_dump(mode="json"),
        Dumper=_Dumper, sort_keys=False, width=100,
    )  # fmt: skip
