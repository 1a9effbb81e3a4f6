"""A run that is interrupted and resumed ends as one that was not: the same bits everywhere."""

import signal
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rl_lab import checkpoint, provenance
from rl_lab.checkpoint import Snapshot
from rl_lab.metrics import read_metrics
from rl_lab.rl import agent, agent_state, moment
from rl_lab.rl.boundary import AtUpdateBoundary
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train
from rl_lab.run import Run
from rl_lab.sameness import run_differences
from rl_lab.signals import StopRequest

MakeRecipe = Callable[..., AgentRecipe]
MakeRun = Callable[..., Run]

NORMALIZED = {"env.normalize": {}}
SUBPROCESSES = {"env.vectorization": "subproc", "env.number": 2}
VECTOR = {"env.vectorization": "vector"}
ON_POLICY = {"env.number": 2, "algorithm.n_steps": 32}
PPO = ON_POLICY | {"algorithm.batch_size": 32, "algorithm.n_epochs": 2}
OFF_POLICY = {
    "algorithm.learning_starts": 100, "algorithm.batch_size": 16, "algorithm.train_freq": 4,
    "algorithm.buffer_size": 250, "algorithm.policy_kwargs": {"net_arch": [8]},
}  # fmt: skip
CONTINUOUS = OFF_POLICY | {"env.id": "Pendulum-v1"}
WALKING = {"ornstein_uhlenbeck": 0.3}

# What is trained, and settings beside its own. Together they have each algorithm, vector
# environment, normalisation, noise and kind of state that a run can have.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", PPO | {"env.id": "CartPole-v1"}),
    "ppo normalised": ("ppo", PPO | NORMALIZED | {"env.id": "Pendulum-v1"}),
    "ppo subproc": ("ppo", PPO | SUBPROCESSES | {"env.id": "CartPole-v1"}),
    "ppo subproc normalised": ("ppo", PPO | SUBPROCESSES | NORMALIZED | {"env.id": "Acrobot-v1"}),
    "ppo vector": ("ppo", PPO | VECTOR | {"env.id": "CartPole-v1"}),
    "ppo vector normalised": ("ppo", PPO | VECTOR | NORMALIZED | {"env.id": "Acrobot-v1"}),
    "ppo frames": ("ppo", PPO | NORMALIZED | {"env.id": "Pendulum-v1", "env.frame_stack": 3}),
    "ppo gSDE": ("ppo", PPO | {"env.id": "Pendulum-v1", "algorithm.use_sde": True}),
    "ppo schedules": (
        "ppo",
        PPO | {"env.id": "CartPole-v1",
               "algorithm.learning_rate": {"schedule": "linear", "start": 1e-3, "end": 0.0}},
    ),
    "a2c": ("a2c", ON_POLICY | {"env.id": "CartPole-v1"}),
    "a2c normalised": ("a2c", ON_POLICY | NORMALIZED | {"env.id": "Pendulum-v1"}),
    "trpo": ("trpo", ON_POLICY | {"env.id": "CartPole-v1", "algorithm.batch_size": 32}),
    "maskable_ppo vector": ("maskable_ppo", PPO | VECTOR | {"env.id": "RLLab/Match-v0"}),
    "maskable_ppo": ("maskable_ppo", PPO | {"env.id": "RLLab/Match-v0"}),
    "recurrent_ppo": (
        "recurrent_ppo",
        PPO | {"env.id": "CartPole-v1", "algorithm.policy_kwargs": {"lstm_hidden_size": 8}},
    ),
    "recurrent_ppo vector": (
        "recurrent_ppo",
        PPO | VECTOR | {"env.id": "RLLab/Recall-v0", "env.kwargs": {"delay": 3},  # in mid-episode
                        "algorithm.policy_kwargs": {"lstm_hidden_size": 8}},
    ),
    "recurrent_ppo normalised": (
        "recurrent_ppo",
        PPO | NORMALIZED | {"env.id": "Pendulum-v1",
                            "algorithm.policy_kwargs": {"lstm_hidden_size": 8}},
    ),
    "dqn": ("dqn", OFF_POLICY | {"env.id": "CartPole-v1"}),
    "dqn subproc": ("dqn", OFF_POLICY | SUBPROCESSES | {"env.id": "CartPole-v1"}),
    "dqn little memory": (
        "dqn",
        OFF_POLICY | {"env.id": "CartPole-v1", "algorithm.optimize_memory_usage": True,
                      "algorithm.replay_buffer_kwargs": {"handle_timeout_termination": False}},
    ),
    "dqn n-step": ("dqn", OFF_POLICY | {"env.id": "CartPole-v1", "algorithm.n_steps": 3}),
    "qrdqn": ("qrdqn", OFF_POLICY | {"env.id": "CartPole-v1"}),
    "sac": ("sac", CONTINUOUS),
    "sac normalised": ("sac", CONTINUOUS | NORMALIZED),
    "sac gSDE": ("sac", CONTINUOUS | {"algorithm.use_sde": True}),
    "sac noise": ("sac", CONTINUOUS | {"env.number": 2, "algorithm.action_noise": WALKING}),
    "td3 noise": (
        "td3",
        CONTINUOUS | {"algorithm.action_noise": {"normal": 0.1}},
    ),
    "sac vector normalised": ("sac", CONTINUOUS | VECTOR | NORMALIZED | {"env.number": 2}),
    "td3 subproc normalised": ("td3", CONTINUOUS | SUBPROCESSES | NORMALIZED),
    "ddpg": ("ddpg", CONTINUOUS),
    "tqc": ("tqc", CONTINUOUS),
    "crossq": ("crossq", CONTINUOUS),
    "her": ("her", {"env.id": "RLLab/ReachPoint-v0", "algorithm.learning_starts": 100,
                    "algorithm.batch_size": 16}),
    "her vector": ("her", VECTOR | {"env.id": "RLLab/ReachPoint-v0", "env.number": 2,
                                    "algorithm.learning_starts": 100,
                                    "algorithm.batch_size": 16}),
    "lunarlander": ("ppo", PPO | {"env.id": "LunarLander-v3"}),
    "hopper": ("ppo", PPO | NORMALIZED | {"env.id": "Hopper-v5"}),
    "minigrid": (
        "ppo",
        PPO | {"env.id": "MiniGrid-Empty-Random-6x6-v0", "env.wrappers": ["ImgObsWrapper"]},
    ),
    "ars": ("ars", {"env.id": "CartPole-v1", "algorithm.n_delta": 2,
                    "algorithm.n_eval_episodes": 1}),
}  # fmt: skip

SMALL = {
    "budget.steps": 600, "checkpoints.every": 150, "evaluation.every": 200,
    "evaluation.episodes": 2, "logging.every": 64,
}  # fmt: skip


class KilledError(BaseException):
    """Ends training where nothing expects it."""


def run_to_end(run: Run, recipe: AgentRecipe) -> None:
    with StopRequest() as stop:
        train(run, recipe, stop)
    assert run.status["state"] == "finished"


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make training end without warning, in the middle of a rollout, at an environment step."""
    go_on = AtUpdateBoundary._on_step

    def on_step(self: AtUpdateBoundary) -> bool:
        if self.model.num_timesteps >= step:
            raise KilledError
        return go_on(self)

    monkeypatch.setattr(AtUpdateBoundary, "_on_step", on_step)


def assert_equal_after_kills(
    recipe: AgentRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train undisturbed, and killed, resumed, killed and resumed again."""
    whole, broken = make_run(recipe, "whole"), make_run(recipe, "broken")
    run_to_end(whole, recipe)
    for killed_at in (290, 480):
        with monkeypatch.context() as patched, pytest.raises(KilledError), StopRequest() as stop:
            kill_at(killed_at, patched)
            train(broken, recipe, stop)
    run_to_end(broken, recipe)

    assert checkpoint.steps(broken.checkpoints)
    assert run_differences(broken, whole) == []
    records = read_metrics(broken.metrics_file)
    assert [r["message"] for r in records if r.get("event") == "note"] == []
    assert sum(record.get("event") == "resumed" for record in records) == 2


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_resumed_equals_one_that_was_not(
    case: str, make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, settings = CASES[case]
    assert_equal_after_kills(make_recipe(algorithm, SMALL | settings), make_run, monkeypatch)


TABLE = {
    "ppo": PPO, "a2c": ON_POLICY, "dqn": OFF_POLICY, "qrdqn": OFF_POLICY, "sac": OFF_POLICY,
    "td3": OFF_POLICY | {"algorithm.action_noise": WALKING}, "tqc": OFF_POLICY,
    "recurrent_ppo": PPO | {"algorithm.policy_kwargs": {"lstm_hidden_size": 8}},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("vectorization", ["dummy", "subproc", "vector"])
@pytest.mark.parametrize("algorithm", TABLE)
def test_the_whole_table_is_equal(
    algorithm: str, vectorization: str, normalized: bool, make_recipe: MakeRecipe,
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each algorithm, in each vector environment, with and without normalisation."""
    discrete = algorithm in ("dqn", "qrdqn")
    settings = TABLE[algorithm] | {
        "env.id": "CartPole-v1" if discrete else "Pendulum-v1", "env.number": 2,
        "env.vectorization": vectorization,
    }  # fmt: skip
    settings |= NORMALIZED if normalized else {}
    assert_equal_after_kills(make_recipe(algorithm, SMALL | settings), make_run, monkeypatch)


class Restless(gymnasium.Env):
    """An environment with a memory that reaches beyond the episode."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.array([self.steps], dtype=np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        done = self.steps % 40 == 0
        return np.array([self.steps], dtype=np.float32), 1.0, done, False, {}


def test_an_environment_that_does_not_repeat_itself_starts_new_episodes_and_says_so(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("Restless-v0", entry_point=Restless)
    monkeypatch.setitem(gymnasium.registry, "Restless-v0", spec)
    recipe = make_recipe("dqn", SMALL | OFF_POLICY | {"env.id": "Restless-v0"})
    run = make_run(recipe)
    with monkeypatch.context() as patched, pytest.raises(KilledError), StopRequest() as stop:
        kill_at(400, patched)
        train(run, recipe, stop)
    run_to_end(run, recipe)
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert "new episodes, to other bits: copy 0 does not come to the same" in notes[0]
    starts = [run_start(make_recipe, step) for step in (0, 300, 450)]
    assert len({tuple(start) for start in starts}) == 3


def hidden(num_envs: int, **settings: Any) -> SyncVectorEnv:
    """A vector environment that does not say what its copies remember."""
    makers = [lambda: gymnasium.make("CartPole-v1")] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ("vector", "vector", "where its copies are cannot be read or written"),
        ("dummy", "vector", "where its copies are cannot be read or written"),
        ("vector", "dummy", "its copies were vectorised otherwise"),
    ],
)
def test_a_vector_environment_that_tells_nothing_starts_new_episodes_and_says_so(
    then: str, now: str, words: str, make_recipe: MakeRecipe, make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    spec = gymnasium.envs.registration.EnvSpec(
        "Hidden-v0", entry_point=gymnasium.spec("CartPole-v1").entry_point,
        vector_entry_point=hidden,
    )  # fmt: skip
    monkeypatch.setitem(gymnasium.registry, "Hidden-v0", spec)
    recipes = [
        make_recipe("ppo", SMALL | PPO | {"env.id": "Hidden-v0", "env.vectorization": each})
        for each in (then, now)
    ]
    run = make_run(recipes[0])
    with monkeypatch.context() as patched, pytest.raises(KilledError), StopRequest() as stop:
        kill_at(400, patched)
        train(run, recipes[0], stop)
    run_to_end(run, recipes[1])
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert f"new episodes, to other bits: {words}" in notes[0]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, VECTOR, "its copies were vectorised otherwise"),
        (VECTOR, VECTOR | {"env.number": 3}, "the number of its copies, or what they are"),
    ],
)
def test_copies_in_arrays_that_were_others_start_new_episodes_and_say_so(
    before: dict[str, Any], after: dict[str, Any], words: str, make_recipe: MakeRecipe,
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = SMALL | PPO | {"env.id": "CartPole-v1"}
    recipe = make_recipe("ppo", settings | before)
    run = make_run(recipe)
    with monkeypatch.context() as patched, pytest.raises(KilledError), StopRequest() as stop:
        kill_at(200, patched)
        train(run, recipe, stop)
    run_to_end(run, make_recipe("ppo", settings | after))
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert words in notes[0]


def run_start(make_recipe: MakeRecipe, step: int) -> list[float]:
    """The first observation of a run that begins at a step."""
    recipe = make_recipe("cartpole")
    model = agent.build(recipe)
    if step:
        agent.start_new_episodes(model, recipe, step)
    assert model.env is not None
    return np.asarray(model.env.reset())[0].tolist()


def test_a_stop_asked_for_loses_nothing(make_recipe: MakeRecipe, make_run: MakeRun) -> None:
    recipe = make_recipe("dqn", SMALL | OFF_POLICY | {"env.id": "CartPole-v1"})
    whole, broken = make_run(recipe, "whole"), make_run(recipe, "broken")
    run_to_end(whole, recipe)
    with StopRequest() as stop:
        stop.signal = signal.SIGTERM
        assert train(broken, recipe, stop) == "stopped"
    run_to_end(broken, recipe)
    assert run_differences(broken, whole) == []


def test_what_else_bits_depend_on_is_compared(
    make_recipe: MakeRecipe, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe("ppo", SMALL | PPO | {"env.id": "CartPole-v1"})
    run = make_run(recipe)
    with StopRequest() as stop:
        stop.signal = signal.SIGTERM
        train(run, recipe, stop)
    monkeypatch.setattr(provenance, "versions", lambda: {"numpy": "0.1"})
    run_to_end(run, recipe)
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert f"numpy 0.1 (was {np.__version__})" in notes[0]
    assert "its bits may differ from here on" in notes[0]


def test_without_its_replay_buffer_a_run_does_start_new_episodes(
    make_recipe: MakeRecipe, make_run: MakeRun
) -> None:
    settings = {"env.id": "CartPole-v1", "checkpoints.replay_buffer": False}
    recipe = make_recipe("dqn", SMALL | OFF_POLICY | settings)
    model = agent.build(recipe)
    snapshot = Snapshot(300, state={"made_with": {}})
    assert agent_state.lost(model, snapshot) is not None
    run = make_run(recipe)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KilledError):
        kill_at(400, patched)
        run_to_end(run, recipe)
    with pytest.MonkeyPatch.context() as patched:
        played: list[Any] = []
        patched.setattr(moment, "play_episodes_again", lambda *given: played.append(given))
        run_to_end(run, recipe)
    assert played == []  # what is played again would be gone on with
    notes = [r["message"] for r in read_metrics(run.metrics_file) if r.get("event") == "note"]
    assert len(notes) == 1
    assert "the replay buffer was not kept" in notes[0]
