"""The least that PPO's work of `agents.py` takes: its physics alone, its arithmetic alone.

Prints one line of JSON: CPU-seconds of each, for as many environment steps as a measurement of
speed. Physics: environments stepped with random actions drawn beforehand, bare (Gymnasium's) or as
the lab steps them at once (arrays, EnvPool), reset where an episode ends.
Arithmetic: matrix products of two networks of two layers of 64 and their tanh, forward at each step
and forward and backward in each minibatch; losses, optimiser and advantages cost nothing here.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable

import agents  # pins threads before numpy and torch are imported
import gymnasium
import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnvWrapper

HIDDEN = 64
"""Of SB3's MlpPolicy: two layers each for policy and value."""
PPO_DEFAULTS = {"batch_size": 64, "n_epochs": 10}


def physics(task: agents.Task, vectorization: str) -> float:
    """CPU-seconds of the environment steps."""
    rounds, copies = task.speed_steps // task.copies, range(task.copies)
    if vectorization == "dummy":
        copies = [gymnasium.make(task.env).unwrapped for _ in copies]
        actions = [copies[0].action_space.sample() for _ in range(rounds)]
        limit = gymnasium.spec(task.env).max_episode_steps or rounds
        for number, copy in enumerate(copies):
            copy.reset(seed=number)
        ages = [0] * task.copies
        began = time.process_time()
        for action in actions:
            for number, copy in enumerate(copies):
                terminated = copy.step(action)[2]
                ages[number] += 1
                if terminated or ages[number] >= limit:
                    copy.reset()
                    ages[number] = 0
        return time.process_time() - began
    many = agents.build_lab(task, task.speed_steps, 0, vectorization).get_env()
    while isinstance(many, VecEnvWrapper):  # no monitor, no normalisation
        many = many.venv
    drawn = [np.array([many.action_space.sample() for _ in copies]) for _ in range(rounds)]
    many.reset()
    began = time.process_time()
    for some in drawn:
        many.step(some)
    return time.process_time() - began


def arithmetic(task: agents.Task) -> float:
    """CPU-seconds of the networks' products and tanh."""
    single = gymnasium.make(task.env)
    inputs = int(np.prod(single.observation_space.shape or (1,)))
    actions = single.action_space
    outputs = int(actions.n) if isinstance(actions, gymnasium.spaces.Discrete) else actions.shape[0]
    settings = PPO_DEFAULTS | task.arguments
    rounds = task.speed_steps // task.copies
    minibatches = settings["n_epochs"] * task.speed_steps // settings["batch_size"]
    sample = [network(task.copies, inputs, width) for width in (outputs, 1)]
    learn = [network(settings["batch_size"], inputs, width) for width in (outputs, 1)]
    began = time.process_time()
    for forward, _ in sample:
        for _ in range(rounds):
            forward()
    for forward, backward in learn:
        for _ in range(minibatches):
            forward()
            backward()
    return time.process_time() - began


def network(rows: int, inputs: int, outputs: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Forward and backward pass of one network on so many rows, on memory that lies ready."""
    sizes = [inputs, HIDDEN, HIDDEN, outputs]
    layers = list(itertools.pairwise(sizes))
    weights = [torch.randn(there, here) * 0.1 for here, there in layers]
    states = [torch.randn(rows, size) for size in sizes]
    by_states = [torch.randn(rows, size) * 0.1 for size in sizes]
    by_weights = [torch.empty_like(weight) for weight in weights]

    def forward() -> None:
        for number, weight in enumerate(weights):
            torch.mm(states[number], weight.t(), out=states[number + 1])
            if number < len(weights) - 1:
                states[number + 1].tanh_()

    def backward() -> None:
        for number in reversed(range(len(weights))):
            torch.mm(by_states[number + 1].t(), states[number], out=by_weights[number])
            if number > 0:
                torch.mm(by_states[number + 1], weights[number], out=by_states[number])
                torch.ops.aten.tanh_backward.grad_input(
                    by_states[number], states[number], grad_input=by_states[number]
                )

    return forward, backward


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=[name for name in agents.TASKS if name.startswith("ppo")])
    parser.add_argument("--vectorization", default="dummy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = agents.TASKS[options.task]
    print(
        json.dumps(
            {
                "steps": task.speed_steps,
                "physics": physics(task, options.vectorization),
                "arithmetic": arithmetic(task),
            }
        )
    )


if __name__ == "__main__":
    main()
