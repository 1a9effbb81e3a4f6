"""An unfinished episode played again comes to the same, or says that it does not."""

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_lab.rl import environments, episodes
from rl_lab.rl.recipe import Environment

ENVIRONMENTS = (
    "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1",
    "Taxi-v4", "FrozenLake-v1", "CliffWalking-v1", "Blackjack-v1",
    "RLLab/Match-v0", "RLLab/Recall-v0", "RLLab/ReachPoint-v0",
    "LunarLander-v3", "LunarLanderContinuous-v3",
    "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "Reacher-v5", "Pusher-v5",
    "InvertedPendulum-v5", "Humanoid-v5",
    "MiniGrid-Empty-8x8-v0", "MiniGrid-DoorKey-5x5-v0",
)  # fmt: skip


def played(name: str, steps: int, seed: int) -> gymnasium.Env:
    """An environment after so many random steps, over as many episodes as that takes."""
    env = environments.make(Environment(id=name), [seed])
    env.reset()
    env.action_space.seed(seed)
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        if terminated or truncated:
            env.reset()
    return env


@pytest.mark.parametrize("name", ENVIRONMENTS)
@settings(max_examples=5)
@given(steps=st.integers(0, 120), seed=st.integers(0, 2**31 - 1))
def test_another_copy_comes_to_where_one_is_and_goes_on_alike(
    name: str, steps: int, seed: int
) -> None:
    one = played(name, steps, seed)
    other = environments.make(Environment(id=name), [seed + 1])
    assert other.get_wrapper_attr("play_again")(one.get_wrapper_attr("unfinished_episode")())
    for _ in range(60):
        action = one.action_space.sample()
        steps_of = one.step(action), other.step(action)
        assert episodes._digest(steps_of[0][0]) == episodes._digest(steps_of[1][0])
        assert steps_of[0][1:4] == steps_of[1][1:4]
        if steps_of[0][2] or steps_of[0][3]:
            starts = one.reset()[0], other.reset()[0]
            assert episodes._digest(starts[0]) == episodes._digest(starts[1])


def test_a_world_that_outlives_episodes_is_played_again_in_its_first_only() -> None:
    one = environments.make(Environment(id="BipedalWalker-v3"), [0])
    one.reset()
    one.step(one.action_space.sample())
    first = one.get_wrapper_attr("unfinished_episode")()
    other = environments.make(Environment(id="BipedalWalker-v3"), [5])
    assert other.get_wrapper_attr("play_again")(first)
    one.reset()
    assert one.get_wrapper_attr("unfinished_episode")() is None


def test_a_step_that_turns_out_otherwise_is_noticed() -> None:
    episode = played("Pendulum-v1", 30, 0).get_wrapper_attr("unfinished_episode")()
    fresh = environments.make(Environment(id="Pendulum-v1"))
    assert fresh.get_wrapper_attr("play_again")(episode)
    episode.actions[10] += 1e-6
    assert not fresh.get_wrapper_attr("play_again")(episode)


def test_another_gravity_is_noticed() -> None:
    episode = played("Pendulum-v1", 30, 0).get_wrapper_attr("unfinished_episode")()
    heavy = environments.make(Environment(id="Pendulum-v1", kwargs={"g": 11.0}))
    assert not heavy.get_wrapper_attr("play_again")(episode)


def test_actions_are_kept_as_they_were_given() -> None:
    env = environments.make(Environment(id="Pendulum-v1"), [0])
    env.reset()
    action = np.array([1.0], dtype=np.float32)
    env.step(action)
    action[:] = 0.0  # as a caller that reuses its memory does
    kept = env.get_wrapper_attr("unfinished_episode")()
    assert kept.actions.tolist() == [[1.0]]
    assert kept.actions.dtype == np.float32


def test_nothing_is_kept_before_the_first_reset_or_of_an_endless_episode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    env = environments.make(Environment(id="CartPole-v1"))
    assert env.get_wrapper_attr("unfinished_episode")() is None
    monkeypatch.setattr(episodes, "LONGEST", 5)
    env = environments.make(Environment(id="Pendulum-v1"), [0])
    env.reset()
    for _ in range(6):
        assert env.get_wrapper_attr("unfinished_episode")() is not None
        env.step(env.action_space.sample())
    assert env.get_wrapper_attr("unfinished_episode")() is None


@pytest.mark.parametrize("wrapper", ["NormalizeReward", "NormalizeObservation"])
def test_a_wrapper_with_a_memory_of_its_own_is_noticed_at_an_episodes_start(wrapper: str) -> None:
    def copy() -> gymnasium.Env:
        return environments.make(Environment(id="Pendulum-v1", wrappers=[wrapper]), [3])

    one = copy()
    one.reset()
    for _ in range(200):  # a whole episode, and the start of the next
        one.step(one.action_space.sample())
    one.reset()
    episode = one.get_wrapper_attr("unfinished_episode")()
    assert len(episode.actions) == 0
    assert not copy().get_wrapper_attr("play_again")(episode)


class Curriculum(gymnasium.Env):
    """Has a counter, and random numbers of its own, that no reset sets back."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, kind: str) -> None:
        self.kind, self.count, self.own = kind, 0, np.random.default_rng(0)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if self.kind == "counter":
            self.count += 1
        else:
            self.own.random()
        return np.zeros(1, dtype=np.float32), {}


@pytest.mark.parametrize("kind", ["counter", "generator"])
def test_an_environment_with_a_memory_of_its_own_is_noticed(kind: str) -> None:
    def copy() -> gymnasium.Env:
        seeded = episodes.SeededResets(Curriculum(kind), [1])
        return episodes.RepeatableEpisodes(seeded)

    one = copy()
    one.reset()
    first = one.get_wrapper_attr("unfinished_episode")()
    assert copy().get_wrapper_attr("play_again")(first)  # the first episode it can repeat
    one.reset()
    second = one.get_wrapper_attr("unfinished_episode")()
    assert not copy().get_wrapper_attr("play_again")(second)
