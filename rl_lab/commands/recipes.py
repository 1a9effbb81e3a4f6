"""`rl-lab recipes`: the built-in experiments, what they expect and what was measured of them."""

import json as json_module
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab import recipes as recipe_files
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.text import inert_text, short

RESULTS_FILE = recipe_files.BUILT_IN / "results.json"


def recipes(
    name: str | None = None,
    /,
    *,
    keys: Annotated[bool, Parameter(negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """List the built-in recipes, or show one.

    Parameters
    ----------
    name
        A recipe to show in full, its defaults filled in.
    keys
        Explain every key a recipe may have.
    json
        Print the list as JSON.
    """
    if keys:
        for key, text in recipe_files.fields(AgentRecipe):
            Console().print(inert_text(f"{key:32} "), inert_text(text), sep="", soft_wrap=True)
        return 0
    if name is not None:
        print(recipe_files.dump(_load(name)), end="")
        return 0
    measured = measured_results()
    listed = [_row(recipe_name, measured) for recipe_name in recipe_files.built_in_names()]
    if json:
        print(json_module.dumps(listed, indent=2))
        return 0
    Console().print(_table([row for row in listed if row["env"]]))
    print("\nOn any environment, as in `rl-lab train sac --env.id Pendulum-v1`:")
    print("  " + ", ".join(row["recipe"] for row in listed if not row["env"]))
    print("`rl-lab recipes NAME` shows one, `rl-lab recipes --keys` explains the keys.")
    return 0


def _table(listed: list[dict[str, Any]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("recipe", style="bold", no_wrap=True)
    table.add_column("algorithm")
    for name in ("target", "published"):
        table.add_column(name, justify="right")
    table.add_column(Text("measured [95 %], seeds"), overflow="fold")
    for row in listed:
        table.add_row(
            row["recipe"],
            row["algorithm"],
            _given(row["target_return"]),
            _given(row["reference_return"]),
            Text(_said(row["measured"])),
        )
    return table


def _given(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"


def _load(name: str) -> AgentRecipe:
    """Load a recipe to show it; one that leaves the environment open, with a stand-in."""
    _, _, data = recipe_files.read(name)
    if data.get("env") == {}:
        print("# env.id is yours to give: --env.id ID", file=sys.stderr)
        return recipe_files.load(AgentRecipe, name, {"env": {"id": "CartPole-v1"}})
    return recipe_files.load(AgentRecipe, name)


def _row(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    _, _, data = recipe_files.read(name)
    return {
        "recipe": name,
        "description": data["description"],
        "env": data["env"].get("id"),
        "algorithm": data["algorithm"]["name"],
        "target_return": data.get("target_return"),
        "reference_return": data.get("reference_return"),
        "source": data["source"],
        "measured": measured.get(name),
    }


def measured_results() -> dict[str, Any]:
    """What `scripts/measure-recipes` measured, by recipe."""
    if not RESULTS_FILE.is_file():
        return {}
    results: dict[str, Any] = json_module.loads(RESULTS_FILE.read_text(encoding="utf-8"))["recipes"]
    return results


def _said(result: dict[str, Any] | None) -> str:
    if result is None:
        return "–"
    mean = result["mean_over_seeds"]
    low, high = short(mean["low"]), short(mean["high"])
    return f"{short(mean['mean'])} [{low}, {high}], {result['seeds_at_target']}/{mean['n']}"
