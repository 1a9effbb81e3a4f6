"""What the `ppo` section of a recipe consists of. No torch here: listing stays quick."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rl_lab.health import Health
from rl_lab.recipe_types import Name, Positive, Rate, Share
from rl_lab.recipes import Section


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
    """From the summed terms that score completions to the number at a response's last token.

    What a per-token term gives stays as it is, at its token.
    """

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
    the policy; reward: one starting as the first reward model, which must read the policy's tokens
    (one that reads both ways is read causally here, its mean taken over the tokens so far)."""
    head_only: bool = False
    """Only the head learns: a shared trunk feels no value loss, one of its own stays as it is."""
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


class TokenBias(Section):
    """A natural-gradient step, each update, on how likely each token is wherever it stands."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.4
    """How far an update goes towards the bias at which reward and KL balance, at the peak of the
    learning rate, whose course it follows."""
    prior: Annotated[float, Field(ge=0)] = 1e-4
    """Share of an update's tokens that are added to each token's choices, with advantage 0."""
    gae_lambda: Share = 0.5
    """Lambda of the advantages it takes: lower than PPO's own, for of most tokens it has but few,
    so that their variance costs more than the critic's error."""


class PretrainingMix(Section):
    """PPO-ptx (Ouyang et al., 2022): language modelling on the data stage's texts, beside PPO."""

    coefficient: Rate = 0.1
    """Weight of its loss, in nats a token."""
    texts: Positive = 32
    """Texts an optimiser step."""


class Looks(Section):
    """Looking at held-out prompts during training; the best look's policy is the result."""

    every: Positive = 2
    """Updates between looks."""
    prompts: Positive = 128
    """Held-out prompts, the same each time, with the same sampling seeds."""


RESERVED = {"proxy", "score"}
"""Names under which the sum of all reward terms is logged, as it is and as PPO takes it."""


class PPO(Section):
    """PPO on a language model (Ziegler et al., 2019; Stiennon et al., 2020)."""

    policy: str = "pretrain"
    """What is trained: the `pretrain` stage, a local directory or a hub id."""
    rewards: Annotated[dict[Name, RewardTerm], Field(min_length=1)] = {
        "reward": RewardTerm(model="reward")
    }
    """The terms of the reward, by name; each is logged as `reward/NAME`."""
    sampling: SamplingSection = SamplingSection()
    """How responses are drawn."""
    updates: Positive = 10
    """Rollout, scoring and optimisation, so many times."""
    rollouts: Positive = 512
    """Responses sampled an update."""
    minibatch: Positive = 128
    """Responses an optimiser step: rollouts / minibatch steps an epoch."""
    micro_batch: Positive = 32
    """Responses computed at once; gradients add up to the minibatch's exactly. Halved, for the
    rest of the run, when memory runs out."""
    epochs: Positive = 2
    """Passes over an update's responses."""
    learning_rate: Rate = 3.5e-4
    """Peak learning rate (AdamW, no weight decay)."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
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
    token_bias: TokenBias | None = None
    """A natural-gradient step on single tokens, beside PPO's steps; null: none."""
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
    checkpoint_every: Positive = 2
    """Updates between snapshots; the newest two are kept."""
    health: Health = Health()
    """What happens when a loss, a gradient or a reward is NaN or infinite."""

    @property
    def steps_an_update(self) -> int:
        """Optimiser steps of an update that nothing cuts short."""
        return self.epochs * (self.rollouts // self.minibatch)

    @model_validator(mode="after")
    def _batches_fit(self) -> "PPO":
        for larger, smaller in (("rollouts", "minibatch"), ("minibatch", "micro_batch")):
            if getattr(self, larger) % getattr(self, smaller):
                raise ValueError(
                    f"{larger} ({getattr(self, larger)}) is not a multiple of {smaller} "
                    f"({getattr(self, smaller)})"
                )
        for name in RESERVED & self.rewards.keys():
            raise ValueError(
                f"rewards.{name}: `reward/{name}` is logged already, as the sum of all terms; "
                "give the term another name"
            )
        if all(term.per_token for term in self.rewards.values()) and (
            self.scores.normalize or self.scores.clip is not None
        ):
            raise ValueError(
                "scores.normalize and scores.clip are about scores of completions, and every "
                "reward term here is per_token; leave them out, or weigh the terms"
            )
        if self.token_bias is not None:
            kl = self.kl
            if kl.place != "reward" or kl.estimator != "k1" or kl.coefficient == 0:
                raise ValueError(
                    "token_bias goes to where reward and KL balance, so it needs kl.place reward, "
                    "kl.estimator k1 and a kl.coefficient above 0"
                )
            if self.lora is not None:
                raise ValueError("token_bias moves the output layer, which lora keeps; use one")
        if self.lora is not None and self.refresh_reference is not None:
            raise ValueError(
                "refresh_reference needs a reference of its own; with lora it is the base model"
            )
        return self
