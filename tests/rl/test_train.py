"""Training: learns what can be learnt, repeats itself to the bit, minds no judge."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.metrics import numbers_of, read_metrics
from rl_lab.rl import agent, agent_state
from rl_lab.rl.algorithms import ALGORITHMS
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import TrainingFailed, train
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
    path = checkpoint.save(tmp_path, agent_state.resumable(model, with_replay_buffer=True))
    restored = agent.build(recipe.model_copy(update={"seed": 9}))
    agent_state.restore(restored, checkpoint.load(path))
    again = agent_state.resumable(restored, with_replay_buffer=True)
    for group, tensors in checkpoint.load(path).tensors.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, again.tensors[group][key].cpu()), (group, key)
    for group, arrays in checkpoint.load(path).arrays.items():
        for key, array in arrays.items():
            if name != "her":  # see test_hindsight_keeps_its_episodes_apart_over_a_resume
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


def test_hindsight_keeps_its_episodes_apart_over_a_resume(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Whole episodes stay as they were; the unfinished one becomes an episode of its own."""
    recipe = make_recipe("her", {"env.id": "RLLab/ReachPoint-v0"})
    model = agent.build(recipe)
    model.learn(105, log_interval=None)  # type: ignore[arg-type]
    path = checkpoint.save(tmp_path, agent_state.resumable(model, with_replay_buffer=True))
    restored = agent.build(recipe)
    agent_state.restore(restored, checkpoint.load(path))
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
    later = checkpoint.save(run.checkpoints, agent_state.resumable(model, with_replay_buffer=False))
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


class Poisoned(gymnasium.Wrapper):
    """CartPole whose reward is NaN at step 1,000."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.count = 0

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        self.count += 1
        return (
            observation,
            float("nan") if self.count == 1000 else reward,
            terminated,
            truncated,
            info,
        )


gymnasium.register("Test/NaNAtAThousand-v0", entry_point=Poisoned)


def test_a_nan_reward_fails_the_run_before_it_is_learnt_from(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe("ppo", {"env.id": "Test/NaNAtAThousand-v0", "algorithm.n_steps": 256,
                                 "checkpoints.every": 256, "evaluation.episodes": 1})  # fmt: skip
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match="the reward of environment 0 at step 1,000"):
        run_to_end(run, recipe)
    assert run.state == "failed"
    assert "step 1,000" in run.status["reason"]
    snapshot, damaged = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert not damaged
    assert snapshot.step == 768
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors["policy"].values())


def test_a_nan_loss_fails_the_run_before_the_weights_change(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 1024, "evaluation.every": 10**6})
    built: list[Any] = []
    build = agent.build

    def build_with_nan_advantage(*arguments: Any, **settings: Any) -> Any:
        model = build(*arguments, **settings)
        compute = model.rollout_buffer.compute_returns_and_advantage

        def poisoned(*inner: Any, **named: Any) -> None:
            compute(*inner, **named)
            model.rollout_buffer.advantages[3] = np.nan

        model.rollout_buffer.compute_returns_and_advantage = poisoned
        built.append((model, [p.detach().clone() for p in model.policy.parameters()]))
        return model

    monkeypatch.setattr(agent, "build", build_with_nan_advantage)
    with pytest.raises(TrainingFailed, match=r"loss or its gradient \(policy.optimizer\)"):
        run_to_end(make_run(recipe), recipe)
    ((model, before),) = built
    for old, new in zip(before, model.policy.parameters(), strict=True):
        assert torch.equal(old, new)


def test_a_bug_in_an_environment_keeps_its_traceback_and_marks_the_run(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("cartpole", {"evaluation.every": 10**6})
    run = make_run(recipe)

    def explode(*_: Any) -> None:
        raise ZeroDivisionError("in the environment")

    monkeypatch.setattr("gymnasium.envs.classic_control.cartpole.CartPoleEnv.step", explode)
    with pytest.raises(ZeroDivisionError):
        run_to_end(run, recipe)
    assert run.state == "failed"
    assert run.status["reason"] == "ZeroDivisionError: in the environment"


def test_subprocess_environments_train_too(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("cartpole", {"budget.steps": 512, "env.number": 2,
                                      "env.vectorization": "subproc"})  # fmt: skip
    assert run_to_end(make_run(recipe), recipe) == "finished"


@pytest.mark.parametrize("sink", ["tensorboard", "trackio", "wandb"])
def test_each_sink_is_written_offline(
    sink: str, make_recipe: MakeRecipe, make_run: MakeRun, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    recipe = make_recipe("cartpole", {"budget.steps": 2048, f"logging.{sink}": True})
    run = make_run(recipe)
    run_to_end(run, recipe)
    if sink == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(run.path / "tensorboard")).Reload()
        written = events.Scalars("rollout/ep_rew_mean")
        steps, values = numbers_of(read_metrics(run.metrics_file), "rollout/ep_rew_mean")
        assert [event.step for event in written] == steps
        assert [event.value for event in written] == pytest.approx(values)
    else:
        root = tmp_path / "trackio" if sink == "trackio" else run.path / "wandb"
        assert [path for path in root.rglob("*") if path.is_file() and path.stat().st_size > 0]


def test_ctrl_c_in_a_terminal_reaches_the_environments_too_and_does_no_harm(
    runs_directory: Path,
) -> None:
    """A terminal sends SIGINT to the whole group: subprocess environments must leave it alone."""
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--name", "stopped",
               "--env.vectorization", "subproc", "--env.number", "2"]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        metrics = runs_directory / "stopped" / "metrics.jsonl"
        until = time.monotonic() + 60
        while not (metrics.exists() and len(read_metrics(metrics)) > 2):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert Run.open("stopped").state == "stopped"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_says_how_to_go_on_and_sets_the_exit_code(
    number: signal.Signals, code: int, runs_directory: Path, lab: Lab
) -> None:
    command = [sys.executable, "-m", "rl_lab.cli", "train", "cartpole", "--name", "stopped",
               "--evaluation.stop_after_solved", "null", "--budget.steps", "30000"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        metrics = runs_directory / "stopped" / "metrics.jsonl"
        until = time.monotonic() + 60
        while not (metrics.exists() and len(read_metrics(metrics)) > 3):
            assert time.monotonic() < until
            time.sleep(0.05)
        os.kill(process.pid, number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert "stopped: stopped" in output
    assert "rl-lab train --resume" in output
    run = Run.open("stopped")
    assert run.state == "stopped"
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert snapshot.step == run.status["step"] < 30_000
    result = lab("train", "--resume", "stopped", "--json")
    assert result.returncode == 0
    assert json.loads(result.stdout)["state"] == "finished"


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
