"""Known answers: what PPO for language models must get right, checked against what is known.

`rl-lab doctor rlhf` runs them on a tiny model or on the user's own. Each check measures how far
the code is from an answer known otherwise (a closed form, another way of computing it, a sum over
all outcomes) and says what distance is still rounding or sampling error.
"""

from collections.abc import Iterator

from rl_lab.rlhf import (
    known_bandits,
    known_closed_forms,
    known_invariances,
    known_losses,
    known_updates,
)
from rl_lab.rlhf.known_subject import Finding, Subject


def run_checks(subject: Subject) -> Iterator[Finding]:
    """Run every check, the quick ones first."""
    yield known_closed_forms.advantages_in_closed_form()
    yield from known_closed_forms.score_at_the_end()
    yield from known_closed_forms.scores_by_hand()
    yield known_closed_forms.penalty_by_hand()
    yield known_closed_forms.whitening_by_hand()
    ratio = known_invariances.ratio_is_one(subject)
    yield ratio
    if not ratio.right:  # nothing that is measured on such rollouts would mean anything
        return
    yield from known_invariances.padding_changes_nothing(subject)
    yield from known_invariances.micro_batches_change_nothing(subject)
    yield from known_invariances.order_changes_nothing(subject)
    yield known_losses.exact_kl_is_the_mean_of_samples(subject)
    yield known_losses.gradient_is_the_slope(subject)
    yield known_updates.reference_is_frozen(subject)
    yield known_updates.reference_is_frozen(subject, lora=True)
    yield known_updates.same_seed_same_bits(subject)
    yield known_bandits.kl_in_the_reward()
    yield known_bandits.kl_in_the_loss()
    yield known_bandits.entropy_bonus()
    yield known_bandits.token_bias_alone()
