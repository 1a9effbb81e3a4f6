"""Keys and values of the tokens so far, for sampling one token after another."""

from typing import Any

from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin


def decode_cache(model: PreTrainedModel, length: int) -> DynamicCache:
    """Make a cache for sequences of up to so many tokens, padding included.

    Layers that attend to everything get memory for it once; others (sliding windows, states of a
    fixed size) stay as transformers makes them.
    """
    cache = DynamicCache(config=model.config)
    cache.layers = [
        FullLayer(length) if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def can_leave(cache: DynamicCache) -> bool:
    """Whether sequences can be taken out of a cache.

    Not out of states of a fixed size: a layer that has both takes out keys and values alone.
    """
    return not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers)


class FullLayer(DynamicLayer):
    """One layer's keys and values, (B, heads, tokens, size) each.

    A `DynamicLayer` copies all of them at every token, which takes a fifth of the time of sampling.
    """

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the memory, once the shapes are known."""
        super().lazy_initialization(key_states, value_states)
        # Rotated keys are float32 even under autocast, whose products take them as the values are.
        self._memory = [
            states.new_empty(
                *states.shape[:2], self._length, states.shape[3], dtype=value_states.dtype
            )
            for states in (key_states, value_states)
        ]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add the newest tokens; return all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[:, :, start:end] = states
        self.keys, self.values = (memory[:, :, :end] for memory in self._memory)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some of the sequences."""
        tokens = self.get_seq_length()
        self._memory = [memory[indices] for memory in self._memory]
        self.keys, self.values = (memory[:, :, :tokens] for memory in self._memory)
