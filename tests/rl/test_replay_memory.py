"""A replay buffer of images keeps each once where SB3 can, and learns the same."""

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rl_lab.metrics import read_metrics
from rl_lab.rl import agent, agent_state
from tests.rl.faulty import MakeRecipe, MakeRun, run_to_end

SIDE, EPISODE = 36, 7


class Counting(gymnasium.Env):
    """Images that count the steps of an episode, which ends by itself."""

    observation_space = spaces.Box(0, 255, (SIDE, SIDE, 1), np.uint8)
    action_space = spaces.Discrete(2)

    def _image(self) -> np.ndarray:
        return np.full((SIDE, SIDE, 1), self.steps, np.uint8)

    def reset(
        self, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        self.steps = 0
        return self._image(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._image(), 1.0, self.steps == EPISODE, False, {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Counting-v0", Counting)
    gymnasium.register("CutOff-v0", Counting, max_episode_steps=5)
    yield
    for name in ("Counting-v0", "CutOff-v0"):
        del gymnasium.registry[name]


SMALL = {
    "env.id": "Counting-v0", "budget.steps": 60, "algorithm.learning_starts": 20,
    "algorithm.buffer_size": 40, "algorithm.batch_size": 4, "evaluation.episodes": 1,
}  # fmt: skip


def nbytes(model: Any) -> int:
    arrays = vars(model.replay_buffer).values()
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def test_an_image_takes_its_bytes_once(make_recipe: MakeRecipe) -> None:
    model = agent.build(make_recipe("dqn", SMALL))
    images = 40 * SIDE * SIDE
    assert images < nbytes(model) < 1.05 * images


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm.optimize_memory_usage": False},
        {"algorithm.n_steps": 3},
        {"env.id": "CutOff-v0"},
        {"env.wrappers": [{"TimeLimit": {"max_episode_steps": 5}}]},
        {"env.restarts": 1},
        {"health.on_nan": "skip"},
    ],
    ids=["asked not to", "n-step", "time limit", "time limit around it", "restarts", "skips"],
)
def test_it_takes_them_twice_where_once_would_be_wrong(
    settings: dict[str, Any], make_recipe: MakeRecipe
) -> None:
    model = agent.build(make_recipe("dqn", SMALL | settings))
    assert nbytes(model) > 2 * 40 * SIDE * SIDE
    assert model.replay_buffer.handle_timeout_termination  # type: ignore[attr-defined]


def test_what_is_no_image_is_kept_as_ever(make_recipe: MakeRecipe) -> None:
    model: Any = agent.build(make_recipe("dqn", SMALL | {"env.id": "CartPole-v1"}))
    assert not model.optimize_memory_usage
    model = agent.build(make_recipe("ppo", {"env.id": "Counting-v0"}))
    assert not hasattr(model, "replay_buffer")


def test_the_run_says_so_and_learns_from_the_right_images(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    build = agent.build
    monkeypatch.setattr(agent, "build", lambda *given: built.append(build(*given)) or built[-1])
    recipe = make_recipe("dqn", SMALL)
    run = make_run(recipe)
    run_to_end(run, recipe)
    notes = [record["message"] for record in read_metrics(run.metrics_file) if "event" in record]
    assert sum("keeps each image once" in note for note in notes) == 1
    batch = built[0].replay_buffer.sample(200)
    now, then = batch.observations[:, 0, 0, 0], batch.next_observations[:, 0, 0, 0]
    on = batch.dones[:, 0] == 0
    assert (then[on] == now[on] + 1).all()
    assert (now[~on] == EPISODE - 1).all()


@pytest.mark.parametrize("settings", [{}, {"env.id": "CartPole-v1"}])
def test_an_agent_that_saved_memory_is_loaded_to_act(
    settings: dict[str, Any], make_recipe: MakeRecipe
) -> None:
    saving = {
        "algorithm.optimize_memory_usage": True,
        "algorithm.replay_buffer_kwargs": {"handle_timeout_termination": False},
    }
    recipe = make_recipe("dqn", SMALL | (settings and settings | saving))
    loaded = agent.load(recipe, agent_state.playable(agent.build(recipe)))
    observation = loaded.observation_space.sample()
    assert loaded.predict(observation, deterministic=True)[0] in (0, 1)
