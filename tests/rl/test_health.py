"""What is no number is never learned from, and what looks wrong is told of."""

import signal
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.metrics import numbers_of, read_metrics
from rl_lab.rl import agent
from rl_lab.rl.boundary import AtUpdateBoundary
from rl_lab.rl.train import TrainingFailed, train
from rl_lab.sameness import run_differences
from rl_lab.signals import StopRequest
from tests.rl.faulty import (
    SMALL,
    Faulty,
    MakeRecipe,
    MakeRun,
    events,
    faulty,
    run_to_end,
)


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize(("fault", "at"), [("observation", 100), ("reward", 93)])
def test_an_episode_with_a_nan_is_cut_off_before_it_so_many_times(
    fault: str, at: int, dictionary: bool, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    settings = faulty(fault, at=at, dictionary=dictionary)
    recipe = make_recipe("ppo", settings | {"health.on_nan": "skip", "health.times": 5})
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match=rf"in the .*{fault} of environment"):
        run_to_end(run, recipe)
    skipped = events(run, "skipped")
    assert len(skipped) == 5
    assert f"{fault} of environment 0 at step {2 * at:,}" in skipped[0]
    assert skipped[-1].endswith("(5 of 5)")
    assert run.state == "failed"


def test_a_nan_that_passes_is_survived(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("ppo", faulty("once", at=55) | {"health.on_nan": "skip"})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    assert len(events(run, "skipped")) == 2  # one a copy
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert snapshot.state["progress"]["skipped"] == 2
    assert all(tensor.isfinite().all() for tensor in snapshot.tensors["policy"].values())


def test_a_rollback_goes_another_way_more_slowly_and_ends_at_last(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    recipe = make_recipe(
        "ppo",
        faulty("observation", at=100)
        | {"health.on_nan": "rollback", "health.times": 2, "algorithm.learning_rate": 1e-3},
    )
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match="step 456"):  # 100 steps of two copies after 256
        run_to_end(run, recipe)
    rollbacks = events(run, "rollback")
    assert len(rollbacks) == 2
    assert "NaN or infinity in the last observation of environment 0 at step 200" in rollbacks[0]
    assert rollbacks[1].endswith("(2 of 2)")
    _, rates = numbers_of(read_metrics(run.metrics_file), "train/learning_rate")
    assert rates[-1] == pytest.approx(2.5e-4)


def nan_gradient(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the advantages of an agent's `at`-th rollout no numbers."""
    build, rollouts = agent.build, [0]

    def poisoned_build(*arguments: Any, **settings: Any) -> Any:
        model = build(*arguments, **settings)
        update = model.train

        def poisoned() -> None:
            rollouts[0] += 1
            if rollouts[0] == at:
                model.rollout_buffer.advantages[3] = np.nan
            update()

        model.train = poisoned
        return model

    monkeypatch.setattr(agent, "build", poisoned_build)


@pytest.mark.parametrize("backend", ["fast", "sb3"])
@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_nan_gradient_is_never_applied(
    on_nan: str,
    backend: str,
    make_recipe: MakeRecipe,
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nan_gradient(monkeypatch, at=4)
    settings = {"env.id": "CartPole-v1", "health.on_nan": on_nan, "health.times": 10,
                "algorithm.backend": backend}  # fmt: skip
    recipe = make_recipe("ppo", SMALL | settings)
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    told = events(run, "skipped" if on_nan == "skip" else "rollback")
    assert told
    assert "loss or its gradient (policy.optimizer) at step 256" in told[0]
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert all(torch.isfinite(tensor).all() for tensor in snapshot.tensors["policy"].values())


def test_what_looks_wrong_is_told_once(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate far too high the policy collapses, and stays so: one event."""
    recipe = make_recipe(
        "ppo", SMALL | {"env.id": "CartPole-v1", "algorithm.learning_rate": 0.3,
                        "budget.steps": 2048}
    )  # fmt: skip
    run = make_run(recipe)
    run_to_end(run, recipe)
    collapsed = [alert for alert in events(run, "alert") if "entropy loss collapsed" in alert]
    assert len(collapsed) == 1
    _, entropies = numbers_of(read_metrics(run.metrics_file), "train/entropy_loss")
    assert sum(abs(entropy) < 0.01 for entropy in entropies) > 5


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


@pytest.mark.parametrize("backend", ["fast", "sb3"])
def test_a_nan_loss_fails_the_run_before_the_weights_change(
    backend: str, make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"budget.steps": 1024, "evaluation.every": 10**6, "algorithm.backend": backend}
    recipe = make_recipe("cartpole", settings)
    built: list[Any] = []
    build = agent.build

    def build_with_nan_advantage(*arguments: Any, **settings: Any) -> Any:
        model = build(*arguments, **settings)
        update = model.train

        def poisoned() -> None:
            model.rollout_buffer.advantages[3] = np.nan
            update()

        model.train = poisoned
        built.append((model, [p.detach().clone() for p in model.policy.parameters()]))
        return model

    monkeypatch.setattr(agent, "build", build_with_nan_advantage)
    with pytest.raises(TrainingFailed, match=r"loss or its gradient \(policy.optimizer\)"):
        run_to_end(make_run(recipe), recipe)
    ((model, before),) = built
    for old, new in zip(before, model.policy.parameters(), strict=True):
        assert torch.equal(old, new)


def test_rollbacks_are_counted_where_nothing_is_saved_between_them(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Faulty, "made", 0)
    monkeypatch.setattr(Faulty, "soon_after", 3)  # two copies, and one to be judged in
    settings = {"health.on_nan": "rollback", "health.times": 3}
    recipe = make_recipe("ppo", faulty("observation", at=100) | settings)
    run = make_run(recipe)
    with pytest.raises(TrainingFailed):
        run_to_end(run, recipe)
    counts = [event.rpartition("(")[2] for event in events(run, "rollback")]
    assert counts == ["1 of 3)", "2 of 3)", "3 of 3)"]


@pytest.mark.parametrize("fault", ["observation", "reward"])
def test_a_resumed_run_skips_as_one_that_was_not_interrupted(
    fault: str, make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    """The first step after the checkpoint is the one with the NaN."""
    settings = faulty(fault, at=5, lifelong=False)  # step 64 of a copy is the 4th of an episode
    recipe = make_recipe(
        "ppo", settings | {"health.on_nan": "skip", "health.times": 10**6, "env.normalize": {},
                           "budget.steps": 256}
    )  # fmt: skip
    whole, broken = make_run(recipe, "whole"), make_run(recipe, "broken")
    run_to_end(whole, recipe)
    with StopRequest() as stop:
        go_on = AtUpdateBoundary.save_checkpoint

        def save_and_stop(self: AtUpdateBoundary) -> None:
            go_on(self)
            stop.signal = signal.SIGTERM

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(AtUpdateBoundary, "save_checkpoint", save_and_stop)
            assert train(broken, recipe, stop) == "stopped"
    assert broken.status["step"] == 128
    run_to_end(broken, recipe)
    assert run_differences(whole, broken) == []


def test_skipping_holds_where_the_agent_is_judged(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    settings = {"health.on_nan": "skip", "health.times": 10**6, "budget.steps": 128}
    recipe = make_recipe("ppo", faulty("observation", at=5) | settings)
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    assert any("while judging the agent" in event for event in events(run, "skipped"))
