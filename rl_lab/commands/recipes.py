"""`rl-lab recipes`: the built-in experiments, what they expect and what was measured of them."""

import json as json_module
import sys
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab import recipes as recipe_files
from rl_lab.commands import kinds
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rlhf.recipe import LanguageRecipe
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
        Explain every key a recipe may have: an agent's, or one like the recipe named.
    json
        Print the list as JSON.
    """
    if keys:
        _print_keys(name)
        return 0
    if name is not None:
        print(recipe_files.dump(_load(name)), end="")
        return 0
    measured = measured_results()
    listed = [_row(recipe_name, measured) for recipe_name in recipe_files.built_in_names()]
    if json:
        print(json_module.dumps(listed, indent=2))
        return 0
    agents = [row for row in listed if row["kind"] == "agent"]
    Console().print(_table([row for row in agents if row["env"]]))
    print("\nOn any environment, as in `rl-lab train sac --env.id Pendulum-v1`:")
    print("  " + ", ".join(row["recipe"] for row in agents if not row["env"]))
    print("\nLanguage models, from data to PPO:")
    for row in listed:
        if row["kind"] == "language":
            print(f"  {row['recipe']}: {row['description']}")
    print("`rl-lab recipes NAME` shows one; with --keys, it explains the keys of such a recipe.")
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


def _print_keys(name: str | None) -> None:
    kind: type[recipe_files.Section] = AgentRecipe
    if name is not None:
        _, _, data = recipe_files.read(name)
        kind = kinds.kind_of(data).recipe
    for key, text in recipe_files.fields(kind):
        Console().print(inert_text(f"{key:32} "), inert_text(text), sep="", soft_wrap=True)


def _load(name: str) -> AgentRecipe | LanguageRecipe:
    """Load a recipe to show it; one that leaves the environment open, with a stand-in."""
    _, _, data = recipe_files.read(name)
    if data.get("env") == {}:
        print("# env.id is yours to give: --env.id ID", file=sys.stderr)
        return recipe_files.load(AgentRecipe, name, {"env": {"id": "CartPole-v1"}})
    return kinds.load(name)[1]


def _row(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    _, _, data = recipe_files.read(name)
    if kinds.kind_of(data) is kinds.LANGUAGE:
        return {"recipe": name, "kind": "language", "description": data["description"]}
    return {
        "recipe": name,
        "kind": "agent",
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
