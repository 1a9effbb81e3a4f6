"""Suites: lists of recipes to be trained on several seeds each, with what was published of them."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from rl_lab import recipes
from rl_lab.errors import UserError, nearest
from rl_lab.files import is_file
from rl_lab.plain_yaml import key_lines
from rl_lab.recipe_types import Name, Positive
from rl_lab.recipes import Section

BUILT_IN = Path(__file__).parent / "suites"


class Reference(Section):
    """A published result."""

    value: float
    """Mean over runs of the score that counts: an agent's return, a language model's gold gain."""
    runs: Positive | None = None
    """How many runs it rests on; null: not said."""
    spread: Annotated[float, Field(ge=0)] | None = None
    """Standard deviation over runs; null: not said, or of one run."""
    comparable: bool = True
    """Whether algorithm, environment and budget are the entry's; false: beside it, not against."""
    source: str
    """Where it stands."""


class Entry(Section):
    """One row of a suite: a recipe, and what is known about its task."""

    recipe: str
    """A built-in recipe or a YAML file."""
    name: Name | None = None
    """Its runs are called <name>-seed<k>; null: after the recipe."""
    overrides: dict[str, Any] = {}
    """Recipe keys to change, by dotted key."""
    random: float | None = None
    """Score of random actions: 0 in normalised scores, which aggregates over tasks are of."""
    perfect: float | None = None
    """Score that is 1 in normalised scores; null: that of the first reference."""
    references: list[Reference] = []
    """Published results, the one to be met first."""

    @property
    def label(self) -> str:
        """What its runs are called after."""
        return self.name or Path(self.recipe).stem

    @property
    def against(self) -> Reference | None:
        """What it is held against: the first comparable reference, else the first, if any."""
        comparable = [one for one in self.references if one.comparable]
        return next(iter(comparable or self.references), None)

    @property
    def top(self) -> float | None:
        """The score that is 1 in normalised scores."""
        if self.perfect is None and self.references:
            return self.references[0].value
        return self.perfect


class Suite(Section):
    """Recipes x seeds."""

    name: Name
    """Its directory is called after it."""
    description: str = ""
    """One line for the report."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 10
    """Seeds of each entry, from 0 on."""
    episodes: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Fresh episodes that each finished agent is judged on."""
    entries: Annotated[list[Entry], Field(min_length=1)]
    """What is run."""

    @model_validator(mode="after")
    def _labels_differ(self) -> "Suite":
        labels = [entry.label for entry in self.entries]
        twice = {label for label in labels if labels.count(label) > 1}
        if twice:
            raise ValueError(f"two entries are called {min(twice)!r}; give one a name of its own")
        return self


def built_in_names() -> list[str]:
    """The names of the suites that come with the lab, sorted."""
    return sorted(path.stem for path in BUILT_IN.glob("*.yaml"))


def load(name: str) -> Suite:
    """Find, read and check a suite.

    Args:
        name: a built-in name, a YAML file, or a directory that a benchmark wrote.

    Raises:
        UserError: there is none, or it is not sound.
    """
    path = BUILT_IN / f"{name}.yaml" if name in built_in_names() else Path(name)
    if is_file(path / "suite.yaml"):
        path /= "suite.yaml"
    if not is_file(path):
        hint = nearest(name, built_in_names()) or f"; there are {', '.join(built_in_names())}"
        raise UserError(f"unknown suite {name!r}{hint}")
    _, text, data = recipes.read(str(path))
    data.setdefault("name", path.stem)
    return recipes.check(Suite, data, {}, path=path, lines=key_lines(text))
