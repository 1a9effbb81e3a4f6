"""Copies that take turns give what SB3's do, and what they gave is not written over."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

import envs
from rl_lab.rl.serial_vec_env import SerialVecEnv

COPIES, STEPS = 3, 60
IDS = ["CartPole-v1", "Pendulum-v1", "RLLab/ReachPoint-v0"]


def vector(vector_class: type[DummyVecEnv], environment_id: str) -> VecEnv:
    made = vector_class([lambda: Monitor(gymnasium.make(environment_id))] * COPIES)
    made.seed(7)
    return made


def without_times(infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for info in infos:
        info.get("episode", {}).pop("t", None)
    return infos


@pytest.mark.parametrize("environment_id", IDS)
def test_they_are_equal_value_for_value(environment_id: str) -> None:
    assert envs.__doc__
    ours, sb3s = vector(SerialVecEnv, environment_id), vector(DummyVecEnv, environment_id)
    np.testing.assert_equal(ours.reset(), sb3s.reset())
    ours.action_space.seed(1)
    for _ in range(STEPS):
        actions = np.array([ours.action_space.sample() for _ in range(COPIES)])
        *mine, infos = ours.step(actions)
        *theirs, their_infos = sb3s.step(actions)
        np.testing.assert_equal(mine, theirs)
        np.testing.assert_equal(without_times(infos), without_times(their_infos))
        assert [part.dtype for part in mine[1:]] == [part.dtype for part in theirs[1:]]


@pytest.mark.parametrize("environment_id", IDS)
def test_later_steps_leave_what_was_given_alone(environment_id: str) -> None:
    ours = vector(SerialVecEnv, environment_id)
    ours.action_space.seed(1)
    given: list[Any] = [ours.reset()]
    given += [ours.step(np.array([ours.action_space.sample()] * COPIES)) for _ in range(STEPS)]
    again = vector(SerialVecEnv, environment_id)
    again.action_space.seed(1)
    np.testing.assert_equal(given[0], again.reset())
    for *expected, infos in given[1:]:
        *found, other_infos = again.step(np.array([again.action_space.sample()] * COPIES))
        np.testing.assert_equal(found, expected)
        np.testing.assert_equal(without_times(other_infos), without_times(infos))
