"""A language model as a policy with a value function, and the reference it is kept near.

Positions: for a prompt of P tokens and a response of T, the state before response token t is the
model's output at position P + t - 1. So T + 1 outputs, from the prompt's last token on, give T
next-token distributions and T + 1 values, the last that of the state after the whole response.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from reward_models.side_by_side import workers
from rl_lab.rlhf.distributions import Sampling, token_log_probs
from rl_lab.rlhf.frozen import keep_frozen
from rl_lab.rlhf.sampling import Responses, positions_of


@dataclass
class Evaluated:
    """What a policy makes of responses. B responses of T tokens, V tokens in the vocabulary."""

    logits: Tensor
    """(B, T, V) before each token, as the model gives them."""
    log_probs: Tensor
    """(B, T) of the responses' tokens; 0 at padding."""
    values: Tensor
    """(B, T + 1) float32, of the state before each token and after the last."""
    critic_states: Tensor
    """(B, T + 1, H), what the critic's head read."""


class Policy(nn.Module):
    """A causal language model and a critic."""

    def __init__(self, model: PreTrainedModel, critic: "Critic", autocast: torch.dtype) -> None:
        """Put a policy together.

        Args:
            model: a causal language model, or one with LoRA adapters (peft).
            critic: the value function.
            autocast: of matrix products: torch.bfloat16, or torch.float32 for none.
        """
        super().__init__()
        self.model = model
        self.critic = critic
        self._autocast = autocast

    @property
    def device(self) -> torch.device:
        """Where the language model is."""
        return self.model.device

    def workers_beside(self, reference: "Reference | None" = None) -> int:
        """How many micro-batches pay side by side.

        Args:
            reference: what is asked with each, if anything. One model that is both, its adapters
                switched on and off, cannot be both at a time.
        """
        both = reference is not None and reference.own_model is None
        return 1 if both else workers(self)

    def precision(self) -> contextlib.AbstractContextManager[None]:
        """Compute in bfloat16 inside this context, if that was asked for."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self._autocast == torch.bfloat16
        )

    @property
    def tolerance(self) -> float:
        """How far two ways of computing a log-probability may differ on average, in nats."""
        return 5e-2 if self._autocast == torch.bfloat16 else 1e-3

    def forward(
        self, responses: Responses, sampling: Sampling, critic_states: Tensor | None = None
    ) -> Evaluated:
        """Evaluate responses, with gradients where they are enabled.

        Args:
            responses: B responses of T tokens.
            sampling: how they were drawn.
            critic_states: what the critic's head reads, where it is known; None: worked out.
        """
        with self.precision():
            logits, hidden = _run(self.model, responses)
            states = critic_states
            if states is None:
                states = self.critic.states(responses, hidden)
            values = self.critic(states)
        log_probs = token_log_probs(logits, responses.tokens, sampling, responses.allowed)
        # At padding 0, whatever is banned there.
        return Evaluated(logits, torch.where(responses.mask, log_probs, 0), values, states)

    def output_states(self, responses: Responses) -> Tensor:
        """(B, T, H), what the output layer reads before each token."""
        read: list[Tensor] = []
        layer = self.model.get_output_embeddings()
        hook = layer.register_forward_pre_hook(lambda _, states: read.append(states[0]))
        try:
            with self.precision():
                _run(self.model, responses)
        finally:
            hook.remove()
        return read[-1]

    def reference_of(self, refreshed: bool = False) -> "Reference":
        """A frozen reference: the adapters switched off, or a copy of the model as it is now.

        Args:
            refreshed: whether the policy has been trained before.
        """
        if hasattr(self.model, "disable_adapter"):
            return Reference(self, None, refreshed)
        model = copy.deepcopy(self.model).eval().requires_grad_(False)
        keep_frozen(model, self._autocast)
        return Reference(self, model, refreshed)

    def trained_tensors(self) -> dict[str, Tensor]:
        """Parameters that training changes, by name; tied ones once."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }


class Reference:
    """The model the policy started from (or was refreshed to). Never trained."""

    def __init__(self, policy: Policy, model: PreTrainedModel | None, refreshed: bool) -> None:
        self._policy = policy
        self._own = model
        self.refreshed = refreshed
        """Whether it is a later policy than the one training started from."""

    @contextlib.contextmanager
    def model(self) -> Iterator[PreTrainedModel]:
        """The language model, for the length of the context."""
        if self._own is not None:
            yield self._own
        else:
            with self._policy.model.disable_adapter():  # type: ignore[operator]
                yield self._policy.model

    @property
    def own_model(self) -> PreTrainedModel | None:
        """The copy, where there is one."""
        return self._own

    @torch.no_grad()
    def logits(self, responses: Responses) -> Tensor:
        """(B, T, V) before each token."""
        with self.model() as model, self._policy.precision():
            return _run(model, responses)[0]


def _run(model: PreTrainedModel, responses: Responses) -> tuple[Tensor, Tensor]:
    """Logits (B, T, V) before each response token, and T + 1 last hidden states (B, T + 1, H)."""
    width, steps = responses.prompts.shape[1], responses.tokens.shape[1]
    attention = torch.cat([responses.prompt_mask, responses.mask], dim=1)
    output = model(
        input_ids=torch.cat([responses.prompts, responses.tokens], dim=1),
        attention_mask=attention.long(),
        position_ids=positions_of(attention),
        logits_to_keep=torch.arange(width - 1, width - 1 + steps, device=attention.device),
        output_hidden_states=True,
        use_cache=False,
    )
    return output.logits, output.hidden_states[-1][:, width - 1 :]


# --- critics -------------------------------------------------------------------------------------


class Critic(nn.Module):
    """A value function: a scalar head on hidden states, its own model's or the policy's."""

    def __init__(self, hidden_size: int, trunk: nn.Module | None = None) -> None:
        """Make a critic that says about 0 at first.

        Args:
            hidden_size: of the hidden states that the head reads.
            trunk: a transformer without language-modelling head; None: the policy's is shared.
        """
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.head.weight, std=1 / (hidden_size + 1))  # Stiennon et al., 2020
        nn.init.zeros_(self.head.bias)
        self.learns_trunk = True
        """Whether a shared trunk gets the value loss's gradient."""

    @property
    def frozen(self) -> bool:
        """Whether the head reads states that never change, those of a trunk that does not learn."""
        return self.trunk is not None and not any(p.requires_grad for p in self.trunk.parameters())

    def states(self, responses: Responses, hidden: Tensor) -> Tensor:
        """(B, T + 1, H), what the head reads.

        Args:
            responses: B responses of T tokens.
            hidden: (B, T + 1, H), the policy's last hidden states; not used by a separate critic.
        """
        if self.trunk is None:
            return hidden if self.learns_trunk else hidden.detach()
        attention = torch.cat([responses.prompt_mask, responses.mask], dim=1)
        output = self.trunk(
            input_ids=torch.cat([responses.prompts, responses.tokens], dim=1),
            attention_mask=attention.long(),
            position_ids=positions_of(attention),
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state
        return states[:, -(responses.tokens.shape[1] + 1) :]

    def forward(self, states: Tensor) -> Tensor:
        """(B, T + 1, H) states -> (B, T + 1) values, float32."""
        return self.head(states)[..., 0].float()
