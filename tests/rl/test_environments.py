"""Making environments: wrappers, seeds, and what must stop a run."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import envs
from rl_lab import extras
from rl_lab.errors import UserError
from rl_lab.rl import environments
from rl_lab.rl.recipe import Environment
from rl_lab.rl.watched_vec_env import NonFiniteError


class Poisoned(gymnasium.Env):
    """Gives a NaN or an infinity, in the place and at the step it is told to."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, place: str = "reward", step: int = 5, value: float = float("nan")) -> None:
        self.place, self.poisoned_step, self.value, self.count = place, step, value, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        now = self.count == self.poisoned_step
        observation = np.zeros(2, dtype=np.float32)
        if now and self.place in ("observation", "last observation"):
            observation[1] = self.value
        reward = self.value if now and self.place == "reward" else 1.0
        return observation, reward, now and self.place == "last observation", False, {}


gymnasium.register("Test/Poisoned-v0", entry_point=Poisoned)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["observation", "reward", "last observation"])
def test_a_nan_or_infinity_is_named_with_place_and_step(place: str, value: float) -> None:
    environment = Environment(id="Test/Poisoned-v0", kwargs={"place": place, "value": value})
    vector = environments.make_vector(environment, [[0], [1]])
    vector.reset()
    for _ in range(4):
        vector.step(np.zeros(2, dtype=int))
    with pytest.raises(NonFiniteError, match=f"the {place} of environment 0 at step 10"):
        vector.step(np.zeros(2, dtype=int))


def test_the_same_seed_starts_the_same_episode() -> None:
    def starts(seeds: list[int]) -> list[np.ndarray]:
        env = environments.make(Environment(id="CartPole-v1"), seeds)
        return [env.reset()[0] for _ in range(3)]

    first, again, other = starts([1, 2, 3]), starts([1, 2, 3]), starts([2, 2, 3])
    assert np.array_equal(first, again)
    assert not np.array_equal(first[0], other[0])
    assert np.array_equal(first[1:], other[1:])


def test_scores_are_raw_below_atari_learning_aids() -> None:
    environment = Environment(id="BreakoutNoFrameskip-v4", wrappers=["AtariWrapper"], frame_stack=4)
    vector = environments.make_vector(environment, [[0]])
    vector = environments.stack_and_transpose(vector, environment.frame_stack)
    assert vector.observation_space.shape == (4, 84, 84)
    vector.reset()
    lives = []
    for step in range(3000):
        _, _, dones, infos = vector.step(np.array([1 + step % 3]))
        if dones[0]:
            lives.append("episode" in infos[0])
    assert len(lives) >= 5
    assert 0 < sum(lives) < len(lives)  # a lost life is no episode


def test_wrappers_are_found_by_name_and_given_their_arguments() -> None:
    env = environments.make(
        Environment(
            id="Pendulum-v1",
            wrappers=[
                "FlattenObservation",
                {"RescaleAction": {"min_action": -1.0, "max_action": 1.0}},
            ],
        )
    )
    assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"id": "CartPole-v9"}, ["CartPole-v9", "'CartPole-v1'"]),
        ({"id": "LunarLandr-v3"}, ["'LunarLander-v3'"]),
        ({"id": "ALE/Pog-v5"}, ["'ALE/Pong-v5'"]),
        ({"id": "MiniGrid-DorKey-5x5-v0"}, ["'MiniGrid-DoorKey-5x5-v0'"]),
        ({"id": "antigravity:CartPole-v1"}, ["would import the module", "antigravity"]),
        ({"id": "CartPole-v1", "kwargs": {"nosuch": 1}}, ["env.kwargs", "nosuch"]),
        ({"id": "CartPole-v1", "wrappers": ["FlatenObservation"]}, ["'FlattenObservation'"]),
        ({"id": "CartPole-v1", "wrappers": [{"TimeLimit": {"stepz": 3}}]}, ["'stepz'"]),
        ({"id": "CartPole-v1", "wrappers": [{"A": {}, "B": {}}]}, ["{name: {argument: value}}"]),
        ({"id": "CartPole-v1", "wrappers": ["AtariWrapper"]}, ["AtariWrapper cannot wrap"]),
    ],
)
def test_a_mistake_is_one_sentence(settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        environments.make(Environment(**settings))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"wrappers": ["FlattenObservation"]}, ["env.wrappers", "dummy or subproc"]),
        ({"timeout": 1.0}, ["env.timeout", "'vector'"]),
        ({"restarts": 2}, ["env.restarts", "'vector'"]),
        ({"kwargs": {"nosuch": 1}}, ["env.kwargs {'nosuch': 1}", "CartPole-v1"]),
        ({"kwargs": {"max_episode_steps": 0}}, ["should be at least 1"]),
        ({"id": "LunarLander-v3"}, ["LunarLander-v3", "CartPole-v1"]),
        ({"id": "FrozenLake-v1"}, ["FrozenLake-v1 has no vectorised version"]),
        ({"id": "phys2d/CartPole-v1"}, ["phys2d/CartPole-v1"]),
        ({"id": "CartPole-v9"}, ["'CartPole-v1'"]),
    ],
)
def test_what_does_not_go_with_arrays_is_one_sentence(
    settings: dict[str, Any], words: list[str]
) -> None:
    environment = Environment(**{"id": "CartPole-v1"} | settings)
    with pytest.raises(UserError) as error:
        environments.make_vector(environment, [[0], [1]], vectorization="vector")
    for word in words:
        assert word in str(error.value)


def test_a_vector_environment_that_resets_a_step_late_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(envs.VECTORIZED, "CartPole-v1")  # Gymnasium's own is left
    with pytest.raises(UserError, match="does not begin new episodes in the same step"):
        environments.make_vector(Environment(id="CartPole-v1"), [[0]], vectorization="vector")


@pytest.mark.parametrize(
    ("environment_id", "extra"),
    [("MiniGrid-Empty-5x5-v0", "minigrid"), ("ALE/Pong-v5", "atari")],
)
def test_a_missing_extra_is_named_with_its_command(
    environment_id: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "installed", lambda name: name != extra)
    with pytest.raises(UserError, match=rf"extra '{extra}'.*pip install"):
        environments.make(Environment(id=environment_id))
    assert extras.install_command(extra).startswith("pip install -e '.[")


def test_what_gymnasium_misses_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gymnasium, "make", make)
    with pytest.raises(UserError, match=r"extra 'box2d'.*LunarLander"):
        environments.make(Environment(id="LunarLander-v3"))
    with pytest.raises(UserError, match="'CartPole-v1' lacks a package: Box2D is not installed"):
        environments.make(Environment(id="CartPole-v1"))
