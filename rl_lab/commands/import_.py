"""`rl-lab import`: an agent saved by Stable-Baselines3 as a run of the lab."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from rl_lab import recipes, threads
from rl_lab.commands import kinds
from rl_lab.errors import UserError
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import check_name, fresh_names


def import_(
    file: Path,
    /,
    *overrides: Annotated[str, Parameter(allow_leading_hyphen=True)],
    recipe: str,
    name: str | None = None,
    normalization: Path | None = None,
    trust: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Make a run of an agent that Stable-Baselines3 saved, to evaluate, play and report.

    Weights are read, and nothing stored in the file is run. What weights do not tell comes from the
    recipe, which must describe the same environment and network (activation functions too).

    Parameters
    ----------
    file
        The zip file.
    overrides
        Recipe keys to change, as --section.field VALUE.
    recipe
        A built-in recipe (`rl-lab recipes` lists them) or a YAML file.
    name
        Name of the run directory.
    normalization
        What VecNormalize.save wrote, where the recipe normalises observations: a pickle.
    trust
        Unpickle what only can be read so, and thereby run the code that is stored in it.
    """
    if name is not None:
        check_name(name)
    _, resolved = kinds.load(recipe, recipes.parse_overrides(overrides))
    if not isinstance(resolved, AgentRecipe):
        raise UserError(f"recipe {recipe!r} trains a language model; import takes an agent's")
    threads.pin(resolved.threads)
    from rl_lab.rl.import_zip import import_zip

    name = name or fresh_names(resolved.name, [resolved.seed])[0]
    run = import_zip(file, resolved, name, sys.argv, normalization, trust)
    print(f"imported: {run.name} · step {run.status['step']:,}")
    print(f"  judge: rl-lab evaluate {run.name}")
    return 0
