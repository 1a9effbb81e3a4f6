"""What turns behaviour into a number. Knows nothing of rl_lab.

A reward model of texts is a callable `(prompts, completions) -> (batch,) scores`, whatever stands
behind it: `text.TextRewardModel` or `linear.LinearRewardModel` (learned), `ensemble.Ensemble`
(several), or a rule from `rules`.
`bradley_terry` is the loss they are learned with, for texts and trajectories alike.
"""

from reward_models import rules

REWARD_MODELS: dict[str, rules.Rule] = {
    "length-window": rules.length_window,
    "distinct-bigrams": rules.distinct_bigrams,
    "ends-sentence": rules.ends_sentence,
}
"""Rewards by name, for recipes: those that need no training. Torch is not imported here."""
