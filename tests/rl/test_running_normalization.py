"""Normalisation is SB3's to the bit: statistics, observations, rewards, and what ended episodes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from envs.acrobot import AcrobotVector
from envs.reach_point import ReachPointVector
from rl_lab.rl.running_normalization import Moments, RunningNormalization
from rl_lab.rl.vector_adapter import VectorAdapter

DTYPES = st.sampled_from([np.float32, np.float64, np.float16, np.uint8])
SHAPES = st.sampled_from([(1,), (7,), (1, 3), (8, 4), (16, 6), (3, 2, 2)])


@given(st.data())
def test_moments_are_to_the_bit(data: st.DataObject) -> None:
    dtype, shape = data.draw(DTYPES), data.draw(SHAPES)
    own, sb3s = Moments(shape=shape[1:]), RunningMeanStd(shape=shape[1:])
    for batch in data.draw(st.lists(arrays.arrays(dtype, shape), min_size=1, max_size=4)):
        with np.errstate(all="ignore"):
            own.update(batch)
            sb3s.update(batch)
        np.testing.assert_array_equal(own.mean, sb3s.mean)
        np.testing.assert_array_equal(own.var, sb3s.var)
        assert own.count == sb3s.count


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm_obs": False},
        {"norm_reward": False},
        {"training": False},
        {"clip_obs": 0.3, "clip_reward": 0.2, "gamma": 0.8},
    ],
)
@pytest.mark.parametrize("env_class", [AcrobotVector, ReachPointVector])
def test_steps_are_to_the_bit(env_class: Any, settings: dict[str, Any]) -> None:
    own, sb3s = (
        normalized(VectorAdapter(env_class(5, max_episode_steps=9), seed=3), **settings)
        for normalized in (RunningNormalization, VecNormalize)
    )
    own.action_space.seed(4)
    np.testing.assert_equal(own.reset(), sb3s.reset())
    for _ in range(50):
        actions = np.array([own.action_space.sample() for _ in range(5)])
        *given, infos = own.step(actions)
        *expected, their_infos = sb3s.step(actions)
        np.testing.assert_equal(given, expected)
        for info, other in zip(infos, their_infos, strict=True):
            np.testing.assert_equal(info.get("terminal_observation"),
                                    other.get("terminal_observation"))  # fmt: skip
        np.testing.assert_equal(own.get_original_obs(), sb3s.get_original_obs())
    np.testing.assert_array_equal(own.returns, sb3s.returns)
    assert own.ret_rms.var == sb3s.ret_rms.var


def test_the_caller_s_observations_are_left_alone() -> None:
    normalizer = RunningNormalization(VectorAdapter(AcrobotVector(3), seed=3))
    raw = normalizer.venv.reset()
    kept = raw.copy()
    normalizer.normalize_obs(raw)
    assert np.array_equal(raw, kept)
