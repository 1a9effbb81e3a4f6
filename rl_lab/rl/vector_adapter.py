"""A Gymnasium vector environment as Stable-Baselines3 sees its copies."""

import time
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from rl_lab.rl.episodes import RandomState


@runtime_checkable
class Remembers(Protocol):
    """A vector environment all of whose memory, its `np_random` apart, can be read and written."""

    state: np.ndarray
    """(variables, copies), written in place."""
    elapsed: np.ndarray
    """(copies,) steps of the episodes under way, written in place."""

    def observe(self) -> Any:
        """Return what the copies look like."""


class VectorAdapter(VecEnv):
    """The copies of a vector environment that begins new episodes in the same step.

    Episodes are counted as SB3's Monitor counts them. A step costs no Python code for each copy,
    but where episodes end: only there do infos say anything.
    """

    def __init__(self, env: VectorEnv, seed: int | None = None) -> None:
        """Take a vector environment over.

        Args:
            env: its `metadata["autoreset_mode"]` is SAME_STEP.
            seed: of its first reset; None: whatever it draws.
        """
        assert env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self.env: Any = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._seeds[0] = seed
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, dtype=np.int64)
        self._began = time.time()

    def reset(self) -> VecEnvObs:
        """Begin new episodes with all copies, seeded as the first copy was told to be."""
        observations, _ = self.env.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._returns[:] = 0.0
        self._lengths[:] = 0
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions, (copies, ...), for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Take the step."""
        observations, rewards, terminated, truncated, told = self.env.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        dones = terminated | truncated
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = dones.nonzero()[0]
        if ended.size:
            for copy in ended.tolist():
                infos[copy] = self._of_ended(copy, told) | {
                    "TimeLimit.truncated": bool(truncated[copy] and not terminated[copy])
                }
            self._returns[ended] = 0.0
            self._lengths[ended] = 0
        return observations, rewards.astype(np.float32), dones, infos

    def _of_ended(self, copy: int, told: dict[str, Any]) -> dict[str, Any]:
        return {
            **_of_copy(told.get("final_info", {}), copy),
            "terminal_observation": told["final_obs"][copy],
            "episode": {
                "r": round(float(self._returns[copy]), 6),
                "l": int(self._lengths[copy]),
                "t": round(time.time() - self._began, 6),
            },
        }

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    # --- where a run goes on from a snapshot ---------------------------------------------------

    @property
    def resumable(self) -> bool:
        """Whether what the copies remember can be had: not from a simulator in C++."""
        return isinstance(self.env, Remembers)

    def memory(self) -> dict[str, np.ndarray]:
        """All that copies and counters remember, but for the generator; to be written in place."""
        return {
            "state": self.env.state,
            "elapsed": self.env.elapsed,
            "returns": self._returns,
            "lengths": self._lengths,
        }

    @property
    def random_state(self) -> RandomState:
        """State of the generator that the copies draw from, as JSON can hold it."""
        return dict(self.env.np_random.bit_generator.state)

    @random_state.setter
    def random_state(self, state: RandomState) -> None:
        self.env.np_random.bit_generator.state = state

    # --- what is asked of single copies ----------------------------------------------------------

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **named: Any
    ) -> list[Any]:
        """Ask what of the copies can be told apart, or else the environment, once for all."""
        copies = list(self._get_indices(indices))
        match method_name:
            case "seed_next_reset":
                (seed,) = method_args
                for copy in copies:
                    self._seeds[copy] = seed
                return [None for _ in copies]
            case "reset":
                return self._reset_only(copies)
            case "last_observation":
                return [_row(self.env.observe(), copy) for copy in copies]
            case "action_masks":
                return list(self.env.action_masks()[copies])
        answer = getattr(self.env, method_name)(*method_args, **named)
        return [answer for _ in copies]

    def _reset_only(self, copies: list[int]) -> list[tuple[Any, dict[str, Any]]]:
        chosen = np.zeros(self.num_envs, dtype=bool)
        chosen[copies] = True
        observations, _ = self.env.reset(options={"reset_mask": chosen})
        self._returns[chosen] = 0.0
        self._lengths[chosen] = 0
        return [(_row(observations, copy), {}) for copy in copies]

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return an attribute of the environment, which all copies share."""
        return [getattr(self.env, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, which all copies share."""
        setattr(self.env, attr_name, value)

    def env_is_wrapped(
        self, wrapper_class: type[gymnasium.Wrapper], indices: VecEnvIndices = None
    ) -> list[bool]:
        """No: wrappers go around single environments."""
        return [False for _ in self._get_indices(indices)]


def _row(observations: Any, copy: int) -> Any:
    if isinstance(observations, dict):
        return {key: part[copy] for key, part in observations.items()}
    return observations[copy]


def _of_copy(infos: dict[str, Any], copy: int) -> dict[str, Any]:
    """What a vector environment's infos, arrays beside masks called `_key`, tell of one copy."""
    return {
        key: _of_copy(value, copy) if isinstance(value, dict) else value[copy]
        for key, value in infos.items()
        if not key.startswith("_") and infos.get(f"_{key}", {copy: True})[copy]
    }
