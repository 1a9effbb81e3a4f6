"""An agent of the lab as Stable-Baselines3's `save` writes it."""

import inspect
import io
import pickle
from pathlib import Path
from typing import Any

from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.files import write_atomically
from rl_lab.rl import agent
from rl_lab.rl.recipe import AgentRecipe


def export_zip(recipe: AgentRecipe, snapshot: Snapshot, file: Path) -> list[Path]:
    """Write an agent as SB3 does: weights, hyperparameters, spaces; no replay buffer.

    A schedule becomes the value it starts with: as a function it would need the lab to be read.

    Args:
        recipe: the run's.
        snapshot: of its agent.
        file: ends in `.zip`; neither it nor `<its stem>-vecnormalize.pkl` may exist.

    Returns:
        What was written: the zip and, where observations are normalised, VecNormalize's pickle.

    Raises:
        UserError: a file exists, or the snapshot does not fit the recipe.
        StorageError: a file cannot be written.
    """
    constant = {
        name: value["start"]
        for name, value in recipe.algorithm.hyperparameters.items()
        if isinstance(value, dict) and "schedule" in value
    }
    algorithm = recipe.algorithm.model_copy(update=constant)
    model: Any = agent.load(recipe.model_copy(update={"algorithm": algorithm}), snapshot)
    model.num_timesteps = snapshot.step
    if hasattr(model, "buffer_size"):  # `agent.load` made do with 1, which SB3 would learn on with
        default = inspect.signature(type(model)).parameters["buffer_size"].default
        model.buffer_size = algorithm.hyperparameters.get("buffer_size", default)
    normalizer = model.get_vec_normalize_env()
    files = [file]
    if normalizer is not None and normalizer.norm_obs:
        files.append(file.with_name(f"{file.stem}-vecnormalize.pkl"))
    for path in files:
        if path.exists():
            raise UserError(f"{path} exists; nothing was written")
    content = io.BytesIO()
    model.save(content)
    write_atomically(file, content.getvalue())
    if len(files) > 1:
        write_atomically(files[1], pickle.dumps(normalizer.as_sb3s()))
    return files
