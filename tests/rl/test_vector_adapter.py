"""A vector environment behaves towards SB3 as single copies under Monitor do."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from envs.cart_pole import CartPoleVector
from envs.match import MatchVector
from envs.reach_point import ReachPointVector
from rl_lab.health import Health
from rl_lab.phases import PhaseClock
from rl_lab.rl import environments
from rl_lab.rl.recipe import Environment
from rl_lab.rl.vector_adapter import VectorAdapter
from rl_lab.rl.watched_vec_env import NonFiniteError, WatchedVecEnv

COPIES = 3


class Telling(gymnasium.Wrapper):
    """Tells something of each episode when it ends, and something else at every second step."""

    steps = 0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.steps += 1
        info |= {"nested": {"steps": self.steps}}
        info |= {"even": "yes"} if self.steps % 2 == 0 else {}
        return observation, reward, terminated, truncated, info


def single(environment_id: str) -> gymnasium.Env:
    limit = {"max_episode_steps": 12}  # some end by it, some before
    return Telling(gymnasium.make(environment_id, **limit))  # type: ignore[arg-type]


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("environment_id", ["CartPole-v1", "Pendulum-v1", "RLLab/ReachPoint-v0"])
def test_all_is_as_with_single_copies(environment_id: str, normalized: bool) -> None:
    sync = SyncVectorEnv(
        [lambda: single(environment_id)] * COPIES, autoreset_mode=AutoresetMode.SAME_STEP
    )
    ours: Any = VectorAdapter(sync, seed=7)
    sb3s: Any = DummyVecEnv([lambda: Monitor(single(environment_id))] * COPIES)
    sb3s.seed(7)
    if normalized:
        ours, sb3s = VecNormalize(ours), VecNormalize(sb3s)
    np.testing.assert_equal(ours.reset(), sb3s.reset())
    ours.action_space.seed(1)
    ends = []
    for _ in range(60):
        actions = np.array([ours.action_space.sample() for _ in range(COPIES)])
        *mine, infos = ours.step(actions)
        *theirs, their_infos = sb3s.step(actions)
        np.testing.assert_equal(mine, theirs)
        assert [part.dtype for part in mine[1:]] == [part.dtype for part in theirs[1:]]
        for copy, (info, expected) in enumerate(zip(infos, their_infos, strict=True)):
            if mine[2][copy]:
                ends.append(info["TimeLimit.truncated"])
                info["episode"].pop("t"), expected["episode"].pop("t")
                np.testing.assert_equal(info, expected)
            else:
                assert info == {}
    assert True in ends
    assert False in ends or environment_id != "CartPole-v1"


def test_a_new_pass_counts_anew() -> None:
    adapter = VectorAdapter(CartPoleVector(COPIES, max_episode_steps=4), seed=1)
    adapter.reset()
    adapter.step(np.zeros(COPIES, dtype=int))
    adapter.reset()
    for _ in range(4):
        *_, dones, infos = adapter.step(np.zeros(COPIES, dtype=int))
    assert dones.all()
    assert [info["episode"]["l"] for info in infos] == [4] * COPIES


def test_seeds_are_for_the_next_reset_only() -> None:
    adapter = VectorAdapter(CartPoleVector(COPIES), seed=1)
    first, second = adapter.reset(), adapter.reset()
    adapter.env_method("seed_next_reset", 1, indices=0)
    assert np.array_equal(adapter.reset(), first)
    assert not np.array_equal(first, second)
    assert np.array_equal(adapter.reset(), second)


def test_one_copy_can_begin_anew() -> None:
    adapter = VectorAdapter(CartPoleVector(COPIES, max_episode_steps=4), seed=1)
    adapter.reset()
    before, *_ = adapter.step(np.zeros(COPIES, dtype=int))
    ((shown, _),) = adapter.env_method("reset", indices=1)
    assert not np.array_equal(shown, before[1])
    kept = adapter.env_method("last_observation")
    assert np.array_equal(kept, [before[0], shown, before[2]])
    lengths = {}
    for _ in range(4):
        *_, infos = adapter.step(np.zeros(COPIES, dtype=int))
        lengths |= {copy: info["episode"]["l"] for copy, info in enumerate(infos) if info}
    assert lengths == {0: 4, 1: 4, 2: 4}


def test_what_is_asked_of_copies_is_answered() -> None:
    match = VectorAdapter(MatchVector(COPIES), seed=0)
    match.reset()
    assert match.has_attr("action_masks")
    assert np.stack(match.env_method("action_masks")).shape == (COPIES, 4)
    assert len(match.env_method("action_masks", indices=[2])) == 1
    point = VectorAdapter(ReachPointVector(COPIES), seed=0)
    assert not point.has_attr("action_masks")
    goals = np.zeros((7, 2), dtype=np.float32)
    (rewards,) = point.env_method("compute_reward", goals, goals, {}, indices=[0])
    assert rewards.tolist() == [0.0] * 7
    assert point.env_is_wrapped(Monitor) == [False] * COPIES
    assert point.get_attr("num_envs", indices=[0, 1]) == [COPIES] * 2


def test_next_step_autoreset_is_not_taken() -> None:
    env = gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="vector_entry_point")
    with pytest.raises(AssertionError):
        VectorAdapter(env)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_nan_in_the_arrays_is_found(value: float) -> None:
    environment = Environment(id="CartPole-v1")
    vector = environments.make_vector(environment, [[0], [1]], vectorization="vector")
    vector.reset()
    vector.get_attr("state")[0][0, 1] = value
    with pytest.raises(NonFiniteError, match="observation of environment 1 at step 2"):
        vector.step(np.zeros(2, dtype=int))


def test_a_nan_that_may_be_skipped_cuts_that_episode_off_and_begins_another() -> None:
    adapter = VectorAdapter(CartPoleVector(COPIES), seed=0)
    vector = WatchedVecEnv(adapter, PhaseClock("policy"), Health(on_nan="skip"))
    vector.reset()
    before, *_ = vector.step(np.zeros(COPIES, dtype=int))
    adapter.env.state[0, 1] = np.nan
    observations, rewards, dones, infos = vector.step(np.zeros(COPIES, dtype=int))
    assert dones.tolist() == [False, True, False]
    assert rewards.tolist() == [1.0, 0.0, 1.0]
    assert infos[1]["TimeLimit.truncated"]
    assert np.array_equal(infos[1]["terminal_observation"], before[1])
    assert "episode" not in infos[1]
    assert np.abs(observations[1]).max() <= 0.05
    assert adapter.env.elapsed.tolist() == [2, 0, 2]
    assert vector.skipped == 1
