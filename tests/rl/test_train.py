"""Training: learns what can be learnt, repeats itself to the bit, minds no judge."""

import hashlib
import tempfile
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
from rl_lab.rl.algorithms import ALGORITHMS
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from tests.conftest import Lab

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]

ON_POLICY = {
    "env.number": 4, "algorithm.n_steps": 64, "algorithm.batch_size": 64, "algorithm.gamma": 0.0,
    "budget.steps": 6000,
}  # fmt: skip
OFF_POLICY = {
    "algorithm.gamma": 0.0, "algorithm.learning_starts": 200, "algorithm.batch_size": 64,
    "algorithm.learning_rate": 3e-3, "algorithm.policy_kwargs": {"net_arch": [32, 32]},
}  # fmt: skip
VALUE_BASED = OFF_POLICY | {
    "algorithm.train_freq": 2, "algorithm.target_update_interval": 100,
    "algorithm.exploration_fraction": 0.5, "budget.steps": 5000,
}  # fmt: skip
CONTINUOUS = OFF_POLICY | {"env.kwargs": {"actions": "continuous"}, "budget.steps": 2500}

# For each algorithm, settings in which it reaches the optimum, and the return that counts as that:
# all of it where actions are discrete, 94 % where they are continuous (10 is exact equality).
OPTIMUM: dict[str, tuple[str, dict[str, Any], float]] = {
    "ppo": ("RLLab/Match-v0", ON_POLICY | {"algorithm.learning_rate": 3e-3}, 10.0),
    "a2c": (
        "RLLab/Match-v0",
        {"env.number": 4, "algorithm.n_steps": 16, "algorithm.gamma": 0.0,
         "algorithm.learning_rate": 5e-3, "budget.steps": 10_000},
        10.0,
    ),
    "trpo": ("RLLab/Match-v0", ON_POLICY, 10.0),
    "maskable_ppo": ("RLLab/Match-v0", ON_POLICY | {"algorithm.learning_rate": 3e-3}, 10.0),
    "recurrent_ppo": (
        "RLLab/Recall-v0",
        {"env.number": 8, "algorithm.n_steps": 64, "algorithm.batch_size": 128,
         "algorithm.learning_rate": 5e-3, "algorithm.policy_kwargs": {"lstm_hidden_size": 16},
         "budget.steps": 15_000},
        1.0,
    ),
    "dqn": ("RLLab/Match-v0", VALUE_BASED, 10.0),
    "qrdqn": (
        "RLLab/Match-v0",
        VALUE_BASED | {"algorithm.policy_kwargs": {"net_arch": [32, 32], "n_quantiles": 10}},
        10.0,
    ),
    "ars": (
        "RLLab/Match-v0",
        {"algorithm.n_delta": 8, "algorithm.learning_rate": 0.05, "algorithm.delta_std": 0.1,
         "algorithm.n_eval_episodes": 2, "budget.steps": 30_000},
        10.0,
    ),
    "sac": ("RLLab/Match-v0", CONTINUOUS, 9.4),
    "td3": ("RLLab/Match-v0", CONTINUOUS, 9.4),
    "ddpg": ("RLLab/Match-v0", CONTINUOUS, 9.4),
    "tqc": ("RLLab/Match-v0", CONTINUOUS, 9.4),
    "crossq": ("RLLab/Match-v0", CONTINUOUS, 9.0),
}  # fmt: skip


def run_to_end(run: Run, recipe: AgentRecipe) -> str:
    with StopRequest() as stop:
        return train(run, recipe, stop)


def last_evaluation(run: Run, name: str = "eval/mean_reward") -> float:
    return numbers_of(read_metrics(run.metrics_file), name)[1][-1]


def weights(path: Path) -> str:
    return hashlib.sha256((path / "policy.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_each_algorithm_reaches_a_known_optimum(
    name: str, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    environment, settings, optimum = OPTIMUM[name]
    recipe = make_recipe(name, settings | {"env.id": environment, "evaluation.every": 100_000})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    assert last_evaluation(run) >= optimum


def test_hindsight_reaches_goals_that_chance_does_not(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    settings = {"env.id": "RLLab/ReachPoint-v0", "algorithm.policy_kwargs": {"net_arch": [32, 32]},
                "algorithm.learning_rate": 3e-3, "algorithm.batch_size": 64,
                "algorithm.gamma": 0.9, "budget.steps": 2000}  # fmt: skip
    recipe = make_recipe("her", settings)
    run = make_run(recipe)
    run_to_end(run, recipe)
    assert last_evaluation(run, "eval/success_rate") >= 0.95


def test_a_run_directory_holds_what_it_should(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 3000, "evaluation.every": 1000,
                                      "checkpoints.every": 1000})  # fmt: skip
    run = make_run(recipe)
    run_to_end(run, recipe)
    assert {path.name for path in run.path.iterdir()} == {
        "recipe.yaml", "provenance.json", "status.json", "metrics.jsonl", "checkpoints", "best",
        "lock",
    }  # fmt: skip
    status = run.status
    assert status["state"] == "finished"
    assert status["step"] == 3072  # whole rollouts of 8 x 32 steps
    assert len(checkpoint.directories(run.checkpoints)) == recipe.checkpoints.keep
    records = read_metrics(run.metrics_file)
    steps, returns = numbers_of(records, "eval/mean_reward")
    assert steps == [0, 1024, 2048, 3072]
    # The best is the last of those with the highest return.
    best = max(range(4), key=lambda i: (returns[i], i))
    assert status["best"] == {"return": returns[best], "step": steps[best]}
    assert checkpoint.steps(run.best)[-1] == steps[best]
    phases = ("environment", "policy", "update", "evaluation")
    for name in ("train/approx_kl", "system/memory_mb", *(f"phase/{phase}" for phase in phases)):
        assert numbers_of(records, name)[1], name


def test_nothing_is_left_in_the_temporary_directory(
    make_recipe: MakeRecipe, make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    recipe = make_recipe("cartpole", {"budget.steps": 512})
    run_to_end(make_run(recipe), recipe)
    assert list(temporary.iterdir()) == []


def test_the_same_seed_gives_the_same_bits_in_two_processes(lab: Lab, runs_directory: Path) -> None:
    small = ("--budget.steps", "2000", "--quiet")
    for name in ("first", "second"):
        assert lab("train", "cartpole", "--name", name, *small).returncode == 0
    assert lab("train", "cartpole", "--name", "other", "--seed", "1", *small).returncode == 0
    first, second, other = (
        weights(checkpoint.directories(runs_directory / name / "checkpoints")[-1])
        for name in ("first", "second", "other")
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cartpole", {"env.normalize": {}, "budget.steps": 2048}),
        ("sac", {"env.id": "Pendulum-v1", "algorithm.use_sde": True, "budget.steps": 600}),
        ("dqn", {"env.id": "CartPole-v1", "algorithm.learning_starts": 100, "budget.steps": 1500}),
        ("recurrent_ppo", {"env.id": "RLLab/Recall-v0", "budget.steps": 512}),
    ],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_being_judged_does_not_change_training(
    name: str,
    settings: dict[str, Any],
    deterministic: bool,
    make_recipe: MakeRecipe,
    make_run: MakeRun,
) -> None:
    """Judged every 200 steps, or only at the start and the end: the same weights."""
    final = []
    for number, evaluation in enumerate(
        ({"evaluation.every": 200, "evaluation.episodes": 4,
          "evaluation.deterministic": deterministic},
         {"evaluation.every": 10**6, "evaluation.episodes": 1}),
    ):  # fmt: skip
        recipe = make_recipe(name, settings | evaluation)
        run = make_run(recipe, f"run{number}")
        run_to_end(run, recipe)
        final.append(weights(checkpoint.directories(run.checkpoints)[-1]))
    assert final[0] == final[1]


def test_an_agent_is_judged_on_raw_rewards_with_frozen_statistics(make_recipe: MakeRecipe) -> None:
    from rl_lab.rl.evaluate import evaluate

    recipe = make_recipe("pendulum", {"env.normalize": {}})
    model = agent.build(recipe)
    model.learn(300)
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None
    before = (normalizer.obs_rms.mean.copy(), normalizer.ret_rms.var.copy(), normalizer.training)
    episodes = evaluate(model, recipe.env, [1, 2, 3], deterministic=True)
    assert all(episode.length == 200 and not episode.terminated for episode in episodes)
    # Raw Pendulum returns are far below what clipped, normalised rewards can sum up to.
    assert all(-2000 < episode.episode_return < -100 for episode in episodes)
    after = (normalizer.obs_rms.mean, normalizer.ret_rms.var, normalizer.training)
    assert np.array_equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_an_episode_can_be_judged_again_alone(make_recipe: MakeRecipe) -> None:
    from rl_lab.rl.evaluate import evaluate

    recipe = make_recipe("cartpole")
    model = agent.build(recipe)
    together = evaluate(model, recipe.env, list(range(25)), deterministic=True)
    alone = evaluate(model, recipe.env, [13], deterministic=True)
    assert together[13] == alone[0]
    assert [episode.seed for episode in together] == list(range(25))


def test_the_schedules_of_ars_go_on_where_they_were(make_recipe: MakeRecipe) -> None:
    linear = {"schedule": "linear", "start": 0.1, "end": 0.0}
    recipe = make_recipe("ars", {"env.id": "CartPole-v1", "algorithm.learning_rate": linear,
                                 "budget.steps": 3000})  # fmt: skip
    model = agent.build(recipe)
    model._update_current_progress_remaining(2000, 1000)  # what ARS passes: what is left
    assert model.lr_schedule(model._current_progress_remaining) == pytest.approx(0.1 / 3)


def test_ars_logs_the_return_of_its_episodes(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("ars", {"env.id": "CartPole-v1", "budget.steps": 3000})
    run = make_run(recipe)
    run_to_end(run, recipe)
    assert len(numbers_of(read_metrics(run.metrics_file), "rollout/ep_rew_mean")[0]) >= 2


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("sac", {"env.id": "Pendulum-v1", "env.normalize": {}, "env.frame_stack": 3},
         "frames are not stacked"),
        ("sac", {"env.id": "Pendulum-v1", "env.number": 2, "algorithm.train_freq": [1, "episode"]},
         "env.number 1"),
        ("cartpole", {"device": "cuda"}, "device = 'cuda'"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(
    name: str, settings: dict[str, Any], words: str, make_recipe: MakeRecipe
) -> None:
    if settings.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(UserError, match=words):
        agent.check(make_recipe(name, settings), whole=True)


def test_few_copies_stand_for_many_in_a_check(make_recipe: MakeRecipe) -> None:
    agent.check(make_recipe("ppo", {"env.id": "CartPole-v1", "env.number": 8,
                                    "algorithm.n_steps": 1, "algorithm.batch_size": 8}),
                whole=False)  # fmt: skip


@pytest.mark.parametrize("name", ["dqn", "qrdqn"])
def test_a_saved_agent_samples_as_it_did_in_training(
    name: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(name, {"env.id": "CartPole-v1", "budget.steps": 200})
    model = agent.build(recipe)
    model.learn(200, log_interval=None)  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path, agent_state.playable(model))
    loaded: Any = agent.load(recipe, checkpoint.load(path))
    assert loaded.exploration_rate == model.exploration_rate > 0  # type: ignore[attr-defined]


def test_subprocess_environments_train_too(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512, "env.number": 2,
                                      "env.vectorization": "subproc"})  # fmt: skip
    assert run_to_end(make_run(recipe), recipe) == "finished"


PIXELS = {"algorithm.n_steps": 16, "algorithm.batch_size": 64, "budget.steps": 256,
          "algorithm.n_epochs": 1}  # fmt: skip
REPLAY = {"algorithm.learning_starts": 50, "algorithm.buffer_size": 1000, "budget.steps": 100}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("bipedalwalker", {"algorithm.n_steps": 16, "budget.steps": 512}),
        ("halfcheetah", REPLAY),
        ("hopper", REPLAY),
        ("walker2d", REPLAY),
        ("ant", REPLAY),
        ("minigrid-doorkey", {"budget.steps": 1024}),
        ("minigrid-empty", {"budget.steps": 1024}),
        ("pong", PIXELS),
        ("breakout", PIXELS),
    ],
)
def test_recipes_too_long_for_a_test_at_least_begin(
    name: str, settings: dict[str, Any], make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    """Every part runs: environment, policy, update, evaluation, checkpoint."""
    recipe = make_recipe(name, settings)
    short = [{"TimeLimit": {"max_episode_steps": 50}}, *recipe.env.wrappers]
    environment = recipe.env.model_copy(update={"wrappers": short})
    recipe = recipe.model_copy(
        update={
            "env": environment,
            "evaluation": recipe.evaluation.model_copy(update={"episodes": 2}),
        }
    )
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    assert np.isfinite(last_evaluation(run))
    assert checkpoint.latest(run.checkpoints)[0] is not None


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_cartpole_is_solved_on_every_seed(
    seed: int, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    """At least 475 over 20 greedy episodes, on two evaluations running."""
    recipe = make_recipe("cartpole", {"seed": seed})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    returns = numbers_of(read_metrics(run.metrics_file), "eval/mean_reward")[1]
    assert min(returns[-2:]) >= 475


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minigrid-empty", "minigrid-doorkey"])
def test_minigrid_is_solved(name: str, make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe(name, {"evaluation.stop_after_solved": 1})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    assert last_evaluation(run) >= 0.9
