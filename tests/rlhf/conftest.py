"""A small policy, its prompts and a run directory, for tests of PPO."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_models.text import TextRewardModel
from rl_lab.metrics import MetricLog, Record, read_metrics
from rl_lab.recipes import Section
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.looks import Look
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.policy import Policy
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.ppo_stage import build_policy
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer
from rl_lab.rlhf.train_ppo import train_ppo
from rl_lab.run import Run
from rl_lab.signals import StopRequest


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch with so many threads, inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class InMemory(TextRewardModel):
    """A reward model as PPO sees one, of a model that was never saved."""

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer or tiny_tokenizer()


class Named(Section):
    """The least a run directory needs."""

    name: str = "ppo"


def share_of_a(prompts: list[str], completions: list[str]) -> list[float]:
    """How much of a completion is the word `a`."""
    words = [completion.split() for completion in completions]
    return [row.count("a") / max(len(row), 1) for row in words]


@dataclass
class Tiny:
    """PPO on a model of one layer that is paid for the word `a`."""

    directory: Path
    rewards: Rewards = field(default_factory=lambda: Rewards({"a": Term(share_of_a)}))
    sampling: Sampling = field(default_factory=lambda: Sampling(6, (1,), (0, 2)))
    tokenizer: Any = field(default_factory=tiny_tokenizer)

    def settings(self, **changes: Any) -> PPO:
        """Two updates of two epochs of two minibatches of two micro-batches."""
        small = {
            "updates": 2, "rollouts": 16, "minibatch": 8, "micro_batch": 4, "epochs": 2,
            "learning_rate": 1e-3, "looks": {"every": 1, "prompts": 8}, "checkpoint_every": 1,
            "rewards": {"a": {"function": "length-window"}}, "precision": "float32",
        }  # fmt: skip
        return PPO(**(small | changes))

    def policy(self, ppo: PPO) -> Policy:
        torch.manual_seed(0)
        return build_policy(ppo, tiny_model(len(self.tokenizer)), self.tokenizer, self.rewards)

    def memory(self, ppo: PPO, log: MetricLog) -> Memory:
        return Memory(ppo.micro_batch, lambda why: log.event(0, "memory", why, "warning"))

    @contextmanager
    def run(self, name: str) -> Iterator[tuple[Run, MetricLog]]:
        path = self.directory / name
        run = Run(path)
        if not path.exists():
            run = Run.create(name, Named(), [], 0, 1, parent=self.directory)
            run.metrics_file.touch()
        with MetricLog(run.metrics_file) as log:
            yield run, log

    def train(
        self,
        ppo: PPO,
        name: str = "ppo",
        stop: StopRequest | None = None,
        seed: int = 0,
        mix_loss: Callable[..., Any] | None = None,
        judges: dict[str, Any] | None = None,
        snapshots_required: bool = True,
    ) -> tuple[Policy, Run, list[Record]]:
        """Train in a run directory, from where it stands."""
        policy = self.policy(ppo)
        prompts = [
            Prompt(text, list(self.tokenizer(f"<bos> {text}").input_ids))
            for text in ("a", "b c", "c", "b b a")
        ]
        with self.run(name) as (run, log):
            look = Look(
                prompts * 2, self.rewards, judges or {}, self.tokenizer, self.sampling,
                run.path / "samples.jsonl", self.memory(ppo, log), 1,
            )  # fmt: skip
            snapshots = Snapshots(run, log, "update", required=snapshots_required)
            train_ppo(
                ppo, policy, prompts, self.rewards, self.tokenizer, self.sampling, look, snapshots,
                snapshots.newest(), stop or StopRequest(), seed=seed, mix_loss=mix_loss,
            )  # fmt: skip
        return policy, run, read_metrics(run.metrics_file)


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)
