"""What a checkpoint of an agent holds, and what a run makes of the one it finds."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.metrics import numbers_of, read_metrics
from rl_lab.rl import agent, agent_state
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]


def run_to_end(run: Run, recipe: AgentRecipe) -> str:
    with StopRequest() as stop:
        return train(run, recipe, stop)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cartpole", {"env.normalize": {}}),
        ("sac", {"env.id": "Pendulum-v1"}),
        ("td3", {"env.id": "Pendulum-v1"}),
        ("dqn", {"env.id": "CartPole-v1"}),
        ("ars", {"env.id": "CartPole-v1"}),
        ("her", {"env.id": "RLLab/ReachPoint-v0"}),
        ("recurrent_ppo", {"env.id": "CartPole-v1"}),
    ],
)
def test_a_checkpoint_restores_weights_optimisers_counters_and_buffer(
    name: str, settings: dict[str, Any], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(name, settings)
    model = agent.build(recipe)
    model.learn(300, log_interval=None)  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path, agent_state.learnt(model, with_replay_buffer=True))
    restored = agent.build(recipe.model_copy(update={"seed": 9}))
    agent_state.restore(restored, checkpoint.load(path))
    again = agent_state.learnt(restored, with_replay_buffer=True)
    for group, tensors in checkpoint.load(path).tensors.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, again.tensors[group][key].cpu()), (group, key)
    for group, arrays in checkpoint.load(path).arrays.items():
        for key, array in arrays.items():
            assert np.array_equal(array, again.arrays[group][key]), (group, key)
    assert restored.num_timesteps == model.num_timesteps


def test_a_stopped_run_goes_on_from_its_checkpoint(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 4096})
    run = make_run(recipe)
    with StopRequest() as stop:
        stop.signal = signal.SIGTERM
        assert train(run, recipe, stop) == "stopped"
    assert run.status["reason"] == "asked to by SIGTERM"
    stopped_at = run.status["step"]
    assert run_to_end(run, recipe) == "finished"
    assert run.status["step"] == 4096 > stopped_at
    events = [r["event"] for r in read_metrics(run.metrics_file) if "event" in r]
    assert events.count("resumed") == 1
    assert run_to_end(run, recipe) == "finished"  # nothing left to do, nothing broken


def test_hindsight_keeps_its_episodes_apart_where_new_ones_begin(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Whole episodes stay as they were; the unfinished one becomes an episode of its own."""
    recipe = make_recipe("her", {"env.id": "RLLab/ReachPoint-v0"})
    model = agent.build(recipe)
    model.learn(105, log_interval=None)  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path, agent_state.resumable(model, with_replay_buffer=True))
    restored = agent.build(recipe)
    agent_state.restore(restored, checkpoint.load(path))
    agent_state.cut_unfinished_episodes(restored)
    before, after = model.replay_buffer, restored.replay_buffer  # type: ignore[attr-defined]
    assert after.ep_length[:100].tolist() == before.ep_length[:100].tolist() == [[20]] * 100
    assert after.ep_start[:100].tolist() == before.ep_start[:100].tolist()
    assert after.ep_length[100:106].tolist() == [[5]] * 5 + [[0]]
    assert after.ep_start[100:105].tolist() == [[100]] * 5


def test_what_came_after_the_checkpoint_is_forgotten_on_resume(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    """A run killed after a later best: status, metrics and best/ must name the same model."""
    settings = {"budget.steps": 4096, "checkpoints.every": 1024, "checkpoints.keep": 1,
                "evaluation.every": 256}  # fmt: skip
    recipe = make_recipe("cartpole", settings)
    run = make_run(recipe)
    with StopRequest() as stop:
        stop.signal = signal.SIGTERM
        train(run, recipe, stop)
    model = agent.build(recipe)
    model.num_timesteps = 999_999  # as if it had gone on: a better model and a damaged checkpoint
    checkpoint.save(run.best, agent_state.playable(model))
    later = checkpoint.save(run.checkpoints, agent_state.learnt(model, with_replay_buffer=False))
    (later / "counters.json").unlink()
    assert run_to_end(run, recipe) == "finished"
    best = run.status["best"]
    records = read_metrics(run.metrics_file)
    steps, returns = numbers_of(records, "eval/mean_reward")
    assert best["return"] == max(returns)
    assert (
        checkpoint.steps(run.best)[-1]
        == best["step"]
        == steps[-1 - returns[::-1].index(max(returns))]
    )
    assert checkpoint.steps(run.checkpoints) == [4096]
    assert any(record.get("event") == "note" for record in records)


def test_a_run_without_a_whole_checkpoint_is_left_alone(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512})
    run = make_run(recipe)
    run_to_end(run, recipe)
    for path in checkpoint.directories(run.checkpoints):
        (path / "manifest.json").unlink()
    before = sorted(run.path.rglob("*"))
    with pytest.raises(UserError, match="no checkpoint of run 'test' is whole"):
        run_to_end(run, recipe)
    assert sorted(run.path.rglob("*")) == before


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512})
    run = make_run(recipe)
    run.metrics_file.write_text('{"step": 0, "wall": 1.0, "eval/mean_reward": 5.0}\n')
    run_to_end(run, recipe)
    assert numbers_of(read_metrics(run.metrics_file), "eval/mean_reward")[0] == [0, 512]


def test_a_recipe_changed_after_training_is_named(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, agent_state.playable(agent.build(make_recipe("cartpole"))))
    other = make_recipe("cartpole", {"env.id": "Acrobot-v1"})
    with pytest.raises(UserError, match=r"does not fit the run's recipe\.yaml"):
        agent.load(other, checkpoint.load(path))
