"""In what a recipe differs from another, or from the defaults of its schema, key by key."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from rl_lab.recipes import section_of

UNIMPORTANT = ("name", "description", "source", "seed")
"""Keys that say what an experiment is called, or which of its repetitions it is."""

Flat = dict[str, Any]
"""Values by dotted key."""


def flat(recipe: Mapping[str, Any], prefix: str = "") -> Flat:
    """Lay a recipe out as dotted keys; an empty section is a value of its own."""
    found: Flat = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def defaults(schema: type[BaseModel]) -> Flat:
    """What each key of a recipe is unless it says otherwise; those that it must say are left out.

    Keys inside a section that a recipe may do without have the defaults they get with it.
    """
    return dict(_defaults(schema, ""))


def _defaults(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in schema.model_fields.items():
        section = section_of(field.annotation)
        if not field.is_required():
            default = to_jsonable_python(field.get_default(call_default_factory=True))
            yield from flat({name: default}, prefix).items()
        if section is not None:
            yield from _defaults(section, f"{prefix}{name}.")


def differences(recipe: Flat, other: Flat, known: frozenset[str] | None = None) -> list[Flat]:
    """Where a recipe says something else than another, or than the defaults.

    A key that the recipe lacks is left out: it was written by an older version of the lab, when
    there was no such choice.

    Args:
        recipe: laid out by `flat`.
        other: likewise, or of `defaults`.
        known: keys without a default; None: what `other` lacks is a difference.

    Returns:
        Objects of `key`, `value` and `other` (None where the other says nothing), by key.
    """
    return [
        {"key": key, "value": value, "other": other.get(key)}
        for key, value in sorted(recipe.items())
        if key.partition(".")[0] not in UNIMPORTANT
        and (value != other[key] if key in other else key not in (known or ()))
    ]
