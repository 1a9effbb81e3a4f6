"""An agent: an SB3 algorithm in its environment, built from a recipe."""

import re
import warnings
from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib import ARS, MaskablePPO
from sb3_contrib.common.maskable.utils import is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her import HerReplayBuffer

from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError, nearest
from rl_lab.phases import PhaseClock
from rl_lab.rl import agent_state, environments, hyperparameters, replay_memory, seeding
from rl_lab.rl.algorithms import FAST, algorithm_class
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.seeding import stream

# NatureCNN's three convolutions need at least this many pixels a side.
SMALLEST_CNN_IMAGE = 36


def build(recipe: AgentRecipe, clock: PhaseClock | None = None) -> BaseAlgorithm:
    """Build the algorithm of a recipe in its seeded training environment.

    Args:
        recipe: the recipe.
        clock: told when time is spent in the environment.

    Raises:
        UserError: a key of the recipe is wrong, or its parts do not fit together.
    """
    arguments = hyperparameters.resolve(recipe.algorithm, recipe.budget.steps)
    seeds = stream(recipe.seed, seeding.TRAINING, recipe.env.number)
    vector = environments.make_vector(
        recipe.env, [[seed] for seed in seeds], clock, recipe.env.vectorization, recipe.health
    )
    vector.action_space.seed(recipe.seed)
    if recipe.env.normalize is not None:
        gamma = arguments.get("gamma", 0.99)
        vector = environments.normalize(vector, recipe.env.normalize, gamma)
    normalized = vector
    vector = environments.stack_and_transpose(vector, recipe.env.frame_stack)
    off_policy = issubclass(algorithm_class(recipe.algorithm.name), OffPolicyAlgorithm)
    if off_policy and recipe.env.normalize is not None and vector is not normalized:
        # SB3 stores the observations from before VecNormalize, and knows of nothing around it.
        raise UserError(
            f"env.normalize: {recipe.algorithm.name} keeps a replay buffer, which goes with "
            "normalised observations only where frames are not stacked and are no images"
        )
    seeding.seed_everything(recipe.seed)
    model = _construct(recipe, arguments, vector, recipe.algorithm.backend)
    if isinstance(model, ARS):
        _make_resumable(model, recipe.budget.steps)
    return model


def _make_resumable(model: ARS, budget: int) -> None:
    """Make ARS's schedules follow the run's budget, not what a resumed run has left of it.

    They are asked for just before it draws an update's directions: the state of torch's generator
    then is kept, for a resumed run draws them again.
    """
    update = model._update_current_progress_remaining

    def update_by_budget(num_timesteps: int, total_timesteps: int) -> None:
        update(num_timesteps, budget)
        model.random_state_before_directions = torch.get_rng_state()  # type: ignore[attr-defined]

    model._update_current_progress_remaining = update_by_budget  # type: ignore[method-assign]


def check(recipe: AgentRecipe, whole: bool) -> None:
    """Build a recipe and throw it away: what is wrong with it comes out before anything is written.

    Args:
        recipe: the recipe.
        whole: with all copies of the environment; otherwise with at most two, in this process,
            which finds the same mistakes and is quick also where a copy is a process.

    Raises:
        UserError: as `build`.
    """
    if not whole:
        few: dict[str, Any] = {"number": min(recipe.env.number, 2)}
        if recipe.env.vectorization == "subproc":
            few["vectorization"] = "dummy"
        recipe = recipe.model_copy(update={"env": recipe.env.model_copy(update=few)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SB3's remarks on few copies' batch sizes
        build(recipe).env.close()  # type: ignore[union-attr]


def load(recipe: AgentRecipe, snapshot: Snapshot) -> BaseAlgorithm:
    """Build the agent of a snapshot to act only: its buffers hold next to nothing.

    Its environment is one copy, there for its spaces and frozen statistics; to play, make another
    and give it to `evaluate.frozen_like`.
    """
    arguments = hyperparameters.resolve(recipe.algorithm, recipe.budget.steps)
    if issubclass(algorithm_class(recipe.algorithm.name), OffPolicyAlgorithm):
        arguments["buffer_size"] = 1
        for name in ("replay_buffer_kwargs", "optimize_memory_usage"):  # of a buffer never filled
            arguments.pop(name, None)
    without_hindsight = recipe.algorithm.model_copy(update={"hindsight": None})
    recipe = recipe.model_copy(update={"algorithm": without_hindsight})
    vector = environments.make_vector(recipe.env, [[]])
    if recipe.env.normalize is not None:
        vector = environments.normalize(vector, recipe.env.normalize, gamma=0.99)
    vector = environments.stack_and_transpose(vector, recipe.env.frame_stack)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SB3's remarks on one copy's batch sizes
        model = _construct(recipe, arguments, vector, backend="sb3")
    try:
        agent_state.restore_playable(model, snapshot)
    except KeyError as missing:
        raise UserError(
            f"the saved model lacks {missing}, which the run's recipe.yaml asks for"
        ) from None
    return model


def _construct(
    recipe: AgentRecipe, arguments: dict[str, Any], vector: VecEnv, backend: str
) -> BaseAlgorithm:
    name = recipe.algorithm.name
    sb3_class = algorithm_class(name)
    if backend != "sb3":
        sb3_class = FAST.get(name, sb3_class)
    if backend == "fast" and name not in FAST:
        raise UserError(
            f"algorithm.backend = 'fast': there is none for {name}, only for {', '.join(FAST)}; "
            "auto uses SB3's where there is none"
        )
    policy = policy_name(recipe, vector.observation_space)
    if "action_noise" in arguments and arguments["action_noise"] is not None:
        arguments["action_noise"] = arguments["action_noise"](vector.action_space.shape)
    if recipe.algorithm.hindsight is not None:
        arguments["replay_buffer_class"] = HerReplayBuffer
        arguments["replay_buffer_kwargs"] = {
            "n_sampled_goal": recipe.algorithm.hindsight.goals,
            "goal_selection_strategy": recipe.algorithm.hindsight.strategy,
        } | arguments.get("replay_buffer_kwargs", {})
    arguments |= replay_memory.settings(recipe, vector.observation_space)
    frequency = arguments.get("train_freq")
    if isinstance(frequency, tuple) and frequency[1] == "episode" and vector.num_envs > 1:
        raise UserError(
            "algorithm.train_freq counts episodes, which goes with env.number 1 only; "
            "give a number of steps"
        )
    if sb3_class is MaskablePPO and not is_masking_supported(vector):
        raise UserError(
            "maskable_ppo needs an environment with an action_masks method; "
            f"{recipe.env.id} has none"
        )
    try:
        model = sb3_class(
            policy, vector, device=choose_device(recipe.device, policy), verbose=0, **arguments
        )
    except MemoryError as error:
        raise UserError(
            f"{sb3_class.__name__} on {recipe.env.id} does not fit into memory ({error}); choose a "
            "smaller algorithm.buffer_size or n_steps, or env.number"
        ) from None
    except (AssertionError, ValueError, TypeError, KeyError, RuntimeError) as error:
        # Say `Discrete`, not `<class 'gymnasium.spaces.discrete.Discrete'>`, and drop the advice.
        said = re.sub(r"<class '[\w.]*?(\w+)'>,?", r"\1", " ".join(str(error).split()))
        raise UserError(
            f"{sb3_class.__name__} cannot be set up on {recipe.env.id}: {said.partition(' If ')[0]}"
        ) from error
    falls_back = getattr(model, "falls_back", None)
    if backend == "fast" and falls_back is not None:
        raise UserError(f"algorithm.backend = 'fast': not for {falls_back}; auto uses SB3's there")
    return model


def policy_name(recipe: AgentRecipe, observation_space: spaces.Space) -> str:
    """Choose SB3's policy from the observation space, unless the recipe names one.

    Raises:
        UserError: the algorithm has no such policy.
    """
    known = algorithm_class(recipe.algorithm.name).policy_aliases
    wanted = recipe.algorithm.policy
    if wanted == "auto":
        kind = "Mlp"
        if isinstance(observation_space, spaces.Dict):
            kind = "MultiInput"
        elif is_image_space(observation_space) and min(_sides(observation_space)) >= (
            SMALLEST_CNN_IMAGE
        ):
            kind = "Cnn"
        recurrent = "Lstm" if recipe.algorithm.name == "recurrent_ppo" else ""
        wanted = f"{kind}{recurrent}Policy"
    if wanted not in known:
        hint = nearest(wanted, known) or f"; it has {', '.join(known)}"
        raise UserError(
            f"algorithm.policy: {recipe.algorithm.name} has no {wanted} "
            f"(observations are {observation_space}){hint}"
        )
    return wanted


def _sides(image: spaces.Space) -> tuple[int, ...]:
    shape = image.shape or (0, 0, 0)
    return shape[1:] if shape[0] in (1, 3, 4) else shape[:-1]


def choose_device(wanted: str, policy: str) -> str:
    """Return torch's device name: small MLPs are faster on the CPU even beside a GPU.

    Raises:
        UserError: the recipe asks for a device that is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(wanted, True):  # SB3 would fall back to the CPU without a word
        raise UserError(f"device = {wanted!r}: this machine's torch has none; use auto or cpu")
    if wanted != "auto":
        return wanted
    if not policy.startswith("Cnn"):
        return "cpu"
    return next((name for name, there in available.items() if there), "cpu")


def start_new_episodes(
    model: BaseAlgorithm, recipe: AgentRecipe, step: int, rollbacks: int = 0
) -> None:
    """Seed an agent's environments and everything random anew, for a run that goes on at `step`.

    Step and rollbacks are part of the seeds: otherwise the run would meet the episodes and the
    noise of its start, or those that led astray, again.
    """
    assert model.env is not None
    part = step + rollbacks * 10**12  # no budget is larger
    *seeds, own_seed = stream(recipe.seed, seeding.TRAINING, recipe.env.number + 1, part)
    for copy, seed in enumerate(seeds):
        model.env.env_method("seed_next_reset", seed, indices=copy)
    model.action_space.seed(own_seed)
    seeding.seed_everything(own_seed)


def scale_learning_rate(model: BaseAlgorithm, factor: float) -> None:
    """Multiply the learning rate's whole schedule."""
    schedule = model.lr_schedule
    model.lr_schedule = lambda remaining: factor * schedule(remaining)
