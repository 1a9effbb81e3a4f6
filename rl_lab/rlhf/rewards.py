"""The reward of a response: a weighted sum of named terms, each logged.

A term is a reward model, an ensemble of them or a Python function. It gives one score a
completion, or one a token.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reward_models import ensemble
from rl_lab.errors import UserError
from rl_lab.rlhf.not_finite import RewardNotFiniteError
from rl_lab.rlhf.ppo_recipe import RewardTerm
from rl_lab.rlhf.prompts import Prompt
from rl_lab.rlhf.reward_functions import Function, function_of


@dataclass(frozen=True)
class Term:
    """One term, ready to be asked."""

    score: Function
    """(prompts, completions) -> B scores; per token: (prompts, completions, tokens) -> B lists."""
    weight: float = 1.0
    per_token: bool = False


@dataclass
class Scored:
    """What a batch of B responses earned."""

    at_end: Tensor
    """(B,) weighted sum of the terms that score completions, which falls due at the last token."""
    of_tokens: Tensor
    """(B, T) weighted sum of the per-token terms, each where it was earned."""
    terms: dict[str, Tensor]
    """(B,) of each term, before its weight; one of tokens summed over the response."""

    @property
    def total(self) -> Tensor:
        """(B,) weighted sum of all terms."""
        return self.at_end + self.of_tokens.sum(1)


class Rewards:
    """Every term of the reward."""

    def __init__(self, terms: Mapping[str, Term]) -> None:
        self.terms = dict(terms)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[str], tokens: Sequence[Sequence[str]]
    ) -> Scored:
        """Score completions.

        Args:
            prompts: B.
            completions: B texts.
            tokens: the B responses' tokens, as the tokenizer spells them, end token included.

        Raises:
            UserError: a function gives too few scores.
            RewardNotFiniteError: a term gives a score that is no finite number.
        """
        sources = [prompt.source for prompt in prompts]
        width = max(map(len, tokens), default=0)
        at_end = torch.zeros(len(prompts))
        of_tokens = torch.zeros(len(prompts), width)
        terms = {}
        for name, term in self.terms.items():
            if term.per_token:
                lists = term.score(sources, list(completions), [list(row) for row in tokens])
                earned = _token_scores(name, lists, [len(row) for row in tokens])
                of_tokens += term.weight * earned
                scores = earned.sum(1)
            else:
                scores = _scores(name, term, sources, list(completions))
                at_end += term.weight * scores
            if not scores.isfinite().all():
                row = int((~scores.isfinite()).nonzero()[0])
                raise RewardNotFiniteError(
                    f"reward {name!r}", f"reward {name!r}: the score of completion {row + 1} of "
                    f"{len(scores)}, {completions[row]!r}, is {scores[row].item()}; it should be "
                    "a finite number",
                )  # fmt: skip
            terms[name] = scores
        return Scored(at_end, of_tokens, terms)


def _scores(name: str, term: Term, prompts: list[Any], completions: list[str]) -> Tensor:
    """(B,) what a term says, checked."""
    try:
        given = term.score(prompts, completions)
    except ValueError as error:  # what a reward model says of a text it cannot read
        raise UserError(f"reward {name!r}: {error}") from None
    try:
        scores = torch.as_tensor(given, dtype=torch.float32).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"reward {name!r}: gave {type(given).__name__}, not a number for each completion"
        ) from None
    if scores.shape != (len(completions),):
        raise UserError(
            f"reward {name!r}: gave scores of shape {tuple(scores.shape)} for "
            f"{len(completions)} completions"
        )
    return scores


def _token_scores(name: str, given: Any, lengths: list[int]) -> Tensor:
    """(B, T) what a per-token term says, checked; 0 beyond a response's end."""
    width = max(lengths, default=0)
    try:
        rows = [[float(score) for score in row] for row in given]
    except (TypeError, ValueError):
        rows = []
    if [len(row) for row in rows] != lengths:
        raise UserError(f"reward {name!r}: needs a list of scores a completion, one for each token")
    padded = [[*row, *[0.0] * (width - len(row))] for row in rows]
    return torch.tensor(padded).reshape(len(lengths), width)


# --- from a recipe -------------------------------------------------------------------------------


def build(
    terms: Mapping[str, RewardTerm], reward_stage: Path | None, device: str, bf16: bool
) -> Rewards:
    """Load every term of a recipe.

    Args:
        terms: by name.
        reward_stage: the `reward` stage's directory, if there is one.
        device: where models live.
        bf16: whether they compute in bfloat16.

    Raises:
        UserError: a model or function that is not there or cannot be used.
    """
    built = {}
    for name, term in terms.items():
        if term.function is not None:
            score = function_of(term.function, f"ppo.rewards.{name}.function")
        else:
            source = str(reward_stage) if term.model == "reward" else str(term.model)
            members = load_members(source, f"ppo.rewards.{name}.model", device, bf16)
            joins: dict[str, Callable[[Tensor], Tensor]] = {
                "mean": ensemble.mean,
                "minimum": ensemble.minimum,
                "mean_less_variance": partial(
                    ensemble.mean_less_variance, weight=term.variance_weight
                ),
            }
            score = ensemble.Ensemble(members, joins[term.combine])
        built[name] = Term(score, term.weight, term.per_token)
    return Rewards(built)


def load_members(source: str, key: str, device: str, bf16: bool) -> list[Function]:
    """Load one reward model, or each member of a `reward` stage's directory.

    Raises:
        UserError: it is no sequence classifier with one label, nor a linear model.
    """
    directory = Path(source) / "members"
    sources = sorted(map(str, directory.iterdir())) if directory.is_dir() else [source]
    try:
        return [ensemble.load_member(member, device, bf16=bf16) for member in sources]
    except (ValueError, OSError) as error:
        raise UserError(f"{key}: {' '.join(str(error).split())}") from None


# --- moments -------------------------------------------------------------------------------------


class RunningMoments:
    """Mean and standard deviation of all numbers so far (Chan et al., 1983)."""

    def __init__(self, count: float = 0.0, mean: float = 0.0, squares: float = 0.0) -> None:
        """Go on from earlier numbers.

        Args:
            count: how many there were.
            mean: their mean.
            squares: the sum of their squared distances from it.
        """
        self.count, self.mean, self.squares = count, mean, squares

    def add(self, numbers: Tensor) -> None:
        """Take in a batch, at least one number."""
        values = numbers.double()
        count, mean = values.numel(), values.mean().item()
        difference, together = mean - self.mean, self.count + count
        self.squares += ((values - mean) ** 2).sum().item()
        self.squares += difference**2 * self.count * count / together
        self.mean += difference * count / together
        self.count = together

    @property
    def std(self) -> float:
        """Population standard deviation; 1 before there are two different numbers."""
        return math.sqrt(self.squares / self.count) if self.squares > 0 else 1.0

    def state(self) -> dict[str, float]:
        """What the constructor takes."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}
