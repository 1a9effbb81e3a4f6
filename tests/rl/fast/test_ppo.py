"""The fast PPO is SB3's: equal after an update, from the same rollout; and its zip is SB3's."""

import copy
import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rl_lab.rl.fast.ppo import FastPPO

ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi-discrete": spaces.MultiDiscrete([3, 2, 4]),
    "multi-binary": spaces.MultiBinary(3),
    "continuous": spaces.Box(-1.0, 1.0, (2,), np.float32),
}
OBSERVATIONS = {
    "box": spaces.Box(-1.0, 1.0, (5,), np.float32),
    "matrix of doubles": spaces.Box(-1.0, 1.0, (2, 3), np.float64),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(4),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "value clipping": {"clip_range_vf": 0.05},
    "no normalisation": {"normalize_advantage": False},
    "entropy": {"ent_coef": 0.1},
    "hard gradient clipping": {"max_grad_norm": 0.01},
    "no gradient clipping": {"max_grad_norm": 1e9},
    "value coefficient": {"vf_coef": 1.7},
    "schedules": {"learning_rate": lambda left: 1e-3 * left, "clip_range": lambda left: 0.3 * left},
    "target kl, reached": {"target_kl": 1e-6},
    "target kl, not reached": {"target_kl": 10.0},
    "one minibatch": {"batch_size": 64},
    "a truncated minibatch": {"batch_size": 24},
    "weight decay": {"policy_kwargs": {"optimizer_kwargs": {"weight_decay": 0.1}}},
    "decoupled weight decay": {"policy_kwargs": {"optimizer_class": torch.optim.AdamW}},
    "relu": {"policy_kwargs": {"activation_fn": torch.nn.ReLU}},
    "deep": {"policy_kwargs": {"net_arch": [16, 12, 8]}},
    "shallow": {"policy_kwargs": {"net_arch": [16]}},
    "linear": {"policy_kwargs": {"net_arch": []}},
    "actor and critic unlike": {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [16, 16]}}},
    "features not shared": {"policy_kwargs": {"share_features_extractor": False}},
}


class Random(gymnasium.Env):
    """Any spaces; rewards are random; episodes end, or are cut off, now and then."""

    def __init__(self, observations: spaces.Space, actions: spaces.Space) -> None:
        self.observation_space, self.action_space = (
            copy.deepcopy(observations), copy.deepcopy(actions)
        )  # fmt: skip

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        chance = self.np_random.random(3)
        observation = self.observation_space.sample()
        return observation, float(chance[0]), bool(chance[1] < 0.1), bool(chance[2] < 0.1), {}


def random_vector(
    observations: spaces.Space = OBSERVATIONS["box"], actions: spaces.Space = ACTIONS["discrete"]
) -> VecEnv:
    vector = DummyVecEnv([lambda: Random(observations, actions)] * 4)
    vector.seed(3)
    return vector


def agent(algorithm: type[PPO], vector: VecEnv, **options: Any) -> PPO:
    arguments: dict[str, Any] = {"n_steps": 16, "batch_size": 32, "n_epochs": 3, **options}
    model = algorithm("MlpPolicy", vector, seed=1, device="cpu", **arguments)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def sb3_with_rollout(vector: VecEnv, **options: Any) -> PPO:
    """SB3's PPO that has learnt a little, with a rollout it has not learnt from."""
    model = agent(PPO, vector, **options)
    model.learn(64)
    _, callback = model._setup_learn(64, reset_num_timesteps=False)
    model.collect_rollouts(vector, callback, model.rollout_buffer, model.n_steps)
    model._current_progress_remaining = 0.5
    return model


def twin(model: PPO, vector: VecEnv, **options: Any) -> FastPPO:
    """A fast PPO with the weights, optimiser state and rollout of SB3's."""
    fast = agent(FastPPO, vector, **options)
    assert isinstance(fast, FastPPO)
    assert fast.falls_back is None
    fast.policy.load_state_dict(model.policy.state_dict())
    fast.policy.optimizer.load_state_dict(copy.deepcopy(model.policy.optimizer.state_dict()))
    fast.rollout_buffer = copy.deepcopy(model.rollout_buffer)
    fast._current_progress_remaining = model._current_progress_remaining
    fast._n_updates = model._n_updates
    return fast


def assert_equal_after_train(vector: VecEnv, **options: Any) -> tuple[PPO, FastPPO]:
    model = sb3_with_rollout(vector, **options)
    fast = twin(model, vector, **options)
    before = copy.deepcopy(model.policy.state_dict())
    for each in (model, fast):
        np.random.seed(5)  # orders the minibatches
        each.train()
    moved = 0.0
    for name, tensor in model.policy.state_dict().items():
        torch.testing.assert_close(fast.policy.state_dict()[name], tensor, rtol=0, atol=1e-6)
        moved = max(moved, (tensor - before[name]).abs().max().item())
    assert moved > 1e-4 or model.target_kl == 1e-6  # else there was nothing to get wrong
    return model, fast


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("options", OPTIONS)
def test_an_update_ends_with_the_weights_of_sb3(actions: str, options: str) -> None:
    vector = random_vector(actions=ACTIONS[actions])
    model, fast = assert_equal_after_train(vector, **copy.deepcopy(OPTIONS[options]))

    logged, expected = fast.logger.name_to_value, model.logger.name_to_value
    assert {name for name in expected if name.startswith("train/")} <= set(logged)
    for name, value in expected.items():
        if name.startswith("train/"):
            assert logged[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_observations_are_read_as_sb3_reads_them(observations: str) -> None:
    assert_equal_after_train(random_vector(OBSERVATIONS[observations]))


def test_the_optimiser_is_left_as_sb3_leaves_it() -> None:
    model, fast = assert_equal_after_train(random_vector())
    ours, theirs = (each.policy.optimizer.state_dict() for each in (fast, model))
    assert ours["param_groups"] == theirs["param_groups"]
    assert ours["state"].keys() == theirs["state"].keys()
    for number, state in theirs["state"].items():
        for name, tensor in state.items():
            torch.testing.assert_close(ours["state"][number][name], tensor, rtol=1e-4, atol=1e-7)
    fast.train()
    assert fast.policy.optimizer.state_dict()["state"][0]["step"] == 18  # 3 updates of 3 x 2


@pytest.mark.parametrize("actions", ACTIONS)
def test_a_rollout_is_what_sb3_would_make_of_the_same_actions(actions: str) -> None:
    fast = agent(FastPPO, random_vector(actions=ACTIONS[actions]))
    _, callback = fast._setup_learn(64)
    fast.collect_rollouts(fast.env, callback, fast.rollout_buffer, fast.n_steps)
    buffer = fast.rollout_buffer
    states = torch.as_tensor(buffer.observations.reshape(64, -1))
    taken = torch.as_tensor(buffer.actions.reshape(64, -1)).float()
    with torch.no_grad():
        values, log_probs, _ = fast.policy.evaluate_actions(
            states, taken[:, 0] if actions == "discrete" else taken
        )
        last = fast.policy.predict_values(torch.as_tensor(fast._last_obs))
    np.testing.assert_allclose(buffer.values.reshape(-1), values[:, 0], atol=1e-6)
    np.testing.assert_allclose(buffer.log_probs.reshape(-1), log_probs, atol=1e-6)
    ours = buffer.advantages.copy(), buffer.returns.copy()
    buffer.compute_returns_and_advantage(last, fast._last_episode_starts)
    np.testing.assert_allclose(ours[0], buffer.advantages, atol=1e-6)
    np.testing.assert_allclose(ours[1], buffer.returns, atol=1e-6)
    assert buffer.episode_starts.sum() > 4  # several episodes ended in it


class CutOff(gymnasium.Env):
    """Every step ends the episode, by a time limit; the last observation is all ones."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(2, np.float32), 1.0, False, True, {}


def test_a_return_goes_on_where_a_time_limit_cut_the_episode_off() -> None:
    fast = agent(FastPPO, DummyVecEnv([CutOff] * 4), gamma=0.9)
    _, callback = fast._setup_learn(64)
    fast.collect_rollouts(fast.env, callback, fast.rollout_buffer, fast.n_steps)
    with torch.no_grad():
        value = fast.policy.predict_values(torch.ones(1, 2)).item()
    np.testing.assert_allclose(fast.rollout_buffer.rewards, 1 + 0.9 * value, rtol=1e-5)
    np.testing.assert_allclose(fast.rollout_buffer.returns, 1 + 0.9 * value, rtol=1e-5)


@pytest.mark.parametrize("actions", ACTIONS)
def test_actions_are_drawn_from_the_policy(actions: str) -> None:
    fast = agent(FastPPO, random_vector(actions=ACTIONS[actions]))
    fast._take_over()
    draws, distribution = 40_000, fast._distribution
    outputs = np.random.default_rng(0).normal(size=distribution.chances(1, 1).shape[-1])
    rows = np.tile(outputs.astype(np.float32), (draws, 1))
    drawn = distribution.draw(rows, distribution.chances(draws))
    if actions == "continuous":
        np.testing.assert_allclose(drawn.mean(0), outputs, atol=0.03)
        np.testing.assert_allclose(drawn.std(0), 1.0, atol=0.03)
        return
    names = np.unique(drawn, axis=0)
    encoded = distribution.encode(names)
    log_probs, _ = distribution.log_prob(rows[: len(names)].T.copy(), encoded)
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-3)  # all that can come, came
    shares = [(drawn == name).all(1).mean() for name in names]
    np.testing.assert_allclose(shares, np.exp(log_probs), atol=0.015)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_greedy_actions_are_sb3s(actions: str, observations: str) -> None:
    vector = random_vector(OBSERVATIONS[observations], ACTIONS[actions])
    fast = agent(FastPPO, vector)
    fast.learn(128)
    for _ in range(10):
        seen = vector.step(np.stack([vector.action_space.sample() for _ in range(4)]))[0]
        ours, theirs = (which.predict(seen, deterministic=True)[0] for which in (fast, fast.policy))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        assert ours.shape == theirs.shape
        assert vector.action_space.contains(ours[0])  # their type, too
        single = fast.predict(seen[0], deterministic=True)[0]
        np.testing.assert_allclose(single, theirs[0], atol=1e-6)


def test_sb3_opens_its_zip_and_learns_on(tmp_path: Any) -> None:
    fast = agent(FastPPO, make_vec_env("CartPole-v1", 4, seed=1))
    fast.learn(128)
    fast.save(tmp_path / "agent.zip")
    for algorithm in (PPO, FastPPO):
        loaded = algorithm.load(tmp_path / "agent.zip", make_vec_env("CartPole-v1", 4, seed=2))
        for name, tensor in fast.policy.state_dict().items():
            assert torch.equal(loaded.policy.state_dict()[name], tensor)
        state = fast.policy.optimizer.state_dict()["state"]
        for number, own in loaded.policy.optimizer.state_dict()["state"].items():
            assert all(torch.equal(own[name], state[number][name]) for name in own)
        loaded.learn(128, reset_num_timesteps=False)
        assert not torch.equal(loaded.policy.action_net.weight, fast.policy.action_net.weight)


FALLS_BACK: dict[str, dict[str, Any]] = {
    "state-dependent exploration (use_sde)": {"use_sde": True},
    "activation ELU": {"policy_kwargs": {"activation_fn": torch.nn.ELU}},
    "optimiser SGD": {"policy_kwargs": {"optimizer_class": torch.optim.SGD}},
    "optimiser with amsgrad": {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}}},
}


@pytest.mark.parametrize("reason", FALLS_BACK)
def test_what_it_cannot_do_is_done_as_sb3_does_it(reason: str) -> None:
    def learnt(algorithm: type[PPO]) -> dict[str, torch.Tensor]:
        vector = random_vector(actions=ACTIONS["continuous"])
        model = agent(algorithm, vector, **copy.deepcopy(FALLS_BACK[reason]))
        model.learn(128)
        if isinstance(model, FastPPO):
            assert model.falls_back == reason
        return model.policy.state_dict()

    ours, theirs = learnt(FastPPO), learnt(PPO)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_put_in_from_outside_are_taken_up() -> None:
    fast, other = (agent(FastPPO, random_vector()) for _ in range(2))
    other.learn(128)
    fast.learn(64)
    for mine, its in zip(fast.policy.parameters(), other.policy.parameters(), strict=True):
        mine.data = its.data.clone()  # not copied in: the views are gone
    fast.policy.optimizer.load_state_dict(copy.deepcopy(other.policy.optimizer.state_dict()))
    for each in (fast, other):
        each.rollout_buffer = copy.deepcopy(other.rollout_buffer)
        np.random.seed(5)
        each.train()
    for mine, its in zip(fast.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(mine, its)


class Ends(BaseCallback):
    def _on_step(self) -> bool:
        assert self.locals["rewards"].shape == self.locals["dones"].shape == (4,)
        assert len(self.locals["infos"]) == 4
        return self.num_timesteps < 40


def test_a_callback_sees_steps_and_may_end_learning() -> None:
    fast = agent(FastPPO, random_vector())
    fast.learn(1_000, callback=Ends())
    assert fast.num_timesteps == 40


def test_the_same_seed_gives_the_same_bits() -> None:
    def learnt() -> list[torch.Tensor]:
        model = agent(FastPPO, random_vector())
        model.learn(256)
        return list(model.policy.parameters())

    assert all(torch.equal(*pair) for pair in zip(learnt(), learnt(), strict=True))


def test_it_learns() -> None:
    vector = make_vec_env("CartPole-v1", 8, seed=0)
    model = FastPPO(
        "MlpPolicy", vector, n_steps=32, batch_size=256, n_epochs=20, gamma=0.98, gae_lambda=0.8,
        learning_rate=1e-3, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(20_000)
    lengths = list(itertools.islice((info["l"] for info in reversed(model.ep_info_buffer)), 20))
    assert np.mean(lengths) > 150
