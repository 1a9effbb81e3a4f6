"""Sampling responses from a language model."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from reward_models.side_by_side import cut, side_by_side, workers
from rl_lab.errors import UserError
from rl_lab.rlhf.decode_cache import can_leave, decode_cache
from rl_lab.rlhf.distributions import Sampling, log_distribution, truncation
from rl_lab.rlhf.not_finite import NotFiniteError


@dataclass
class Responses:
    """Prompts and what was sampled after them. B responses of at most T tokens."""

    prompts: Tensor
    """(B, P) token ids, left-padded."""
    prompt_mask: Tensor
    """(B, P) bool, True at real tokens."""
    tokens: Tensor
    """(B, T) token ids, right-padded; what is sampled is what is trained on, never re-tokenised."""
    mask: Tensor
    """(B, T) bool, True at real tokens, the end token included."""
    log_probs: Tensor
    """(B, T) of the sampled tokens under the distribution they were drawn from; 0 at padding."""
    terminated: Tensor
    """(B,) bool: it ended by an end token; False: it was cut off at the limit."""
    allowed: Tensor | None
    """(B, T, V) bool, what truncation left at each step; None without top-k and top-p."""

    def __len__(self) -> int:
        return len(self.tokens)

    def on_cpu(self) -> "Responses":
        """The same, its tensors in main memory."""
        return Responses(
            self.prompts.cpu(), self.prompt_mask.cpu(), self.tokens.cpu(), self.mask.cpu(),
            self.log_probs.cpu(), self.terminated.cpu(),
            None if self.allowed is None else self.allowed.cpu(),
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence["Responses"], pad_id: int) -> "Responses":
        """Put responses to prompts of one width together, all padded to the longest."""
        width = max(part.tokens.shape[1] for part in parts)

        def padded(rows: Tensor, value: float) -> Tensor:
            """(b, t, ...) -> (b, width, ...)."""
            missing = width - rows.shape[1]
            return torch.cat([rows, rows.new_full((len(rows), missing, *rows.shape[2:]), value)], 1)

        allowed = [padded(part.allowed, True) for part in parts if part.allowed is not None]
        return cls(
            torch.cat([part.prompts for part in parts]),
            torch.cat([part.prompt_mask for part in parts]),
            torch.cat([padded(part.tokens, pad_id) for part in parts]),
            torch.cat([padded(part.mask, False) for part in parts]),
            torch.cat([padded(part.log_probs, 0) for part in parts]),
            torch.cat([part.terminated for part in parts]),
            torch.cat(allowed) if allowed else None,
        )

    def select(self, rows: Tensor) -> "Responses":
        """Some of the responses, cut to the longest prompt and response among them.

        Args:
            rows: (b,) indices.
        """
        mask = self.mask[rows]
        length = int(mask.sum(1).max())
        width = int(self.prompt_mask[rows].sum(1).max())
        return Responses(
            self.prompts[rows, -width:], self.prompt_mask[rows, -width:],
            self.tokens[rows, :length], mask[:, :length], self.log_probs[rows, :length],
            self.terminated[rows], None if self.allowed is None else self.allowed[rows, :length],
        )  # fmt: skip


def left_pad(sequences: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack sequences, flush right.

    Returns:
        (B, P) token ids, and (B, P) bool, True at real tokens.
    """
    width = max(map(len, sequences))
    ids = torch.full((len(sequences), width), pad_id)
    mask = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence)
        mask[row, width - len(sequence) :] = True
    return ids, mask


class Chances:
    """The random numbers of B responses, the same however many of them are sampled at once."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        """Draw nothing yet.

        Args:
            count: B.
            generator: where they come from, as many steps of B as the longest response takes.
        """
        self._count, self._generator = count, generator
        self._steps: list[Tensor] = []
        self._lock = threading.Lock()  # several parts of the responses may be sampled side by side

    def at(self, step: int, rows: Tensor) -> Tensor:
        """(b, 1) in [0, 1), of the responses of these numbers, at a step."""
        shape, device = (self._count, 1), self._generator.device
        with self._lock:
            while len(self._steps) <= step:
                self._steps.append(torch.rand(shape, generator=self._generator, device=device))
        return self._steps[step][rows]


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    pad_id: int,
    generator: torch.Generator,
    at_once: int | None = None,
) -> Responses:
    """Sample one response to each prompt.

    Args:
        model: a causal language model, in evaluation mode.
        prompts: B non-empty lists of token ids.
        sampling: how.
        pad_id: fills what is not used; may be a stop token too.
        generator: on the model's device; the only source of randomness.
        at_once: responses sampled at once; None: all. It changes neither random numbers nor
            padding, so what is sampled is the same, unless a number lies between two tokens by
            less than the rounding of a matrix product.

    Returns:
        The responses, on the model's device.

    Raises:
        NotFiniteError: the model gives no distribution to draw from.
    """
    ids, prompt_mask = (tensor.to(model.device) for tensor in left_pad(prompts, pad_id))
    chances = Chances(len(ids), generator)
    rows = torch.arange(len(ids), device=ids.device)
    parts, together = cut(rows, at_once or len(ids), workers(model))

    def responses_of(rows: Tensor) -> Responses:
        return _sample(model, ids[rows], prompt_mask[rows], sampling, pad_id, chances, rows)

    found = list(side_by_side(responses_of, parts, together))
    return Responses.joined(found, pad_id) if len(found) > 1 else found[0]


STAY = 0.75
"""Share of sequences still going below which the finished ones leave what is computed."""


def _sample(
    model: PreTrainedModel,
    ids: Tensor,
    prompt_mask: Tensor,
    sampling: Sampling,
    pad_id: int,
    chances: Chances,
    rows: Tensor,
) -> Responses:
    """Sample a response to each of some prompts.

    Args:
        model: as in `sample`.
        ids: (b, P).
        prompt_mask: (b, P).
        sampling: how.
        pad_id: fills what is not used.
        chances: of all responses.
        rows: (b,) which of them these are.

    Raises:
        NotFiniteError: there is no distribution to draw from.
    """
    device, shape = model.device, (len(ids), sampling.max_new_tokens)
    stops = torch.tensor(sampling.stop_ids, device=device)
    tokens = ids.new_full(shape, pad_id)
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    log_probs = torch.zeros(shape, device=device)
    allowances = []
    cache = decode_cache(model, ids.shape[1] + sampling.max_new_tokens)
    # Of the b responses, those that are computed, and which of these are not finished.
    present = torch.arange(len(ids), device=device)
    going = torch.ones_like(present, dtype=torch.bool)
    step_ids, attention, positions = ids, prompt_mask, positions_of(prompt_mask)
    # A tensor, not 1: a slice of the states has gaps, and for such torch copies the output layer's
    # weights once for each row (SmolLM2, 32 rows: 4 seconds and 2 GB).
    last = torch.tensor([-1], device=device)
    for step in range(sampling.max_new_tokens):
        logits = model(
            input_ids=step_ids, attention_mask=attention.long(), position_ids=positions,
            past_key_values=cache, use_cache=True, logits_to_keep=last,
        ).logits[:, -1]  # fmt: skip
        distribution = log_distribution(logits, sampling)
        if sampling.truncated:
            allowed = truncation(distribution, sampling)
            distribution = log_distribution(logits, sampling, allowed)
            of_all = allowed.new_ones(len(ids), allowed.shape[1])
            of_all[present] = allowed
            allowances.append(of_all)
        if distribution.isnan().any():
            raise NotFiniteError("logit", "a logit of the policy is NaN or infinite")
        drawn = draw(distribution.exp(), chances.at(step, rows[present]))
        chosen = torch.where(going, drawn[:, 0], pad_id)
        tokens[present, step] = chosen
        mask[present, step] = going
        log_probs[present, step] = torch.where(going, distribution.gather(1, drawn)[:, 0], 0)
        attention = torch.cat([attention, going[:, None]], dim=1)
        positions = positions[:, -1:] + 1
        going = going & ~torch.isin(chosen, stops)
        if not going.any():
            break
        step_ids = chosen[:, None]
        if going.sum() < STAY * len(going) and can_leave(cache):
            stay = going.nonzero()[:, 0]
            cache.batch_select_indices(stay)
            present, going, step_ids, attention, positions = (
                of_present[stay] for of_present in (present, going, step_ids, attention, positions)
            )
    terminated = torch.ones(len(ids), dtype=torch.bool, device=device)
    terminated[present] = ~going
    return Responses(
        prompts=ids,
        prompt_mask=prompt_mask,
        tokens=tokens[:, : step + 1],
        mask=mask[:, : step + 1],
        log_probs=log_probs[:, : step + 1],
        terminated=terminated,
        allowed=torch.stack(allowances, dim=1) if allowances else None,
    )


def draw(probabilities: Tensor, chance: Tensor) -> Tensor:
    """Draw one token a row by inverting the cumulative distribution.

    torch.multinomial draws a random number for each token of the vocabulary; this, one for each
    row, which takes a quarter of the time.

    Args:
        probabilities: (B, V), each row with some above 0.
        chance: (B, 1), uniform in [0, 1).

    Returns:
        (B, 1) token ids; never one whose probability is 0.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding must not carry the product up to the total: beyond it lies no token.
    below = torch.minimum(chance * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, below, right=True)


def positions_of(attention: Tensor) -> Tensor:
    """Position of each token counted from the first real one; 0 at the padding before it.

    Args:
        attention: (B, L) bool.

    Returns:
        (B, L) of int64.
    """
    return (attention.long().cumsum(1) - 1).clamp(min=0)


def check_cache(model: PreTrainedModel, token: int) -> None:
    """See whether a model can be sampled from: token after token, with a cache, from two prompts.

    Args:
        model: in evaluation mode.
        token: any of its tokens.

    Raises:
        UserError: its own code does not take such a cache.
    """
    generator = torch.Generator(model.device).manual_seed(0)
    try:
        sample(model, [[token], [token] * 3], Sampling(2, ()), token, generator)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"a model of type {model.config.model_type!r} cannot be sampled from as PPO does, with "
            f"a cache of keys and values ({type(error).__name__}: {error}); use another policy"
        ) from error
