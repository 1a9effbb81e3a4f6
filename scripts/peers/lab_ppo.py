"""The lab's own train_ppo on the work of ppo_work."""

import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import ppo_work as work
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from rl_lab import phases
from rl_lab.metrics import MetricLog
from rl_lab.recipes import Section
from rl_lab.rlhf.allocator import keep_freed_memory
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.lean_llama import make_lean
from rl_lab.rlhf.looks import Look
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.ppo_stage import build_policy
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards, Term, load_members
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.rlhf.train_ppo import train_ppo
from rl_lab.run import Run
from rl_lab.signals import StopRequest

phases.time = SimpleNamespace(perf_counter=time.process_time)  # CPU-seconds, as of the peer
given = work.arguments()
size = work.SIZES[given.task]
config, tokenizer = work.config_of(size), work.tokenizer_of(size)
minibatch = work.ROLLOUTS // work.MINIBATCHES
VALUE_COEFFICIENT = 0.5
"""The peer's critic is a model of its own: of its loss AdamW undoes any factor. Ours shares a trunk
with the policy, where the factor has to weigh; this is the one of Stable-Baselines3's PPO."""
never = 10**6
ppo = PPO(
    updates=given.updates, rollouts=work.ROLLOUTS, minibatch=minibatch, micro_batch=minibatch // 2,
    epochs=work.EPOCHS, learning_rate=size.learning_rate, schedule="constant", clip=work.CLIP,
    gamma=work.GAMMA, gae_lambda=work.LAMBDA, kl={"coefficient": work.KL},
    critic={"coefficient": VALUE_COEFFICIENT, "clip": work.VALUE_CLIP},
    precision="bfloat16" if given.bf16 else "float32", checkpoint_every=never,
    looks={"every": never, "prompts": 8},
)  # fmt: skip


class Recipe(Section):
    """The least a run directory needs."""

    name: str = "ppo"


class Clocked(MetricLog):
    """Remembers the CPU-seconds at each line."""

    lines: list[tuple[float, dict[str, float]]] = []

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self.lines.append((time.process_time(), dict(numbers)))
        super().log(step, numbers)


def updates_of(lines: list[tuple[float, dict[str, float]]]) -> list[dict[str, float]]:
    """One entry an update: what passed since the line before, which was an update's or a look's."""
    updates, spent = [], dict.fromkeys(("generation", "scoring", "update"), 0.0)
    for (before, _), (now, numbers) in pairwise(lines):
        if "train/optimizer_steps" not in numbers:
            continue
        phase = {name: numbers[f"phase/{name}"] - earlier for name, earlier in spent.items()}
        spent = {name: numbers[f"phase/{name}"] for name in spent}
        updates.append({
            "total": now - before, **phase, "steps": numbers["train/optimizer_steps"],
            "tokens": work.ROLLOUTS * numbers["rollout/response_length"],
            "score": numbers["reward/proxy"], "kl": numbers["kl/sampled"],
            "rollouts": work.ROLLOUTS,
        })  # fmt: skip
    return updates


with tempfile.TemporaryDirectory() as folder:
    keep_freed_memory()
    directory = Path(folder)
    model = LlamaForCausalLM(config).eval()
    make_lean(model)
    config.num_labels = 1
    LlamaForSequenceClassification(config).save_pretrained(directory / "reward")
    tokenizer.save_pretrained(directory / "reward")
    (reward,) = load_members(str(directory / "reward"), "reward", "cpu", given.bf16)

    def low_words(prompts: list[str], completions: list[str]) -> torch.Tensor:
        reward(prompts, completions)  # the peer's is asked, too
        return work.low_words(tokenizer(completions, return_tensors="pt").input_ids, size)

    terms = Rewards({"reward": Term(low_words if given.task == "learning" else reward)})
    policy = build_policy(ppo, model, tokenizer, terms)
    prompts = [Prompt(tokenizer.decode(ids), ids) for ids in work.prompts_of(size, given.seed)]
    sampling = Sampling(work.RESPONSE, stop_ids=(), banned_ids=(work.PAD, work.END, work.BEGIN))
    run = Run.create("ppo", Recipe(), [], given.seed, 1, parent=directory)
    with Clocked(run.metrics_file) as log:
        look = Look(
            prompts[:8], terms, {}, tokenizer, sampling, run.path / "samples.jsonl",
            Memory(minibatch), given.seed,
        )  # fmt: skip
        train_ppo(
            ppo, policy, prompts, terms, tokenizer, sampling, look, Snapshots(run, log, "update"),
            None, StopRequest(), seed=given.seed,
        )  # fmt: skip
    work.report(updates_of(Clocked.lines), policy.model.num_parameters())
