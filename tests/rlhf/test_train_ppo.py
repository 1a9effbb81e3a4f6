"""PPO on a small model: it learns, counts its steps, resumes to the same bits, refuses nonsense."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from reward_models.side_by_side import side_by_side
from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.metrics import Record
from rl_lab.rlhf import ppo_update, rollout, sampling
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import KL, PPO
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.run import Run
from tests.rlhf.conftest import Tiny, torch_threads


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in policy.model.parameters()])


def trained(tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensors[name].detach().flatten().clone() for name in sorted(tensors)])


def newest(run: Run) -> Snapshot:
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    return snapshot


def course(records: list[Record], name: str) -> list[float]:
    return [record[name] for record in records if name in record]


def test_it_learns_what_it_is_paid_for(tiny: Tiny) -> None:
    ppo = tiny.settings(updates=40, rollouts=64, minibatch=32, micro_batch=32, learning_rate=1e-3,
                        kl=KL(coefficient=0.02), looks={"every": 10, "prompts": 8})  # fmt: skip
    _, run, records = tiny.train(ppo)
    earned = course(records, "reward/a")
    assert sum(earned[-5:]) / 5 > sum(earned[:5]) / 5 + 0.3
    assert run.status["best"]["step"] > 0


@pytest.mark.parametrize(("minibatch", "epochs"), [(16, 1), (8, 2), (4, 3)])
def test_a_minibatch_is_one_optimizer_step(tiny: Tiny, minibatch: int, epochs: int) -> None:
    """TRL's PPO made 4 steps where 16 were asked for."""
    ppo = tiny.settings(updates=1, minibatch=minibatch, micro_batch=2, epochs=epochs)
    _, run, records = tiny.train(ppo)
    asked = 16 // minibatch * epochs
    assert course(records, "train/optimizer_steps") == [asked]
    # AdamW's own count.
    counts = {int(t) for name, t in newest(run).tensors["optimizer"].items() if "step" in name}
    assert counts == {asked}


def test_micro_batches_do_not_change_the_result(tiny: Tiny) -> None:
    start = trained(tiny.policy(tiny.settings()).trained_tensors())
    _, whole, _ = tiny.train(tiny.settings(micro_batch=8), "whole")
    _, parts, _ = tiny.train(tiny.settings(micro_batch=2), "parts")
    one, other = (trained(newest(run).tensors["policy"]) for run in (whole, parts))
    assert (one - start).abs().max() > 1e-3
    torch.testing.assert_close(one, other, atol=2e-5, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kl", [{}, {"place": "loss", "estimator": "exact"}])
@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_threads_change_nothing_but_rounding_and_come_to_the_same_bits_again(
    tiny: Tiny, lora: dict[str, int] | None, kl: dict[str, str], precision: str
) -> None:
    ppo = tiny.settings(micro_batch=8, kl=kl, lora=lora, precision=precision, updates=2)
    found = {}
    for name, threads in (("one", 1), ("three", 3), ("again", 3)):
        with torch_threads(threads):
            _, run, _ = tiny.train(ppo, name)
        found[name] = trained(newest(run).tensors["policy"])
    if precision == "float32":
        torch.testing.assert_close(found["one"], found["three"], atol=2e-5, rtol=0)
    assert torch.equal(found["three"], found["again"])


def test_with_threads_each_part_of_an_update_is_done_side_by_side(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    together: dict[str, tuple[int, int]] = {}
    for module in (sampling, rollout, ppo_update):

        def watched(
            work: Any, pieces: Sequence[Any], at_once: int, name: str = module.__name__
        ) -> Iterator[Any]:
            together[name] = at_once, len(pieces)
            return side_by_side(work, pieces, at_once)

        monkeypatch.setattr(module, "side_by_side", watched)
    with torch_threads(3):
        tiny.train(tiny.settings(updates=1, micro_batch=8))
    # What came last: a minibatch, and a look, of 8 responses each.
    modules = (sampling, rollout, ppo_update)
    assert together == {module.__name__: (3, 3) for module in modules}


def test_one_thread_makes_no_second_set_of_gradients(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ppo_update, "add_gradients", None)
    with torch_threads(1):
        tiny.train(tiny.settings(updates=1, micro_batch=2))


def test_gradients_are_added_as_backward_does() -> None:
    one, other = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    unused = torch.nn.Parameter(torch.ones(1))

    def loss() -> torch.Tensor:
        return ((one + other) @ torch.arange(2.0)).sum() + one.sum()  # some gradients are shared

    for _ in range(2):
        parameters = (one, other, unused)
        gradients = torch.autograd.grad(loss(), parameters, allow_unused=True)
        ppo_update.add_gradients(gradients, parameters)
    assert one.grad is not None and other.grad is not None
    found = one.grad.clone(), other.grad.clone()
    one.grad = other.grad = None
    for _ in range(2):
        loss().backward()
    assert torch.equal(found[0], one.grad)
    assert torch.equal(found[1], other.grad)
    assert unused.grad is None


def test_no_two_parameters_share_a_gradient() -> None:
    one, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    parameters = (one, other)
    ppo_update.add_gradients(torch.autograd.grad((one + other).sum(), parameters), parameters)
    torch.nn.utils.clip_grad_norm_(parameters, 0.1)  # scales each in place
    assert one.grad is not None
    assert one.grad.norm() == pytest.approx(0.1 / 2**0.5)


def test_with_lora_the_base_stays_and_is_the_reference(tiny: Tiny) -> None:
    ppo = tiny.settings(lora={"rank": 2}, learning_rate=1e-2)
    before = tiny.policy(ppo)
    after, _, records = tiny.train(ppo)
    assert after.reference_of().own_model is None
    frozen = [n for n, p in after.named_parameters() if not p.requires_grad]
    assert frozen
    for name in frozen:
        assert torch.equal(before.get_parameter(name), after.get_parameter(name))
    assert course(records, "kl/exact")[0] == pytest.approx(0, abs=1e-6)
    assert course(records, "kl/exact")[1] > 1e-4


def test_warm_up_moves_the_critic_alone(tiny: Tiny) -> None:
    ppo = tiny.settings(critic={"warmup_updates": 2})
    before = {name: t.detach().clone() for name, t in tiny.policy(ppo).trained_tensors().items()}
    _, run, _ = tiny.train(ppo)
    after = newest(run).tensors["policy"]
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert moved == {"critic.head.weight", "critic.head.bias"}


@pytest.mark.parametrize("estimator", ["k2", "k3", "exact"])
def test_kl_in_the_loss_holds_the_policy_back(tiny: Tiny, estimator: str) -> None:
    def drift(coefficient: float) -> float:
        kl = {"place": "loss", "estimator": estimator, "coefficient": coefficient}
        ppo = tiny.settings(updates=8, learning_rate=5e-3, kl=kl)
        _, _, records = tiny.train(ppo, f"{estimator}-{coefficient}")
        return course(records, "kl/exact")[-1]

    assert drift(5.0) < 0.5 * drift(0.0)


def test_the_coefficient_rises_while_kl_is_above_its_target(tiny: Tiny) -> None:
    kl = {"coefficient": 0.01, "target": 1e-6, "adaptation": 1.0}
    _, _, records = tiny.train(tiny.settings(updates=4, kl=kl))
    # At the first update the policy is the reference: KL 0 is below the target.
    assert course(records, "kl/coefficient") == pytest.approx([0.01, 0.008, 0.0096, 0.01152])


def test_an_update_ends_early_when_it_moved_far_enough(tiny: Tiny) -> None:
    ppo = tiny.settings(epochs=4, learning_rate=1e-2, kl={"stop_update": 1e-4})
    _, _, records = tiny.train(ppo)
    assert max(course(records, "train/optimizer_steps")) < 8


@pytest.mark.parametrize("truncation", [{"top_k": 2}, {"top_p": 0.7}])
def test_truncated_sampling_keeps_its_ratios(tiny: Tiny, truncation: dict[str, Any]) -> None:
    tiny.sampling = Sampling(6, (1,), (0, 2), temperature=0.7, **truncation)
    _, _, records = tiny.train(tiny.settings())
    assert max(course(records, "rollout/sampler_mismatch")) < 1e-4
    assert all(math.isfinite(kl) for kl in course(records, "kl/exact"))


def test_token_scores_are_earned_where_they_are_given(tiny: Tiny) -> None:
    def per_token(prompts: Any, completions: Any, tokens: list[list[str]]) -> list[list[float]]:
        return [[float(token == "a") for token in row] for row in tokens]

    tiny.rewards = Rewards({"a": Term(per_token, weight=2.0, per_token=True)})
    ppo = tiny.settings(updates=30, rollouts=64, minibatch=64, micro_batch=64, learning_rate=5e-3,
                        kl=KL(coefficient=0.02), looks={"every": 30, "prompts": 8})  # fmt: skip
    _, _, records = tiny.train(ppo)
    earned, total = course(records, "reward/a"), course(records, "reward/proxy")
    assert total == pytest.approx([2 * value for value in earned], rel=1e-5)
    assert earned[-1] > earned[0] + 1


def test_the_best_look_is_kept_and_never_one_beyond_the_limit(tiny: Tiny) -> None:
    ppo = tiny.settings(updates=6, learning_rate=2e-2, kl={"coefficient": 0.0, "limit": 1e-9})
    before = weights(tiny.policy(ppo)).clone()
    policy, run, records = tiny.train(ppo)
    assert course(records, "look/kl")[-1] > 0.01
    assert run.status["best"]["step"] == 0
    assert torch.equal(before, weights(policy))


def test_with_every_look_beyond_the_limit_the_first_is_kept(tiny: Tiny) -> None:
    """Truncation alone is a distance from the reference, which is not truncated."""
    tiny.sampling = Sampling(6, (1,), (0, 2), top_k=1)
    _, run, records = tiny.train(tiny.settings(kl={"limit": 1e-3, "coefficient": 1e3}))
    assert min(course(records, "look/kl")) > 1e-3
    assert run.status["best"]["within"] == 0


def test_looks_measure_the_way_from_the_start_whatever_the_reference(tiny: Tiny) -> None:
    ppo = tiny.settings(updates=6, learning_rate=2e-2, refresh_reference=1)
    _, _, records = tiny.train(ppo)
    assert course(records, "look/kl")[-1] > 0.01


def test_samples_are_kept_with_what_they_earned(tiny: Tiny) -> None:
    judges = {"length": lambda texts: torch.tensor([len(text) / 100 for text in texts]).numpy()}
    _, run, _ = tiny.train(tiny.settings(), judges=judges)
    rows = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert {row["step"] for row in rows} == {0, 1, 2}
    assert all(set(row["gold"]) == {"length"} and row["kl"] >= -1e-6 for row in rows)


def test_pretraining_mix_is_added_to_the_loss(tiny: Tiny) -> None:
    def mix(update: int) -> Any:
        return lambda policy, step: (
            1e3 * policy.critic.head.weight.sum()
            + 0.0 * sum(parameter.sum() for parameter in policy.model.parameters())
        )

    _, mixed, records = tiny.train(tiny.settings(), "mixed", mix_loss=mix)
    _, plain, _ = tiny.train(tiny.settings(), "plain")
    assert len(course(records, "train/mix_loss")) == 2
    # The sum of the head's weights is pushed down.
    heads = [newest(run).tensors["policy"]["critic.head.weight"].sum() for run in (mixed, plain)]
    assert heads[0] < heads[1] - 0.01


def test_a_nan_stops_before_it_is_applied(tiny: Tiny) -> None:
    def mix(update: int) -> Any:
        return lambda policy, step: math.nan * policy.critic.head.weight.sum()

    with pytest.raises(FloatingPointError, match="was not made"):
        tiny.train(tiny.settings(), mix_loss=mix)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rollouts": 10, "minibatch": 4, "micro_batch": 2}, "not a multiple of minibatch"),
        ({"minibatch": 8, "micro_batch": 3, "rollouts": 8}, "not a multiple of micro_batch"),
        ({"kl": {"place": "loss", "estimator": "k1"}}, "expected gradient of zero"),
        ({"kl": {"place": "reward", "estimator": "exact"}}, "cannot see which token"),
        ({"lora": {}, "refresh_reference": 3}, "needs a reference of its own"),
        ({"rewards": {"r": {}}}, "exactly one of"),
        ({"rewards": {"r": {"model": "x", "function": "y"}}}, "exactly one of"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PPO(**changes)


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda prompts, completions: [0.0], "scores of shape"),
        (lambda prompts, completions: [math.nan] * len(completions), "finite number"),
        (lambda prompts, completions: None, "gave NoneType"),
        (lambda prompts, completions: ["good"] * len(completions), "gave list"),
    ],
)
def test_a_reward_that_is_none_is_refused(tiny: Tiny, score: Any, sentence: str) -> None:
    tiny.rewards = Rewards({"r": Term(score)})
    with pytest.raises(UserError, match=sentence):
        tiny.train(tiny.settings())
