"""The lab's environments: sound by Gymnasium's own checks, and their optimum is what they say."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import match, reach_point, recall

CASES = [
    ("RLLab/Match-v0", {}),
    ("RLLab/Match-v0", {"actions": "continuous"}),
    ("RLLab/Recall-v0", {}),
    ("RLLab/ReachPoint-v0", {}),
]


@pytest.mark.parametrize(("environment_id", "arguments"), CASES)
def test_gymnasium_finds_nothing_wrong(environment_id: str, arguments: dict[str, str]) -> None:
    assert envs.__doc__
    check_env(gymnasium.make(environment_id, **arguments).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("actions", ["discrete", "continuous"])
def test_match_pays_ten_to_who_matches_and_is_cut_off(actions: str) -> None:
    env = gymnasium.make("RLLab/Match-v0", actions=actions)
    observation, _ = env.reset(seed=0)
    total, truncated, terminated = 0.0, False, False
    while not (truncated or terminated):
        observation, reward, terminated, truncated, _ = env.step(match.optimal_action(observation))
        total += float(reward)
    assert total == pytest.approx(match.OPTIMAL_RETURN)
    assert truncated
    assert not terminated


def test_match_masks_allow_the_right_choice_and_forbid_two() -> None:
    env = gymnasium.make("RLLab/Match-v0")
    observation, _ = env.reset(seed=0)
    for _ in range(9):
        masks = env.get_wrapper_attr("action_masks")()
        assert masks.sum() == 2
        assert masks[match.optimal_action(observation)]
        observation, *_ = env.step(0)


def test_recall_needs_memory() -> None:
    env = gymnasium.make("RLLab/Recall-v0", delay=3)
    generator = np.random.default_rng(0)
    remembered, guessed = [], []
    for seed in range(200):
        for policy, returns in (("memory", remembered), ("chance", guessed)):
            mind = recall.Rememberer()
            observation, _ = env.reset(seed=seed)
            total, terminated, steps = 0.0, False, 0
            while not terminated:
                known = mind.act(observation)
                action = known if policy == "memory" else int(generator.integers(2))
                observation, reward, terminated, _, _ = env.step(action)
                total += float(reward)
                steps += 1
            assert steps == 5
            returns.append(total)
    assert np.mean(remembered) == recall.OPTIMAL_RETURN
    assert np.mean(guessed) == pytest.approx(recall.MEMORYLESS_RETURN, abs=0.11)  # 3 sigma


def test_walking_straight_reaches_any_point_in_time() -> None:
    env = gymnasium.make("RLLab/ReachPoint-v0")
    for seed in range(100):
        observation, _ = env.reset(seed=seed)
        total, truncated = 0.0, False
        while not truncated:
            action = reach_point.optimal_action(observation)
            observation, reward, _, truncated, info = env.step(action)
            total += float(reward)
        assert info["is_success"]
        assert total >= -reach_point.MOST_STEPS_NEEDED


def test_reach_point_rewards_batches_as_it_rewards_steps() -> None:
    env = reach_point.ReachPoint()
    achieved = np.array([[0.0, 0.0], [0.5, 0.5]])
    goals = np.array([[0.0, 0.1], [0.5, -0.5]])
    assert env.compute_reward(achieved, goals, {}).tolist() == [0.0, -1.0]
