"""Copies in arrays move as Gymnasium's single environments do, and begin anew when they ended."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from envs import VECTORIZED
from envs.match import Match
from envs.recall import Recall
from envs.same_step import SameStepVectorEnv

COPIES = 5
Put = Callable[[Any, np.ndarray], None]

pytestmark = pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")


def put_state(env: Any, state: np.ndarray) -> None:
    env.state = state


def put_target(env: Any, state: np.ndarray) -> None:
    env._target = state[0]


def put_cue(env: Any, state: np.ndarray) -> None:
    env._cue = state[0]


def put_points(env: Any, state: np.ndarray) -> None:
    env._place, env._goal = state[:2].astype(np.float32), state[2:].astype(np.float32)


# Each environment, the arguments it takes, and how a state is put into its single version.
CASES: list[tuple[str, dict[str, Any], Put]] = [
    ("CartPole-v0", {}, put_state),
    ("CartPole-v1", {}, put_state),
    ("CartPole-v1", {"sutton_barto_reward": True}, put_state),
    ("Acrobot-v1", {}, put_state),
    ("Pendulum-v1", {}, put_state),
    ("Pendulum-v1", {"g": 9.81}, put_state),
    ("MountainCar-v0", {}, put_state),
    ("MountainCar-v0", {"goal_velocity": 0.02}, put_state),
    ("RLLab/Match-v0", {}, put_target),
    ("RLLab/Match-v0", {"actions": "continuous"}, put_target),
    ("RLLab/Recall-v0", {"delay": 1}, put_cue),
    ("RLLab/ReachPoint-v0", {}, put_points),
]
EACH = pytest.mark.parametrize(
    ("environment_id", "arguments"), [(environment_id, own) for environment_id, own, _ in CASES]
)


def vectorized(environment_id: str, copies: int = COPIES, **arguments: Any) -> SameStepVectorEnv:
    spec = gymnasium.spec(environment_id)
    entry_point = VECTORIZED.get(environment_id, spec.vector_entry_point)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spec, "vector_entry_point", entry_point)
        made: VectorEnv = gymnasium.make_vec(
            spec, copies, vectorization_mode="vector_entry_point", **arguments
        )
    assert isinstance(made, SameStepVectorEnv)
    assert made.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    return made


def row(observations: Any, copy: int) -> Any:
    if isinstance(observations, dict):
        return {key: part[copy] for key, part in observations.items()}
    return observations[copy]


def stepped(many: SameStepVectorEnv, actions: Any) -> list[Any]:
    """A step as numpy compares it, which objects in arrays are not."""
    *given, infos = many.step(actions)
    return [*given, infos | {"final_obs": list(infos.get("final_obs", []))}]


def assert_close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, part in expected.items():
            assert_close(found[key], part)
    else:
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def assert_moves_alike(many: SameStepVectorEnv, one: Any, put: Put, actions: Any) -> int:
    """Step all copies, and the single environment from each copy's state; return who ended."""
    states, elapsed = many.state.copy(), many.elapsed.copy()
    observations, rewards, terminations, truncations, infos = many.step(actions)
    assert many.observation_space.contains(observations)
    for copy in range(many.num_envs):
        one.reset(seed=0)
        put(one, states[:, copy])
        if isinstance(one, Recall):
            one._step = int(elapsed[copy])
        shown, reward, terminated, _, info = one.step(actions[copy])
        np.testing.assert_allclose(rewards[copy], reward, rtol=1e-6, atol=1e-9)
        assert terminations[copy] == terminated
        ended = bool(terminations[copy] or truncations[copy])
        if not isinstance(one, Match):  # what it shows next is a new target
            assert_close(infos["final_obs"][copy] if ended else row(observations, copy), shown)
        if ended:
            assert infos["_final_obs"][copy]
            assert {key: value[copy] for key, value in infos["final_info"].items()
                    if not key.startswith("_")} == info  # fmt: skip
    return int((terminations | truncations).sum())


@pytest.mark.parametrize(("environment_id", "arguments", "put"), CASES)
def test_each_copy_moves_as_the_single_environment(
    environment_id: str, arguments: dict[str, Any], put: Put
) -> None:
    many = vectorized(environment_id, **arguments)
    one: Any = gymnasium.make(environment_id, **arguments).unwrapped
    assert many.single_observation_space == one.observation_space
    assert many.single_action_space == one.action_space
    many.reset(seed=3)
    many.action_space.seed(4)
    if environment_id == "Acrobot-v1":
        many.elapsed += 350  # it seldom ends by chance
    ended = sum(assert_moves_alike(many, one, put, many.action_space.sample()) for _ in range(220))
    assert ended > 0


FARTHEST = {
    "CartPole-v1": [3.0, 10.0, 0.3, 10.0],
    "Acrobot-v1": [3.2, 3.2, 12.6, 28.3],
    "Pendulum-v1": [20.0, 8.0],
    "MountainCar-v0": [0.9, 0.07],
}


@pytest.mark.parametrize("environment_id", FARTHEST)
@settings(max_examples=40)
@given(data=st.data())
def test_they_do_so_from_any_state(environment_id: str, data: st.DataObject) -> None:
    many = vectorized(environment_id)
    one = gymnasium.make(environment_id).unwrapped
    many.reset(seed=0)
    many.action_space.seed(data.draw(st.integers(0, 2**31)))
    share = data.draw(arrays.arrays(float, many.state.shape, elements=st.floats(-1, 1)))
    many.state[:] = share * np.array(FARTHEST[environment_id])[:, None]
    if environment_id == "MountainCar-v0":
        many.state[0] -= 0.3
    assert_moves_alike(many, one, put_state, many.action_space.sample())


@EACH
def test_episodes_are_cut_off_where_the_single_environment_is(
    environment_id: str, arguments: dict[str, Any]
) -> None:
    limit = gymnasium.spec(environment_id).max_episode_steps
    assert vectorized(environment_id, **arguments).max_episode_steps == limit
    many = vectorized(environment_id, max_episode_steps=3, **arguments)
    many.reset(seed=0)
    cut_off = [many.step(many.action_space.sample())[3].tolist() for _ in range(7)]
    never, always = [False] * COPIES, [True] * COPIES
    assert cut_off == [never, never, always, never, never, always, never]


def test_a_time_limit_of_no_step_is_refused() -> None:
    with pytest.raises(ValueError, match="max_episode_steps is -1"):
        vectorized("CartPole-v1", max_episode_steps=-1)


@EACH
def test_starts_are_drawn_as_the_single_environment_draws_them(
    environment_id: str, arguments: dict[str, Any]
) -> None:
    """The same lowest, highest and mean of each observed number, over many starts."""
    count = 2000
    many, _ = vectorized(environment_id, count, **arguments).reset(seed=1)
    one = gymnasium.make(environment_id, **arguments)
    one.reset(seed=2)
    starts = [one.reset()[0] for _ in range(count)]
    for key in many if isinstance(many, dict) else [None]:
        found = many if key is None else many[key]
        expected = np.array([start if key is None else start[key] for start in starts])
        assert found.shape == expected.shape
        width = expected.max(axis=0) - expected.min(axis=0)
        for statistic, tolerance in ((np.min, 0.02), (np.max, 0.02), (np.mean, 0.06)):
            distance = np.abs(statistic(found, axis=0) - statistic(expected, axis=0))
            assert (distance <= tolerance * width + 1e-7).all()


@EACH
def test_the_same_seed_gives_the_same_and_what_is_put_back_goes_on(
    environment_id: str, arguments: dict[str, Any]
) -> None:
    one, other = vectorized(environment_id, **arguments), vectorized(environment_id, **arguments)
    np.testing.assert_equal(one.reset(seed=5), other.reset(seed=5))
    one.action_space.seed(6)
    for _ in range(40):
        actions = one.action_space.sample()
        np.testing.assert_equal(stepped(one, actions), stepped(other, actions))
    third = vectorized(environment_id, **arguments)
    third.reset(seed=7)
    third.state[:], third.elapsed[:] = one.state, one.elapsed
    third.np_random.bit_generator.state = one.np_random.bit_generator.state
    np.testing.assert_equal(third.observe(), one.observe())
    for _ in range(40):
        actions = one.action_space.sample()
        np.testing.assert_equal(stepped(one, actions), stepped(third, actions))


@EACH
def test_what_was_given_is_not_written_over(environment_id: str, arguments: dict[str, Any]) -> None:
    many, again = vectorized(environment_id, **arguments), vectorized(environment_id, **arguments)
    many.action_space.seed(6)
    actions = [many.action_space.sample() for _ in range(30)]
    first, *later = [many.reset(seed=5), *(stepped(many, taken) for taken in actions)]
    np.testing.assert_equal(first, again.reset(seed=5))
    for kept, taken in zip(later, actions, strict=True):
        np.testing.assert_equal(kept, stepped(again, taken))


@EACH
def test_only_the_chosen_copies_begin_anew(environment_id: str, arguments: dict[str, Any]) -> None:
    many = vectorized(environment_id, **arguments)
    many.reset(seed=5)
    many.step(many.action_space.sample())
    before, elapsed = many.state.copy(), many.elapsed.copy()
    chosen = np.array([True, False, False, True, False])
    many.reset(options={"reset_mask": chosen})
    assert many.elapsed[chosen].tolist() == [0, 0]
    assert np.array_equal(many.state[:, ~chosen], before[:, ~chosen])
    assert np.array_equal(many.elapsed[~chosen], elapsed[~chosen])


def test_masks_allow_what_the_single_environment_allows() -> None:
    many, one = vectorized("RLLab/Match-v0"), Match()
    many.reset(seed=0)
    for copy, mask in enumerate(many.action_masks()):  # type: ignore[attr-defined]
        one._target = many.state[0, copy]
        assert mask.tolist() == one.action_masks().tolist()
