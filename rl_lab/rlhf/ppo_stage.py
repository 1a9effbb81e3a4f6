"""The `ppo` stage: from directories and recipe sections to the call of `train_ppo`."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog
from rl_lab.rlhf import language_model, rewards, token_bias
from rl_lab.rlhf.allocator import keep_freed_memory
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.frozen import keep_frozen
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.rlhf.lean_llama import make_lean
from rl_lab.rlhf.looks import Judges, Look
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.next_token import next_token_loss
from rl_lab.rlhf.policy import Critic, Policy
from rl_lab.rlhf.ppo_recipe import PPO, Lora, SamplingSection
from rl_lab.rlhf.ppo_update import MixLoss
from rl_lab.rlhf.prompts import Prompt, listed, read_prompts
from rl_lab.rlhf.reward_critic import critic_of_reward
from rl_lab.rlhf.sampling import check_cache
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.rlhf.train_ppo import train_ppo
from rl_lab.run import Run
from rl_lab.seeding import stream
from rl_lab.signals import StopRequest

BUILD, LOOKS, MIX = range(10, 13)
"""What the stage's own streams of random numbers are for."""

SHORT = 256
"""Tokens of prompt and response up to which lean layers are the faster ones on a CPU."""


def run_ppo(
    ppo: PPO,
    data: Path,
    pretrain: Path | None,
    reward: Path | None,
    judges: Judges,
    run: Run,
    log: MetricLog,
    stop: StopRequest,
    *,
    seed: int,
    device: str,
    refuse: bool,
    snapshots_required: bool = True,
) -> None:
    """Train a policy; leaves `model/`, the best look's, and samples.jsonl.

    Args:
        ppo: the recipe's section.
        data: the data stage, for prompts.
        pretrain: the pretrain stage, if there is one.
        reward: the reward stage, if there is one.
        judges: gold judges, for looks.
        run: the stage's directory, locked.
        log: its metrics.
        stop: asked before each update.
        seed: everything random follows from it.
        device: where models live.
        refuse: whether a prompt that cannot be used is an error; else it is dropped.
        snapshots_required: whether a snapshot that cannot be written ends the stage.

    Raises:
        UserError: the policy, its tokenizer, a reward term or the prompts cannot be used.
    """
    # Before anything is logged: readers of the log drop what a stage wrote before it started over.
    snapshots = Snapshots(run, log, "update", required=snapshots_required)
    snapshot = snapshots.newest()

    torch.manual_seed(stream(seed, BUILD, 1)[0])
    keep_freed_memory()
    model, tokenizer = language_model.load(starting_model(ppo, pretrain), device)
    sampling = build_sampling(ppo.sampling, tokenizer, model)
    check_cache(model, tokenizer.eos_token_id)

    longest = longest_prompt(model.config, sampling.max_new_tokens)
    prompts, dropped = read_prompts(data / "prompts-train.jsonl", tokenizer, longest, refuse)
    heldout = heldout_prompts(data, tokenizer, longest, refuse, ppo.looks.prompts)
    for remark in ([listed(dropped)] if dropped else []) + heldout.remarks:
        log.event(0, "prompts", remark, "warning")
    width = max(len(prompt.ids) for prompt in prompts) + sampling.max_new_tokens
    if model.device.type == "cpu" and width <= SHORT:
        make_lean(model)
    bf16 = precision(ppo, device) == torch.bfloat16
    terms = rewards.build(ppo.rewards, reward, device, bf16)
    policy = build_policy(ppo, model, tokenizer, terms)
    memory = Memory(
        ppo.micro_batch, lambda why: log.event(run.status["step"], "memory", why, "warning")
    )
    look = Look(
        heldout.looks, terms, judges, tokenizer, sampling, run.path / "samples.jsonl",
        memory, stream(seed, LOOKS, 1)[0],
    )  # fmt: skip
    for what, part in (("policy", policy.model), ("critic", policy.critic)):
        weights = list(part.parameters())
        trained = sum(weight.numel() for weight in weights if weight.requires_grad)
        of = sum(weight.numel() for weight in weights)
        log.event(0, what, f"{trained:,} of {of:,} weights are trained")
    train_ppo(
        ppo, policy, prompts, terms, tokenizer, sampling, look, snapshots, snapshot, stop,
        seed=seed, mix_loss=text_mix(ppo, data, tokenizer, seed),
    )  # fmt: skip
    save_model(policy, tokenizer, run.path / "model")


def starting_model(ppo: PPO, pretrain: Path | None) -> str:
    """Directory or hub id of what the policy starts as, and is held against."""
    return str(pretrain / "model") if ppo.policy == "pretrain" and pretrain else ppo.policy


def build_policy(
    ppo: PPO, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, terms: rewards.Rewards
) -> Policy:
    """Put adapters and a critic on a language model, as the recipe says.

    With `token_bias` its output layer becomes one of its own.

    Raises:
        UserError: a critic from a reward model that reads other tokens than the policy; an output
            layer that `token_bias` cannot move.
    """
    hidden = model.config.get_text_config().hidden_size
    critic = Critic(hidden)
    if ppo.critic.kind == "separate":
        critic = Critic(hidden, copy.deepcopy(model.base_model))
    elif ppo.critic.kind == "reward":
        critic = critic_of_reward(terms, tokenizer)
    if ppo.critic.head_only and critic.trunk is not None:
        critic.trunk.requires_grad_(False)
    if ppo.token_bias is not None:
        token_bias.own_output_layer(model)
    if ppo.lora is not None:
        model = with_adapters(model, ppo.lora)
    autocast = precision(ppo, model.device.type)
    policy = Policy(model, critic.to(model.device), autocast)
    keep_frozen(policy, autocast)
    return policy


def precision(ppo: PPO, kind: str) -> torch.dtype:
    """The type of matrix products."""
    if ppo.precision == "auto":
        return torch.bfloat16 if language_model.has_bfloat16(kind) else torch.float32
    return torch.bfloat16 if ppo.precision == "bfloat16" else torch.float32


def with_adapters(model: PreTrainedModel, lora: Lora) -> PreTrainedModel:
    """Freeze a model and give it low-rank adapters; what they change is trained alone.

    Raises:
        UserError: no module has the names asked for.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM"
    )
    try:
        with warnings.catch_warnings():
            # peft still asks transformers by a name that they are giving up.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            return get_peft_model(model, config)  # type: ignore[return-value]
    except ValueError as error:
        raise UserError(f"ppo.lora.targets: {str(error).splitlines()[0]}") from None


def build_sampling(
    section: SamplingSection, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel
) -> Sampling:
    """Turn names of tokens into ids. Special tokens that end nothing are never sampled.

    Raises:
        UserError: a stop token that the tokenizer does not have as one token.
    """
    stops = stop_tokens(section, tokenizer)
    generation = getattr(model.generation_config, "eos_token_id", None)
    stops |= set(generation if isinstance(generation, list) else [generation]) - {None}
    banned = set(tokenizer.all_special_ids) - stops
    # Rows of the output layer beyond the vocabulary stand for no token.
    rows = model.get_output_embeddings().weight.shape[0]
    banned |= set(range(len(tokenizer), rows))
    return Sampling(
        section.max_new_tokens, tuple(sorted(stops)), tuple(sorted(banned)),
        section.temperature, section.top_k, section.top_p,
    )  # fmt: skip


def stop_tokens(section: SamplingSection, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokenizer's end token and of what the recipe stops at.

    Raises:
        UserError: a stop token that the tokenizer does not have as one token.
    """
    stops = {int(tokenizer.eos_token_id)}
    for text in section.stop:
        special = tokenizer.get_vocab().get(text)
        ids = tokenizer(text, add_special_tokens=False).input_ids if special is None else [special]
        if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
            raise UserError(f"ppo.sampling.stop: {text!r} is not one token of this tokenizer")
        stops.add(ids[0])
    return stops


def longest_prompt(config: PreTrainedConfig, max_new_tokens: int) -> int:
    """Tokens a prompt may have, so that it and a full response fit the model's positions.

    Raises:
        UserError: a response alone does not.
    """
    context = language_model.positions(config)
    if context is None:
        return 2**31
    if max_new_tokens >= context:
        raise UserError(
            f"ppo.sampling.max_new_tokens ({max_new_tokens}) leaves no room for a prompt "
            f"in the model's context of {context} tokens"
        )
    return context - max_new_tokens


class HeldoutPrompts(NamedTuple):
    """Prompts that no policy is trained on."""

    looks: list[Prompt]
    """Those that the best look is chosen by."""
    evaluation: list[Prompt]
    """Those that only the evaluation sees."""
    remarks: list[str]
    """What somebody who reads the evaluation should know of them."""


def heldout_prompts(
    data: Path, tokenizer: PreTrainedTokenizerBase, longest: int, refuse: bool, looks: int
) -> HeldoutPrompts:
    """Split the held-out prompts: at most `looks` of them, and at most half, are for looks.

    Raises:
        UserError: there are none, or one cannot be used and `refuse`.
    """
    prompts, dropped = read_prompts(data / "prompts-heldout.jsonl", tokenizer, longest, refuse)
    remarks = [f"of those held out, {listed(dropped)}"] if dropped else []
    if len(prompts) == 1:
        remarks.append(
            "one prompt is held out, and both looks and evaluation see it: the policy is judged on "
            "what it was chosen by; give more prompts"
        )
    looks = min(looks, max(1, len(prompts) // 2))
    return HeldoutPrompts(prompts[:looks], prompts[looks:] or prompts, remarks)


def text_mix(
    ppo: PPO, data: Path, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Callable[[int], MixLoss] | None:
    """PPO-ptx: the next-token loss of texts drawn anew for each optimiser step of an update.

    Raises:
        UserError: there are no texts.
    """
    if ppo.pretraining_mix is None:
        return None
    path = data / "texts-train.jsonl"
    if not path.exists():
        raise UserError("ppo.pretraining_mix needs texts: set data.texts")
    texts = [row["text"] for row in read_jsonl(path)]
    mix = ppo.pretraining_mix

    def of_update(update: int) -> MixLoss:
        def mix_loss(policy: Policy, step: int) -> Tensor:
            random = np.random.default_rng([seed, MIX, update, step])
            batch = [texts[i] for i in random.integers(len(texts), size=mix.texts)]
            with policy.precision():  # its frozen matrices may be of no other type
                loss, tokens = next_token_loss(policy.model, tokenizer, batch)
            return mix.coefficient * loss / max(tokens, 1)

        return mix_loss

    return of_update


def save_model(policy: Policy, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the language model as a Hugging Face directory, adapters merged into it."""
    model = policy.model
    if hasattr(model, "merge_and_unload"):
        model = _merged(model)
    language_model.save(model, tokenizer, directory)


def _merged(model: Any) -> PreTrainedModel:
    """A copy of a model with adapters, these merged into its matrices."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    # In float32: adapters are smaller than what bfloat16 rounds off the matrices.
    model = copy.deepcopy(model).float()
    if model.config.tie_word_embeddings:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
        if isinstance(embedding, BaseTunerLayer) or isinstance(head, BaseTunerLayer):
            # An adapter is of one of the two: merged into what they share it would change both.
            model.config.tie_word_embeddings = False
            head = getattr(head, "base_layer", head)
            head.weight = nn.Parameter(head.weight.clone())
        else:  # the head may have been kept apart, frozen in another type
            head.weight = embedding.weight
    merged: PreTrainedModel = model.merge_and_unload()
    return merged
