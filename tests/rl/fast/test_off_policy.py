"""The fast off-policy algorithms do what SB3's do, in every option they cover."""

import contextlib
import copy
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DDPG, DQN, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from rl_lab.rl.fast import dqn, sac, td3
from rl_lab.rl.fast.dqn import FastDQN
from rl_lab.rl.fast.sac import FastSAC
from rl_lab.rl.fast.td3 import FastDDPG, FastTD3

PAIRS: dict[str, tuple[type[BaseAlgorithm], type[BaseAlgorithm]]] = {
    "dqn": (DQN, FastDQN), "sac": (SAC, FastSAC), "td3": (TD3, FastTD3), "ddpg": (DDPG, FastDDPG),
}  # fmt: skip
ALL = {
    "defaults": {},
    "several copies": {"copies": 3},
    "normalised": {"normalize": True},
    "tanh": {"policy_kwargs": {"net_arch": [32, 16], "activation_fn": nn.Tanh}},
    "one layer": {"policy_kwargs": {"net_arch": [7]}},
    "little memory": {
        "optimize_memory_usage": True,
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
    },
    "n-step": {"n_steps": 3},
    "full buffer": {"buffer_size": 150},
    "an odd batch": {"batch_size": 37},
    "adamw": {"policy_kwargs": {"optimizer_class": torch.optim.AdamW}},
    "amsgrad": {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True, "weight_decay": 0.1}}},
    "rmsprop": {"policy_kwargs": {"optimizer_class": torch.optim.RMSprop}},
    "schedule": {"learning_rate": lambda remaining: 1e-3 * remaining},
}
TWIN: dict[str, dict[str, Any]] = {
    "three critics": {"policy_kwargs": {"n_critics": 3}},
    "two architectures": {"policy_kwargs": {"net_arch": {"pi": [8], "qf": [16, 16]}}},
    "shared extractor": {"policy_kwargs": {"share_features_extractor": True}},
}
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "dqn": {"short steps": {"max_grad_norm": 1e-3}, "following": {"tau": 0.1}},
    "sac": TWIN
    | {
        "fixed entropy": {"ent_coef": 0.1},
        "from 0.5": {"ent_coef": "auto_0.5"},
        "target entropy": {"target_entropy": -3.0},
        "seldom": {"target_update_interval": 3},
    },
    "td3": TWIN
    | {
        "no delay": {"policy_delay": 1},
        "sharp": {"target_policy_noise": 0.0, "target_noise_clip": 0.0},
        "noise": {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.3))},
    },
    "ddpg": {},
}
CASES = [
    pytest.param(name, options, id=f"{name} {case}")
    for name in PAIRS
    for case, options in (ALL | OWN[name]).items()
]


@contextlib.contextmanager
def not_fused(*_: torch.optim.Optimizer) -> Iterator[None]:
    yield


def environment(name: str, copies: int = 1, normalize: bool = False) -> VecEnv:
    vector = make_vec_env("CartPole-v1" if name == "dqn" else "Pendulum-v1", copies, seed=3)
    return VecNormalize(vector) if normalize else vector


def pair(name: str, options: dict[str, Any]) -> list[Any]:
    """SB3's algorithm and the fast one, alike, with the same transitions to learn from."""
    options = dict(options)
    settings = {key: options.pop(key) for key in ("copies", "normalize") if key in options}
    options = {"buffer_size": 500, "batch_size": 32} | options
    models = []
    for algorithm in PAIRS[name]:
        model = algorithm(
            "MlpPolicy", environment(name, **settings), seed=0, device="cpu",
            # Several copies go a little beyond 300 steps: nothing is to be learned yet.
            **copy.deepcopy(options) | {"learning_starts": 400},
        )  # fmt: skip
        model.learn(300)
        models.append(model)
    assert models[1].falls_back is None
    theirs, ours = models
    for array, other in zip(*(vars(model.replay_buffer).values() for model in models), strict=True):
        if isinstance(array, np.ndarray):
            np.testing.assert_array_equal(array, other)
    assert distance(theirs, ours) == 0
    return models


def distance(a: BaseAlgorithm, b: BaseAlgorithm) -> float:
    """The most that a number of two policies differs by."""
    pairs = zip(a.policy.state_dict().values(), b.policy.state_dict().values(), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def train(model: Any, steps: int) -> tuple[dict[str, float], list[float]]:
    """Update by known random numbers; return what was logged, and the numbers that come next."""
    model.set_random_seed(1)
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.train(gradient_steps=steps, batch_size=model.batch_size)
    return dict(model.logger.name_to_value), [np.random.rand(), torch.rand(1).item()]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_an_update_gives_sb3s_weights(name: str, options: dict[str, Any]) -> None:
    models = pair(name, options)
    for _ in range(3):  # from new optimisers, then from used ones
        (expected, expected_random), (logged, random) = (train(model, 1) for model in models)
        assert distance(*models) < 1e-6
        assert list(logged) == list(expected)
        assert logged == pytest.approx(expected, rel=1e-4, abs=1e-6)
        assert random == expected_random
        models[1].set_parameters(copy.deepcopy(models[0].get_parameters()))
    for optimizer in models[0]._get_torch_save_params()[0][1:]:
        theirs, ours = (recursive_getattr(model, optimizer).state_dict() for model in models)
        assert ours["param_groups"] == theirs["param_groups"]
        torch.testing.assert_close(ours["state"], theirs["state"], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_but_for_adams_rounding_every_bit_is_sb3s(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (dqn, sac, td3):
        monkeypatch.setattr(module, "fused", not_fused)
    models = pair(name, options)
    for steps in (1, 8):
        (expected, _), (logged, _) = (train(model, steps) for model in models)
        assert distance(*models) == 0
        assert logged == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_a_run_goes_sb3s_way(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dqn, sac, td3):  # Adam's rounding would lead it astray after some time
        monkeypatch.setattr(module, "fused", not_fused)
    buffers = []
    for algorithm in PAIRS[name]:
        model: Any = algorithm(
            "MlpPolicy", environment(name), seed=0, device="cpu", learning_starts=100,
            batch_size=16, train_freq=(4, "step"), gradient_steps=-1, buffer_size=300,
        )  # fmt: skip
        buffers.append(model.learn(250).replay_buffer)
    for part in ("observations", "actions", "rewards", "dones"):
        ours, theirs = (getattr(buffer, part) for buffer in buffers)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", PAIRS)
def test_it_acts_as_sb3s(name: str, deterministic: bool) -> None:
    models = pair(name, {"copies": 2})
    space = models[0].observation_space
    for observation in (np.stack([space.sample() for _ in range(20)]), space.sample()):
        actions = []
        for model in models:
            model.exploration_rate = 0.5
            model.set_random_seed(5)
            few = [model.predict(observation, deterministic=deterministic)[0] for _ in range(5)]
            actions.append(np.stack(few))
        np.testing.assert_array_equal(*actions)
        assert actions[0].dtype == actions[1].dtype


@pytest.mark.parametrize("name", PAIRS)
def test_sb3_opens_its_zip_and_it_opens_sb3s(name: str, tmp_path: Path) -> None:
    theirs, ours = pair(name, {})
    keys = []
    for model, other in ((theirs, type(ours)), (ours, type(theirs))):
        train(model, 2)
        path = tmp_path / f"{type(model).__name__}.zip"
        model.save(path)
        opened = other.load(path, env=environment(name), device="cpu")
        assert distance(model, opened) == 0
        opened.replay_buffer = model.replay_buffer
        train(model, 3), train(opened, 3)
        assert distance(model, opened) < 1e-6
        with zipfile.ZipFile(path) as archive:
            keys.append((sorted(archive.namelist()), list(json.loads(archive.read("data")))))
    assert keys[0] == keys[1]


@pytest.mark.parametrize("name", PAIRS)
def test_a_step_that_a_hook_leaves_out_is_left_out(name: str) -> None:
    _, model = pair(name, {})
    train(model, 2)
    before = copy.deepcopy(model.policy.state_dict())
    optimizers = [recursive_getattr(model, path) for path in model._get_torch_save_params()[0][1:]]

    def leave_out(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                assert parameter.grad.isfinite().all()
                parameter.grad = None

    handles = [optimizer.register_step_pre_hook(leave_out) for optimizer in optimizers]
    train(model, 2)
    for handle in handles:
        handle.remove()
    learnt = [key for key in before if "target" not in key]
    assert all(torch.equal(model.policy.state_dict()[key], before[key]) for key in learnt)
    train(model, 2)
    assert not all(torch.equal(model.policy.state_dict()[key], before[key]) for key in learnt)


class Odd(gymnasium.Env):
    """An environment of any observations, in which nothing matters."""

    def __init__(self, observations: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space, self.action_space = observations, action_space

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


VECTOR = spaces.Box(-1, 1, (2, 2))
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
ELU = {"policy_kwargs": {"activation_fn": nn.ELU}}


@pytest.mark.parametrize("name", ["dqn", "sac", "td3"])
@pytest.mark.parametrize(
    ("policy", "observations", "options", "reason"),
    [
        ("MlpPolicy", VECTOR, {}, None),
        ("MlpPolicy", VECTOR, ELU, "layers that are not linear, ReLU or tanh"),
        ("MlpPolicy", spaces.Discrete(3), {}, "discrete observations"),
        ("CnnPolicy", IMAGE, {}, "image observations"),
        ("MultiInputPolicy", spaces.Dict({"a": VECTOR}), {}, "dict observations"),
    ],
)
def test_what_is_not_covered_is_left_to_sb3(
    name: str, policy: str, observations: spaces.Space, options: dict[str, Any], reason: str | None
) -> None:
    actions = spaces.Discrete(3) if name == "dqn" else spaces.Box(-1, 1, (2, 1))
    policies = []
    for algorithm in PAIRS[name]:
        observations.seed(0)
        model: Any = algorithm(
            policy, Odd(observations, actions), seed=0, device="cpu", buffer_size=50,
            batch_size=8, learning_starts=20, train_freq=(10, "step"), **copy.deepcopy(options),
        )  # fmt: skip
        policies.append(model.learn(40))
    assert policies[1].falls_back == reason
    # Where no reward differs, gradients are small, and Adam makes steps of their rounding.
    assert distance(*policies) <= (1e-4 if reason is None else 0.0)


def test_gsde_is_left_to_sb3() -> None:
    models = [algorithm("MlpPolicy", "Pendulum-v1", use_sde=True, seed=0, buffer_size=200,
                        device="cpu").learn(120) for algorithm in PAIRS["sac"]]  # fmt: skip
    assert models[1].falls_back == "use_sde"
    assert distance(*models) == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["dqn", "sac", "td3"])
def test_a_gpu_is_left_to_sb3(name: str) -> None:
    model: Any = PAIRS[name][1]("MlpPolicy", environment(name), device="cuda", buffer_size=100)
    assert model.falls_back == "device cuda"
