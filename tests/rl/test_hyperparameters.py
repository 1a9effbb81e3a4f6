"""Hyperparameters: checked against the algorithm's real signature before anything runs."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from rl_lab.errors import UserError
from rl_lab.rl import hyperparameters
from rl_lab.rl.algorithms import ALGORITHMS
from rl_lab.rl.recipe import Algorithm


def resolve(name: str, **settings: Any) -> dict[str, Any]:
    return hyperparameters.resolve(Algorithm(name=name, **settings), budget=1000)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("ppo", {"learning_rte": 1e-3}, ["algorithm.learning_rte", "PPO", "'learning_rate'"]),
        ("ppo", {"learning_starts": 1}, ["algorithm.learning_starts", "PPO"]),
        ("ppo", {"gamma": 1.5}, ["algorithm.gamma", "1.5", "from 0 to 1"]),
        ("ppo", {"gamma": "high"}, ["algorithm.gamma", "'high'", "a number"]),
        ("ppo", {"n_epochs": 2.5}, ["algorithm.n_epochs", "2.5", "a whole number"]),
        ("ppo", {"n_steps": 0}, ["algorithm.n_steps", "at least 1"]),
        ("ppo", {"learning_rate": -1.0}, ["algorithm.learning_rate", "at least 0"]),
        ("ppo", {"learning_rate": "fast"}, ["a number or a schedule"]),
        ("ppo", {"learning_rate": {"schedul": "linear", "start": 1}}, ["schedul", "schedule"]),
        ("ppo", {"learning_rate": {"schedule": "cosine", "start": 1}}, ["schedule", "'linear'"]),
        ("ppo", {"learning_rate": {"schedule": "linear"}}, ["algorithm.learning_rate.start"]),
        ("ppo", {"learning_rate": {"schedule": "exponential", "start": 1}}, ["above 0"]),
        ("ppo", {"policy_kwargs": {"net_arc": [8]}}, ["policy_kwargs.net_arc", "'net_arch'"]),
        ("ppo", {"policy_kwargs": {"activation_fn": "tahn"}}, ["'tahn'", "'tanh'"]),
        ("ppo", {"policy_kwargs": [8]}, ["policy_kwargs", "mapping"]),
        ("ppo", {"seed": 3}, ["unknown key 'algorithm.seed'"]),
        ("ppo", {"hindsight": {"goals": 4}}, ["algorithm.hindsight", "PPO"]),
        ("pppo", {}, ["'pppo'", "'ppo'"]),
        ("td3", {"action_noise": 0.1}, ["algorithm.action_noise", "{normal: SIGMA}"]),
        ("td3", {"action_noise": {"nromal": 0.1}}, ["'nromal'", "'normal'"]),
        ("td3", {"action_noise": {"normal": "x"}}, ["sigma"]),
    ],
)
def test_a_mistake_is_one_sentence(name: str, settings: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        resolve(name, **settings)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_default_of_sb3_passes_the_check(name: str) -> None:
    parameters = inspect.signature(ALGORITHMS[name].__init__).parameters
    defaults = {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in hyperparameters.MANAGED
        and parameter.default not in (None, inspect.Parameter.empty)
    }
    assert resolve(name, **defaults) == defaults


def test_data_becomes_what_sb3_takes() -> None:
    arguments = resolve(
        "td3",
        learning_rate={"schedule": "linear", "start": 1.0, "end": 0.0},
        action_noise={"normal": 0.5},
        policy_kwargs={"net_arch": [8], "activation_fn": "elu", "optimizer_class": "adamw"},
        train_freq=[2, "episode"],
    )
    assert arguments["learning_rate"](1.0) == 1.0
    assert arguments["learning_rate"](0.25) == pytest.approx(0.25)
    noise = arguments["action_noise"]((3,))
    assert np.array_equal(noise._sigma, [0.5, 0.5, 0.5])
    assert arguments["policy_kwargs"] == {
        "net_arch": [8],
        "activation_fn": torch.nn.ELU,
        "optimizer_class": torch.optim.AdamW,
    }
    assert arguments["train_freq"] == (2, "episode")
