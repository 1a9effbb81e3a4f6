"""An agent to and from a snapshot. No pickle is written or read.

`playable` has what acting needs: the policy's tensors and the statistics that normalise
observations. `learnt` adds optimisers, counters and replay buffer. `resumable` adds the moment it
was taken at (`rl_lab.rl.moment`), without which learning on would not come to the same bits.
"""

import warnings
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sb3_contrib import ARS, QRDQN
from stable_baselines3 import DQN
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer

from rl_lab.checkpoint import Snapshot, flatten, unflatten
from rl_lab.errors import UserError
from rl_lab.rl import moment

# Counters SB3 keeps outside its networks, optimisers and buffers.
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_n_calls")


def playable(model: BaseAlgorithm) -> Snapshot:
    """What is needed to act: policy tensors and, if there is one, the normaliser's statistics."""
    snapshot = Snapshot(step=model.num_timesteps)
    snapshot.tensors["policy"] = dict(model.policy.state_dict())
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        snapshot.arrays["normalization"] = _normalization_arrays(normalizer)
    if isinstance(model, DQN | QRDQN):
        snapshot.state["acting"] = {"exploration_rate": model.exploration_rate}
    return snapshot


def resumable(model: BaseAlgorithm, with_replay_buffer: bool) -> Snapshot:
    """What is needed to learn on to the same bits: `learnt`, and the moment it is taken at."""
    snapshot = learnt(model, with_replay_buffer)
    moment.add_to(snapshot, model)
    return snapshot


def learnt(model: BaseAlgorithm, with_replay_buffer: bool) -> Snapshot:
    """All that came of learning: `playable`, optimisers, counters, replay buffer."""
    snapshot = playable(model)
    names, variables = model._get_torch_save_params()
    for name in names:
        if name != "policy":
            tensors, structure = flatten(recursive_getattr(model, name).state_dict())
            snapshot.tensors[name] = tensors
            snapshot.state[name] = structure
    if variables:
        snapshot.tensors["variables"] = {name: recursive_getattr(model, name) for name in variables}
    snapshot.state["counters"] = {
        name: getattr(model, name) for name in COUNTERS if hasattr(model, name)
    }
    snapshot.state["recent_episodes"] = {
        "episodes": [{key: float(value) for key, value in info.items() if key in ("r", "l", "t")}
                     for info in model.ep_info_buffer or ()],
        "successes": [float(success) for success in model.ep_success_buffer or ()],
    }  # fmt: skip
    buffer = getattr(model, "replay_buffer", None)
    if with_replay_buffer and buffer is not None:
        # One more than is filled: where memory is saved, the last next observation is kept there.
        filled = buffer.buffer_size if buffer.full else buffer.pos + 1
        snapshot.arrays["replay_buffer"] = {
            name: array[:filled] for name, array in _buffer_arrays(buffer)
        }
        snapshot.state["replay_buffer"] = {"pos": buffer.pos, "full": buffer.full}
        if isinstance(buffer, HerReplayBuffer):
            starts = [int(start) for start in buffer._current_ep_start]
            snapshot.state["replay_buffer"]["episode_starts"] = starts
    return snapshot


def restore_playable(model: BaseAlgorithm, snapshot: Snapshot) -> None:
    """Put the policy and the normaliser's statistics of a snapshot into an algorithm.

    Raises:
        UserError: the snapshot is of another network than the algorithm's, or holds none.
    """
    try:
        model.policy.load_state_dict(snapshot.tensors["policy"])
    except (RuntimeError, KeyError):
        raise UserError(
            "the saved policy does not fit the run's recipe.yaml, which must have been changed "
            "since (its environment, algorithm or policy_kwargs)"
        ) from None
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        _restore_normalization(normalizer, snapshot.arrays["normalization"])
    if isinstance(model, DQN | QRDQN):
        model.exploration_rate = snapshot.state["acting"]["exploration_rate"]


def restore(model: BaseAlgorithm, snapshot: Snapshot) -> None:
    """Put a `resumable` snapshot into an algorithm built from the same recipe."""
    restore_playable(model, snapshot)
    names, variables = model._get_torch_save_params()
    for name in names:
        if name != "policy":
            optimizer = recursive_getattr(model, name)
            optimizer.load_state_dict(unflatten(snapshot.tensors[name], snapshot.state[name]))
    for name in variables:
        recursive_getattr(model, name).data.copy_(snapshot.tensors["variables"][name])
    if isinstance(model, ARS):  # it keeps its policy a second time, as one vector
        weights = torch.nn.utils.parameters_to_vector(model.policy.parameters())
        model.weights = weights.detach()  # type: ignore[assignment]
    for name in COUNTERS:
        if name in snapshot.state["counters"]:
            setattr(model, name, snapshot.state["counters"][name])
    # SB3 makes these when learning starts, unless they are there.
    recent = snapshot.state["recent_episodes"]
    model.ep_info_buffer = deque(recent["episodes"], maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(recent["successes"], maxlen=model._stats_window_size)
    if "replay_buffer" in snapshot.arrays:
        _restore_replay_buffer(model.replay_buffer, snapshot)  # type: ignore[attr-defined]
    elif isinstance(model, OffPolicyAlgorithm):  # fill the empty buffer before learning from it
        model.learning_starts += model.num_timesteps


def _restore_replay_buffer(buffer: ReplayBuffer, snapshot: Snapshot) -> None:
    stored, state = snapshot.arrays["replay_buffer"], snapshot.state["replay_buffer"]
    for name, array in _buffer_arrays(buffer):
        rows = stored[name]
        array[: len(rows)] = rows
    buffer.pos, buffer.full = state["pos"], state["full"]
    if isinstance(buffer, HerReplayBuffer):
        buffer._current_ep_start = np.array(state["episode_starts"], dtype=np.int64)


def lost(model: BaseAlgorithm, snapshot: Snapshot) -> str | None:
    """Say what of a replay buffer the snapshot does not hold; None if nothing is missing."""
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return None
    if "replay_buffer" not in snapshot.arrays:
        return "the replay buffer was not kept (checkpoints.replay_buffer)"
    if getattr(buffer, "copy_info_dict", False):
        return "the replay buffer's infos (copy_info_dict) are not kept"
    return None


def cut_unfinished_episodes(model: BaseAlgorithm) -> None:
    """Mark where the replay buffer's last episodes break off: the environments start new ones."""
    buffer = getattr(model, "replay_buffer", None)
    if isinstance(buffer, HerReplayBuffer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its remark that it does so
            buffer.truncate_last_trajectory()
    elif isinstance(buffer, NStepReplayBuffer):  # no n-step return may reach across the gap
        buffer.timeouts[buffer.pos - 1] = 1.0
        buffer.dones[buffer.pos - 1] = 1.0
    elif buffer is not None and buffer.optimize_memory_usage:  # nor a next observation
        buffer.dones[buffer.pos - 1] = 1.0


def _buffer_arrays(buffer: Any) -> list[tuple[str, np.ndarray]]:
    """Every array of a replay buffer by name; those of dict observations as `name/key`."""
    found = []
    for name, value in vars(buffer).items():
        if isinstance(value, dict):
            parts = {f"{name}/{key}": part for key, part in value.items()}
        else:
            parts = {name: value}
        for part_name, part in parts.items():
            # HER's object array of infos stays: it is empty unless asked for, and needs pickle.
            if (
                isinstance(part, np.ndarray)
                and part.dtype != object
                and len(part) == buffer.buffer_size
            ):
                found.append((part_name, part))
    return found


def _normalization_arrays(normalizer: VecNormalize) -> dict[str, np.ndarray]:
    arrays = {}
    for name, moments in _moments(normalizer):
        for part in ("mean", "var", "count"):
            arrays[f"{name}/{part}"] = np.asarray(getattr(moments, part))
    return arrays


def _restore_normalization(normalizer: VecNormalize, arrays: Mapping[str, np.ndarray]) -> None:
    for name, moments in _moments(normalizer):
        moments.mean = arrays[f"{name}/mean"]
        moments.var = arrays[f"{name}/var"]
        moments.count = float(arrays[f"{name}/count"])


def _moments(normalizer: VecNormalize) -> list[tuple[str, RunningMeanStd]]:
    found = [("reward", normalizer.ret_rms)]
    if normalizer.norm_obs:
        observation = normalizer.obs_rms
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        found += [(f"observation/{key}", moments) for key, moments in parts.items()]
    return found
