"""The moment between an update and the next rollout: what SB3's own `save` and `load` forget.

Beside weights, optimisers, counters and buffers (`agent_state`), a run that is to go on to the same
bits needs the last observations, the environments in the middle of their episodes, the states of
recurrent policies and of noise, and every generator of random numbers. The generators come last,
and at the very point of the programme where they were read: SB3 draws from them (for
state-dependent exploration, or ARS's directions) between `learn` and the first rollout's start.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from sb3_contrib import ARS, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack

from rl_lab.checkpoint import Snapshot
from rl_lab.rl.episodes import UnfinishedEpisode
from rl_lab.rl.supervision import Supervised
from rl_lab.rl.vector_adapter import VectorAdapter
from rl_lab.rl.watched_vec_env import watched

LAST = ("_last_obs", "_last_original_obs", "_last_episode_starts")
"""What SB3 keeps of the step before a rollout; arrays, or dicts of arrays."""
OTHERWISE = "its copies were vectorised otherwise"


def add_to(snapshot: Snapshot, model: BaseAlgorithm) -> None:
    """Add to a snapshot all that this moment consists of; `model` must be learning."""
    arrays: dict[str, np.ndarray] = {}
    tensors: dict[str, torch.Tensor] = {}
    for name in LAST:
        for key, array in _parts(getattr(model, name, None)):
            arrays[f"{name}{key}"] = array
    for name, array in _of_vector(model):
        arrays[name] = array
    for name, tensor in _of_policy(model):
        tensors[name] = tensor
    for number, noise in enumerate(_walking_noise(model)):
        arrays[f"noise/{number}"] = noise.noise_prev
    assert model.env is not None
    copies = model.env.unwrapped
    if not isinstance(copies, VectorAdapter):
        snapshot.state["episodes"] = _episodes_into(arrays, model)
    elif copies.resumable:  # what they remember is among the vector's arrays
        snapshot.state["copies"] = copies.random_state
    if model.env.env_is_wrapped(Supervised)[0]:
        snapshot.state["failures"] = model.env.get_attr("failures")

    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    arrays["random/numpy"] = np.asarray(keys)
    tensors["random/torch"] = torch.get_rng_state()
    if isinstance(model, ARS):
        before = model.random_state_before_directions  # type: ignore[attr-defined]
        tensors["random/torch_before_directions"] = before
    if model.device.type == "cuda":
        for number, state in enumerate(torch.cuda.get_rng_state_all()):
            tensors[f"random/cuda/{number}"] = state
    snapshot.state["random"] = {
        "python": [version, list(words), gauss],
        "numpy": [position, has_gauss, cached],
        "action_space": dict(model.action_space.np_random.bit_generator.state),
    }
    logger = model.logger
    snapshot.state["logged"] = {
        name: [float(value), logger.name_to_count[name]]
        for name, value in logger.name_to_value.items()
        if isinstance(value, int | float | np.number)
    }
    snapshot.arrays["moment"], snapshot.tensors["moment"] = arrays, tensors


def play_episodes_again(model: BaseAlgorithm, snapshot: Snapshot) -> str | None:
    """Bring every copy of the environment to where it was; before `learn`.

    Returns:
        None, or why it could not be done, with nothing of the moment put into the model.
    """
    if "moment" not in snapshot.arrays:
        return "its checkpoint is of an earlier version, which did not keep what is needed"
    vector, arrays = model.env, snapshot.arrays["moment"]
    assert vector is not None
    copies = vector.unwrapped
    if isinstance(copies, VectorAdapter):
        differs = _cannot_be_put_back(copies, snapshot)
    else:
        differs = _play_again(vector, snapshot)
    if differs is not None:
        return differs
    for name in LAST:
        value = _together({key: arrays[key] for key in arrays if key.partition("/")[0] == name})
        if value is not None:
            setattr(model, name, value)
    for name, array in _of_vector(model):
        array[...] = arrays[name]
    if isinstance(copies, VectorAdapter):
        copies.random_state = snapshot.state["copies"]
    watched(model).resume(vector.env_method("last_observation"))
    if vector.env_is_wrapped(Supervised)[0]:
        for copy, failures in enumerate(snapshot.state["failures"]):
            vector.env_method("count_failures", failures, indices=copy)
    if isinstance(model, ARS):
        torch.set_rng_state(snapshot.tensors["moment"]["random/torch_before_directions"])
    return None


def put_back(model: BaseAlgorithm, snapshot: Snapshot) -> None:
    """Put back what the way from `learn` to the first rollout's start has changed; random last."""
    arrays, tensors = snapshot.arrays["moment"], snapshot.tensors["moment"]
    if isinstance(model, RecurrentPPO):
        states: Any = RNNStates(*_pairs(tensors, model.device))
        model._last_lstm_states = states
    for number, distribution in enumerate(_exploration(model)):
        for name in ("exploration_mat", "exploration_matrices"):
            setattr(distribution, name, tensors[f"{name}/{number}"].to(model.device))
    for number, noise in enumerate(_walking_noise(model)):
        noise.noise_prev = arrays[f"noise/{number}"]
    if isinstance(model, ARS):  # which has just emptied it
        recent: Any = list(snapshot.state["recent_episodes"]["episodes"])
        model.ep_info_buffer = recent
    for name, (value, count) in snapshot.state["logged"].items():
        model.logger.name_to_value[name] = value
        model.logger.name_to_count[name] = count
        model.logger.name_to_excluded[name] = ()

    state = snapshot.state["random"]
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(("MT19937", arrays["random/numpy"], *state["numpy"]))
    torch.set_rng_state(tensors["random/torch"])
    if model.device.type == "cuda":
        torch.cuda.set_rng_state_all(
            [tensors[f"random/cuda/{number}"] for number in range(torch.cuda.device_count())]
        )
    model.action_space.np_random.bit_generator.state = state["action_space"]


# --- episodes ------------------------------------------------------------------------------------


def _episodes_into(arrays: dict[str, np.ndarray], model: BaseAlgorithm) -> list[dict | None]:
    """Put the actions and rewards of every copy's episode into `arrays`; return what is left."""
    assert model.env is not None
    plain: list[dict | None] = []
    for copy, episode in enumerate(model.env.env_method("unfinished_episode")):
        if episode is None:
            plain.append(None)
            continue
        fields = asdict(episode)
        for name in ("actions", "rewards"):
            arrays[f"episode/{copy}/{name}"] = fields.pop(name)
        plain.append(fields)
    return plain


def _play_again(vector: VecEnv, snapshot: Snapshot) -> str | None:
    """Play the episode of every copy again; return why it could not be done."""
    if "episodes" not in snapshot.state:
        return OTHERWISE
    episodes = list(_episodes_of(snapshot))
    if len(episodes) != vector.num_envs:
        return "the number of its copies has changed"
    for copy, episode in enumerate(episodes):
        if episode is None:
            return f"the episode of copy {copy} was too long, or its simulator outlives episodes"
        try:
            (same,) = vector.env_method("play_again", episode, indices=copy)
        except Exception as error:
            return f"copy {copy} raised {type(error).__name__} on the way: {error}"
        if not same:
            return f"copy {copy} does not come to the same from the same start and actions"
    return None


def _cannot_be_put_back(copies: VectorAdapter, snapshot: Snapshot) -> str | None:
    """Return why the copies of a vector environment cannot be put to where they were."""
    if not copies.resumable:
        return "where its copies are cannot be read or written"
    if "copies" not in snapshot.state:
        return OTHERWISE
    arrays = snapshot.arrays["moment"]
    for name, array in _of_copies(copies):
        if name not in arrays or arrays[name].shape != array.shape:
            return "the number of its copies, or what they are, has changed"
    return None


def _episodes_of(snapshot: Snapshot) -> Iterator[UnfinishedEpisode | None]:
    arrays = snapshot.arrays["moment"]
    for copy, fields in enumerate(snapshot.state["episodes"]):
        if fields is None:
            yield None
        else:
            actions, rewards = (arrays[f"episode/{copy}/{name}"] for name in ("actions", "rewards"))
            yield UnfinishedEpisode(actions=actions, rewards=rewards, **fields)


# --- what else has a state -----------------------------------------------------------------------


def _parts(value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """An array, or the arrays of a dict as `/key`; nothing for None."""
    if isinstance(value, dict):
        yield from ((f"/{key}", np.asarray(part)) for key, part in value.items())
    elif value is not None:
        yield "", np.asarray(value)


def _together(parts: dict[str, np.ndarray]) -> Any:
    """What `_parts` took apart."""
    if not parts:
        return None
    if all("/" in name for name in parts):
        return {name.partition("/")[2]: array for name, array in parts.items()}
    return next(iter(parts.values()))


def _of_vector(model: BaseAlgorithm) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays that vector environments keep from step to step, to be written in place."""
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        yield "normalizer/returns", normalizer.returns
    vector: VecEnv | None = model.env
    while isinstance(vector, VecEnvWrapper):
        if isinstance(vector, VecFrameStack):
            stacked = vector.stacked_obs
            parts = getattr(stacked, "sub_stacked_observations", None) or {"": stacked}
            for key, part in parts.items():
                yield f"frames/{key}", part.stacked_obs
        vector = vector.venv
    if isinstance(vector, VectorAdapter) and vector.resumable:
        yield from _of_copies(vector)


def _of_copies(copies: VectorAdapter) -> Iterator[tuple[str, np.ndarray]]:
    yield from ((f"copies/{name}", array) for name, array in copies.memory().items())


def _of_policy(model: BaseAlgorithm) -> Iterator[tuple[str, torch.Tensor]]:
    """States of a recurrent policy, and the matrices of state-dependent exploration."""
    if isinstance(model, RecurrentPPO):
        states: Any = model._last_lstm_states
        for part, pair in zip(RNNStates._fields, states, strict=True):
            for number, tensor in enumerate(pair):
                yield f"lstm/{part}/{number}", tensor
    for number, distribution in enumerate(_exploration(model)):
        yield f"exploration_mat/{number}", distribution.exploration_mat
        yield f"exploration_matrices/{number}", distribution.exploration_matrices


def _pairs(
    tensors: dict[str, torch.Tensor], device: torch.device
) -> Iterator[tuple[torch.Tensor, ...]]:
    for part in RNNStates._fields:
        yield tuple(tensors[f"lstm/{part}/{number}"].to(device) for number in range(2))


def _exploration(model: BaseAlgorithm) -> Iterator[StateDependentNoiseDistribution]:
    """The distributions whose noise is drawn once a rollout (gSDE), the policy's or the actor's."""
    for module in (model.policy, getattr(model.policy, "actor", None)):
        distribution = getattr(module, "action_dist", None)
        if isinstance(distribution, StateDependentNoiseDistribution):
            yield distribution


def _walking_noise(model: BaseAlgorithm) -> Iterator[OrnsteinUhlenbeckActionNoise]:
    """Action noise that goes on from where it was."""
    noise = getattr(model, "action_noise", None)
    for each in noise.noises if isinstance(noise, VectorizedActionNoise) else [noise]:
        if isinstance(each, OrnsteinUhlenbeckActionNoise):
            yield each
