"""NaN in PPO: caught before it is learned from, and stopped at, left out or rolled back."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.health import Health
from rl_lab.metrics import Record
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.stage_inputs import circumstances, hashes
from tests.rlhf.conftest import Tiny, share_of_a
from tests.rlhf.interruptions import Killed, events, kill_after_snapshot, timeless
from tests.rlhf.test_train_ppo import course, newest, trained

NanAt = Callable[[int, int], bool]
"""(update, optimiser step), both from 0 -> whether the loss is NaN there."""


def mix(nan_at: NanAt, broken: Callable[[Any], Any] | None = None) -> Any:
    """A loss beside PPO's, 0 but where it is NaN."""
    broken = broken or (lambda weight: math.nan * weight.sum())

    def of_update(update: int) -> Any:
        def loss(policy: Any, step: int) -> Any:
            weight = policy.critic.head.weight
            return broken(weight) if nan_at(update, step) else 0.0 * weight.sum()

        return loss

    return of_update


def once(update: int, step: int = 1) -> NanAt:
    """At one step, the first time it is made."""
    met = False

    def nan_at(at_update: int, at_step: int) -> bool:
        nonlocal met
        here = (at_update, at_step) == (update, step) and not met
        met = met or here
        return here

    return nan_at


def warned(records: list[Record]) -> list[Record]:
    return [record for record in records if record.get("level") == "warning"]


@pytest.mark.parametrize(
    ("broken", "source"),
    [
        (lambda weight: math.nan * weight.sum(), "loss of pretraining_mix"),
        (lambda weight: (0.0 * weight).sqrt().sum(), "gradient"),  # 0, of infinite slope
    ],
)
def test_a_skipped_step_is_not_made(tiny: Tiny, broken: Any, source: str) -> None:
    ppo = tiny.settings(health={"on_nan": "skip"}, updates=3)
    _, run, records = tiny.train(ppo, mix_loss=mix(once(1), broken))
    assert course(records, "train/optimizer_steps") == [4, 3, 4]
    assert trained(newest(run).tensors["policy"]).isfinite().all()
    (event,) = warned(records)
    assert (event["event"], event["step"]) == ("skipped", 2)
    assert event["message"] == (
        f"optimiser step 2 of the update is left out: the {source} is NaN or infinite; the step "
        "was not made (1 of 3)"
    )


@pytest.mark.parametrize("on_nan", ["skip", "rollback"])
def test_it_does_not_go_on_for_ever(tiny: Tiny, on_nan: str) -> None:
    ppo = tiny.settings(health={"on_nan": on_nan, "times": 2})
    sentence = f"step was not made; ppo.health.on_nan {on_nan} went on 2 times before"
    with pytest.raises(FloatingPointError, match=sentence):
        tiny.train(ppo, mix_loss=mix(lambda update, step: True))


@pytest.mark.parametrize("update", [0, 2])
def test_a_rollback_goes_on_from_the_last_snapshot_at_a_lower_rate(tiny: Tiny, update: int) -> None:
    ppo = tiny.settings(
        updates=4, checkpoint_every=2, health={"on_nan": "rollback", "rollback_rate": 0.25}
    )
    _, plain, before = tiny.train(ppo, "plain")
    _, run, records = tiny.train(ppo, "rolled", mix_loss=mix(once(update)))
    (event,) = warned(records)
    assert (event["event"], event["step"]) == ("rollback", update)
    assert event["message"].startswith(
        f"from update {update + 1} to {update}, the learning rate times 0.25 from here on: the loss"
    )
    rates = [course(lines, "train/learning_rate") for lines in (before, records)]
    lowered = [rate if u < update else 0.25 * rate for u, rate in enumerate(rates[0])]
    assert rates[1] == pytest.approx(lowered)
    rewards = [course(lines, "reward/a") for lines in (before, records)]
    assert rewards[0][:update] == rewards[1][:update]
    assert rewards[0][update] != rewards[1][update]  # other responses: along another way
    after = [trained(newest(one).tensors["policy"]) for one in (plain, run)]
    assert not torch.equal(*after)


def test_a_rollback_survives_a_kill(tiny: Tiny) -> None:
    ppo = tiny.settings(updates=4, health={"on_nan": "rollback"})
    _, through, whole = tiny.train(ppo, "through", mix_loss=mix(once(2)))
    nan = mix(once(2))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_after_snapshot(4, patch)  # of updates 0, 1, 2, and of 2 with a lower rate
        tiny.train(ppo, "cut", mix_loss=nan)
    _, cut, records = tiny.train(ppo, "cut", mix_loss=nan)
    assert timeless(whole) == timeless(records)
    one, other = (trained(newest(run).tensors["policy"]) for run in (through, cut))
    assert torch.equal(one, other)
    assert newest(cut).state["progress"]["forgiven"] == 1


def ill(times: range) -> Rewards:
    """A reward that is NaN for the third completion the given times it is asked."""
    asked = 0

    def score(prompts: list[str], completions: list[str]) -> list[float]:
        nonlocal asked
        asked += 1
        scores = share_of_a(prompts, completions)
        if asked in times:
            scores[2] = math.nan
        return scores

    return Rewards({"mine": Term(score)})


def test_a_nan_reward_names_its_term_and_row(tiny: Tiny) -> None:
    tiny.rewards = ill(range(2, 3))  # the look at the start comes first
    with pytest.raises(UserError, match=r"reward 'mine': the score of completion 3 of 16, '.*nan"):
        tiny.train(tiny.settings())


def test_nothing_is_learned_from_a_skipped_reward(tiny: Tiny) -> None:
    tiny.rewards = ill(range(4, 5))  # a look, an update, a look, an update
    _, run, records = tiny.train(tiny.settings(updates=3, health={"on_nan": "skip"}))
    (event,) = warned(records)
    assert event["message"].startswith("nothing is learned in update 2: reward 'mine': the score")
    assert [record["step"] for record in records if "reward/mine" in record] == [1, 3]
    assert run.status["step"] == 3


def test_a_reward_that_is_nan_in_a_look_costs_the_look(tiny: Tiny) -> None:
    tiny.rewards = ill(range(3, 4))
    _, _, records = tiny.train(tiny.settings(updates=3, health={"on_nan": "skip"}))
    assert events(records, "skipped")[0].startswith("a look: reward 'mine'")
    assert [record["step"] for record in records if "look/proxy" in record] == [0, 2, 3]


def test_a_nan_reward_rolls_back(tiny: Tiny) -> None:
    tiny.rewards = ill(range(4, 5))
    _, _, records = tiny.train(tiny.settings(health={"on_nan": "rollback"}))
    assert events(records, "rollback")[0].startswith("from update 2 to 1, the learning rate")
    assert [record["step"] for record in records if "reward/mine" in record] == [1, 2]


def test_a_model_that_says_nan_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    ppo = tiny.settings()
    policy = tiny.policy(ppo)
    with torch.no_grad():
        policy.critic.head.bias.fill_(math.inf)
    monkeypatch.setattr(Tiny, "policy", lambda self, ppo: policy)
    with pytest.raises(FloatingPointError, match="the value of response 1 of 8 is NaN"):
        tiny.train(ppo)
    with torch.no_grad():
        policy.model.get_output_embeddings().weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="a logit of the policy is NaN"):
        tiny.train(ppo, "other")


def test_only_another_policy_than_the_default_is_in_the_hash() -> None:
    def of(**changes: Any) -> dict[str, str]:
        recipe = recipes.load(LanguageRecipe, "movie-reviews", changes)
        return hashes(recipe, circumstances(recipe, "cpu"))

    assert of() == of(**{"ppo.health": {"on_nan": "stop"}})
    assert of()["ppo"] != of(**{"ppo.health.on_nan": "skip"})["ppo"]
    assert of()["reward"] == of(**{"ppo.health.on_nan": "skip"})["reward"]


def test_settings_are_checked() -> None:
    for wrong in ({"on_nan": "ignore"}, {"times": 0}, {"rollback_rate": 1.5}):
        with pytest.raises(ValidationError):
            Health(**wrong)
