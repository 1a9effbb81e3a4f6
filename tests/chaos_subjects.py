"""What `tests.chaos` trains: agents and a small experiment with language models, seconds each."""

import json
import random
from functools import partial
from pathlib import Path
from typing import Any

from rl_lab import recipes
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.train import train as train_agent
from rl_lab.rlhf.experiment import train as train_language
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from tests.chaos import Subject, newest_snapshot

EVERY = 500
AGENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo": ("ppo", {"env.id": "CartPole-v1", "env.number": 4, "env.normalize": {},
                    "algorithm.n_steps": 64, "budget.steps": 6000}),
    "ppo-vector": ("ppo", {"env.id": "Acrobot-v1", "env.number": 4, "env.normalize": {},
                           "env.vectorization": "vector", "algorithm.n_steps": 64,
                           "budget.steps": 6000}),
    "a2c-subproc": ("a2c", {"env.id": "Acrobot-v1", "env.number": 2, "env.vectorization": "subproc",
                            "budget.steps": 4000}),
    "recurrent_ppo": ("recurrent_ppo", {"env.id": "CartPole-v1", "env.number": 2,
                                        "algorithm.n_steps": 64, "algorithm.n_epochs": 2,
                                        "budget.steps": 2500}),
    "dqn": ("dqn", {"env.id": "CartPole-v1", "algorithm.learning_starts": 200,
                    "budget.steps": 5000}),
    "sac": ("sac", {"env.id": "Pendulum-v1", "algorithm.learning_starts": 200,
                    "algorithm.train_freq": 4, "budget.steps": 3000}),
    "td3-noise": ("td3", {"env.id": "Pendulum-v1", "algorithm.learning_starts": 200,
                          "algorithm.train_freq": 4, "budget.steps": 3000,
                          "algorithm.action_noise": {"ornstein_uhlenbeck": 0.2}}),
}  # fmt: skip
QUICK = {"checkpoints.every": EVERY, "logging.every": 100, "evaluation.every": 1000,
         "evaluation.episodes": 2}  # fmt: skip

MEMBERS, INTERVAL = 2, 5
LANGUAGE = """
data:
  preferences: {folder}/pairs.jsonl
  prompts: {folder}/prompts.txt
  texts: {folder}/texts.txt
  heldout_share: 0.3
pretrain:
  tokenizer: {{kind: word, vocabulary: 300}}
  architecture:
    {{model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1,
     num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 64}}
  context: 32
  batch_tokens: 256
  steps: 60
  evaluate_every: 10
  checkpoint_every: {every}
reward:
  members: {members}
  batch: 16
  epochs: 3
  checkpoint_every: {every}
ppo:
  updates: 12
  rollouts: 16
  minibatch: 8
  micro_batch: 4
  sampling: {{max_new_tokens: 6}}
  looks: {{every: 2, prompts: 4}}
  checkpoint_every: 2
threads: 1
"""
NOUNS = ["film", "plot", "cast", "scene", "music", "story", "ending", "actor"]
WORDS = {1: ["good", "great", "moving", "funny", "clever"],
         0: ["bad", "dull", "tired", "weak", "silly"]}  # fmt: skip


def agents() -> list[Subject]:
    """An agent for each family of algorithms, with what has a state of its own."""

    found = []
    for name, (algorithm, settings) in AGENTS.items():
        recipe = recipes.load(AgentRecipe, algorithm, QUICK | settings)
        update = recipe.env.number * recipe.algorithm.hyperparameters.get("n_steps", 5)
        make, train = partial(_make, recipe), partial(_train_agent, recipe)
        found.append(Subject(name, make, train, interval=EVERY + update))
    return found


def _make(recipe: AgentRecipe | LanguageRecipe, name: str) -> Run:
    return Run.create(name, recipe, ["chaos"], recipe.seed, recipe.threads)


def _train_agent(recipe: AgentRecipe, run: Run, stop: StopRequest) -> str:
    return train_agent(run, recipe, stop)


def _train_language(recipe: LanguageRecipe, run: Run, stop: StopRequest) -> str:
    return train_language(run, recipe, stop, fresh=True)


def language(folder: Path) -> Subject:
    """From data to PPO, on sentences that praise or blame; its files go into `folder`."""
    draw = random.Random(0)

    def sentence(words: list[str]) -> str:
        (one, other), number = draw.sample(NOUNS, 2), draw.randint(1, 999)
        return f"the {one} is {draw.choice(words)} and the {other} {number} {draw.choice(words)}."

    good, bad = ([sentence(WORDS[score]) for _ in range(150)] for score in (1, 0))
    rows = [{"prompt": "", "chosen": a, "rejected": b} for a, b in zip(good, bad, strict=True)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.txt").write_text("\n".join(good + bad) + "\n")
    (folder / "prompts.txt").write_text(
        "\n".join(f"the {noun} {number}" for noun in NOUNS for number in range(6))
    )
    (folder / "language.yaml").write_text(
        LANGUAGE.format(folder=folder, members=MEMBERS, every=INTERVAL)
    )
    recipe = recipes.load(LanguageRecipe, str(folder / "language.yaml"))
    return Subject(
        "language",
        partial(_make, recipe),
        partial(_train_language, recipe),
        parts=("pretrain", "reward", "ppo"),
        interval=INTERVAL,
        safe=_safe,
    )


def _safe(stage: Run) -> int:
    """The newest snapshot's step, or that at which the last member finished was done."""
    finished = len(list(stage.path.glob("members/[0-9]*")))
    steps = int(stage.status.get("budget", 0)) // MEMBERS
    return max(newest_snapshot(stage), finished * steps)
