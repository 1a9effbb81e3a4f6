"""Train one agent, with SB3 alone or with the lab, and print what it took as one line of JSON.

The same program serves both sides of `scripts/bench_agents`, so that both do the same work. The
side `sb3` imports nothing of the lab: it is run in an environment of its own.
"""

import argparse
import json
import os
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

EVALUATION_SEEDS = range(1000, 1020)


@dataclass(frozen=True)
class Task:
    """What is trained, and for how long. Hyperparameters are rl-baselines3-zoo's, but for gSDE."""

    env: str
    algorithm: str
    arguments: dict[str, Any]
    copies: int = 1
    normalize: bool = False
    speed_steps: int = 20_000
    """Environment steps of a measurement of speed."""
    learning_steps: int = 50_000
    """Environment steps of a learning curve."""


PPO_CARTPOLE = {
    "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8,
    "ent_coef": 0.0, "learning_rate": ("linear", 1e-3), "clip_range": ("linear", 0.2),
}  # fmt: skip
PPO_ACROBOT = {"n_steps": 256, "n_epochs": 4, "gamma": 0.99, "gae_lambda": 0.94, "ent_coef": 0.0}
PPO_PENDULUM = {
    "n_steps": 1024, "n_epochs": 10, "gamma": 0.9, "gae_lambda": 0.95, "ent_coef": 0.0,
    "learning_rate": 1e-3, "clip_range": 0.2,
}  # fmt: skip
PPO_LUNARLANDER = {
    "n_steps": 1024, "batch_size": 64, "n_epochs": 4, "gamma": 0.999, "gae_lambda": 0.98,
    "ent_coef": 0.01,
}  # fmt: skip
DQN_CARTPOLE = {
    "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000,
    "gamma": 0.99, "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128,
    "exploration_fraction": 0.16, "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip

TASKS = {
    "ppo CartPole-v1": Task("CartPole-v1", "PPO", PPO_CARTPOLE, 8),
    "ppo Acrobot-v1": Task(
        "Acrobot-v1", "PPO", PPO_ACROBOT, 16, True, speed_steps=32_768, learning_steps=65_536
    ),
    "ppo Pendulum-v1": Task("Pendulum-v1", "PPO", PPO_PENDULUM, 4, learning_steps=100_000),
    "ppo LunarLander-v3": Task(
        "LunarLander-v3", "PPO", PPO_LUNARLANDER, 16, speed_steps=32_768, learning_steps=163_840
    ),
    "dqn CartPole-v1": Task("CartPole-v1", "DQN", DQN_CARTPOLE, speed_steps=10_000),
    "sac Pendulum-v1": Task(
        "Pendulum-v1", "SAC", {"learning_rate": 1e-3}, speed_steps=2_000, learning_steps=5_000
    ),
    "td3 Pendulum-v1": Task(
        "Pendulum-v1", "TD3", {"learning_rate": 1e-3, "learning_starts": 1000},
        speed_steps=4_000, learning_steps=5_000,
    ),
}  # fmt: skip


def build_sb3(task: Task, steps: int, seed: int) -> Any:
    """The agent as SB3's documentation makes it."""
    # Left to itself it asks for pictures, for which LunarLander makes particles at every step.
    vector = make_vec_env(task.env, task.copies, seed=seed, env_kwargs={"render_mode": None})
    if task.normalize:
        vector = VecNormalize(vector, gamma=task.arguments["gamma"])
    arguments = {name: _schedule(value) for name, value in task.arguments.items()}
    algorithm = getattr(stable_baselines3, task.algorithm)
    return algorithm("MlpPolicy", vector, seed=seed, device="cpu", **arguments)


def _schedule(value: Any) -> Any:
    return (lambda left: left * value[1]) if isinstance(value, tuple) else value


def build_lab(task: Task, steps: int, seed: int, vectorization: str) -> Any:
    """The agent as a recipe of the lab makes it."""
    from rl_lab.rl import agent
    from rl_lab.rl.recipe import AgentRecipe

    arguments = {
        name: {"schedule": value[0], "start": value[1], "end": 0}
        if isinstance(value, tuple)
        else value
        for name, value in task.arguments.items()
    }
    environment: dict[str, Any] = {
        "id": task.env, "number": task.copies, "vectorization": vectorization,
        "normalize": {} if task.normalize else None,
    }  # fmt: skip
    return agent.build(
        AgentRecipe.model_validate(
            {
                "name": "benchmark",
                "env": environment,
                "algorithm": {"name": task.algorithm.lower(), "backend": "fast"} | arguments,
                "budget": {"steps": steps},
                "seed": seed,
            }
        )
    )


@dataclass
class Clock:
    """Seconds of this process's processor time between `start` and `stop`, added up."""

    seconds: float = 0.0
    _began: float = field(default=0.0, repr=False)

    def start(self) -> None:
        self._began = time.process_time()

    def stop(self) -> None:
        self.seconds += time.process_time() - self._began


class Judge(BaseCallback):
    """Plays 20 greedy episodes ten times while learning goes on, the clock stopped meanwhile."""

    def __init__(self, env: str, every: int, clock: Clock) -> None:
        super().__init__()
        self._every, self._clock = every, clock
        self._copies = [gymnasium.make(env) for _ in EVALUATION_SEEDS]
        self.returns: list[float] = []
        """Mean of each evaluation."""

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= (len(self.returns) + 1) * self._every:
            self.look()

    def _on_step(self) -> bool:
        return True

    def look(self) -> None:
        """Judge the agent as it is."""
        self._clock.stop()
        normalizer = self.model.get_vec_normalize_env()
        observations = np.stack(
            [
                copy.reset(seed=seed)[0]
                for copy, seed in zip(self._copies, EVALUATION_SEEDS, strict=True)
            ]
        )
        returns, going = np.zeros(len(self._copies)), np.ones(len(self._copies), bool)
        while going.any():
            seen = observations if normalizer is None else normalizer.normalize_obs(observations)
            actions = self.model.predict(seen, deterministic=True)[0]
            for number in np.flatnonzero(going):
                observation, reward, terminated, truncated, _ = self._copies[number].step(
                    actions[number]
                )
                observations[number] = observation
                returns[number] += float(reward)
                going[number] = not (terminated or truncated)
        self.returns.append(float(returns.mean()))
        self._clock.start()


def main() -> None:
    """Train as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["sb3", "lab"])
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--vectorization", default="dummy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    task = TASKS[options.task]
    steps = task.learning_steps if options.learning else task.speed_steps
    if options.side == "sb3":
        model = build_sb3(task, steps, options.seed)
    else:
        model = build_lab(task, steps, options.seed, options.vectorization)
    clock = Clock()
    judge = Judge(task.env, steps // 10, clock) if options.learning else None
    clock.start()
    model.learn(steps, callback=judge, log_interval=None)
    clock.stop()
    if judge is not None:
        judge.look()
    print(
        json.dumps(
            {
                "steps": model.num_timesteps,
                "updates": model._n_updates,
                "parameters": sum(part.numel() for part in model.policy.parameters()),
                "cpu_seconds": clock.seconds,
                "returns": judge.returns if judge is not None else None,
                "falls_back": getattr(model, "falls_back", None),
            }
        )
    )


if __name__ == "__main__":
    main()
