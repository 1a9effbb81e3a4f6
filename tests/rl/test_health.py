"""What is no number is never learned from, and an environment that fails is told of."""

import signal
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rl_lab import checkpoint
from rl_lab.metrics import numbers_of, read_metrics
from rl_lab.rl import agent, environments, watchdog
from rl_lab.rl.boundary import AtUpdateBoundary
from rl_lab.rl.recipe import AgentRecipe, Environment
from rl_lab.rl.train import TrainingFailed, train
from rl_lab.run import Run
from rl_lab.sameness import run_differences
from rl_lab.signals import StopRequest

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]

SMALL = {
    "env.number": 2, "algorithm.n_steps": 32, "algorithm.batch_size": 32, "algorithm.n_epochs": 2,
    "budget.steps": 512, "checkpoints.every": 128, "evaluation.every": 10**6,
    "evaluation.episodes": 1, "logging.every": 64,
}  # fmt: skip


class Faulty(gymnasium.Env):
    """Does something wrong at a step of its life; the first copy made in a test only.

    Args:
        fault: what, of the names in `step`.
        at: the step.
        dictionary: whether observations are dicts.
        lifelong: whether its steps are counted over all its episodes.
    """

    action_space = gymnasium.spaces.Discrete(2)
    made = 0
    soon_after: int | None = None
    """Of those made after this many, the fault comes at step 5."""

    def __init__(
        self, fault: str, at: int = 100, dictionary: bool = False, lifelong: bool = True
    ) -> None:
        Faulty.made += 1
        if Faulty.soon_after is not None and Faulty.made > Faulty.soon_after:
            at = 5
        self.lifelong = lifelong
        box = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        space = gymnasium.spaces.Dict({"one": box, "two": box}) if dictionary else box
        self.observation_space = space  # type: ignore[assignment]
        self.dictionary = dictionary
        self.fault, self.at, self.steps = fault, at, 0

    def observe(self, value: float = 0.5) -> Any:
        array = np.full(2, value, dtype=np.float32)
        return {"one": np.zeros(2, dtype=np.float32), "two": array} if self.dictionary else array

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.steps = self.steps if self.lifelong else 0
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.steps % 10 == 0
        if self.steps < self.at:
            return self.observe(), 1.0, done, False, {}
        match self.fault:
            case "observation":
                return self.observe(np.nan), 1.0, done, False, {}
            case "reward":
                return self.observe(), np.inf, done, False, {}
            case "once":
                return self.observe(np.nan if self.steps == self.at else 0.5), 1.0, done, False, {}
            case "raise":
                raise ZeroDivisionError("out of luck")
            case "hang":
                time.sleep(30)
            case "exit":
                raise SystemExit(3)
        raise AssertionError(self.fault)


gymnasium.register("Test/Faulty-v0", entry_point=Faulty, disable_env_checker=True)


SUPERVISED = environments._supervised


def supervised_in_a_process(environment: Environment, seeds: list[int]) -> gymnasium.Env:
    """As ever, but a process that unpickles this has imported this file, and so knows Faulty."""
    return SUPERVISED(environment, seeds)


def faulty(fault: str, **settings: Any) -> dict[str, Any]:
    return SMALL | {"env.id": "Test/Faulty-v0", "env.kwargs": {"fault": fault, **settings}}


def run_to_end(run: Run, recipe: AgentRecipe) -> str:
    with StopRequest() as stop:
        return train(run, recipe, stop)


def events(run: Run, kind: str) -> list[str]:
    return [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == kind]


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
        compute = model.rollout_buffer.compute_returns_and_advantage

        def poisoned(*inner: Any, **named: Any) -> None:
            compute(*inner, **named)
            rollouts[0] += 1
            if rollouts[0] == at:
                model.rollout_buffer.advantages[3] = np.nan

        model.rollout_buffer.compute_returns_and_advantage = poisoned
        return model

    monkeypatch.setattr(agent, "build", poisoned_build)


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_a_nan_gradient_is_never_applied(
    on_nan: str, make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    nan_gradient(monkeypatch, at=4)
    settings = {"env.id": "CartPole-v1", "health.on_nan": on_nan, "health.times": 10}
    recipe = make_recipe("ppo", SMALL | settings)
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    told = events(run, "skipped" if on_nan == "skip" else "rollback")
    assert told
    assert "loss or its gradient (policy.optimizer) at step 256" in told[0]
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    assert all(torch.isfinite(tensor).all() for tensor in snapshot.tensors["policy"].values())


@pytest.mark.parametrize("vectorization", ["dummy", "subproc"])
def test_a_copy_that_raises_is_replaced_as_often_as_allowed(
    vectorization: str, make_recipe: MakeRecipe, make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if vectorization == "subproc":
        monkeypatch.setattr(environments, "_supervised", supervised_in_a_process)
    recipe = make_recipe(
        "ppo", faulty("raise", at=60) | {"env.restarts": 3, "env.vectorization": vectorization}
    )
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match=r"ZeroDivisionError: out of luck.*allows 3"):
        run_to_end(run, recipe)
    restarts = events(run, "environment-restarted")
    assert len(restarts) == 3
    assert "environment 0 failed at step 120: ZeroDivisionError: out of luck" in restarts[0]
    assert 'raise ZeroDivisionError("out of luck")' in capfd.readouterr().err


def test_a_copy_that_hangs_is_ended_and_replaced(
    make_recipe: MakeRecipe, make_run: MakeRun, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = make_recipe("ppo", faulty("hang", at=130) | {"env.restarts": 2, "env.timeout": 0.3})
    run = make_run(recipe)
    assert run_to_end(run, recipe) == "finished"
    restarts = events(run, "environment-restarted")
    assert len(restarts) == 2
    assert "it took longer than 0.3 s (env.timeout)" in restarts[0]
    assert "time.sleep(30)" in capfd.readouterr().err  # where it hung


def test_a_copy_whose_process_dies_is_a_sentence(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "_supervised", supervised_in_a_process)
    recipe = make_recipe("ppo", faulty("exit", at=60) | {"env.vectorization": "subproc"})
    run = make_run(recipe)
    with pytest.raises(TrainingFailed, match="the process of an environment died at step 118"):
        run_to_end(run, recipe)
    assert run.state == "failed"


def test_a_stalled_environment_is_told_of(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(watchdog, "PATIENCE", 0.2)
    monkeypatch.setattr(time, "sleep", lambda seconds, sleep=time.sleep: sleep(min(seconds, 1.0)))
    recipe = make_recipe("ppo", faulty("hang", at=60) | {"env.number": 1})
    run = make_run(recipe)
    with pytest.raises(AssertionError):
        run_to_end(run, recipe)
    stalled = [r for r in read_metrics(run.metrics_file) if r.get("event") == "stalled"]
    assert len(stalled) == 1
    assert stalled[0]["step"] == 59
    assert stalled[0]["level"] == "warning"
    assert "time.sleep(30)" in capfd.readouterr().err


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
