"""Looking at a policy while it learns: held-out prompts, the same each time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rl_lab.phases import PhaseClock
from rl_lab.rlhf import ppo_math
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.diversity import distinct
from rl_lab.rlhf.jsonl import read_jsonl, write_jsonl
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Policy, Reference
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards
from rl_lab.rlhf.rollout import Rollout, collect

Judges = Mapping[str, Callable[[Sequence[str]], np.ndarray]]
"""Gold judges by name: texts -> scores in [0, 1]. The first is the one that counts."""

SAMPLES = 12
"""Completions of each look that are kept in samples.jsonl."""


def texts_of(rollout: Rollout) -> list[str]:
    """What judges read: prompt and completion together; of a conversation, the answer alone."""
    return [
        prompt.source + completion if isinstance(prompt.source, str) else completion
        for prompt, completion in zip(rollout.prompts, rollout.completions, strict=True)
    ]


@dataclass
class Look:
    """What it takes to judge a policy."""

    prompts: Sequence[Prompt]
    """Held out from training."""
    rewards: Rewards
    judges: Judges
    tokenizer: PreTrainedTokenizerBase
    sampling: Sampling
    samples_file: Path
    memory: Memory
    seed: int
    """Of sampling; the same at every look, so that looks differ by the policy alone."""

    def at(self, step: int, policy: Policy, reference: Reference) -> dict[str, float]:
        """Judge the policy; return numbers named `look/...`, and keep some completions."""
        generator = torch.Generator(policy.device)
        generator.manual_seed(self.seed)
        rollout = collect(
            policy, reference, self.prompts, self.rewards, self.tokenizer, self.sampling,
            generator, self.memory, PhaseClock("evaluation"),
        )  # fmt: skip
        texts = texts_of(rollout)
        gold = {name: judge(texts) for name, judge in self.judges.items()}
        self._keep(step, rollout, gold)
        mask = rollout.responses.mask
        fluency = ppo_math.masked_mean(rollout.reference_log_probs, mask).item()
        return {
            "look/proxy": rollout.scored.total.mean().item(),
            **{f"look/gold/{name}": float(scores.mean()) for name, scores in gold.items()},
            "look/kl": rollout.exact_kl.sum(1).mean().item(),
            "look/fluency": fluency,
            "look/response_length": mask.sum(1).float().mean().item(),
            "look/end_share": rollout.responses.terminated.float().mean().item(),
            "look/distinct_2": distinct(rollout.completions, 2),
        }

    def _keep(self, step: int, rollout: Rollout, gold: Mapping[str, np.ndarray]) -> None:
        """Add some completions to samples.jsonl; those of later steps, before a resume, go."""
        earlier = read_jsonl(self.samples_file) if self.samples_file.exists() else []
        kl = rollout.exact_kl.sum(1)
        new = [
            {
                "step": step,
                "prompt": rollout.prompts[row].text,
                "completion": rollout.completions[row],
                "proxy": rollout.scored.total[row].item(),
                "gold": {name: float(scores[row]) for name, scores in gold.items()},
                "kl": kl[row].item(),
            }
            for row in range(min(SAMPLES, len(rollout.prompts)))
        ]
        write_jsonl(self.samples_file, [row for row in earlier if row["step"] < step] + new)
