"""EnvPool's environments, written in C++ (Weng et al., 2022), with same-step autoreset."""

import warnings
from typing import Any

import envpool
import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rl_lab.errors import UserError


def known_ids() -> list[str]:
    """The ids of EnvPool's environments: Gymnasium's, where it has the same."""
    return list(envpool.list_all_envs())


class SameStepPool(VectorEnv):
    """A pool whose copies begin new episodes in the step that ends the old, not one later.

    What the copies remember is out of reach: a run cannot go on in the middle of their episodes.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, environment_id: str, num_envs: int, like: gymnasium.Env) -> None:
        """Make the copies.

        Args:
            environment_id: EnvPool's id.
            num_envs: how many.
            like: Gymnasium's environment of that id, whose spaces are taken over.

        Raises:
            UserError: EnvPool's shows or takes something else.
        """
        self.num_envs = num_envs
        self._id = environment_id
        self._pool = self._made(seed=0)
        self.single_observation_space = like.observation_space
        self.single_action_space = like.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        own, theirs = like.observation_space, self._pool.observation_space
        if (type(own), own.shape, own.dtype) != (type(theirs), theirs.shape, theirs.dtype):
            raise UserError(_differs(environment_id, "shows", theirs, own))
        if self._pool.action_space != like.action_space:
            raise UserError(
                _differs(environment_id, "takes", self._pool.action_space, like.action_space)
            )

    def _made(self, seed: int) -> Any:
        """One thread besides Python's: with two, 16 landers were measured to be no quicker."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on the bounds of its spaces
            return envpool.make(
                self._id, env_type="gymnasium", num_envs=self.num_envs, num_threads=1, seed=seed
            )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: below 2**31, of a pool made anew; None: the one there is goes on.
            options: `reset_mask`, (copies,) bool: only these begin anew.
        """
        if seed is not None:
            self._pool = self._made(seed)
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self._shown, _ = self._pool.reset()
        else:
            self._begin(mask.nonzero()[0], self._shown)
        return self._shown, {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Take an action with each copy; actions and what comes back as Gymnasium has them."""
        observations, rewards, terminations, truncations, _ = self._pool.step(actions)
        self._shown = observations
        ended = terminations | truncations
        copies = ended.nonzero()[0]
        if not copies.size:
            return observations, rewards, terminations, truncations, {}
        last = np.full(self.num_envs, None, dtype=object)
        for copy in copies.tolist():
            last[copy] = observations[copy].copy()
        self._begin(copies, observations)
        infos = {"final_obs": last, "_final_obs": ended, "final_info": {}, "_final_info": ended}
        return observations, rewards, terminations, truncations, infos

    def _begin(self, copies: np.ndarray, observations: np.ndarray) -> None:
        """Begin new episodes with some copies; put their first observations into the rows."""
        first, info = self._pool.reset(copies)
        observations[info["env_id"]] = first


def _differs(environment_id: str, does: str, theirs: gymnasium.Space, own: gymnasium.Space) -> str:
    return (
        f"env.vectorization = 'envpool': EnvPool's {environment_id} {does} {theirs}, and "
        f"Gymnasium's, in which the agent is judged, {own}"
    )
