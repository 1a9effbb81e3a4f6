"""The `evaluate` stage: what training made of the policy, against the reference it started from."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.files import write_json
from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import language_model, rewards
from rl_lab.rlhf.best_of_n import expected_best, kl_bound
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.diversity import distinct, repetition
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.rlhf.looks import Judges, texts_of
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.next_token import mean_loss
from rl_lab.rlhf.policy import Critic, Policy, Reference
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.ppo_stage import (
    build_sampling,
    heldout_prompts,
    longest_prompt,
    precision,
    starting_model,
)
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.recipe import Evaluate
from rl_lab.rlhf.rewards import Rewards
from rl_lab.rlhf.rollout import Rollout, collect
from rl_lab.run import Run
from rl_lab.seeding import stream
from rl_lab.signals import StopRequest
from rl_lab.statistics import mean_interval, wilson_interval

SAMPLES, BEST_OF = range(20, 22)
"""What the stage's streams of random numbers are for."""
AT_ONCE = 8
"""Completions of each prompt sampled at once for best-of-n."""


@dataclass
class Setting:
    """What both models are judged with."""

    rewards: Rewards
    judges: Judges
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    memory: Memory
    autocast: torch.dtype
    stop: StopRequest


@dataclass
class Judged:
    """Completions of one model, and what each earned. N prompts."""

    rollout: Rollout
    proxy: np.ndarray
    """(N,) total reward."""
    gold: dict[str, np.ndarray]
    """(N,) of each judge."""


def evaluate(
    section: Evaluate,
    ppo: PPO,
    data: Path,
    pretrain: Path | None,
    reward: Path | None,
    trained: Path,
    judges: Judges,
    run: Run,
    log: MetricLog,
    stop: StopRequest,
    *,
    seed: int,
    device: str,
) -> None:
    """Judge the trained policy and the reference on the same held-out prompts.

    Leaves evaluation.json.

    Args:
        section: the recipe's.
        ppo: the recipe's, for rewards, sampling and the reference.
        data: the data stage.
        pretrain: the pretrain stage, if there is one.
        reward: the reward stage, if there is one.
        trained: the ppo stage.
        judges: gold judges, the one that counts first.
        run: the stage's directory, locked.
        log: its metrics.
        stop: asked between parts.
        seed: of sampling.
        device: where models live.
    """
    before, tokenizer = language_model.load(starting_model(ppo, pretrain), device)
    after, _ = language_model.load(trained / "model", device)
    sampling = build_sampling(ppo.sampling, tokenizer, before)
    autocast = precision(ppo, device)
    setting = Setting(
        rewards.build(ppo.rewards, reward, device, autocast == torch.bfloat16), judges, tokenizer,
        sampling, Memory(ppo.micro_batch), autocast, stop,
    )  # fmt: skip
    longest = longest_prompt(before.config, sampling.max_new_tokens)
    heldout = heldout_prompts(data, tokenizer, longest, False, ppo.looks.prompts)
    for remark in heldout.remarks:
        log.event(0, "prompts", remark, "warning")
    prompts = heldout.evaluation[: section.prompts]
    most = max(section.best_of, default=0)
    total = 2 * len(prompts) + most * min(section.best_of_prompts, len(prompts))
    run.update_status(budget=total, step=0, unit="completions")

    # 1. A completion of each model to each prompt.
    log.event(0, "evaluate", f"{len(prompts):,} held-out prompts, a completion of each model")
    samples_seed = stream(seed, SAMPLES, 1)[0]
    reference = judge(before, before, prompts, samples_seed, setting)
    run.update_status(step=len(prompts))
    policy = judge(after, before, prompts, samples_seed, setting)
    run.update_status(step=2 * len(prompts))

    # 2. Both against each other, and against best-of-n.
    result: dict[str, Any] = {
        "prompts": len(prompts),
        "policy": _described(policy),
        "reference": _described(reference),
        "kl": {
            "exact": _interval(policy.rollout.exact_kl.sum(1).numpy()),
            "sampled": _interval(
                (policy.rollout.log_probs - policy.rollout.reference_log_probs).sum(1).numpy()
            ),
        },
        "gain": {name: _gain(policy.gold[name], reference.gold[name]) for name in judges},
        "win_rate": {name: _win_rate(policy.gold[name], reference.gold[name]) for name in judges},
        "samples": _side_by_side(reference, policy, section.samples),
    }
    if section.best_of:
        log.event(2 * len(prompts), "evaluate", f"best of {most} completions of the reference")
        chosen = prompts[: section.best_of_prompts]
        result["best_of"] = best_of(
            before, chosen, section.best_of, reference, stream(seed, BEST_OF, 1)[0], setting
        )
    write_json(run.evaluation_file, result)
    # 3. What was forgotten.
    texts = data / "texts-heldout.jsonl"
    if texts.exists():
        held = [row["text"] for row in read_jsonl(texts)[: section.texts]]
        result["reference"]["heldout_loss"] = mean_loss(before, tokenizer, held)
        result["policy"]["heldout_loss"] = mean_loss(after, tokenizer, held)
    write_json(run.evaluation_file, result)
    run.update_status(step=total)
    for sentence in verdict(result):
        log.event(total, "verdict", sentence)


def judge(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    prompts: Sequence[Prompt],
    seed: int,
    setting: Setting,
) -> Judged:
    """Sample a completion to each prompt and have it scored by everything."""
    setting.stop.check()
    hidden = model.config.get_text_config().hidden_size
    policy = Policy(model, Critic(hidden).to(model.device), setting.autocast).eval()
    generator = torch.Generator(model.device)
    generator.manual_seed(seed)
    rollout = collect(
        policy, Reference(policy, reference, refreshed=False), prompts, setting.rewards,
        setting.tokenizer, setting.sampling, generator, setting.memory,
        PhaseClock("evaluation"),
    ).on_cpu()  # fmt: skip
    texts = texts_of(rollout)
    gold = {name: np.asarray(judge(texts)) for name, judge in setting.judges.items()}
    return Judged(rollout, rollout.scored.total.numpy(), gold)


def best_of(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    sizes: Sequence[int],
    reference: Judged,
    seed: int,
    setting: Setting,
) -> list[dict[str, Any]]:
    """Measure best-of-n by the proxy, for each n; gains in SDs of the reference's gold scores."""
    count, many = max(sizes), len(prompts)
    drawn = [
        judge(model, model, list(prompts) * min(AT_ONCE, count - start), seed + start, setting)
        for start in range(0, count, AT_ONCE)
    ]
    # One column a draw, one row a prompt.
    proxy = np.concatenate([judged.proxy.reshape(-1, many) for judged in drawn]).T
    gold = {
        name: np.concatenate([judged.gold[name].reshape(-1, many) for judged in drawn]).T
        for name in setting.judges
    }
    texts = [text for judged in drawn for text in judged.rollout.completions]
    completions = [texts[start : start + many] for start in range(0, len(texts), many)]
    rows = []
    for n in sorted(sizes):
        best = proxy[:, :n].argmax(axis=1)
        chosen = [completions[number][row] for row, number in enumerate(best)]
        means = {name: float(expected_best(proxy, of, n).mean()) for name, of in gold.items()}
        rows.append(
            {
                "n": n,
                "kl": kl_bound(n),
                "proxy": float(expected_best(proxy, proxy, n).mean()),
                "gold": means,
                # Against the same prompts' mean over all samples: the prompts differ in difficulty.
                "gain": {
                    name: (means[name] - float(gold[name].mean())) / _spread(reference.gold[name])
                    for name in gold
                },
                "distinct_2": distinct(chosen, 2),
                "distinct_2_reference": distinct(completions[0], 2),
            }
        )
    return rows


def verdict(result: Mapping[str, Any]) -> list[str]:
    """Say the result in sentences, the gold judge that counts first."""
    kl = result["kl"]["exact"]
    sentences = []
    for name, gain in list(result["gain"].items())[:1]:
        win = result["win_rate"][name]
        sentences.append(
            f"gold ({name}): {gain['sd']:+.2f} SD [{gain['low']:+.2f}, {gain['high']:+.2f}] at "
            f"exact KL {kl['mean']:.2f} nats; preferred to the reference's in {win['mean']:.0%} "
            f"[{win['low']:.0%}, {win['high']:.0%}] of {win['n']:,} prompts"
        )
    share = result["policy"]["distinct_2"] / result["reference"]["distinct_2"]
    sentences.append(f"distinct-2 is {share:.0%} of the reference's")
    return sentences


# --- parts of the result -------------------------------------------------------------------------


def _described(judged: Judged) -> dict[str, Any]:
    """One model's completions in numbers."""
    rollout = judged.rollout
    mask = rollout.responses.mask
    lengths = mask.sum(1)
    fluency = rollout.reference_log_probs.sum(1) / lengths
    return {
        "proxy": _interval(judged.proxy),
        "gold": {name: _interval(scores) for name, scores in judged.gold.items()},
        "length": _interval(lengths.float().numpy()),
        "distinct_1": distinct(rollout.completions, 1),
        "distinct_2": distinct(rollout.completions, 2),
        "repetition": repetition(rollout.completions),
        "end_share": float(rollout.responses.terminated.float().mean()),
        "fluency": _interval(fluency.numpy()),
    }


def _interval(values: np.ndarray) -> dict[str, float]:
    return asdict(mean_interval([float(value) for value in values]))


def _spread(scores: np.ndarray) -> float:
    """Standard deviation; 1 where all scores are equal, so that no gain is infinite."""
    return float(scores.std()) or 1.0


def _gain(policy: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Mean gold difference on the same prompts, in SDs of the reference's gold scores."""
    interval = mean_interval([float(value) for value in policy - reference])
    spread = _spread(reference)
    return {
        "sd": interval.mean / spread, "low": interval.low / spread,
        "high": interval.high / spread, "n": interval.n,
    }  # fmt: skip


def _win_rate(policy: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Share of prompts on which the policy's completion scores higher; a tie counts half."""
    wins = float((policy > reference).sum() + 0.5 * (policy == reference).sum())
    return asdict(wilson_interval(wins, len(policy)))


def _side_by_side(reference: Judged, policy: Judged, count: int) -> list[dict[str, Any]]:
    """The first completions of both, with what they earned."""
    pairs = (reference, policy)
    return [
        {
            "prompt": prompt.text,
            "reference": reference.rollout.completions[row],
            "policy": policy.rollout.completions[row],
            "proxy": [float(judged.proxy[row]) for judged in pairs],
            "gold": {
                name: [float(judged.gold[name][row]) for judged in pairs] for name in policy.gold
            },
        }
        for row, prompt in enumerate(policy.rollout.prompts[:count])
    ]
