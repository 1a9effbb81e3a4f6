"""EnvPool, where it is installed: what it gives, what it refuses, and how a run goes on."""

from collections.abc import Callable

import numpy as np
import pytest

from rl_lab import extras
from rl_lab.errors import UserError
from rl_lab.metrics import read_metrics
from rl_lab.rl import environments, vectorized
from rl_lab.rl.boundary import AtUpdateBoundary
from rl_lab.rl.recipe import AgentRecipe, Environment
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest

COPIES = 4
LANDER = Environment(id="LunarLander-v3", number=COPIES)

needs_envpool = pytest.mark.skipif(
    not extras.installed("envpool"), reason="the extra envpool is not installed"
)


def pool(environment: Environment = LANDER, seed: int = 5) -> environments.VecEnv:
    seeds = [[seed + copy] for copy in range(environment.number)]
    return environments.make_vector(environment, seeds, vectorization="envpool")


def test_a_missing_envpool_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectorized, "installed", lambda name: name != "envpool")
    with pytest.raises(UserError, match=r"extra 'envpool'.*pip install"):
        pool()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kwargs": {"continuous": True}}, "env.kwargs does not go with"),
        ({"wrappers": ["FlattenObservation"]}, "env.wrappers does not go with"),
    ],
)
def test_what_does_not_go_with_it_is_one_sentence(settings: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        pool(LANDER.model_copy(update=settings))


@needs_envpool
def test_an_environment_it_has_not_is_said() -> None:
    with pytest.raises(UserError, match="EnvPool has no RLLab/Match-v0"):
        pool(Environment(id="RLLab/Match-v0"))


@needs_envpool
def test_the_same_seed_gives_the_same_bits() -> None:
    one, other, third = pool(), pool(), pool(seed=6)
    first = one.reset()
    assert np.array_equal(first, other.reset())
    assert not np.array_equal(first, third.reset())
    for step in range(300):
        actions = np.full(COPIES, step % 4)
        given, again = one.step(actions), other.step(actions)
        for part, same in zip(given[:3], again[:3], strict=True):
            assert np.array_equal(part, same)


@needs_envpool
def test_episodes_are_whole() -> None:
    """Their returns and lengths add up, and each begins where a reset does."""
    vector = pool()
    returns, lengths, ends = np.zeros(COPIES), np.zeros(COPIES, dtype=int), 0
    vector.reset()
    for step in range(400):
        observations, rewards, dones, infos = vector.step(np.full(COPIES, step % 4))
        assert observations.dtype == np.float32
        returns += rewards
        lengths += 1
        for copy in np.flatnonzero(dones):
            ends += 1
            assert infos[copy]["episode"]["r"] == pytest.approx(returns[copy], abs=1e-3)
            assert infos[copy]["episode"]["l"] == lengths[copy]
            assert not infos[copy]["TimeLimit.truncated"]
            assert observations[copy, 1] == pytest.approx(1.4, abs=0.05)  # up where it starts
            assert infos[copy]["terminal_observation"][1] < 1.2
            returns[copy], lengths[copy] = 0.0, 0
    assert ends >= COPIES


@needs_envpool
def test_a_time_limit_truncates() -> None:
    vector = pool(Environment(id="MountainCar-v0", number=2))
    vector.reset()
    for _ in range(200):
        *_, dones, infos = vector.step(np.ones(2, dtype=int))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, True]
    assert [info["episode"]["l"] for info in infos] == [200, 200]


@needs_envpool
def test_a_copy_can_begin_anew() -> None:
    vector = pool()
    vector.reset()
    for _ in range(20):
        before, *_ = vector.step(np.zeros(COPIES, dtype=int))
    before = before.copy()
    ((first, _),) = vector.env_method("reset", indices=2)
    after, *_ = vector.step(np.zeros(COPIES, dtype=int))
    assert np.abs(after[2] - first).max() < 0.1
    assert np.abs(after[[0, 1, 3]] - before[[0, 1, 3]]).max() < 0.1
    assert np.abs(first - before[2]).max() > 0.1


@needs_envpool
def test_a_resumed_run_starts_new_episodes_and_says_so(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    recipe = make_recipe("ppo", {
        "env.id": "CartPole-v1", "env.number": 2, "env.vectorization": "envpool",
        "algorithm.n_steps": 32, "algorithm.batch_size": 32, "budget.steps": 512,
        "checkpoints.every": 128, "evaluation.episodes": 1,
    })  # fmt: skip
    run = make_run(recipe)
    with StopRequest() as stop, monkeypatch.context() as patched:
        save = AtUpdateBoundary.save_checkpoint

        def save_and_stop(self: AtUpdateBoundary) -> None:
            save(self)
            stop.signal = 15

        patched.setattr(AtUpdateBoundary, "save_checkpoint", save_and_stop)
        assert train(run, recipe, stop) == "stopped"
    with StopRequest() as stop:
        assert train(run, recipe, stop) == "finished"
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert "where its copies are cannot be read or written" in notes[0]
