"""What goes wrong when a language model is optimised against a learned reward, and how it shows.

Every rule looks at a ppo stage's lines alone (see `rl_lab.rlhf.train_ppo`). Trends are tested, not
eyeballed: a course goes up or down if noise alone would give its least-squares line such a slope
with a chance of less than CHANCE (Student's t, so few updates have to be the clearer).
"""

import math
from collections.abc import Sequence
from typing import Any

from rl_lab import vitals
from rl_lab.metrics import Record, numbers_of

CHANCE = 0.005
FEWEST = 5
"""Updates below which no trend is looked for."""
NATS_A_TOKEN = 0.5
"""KL above which a policy is far from its reference, whatever the length of its responses."""


def judges(records: Sequence[Record]) -> list[str]:
    """The gold judges that a log names, the one that counts first."""
    for record in records:
        for prefix in ("look/gold/", "gold/"):
            found = [name.removeprefix(prefix) for name in record if name.startswith(prefix)]
            if found:
                return found
    return []


def trend(values: Sequence[float]) -> int:
    """1 where a course clearly rises, -1 where it clearly falls, 0 where neither can be said."""
    n = len(values)
    if n < FEWEST:
        return 0
    middle, mean = (n - 1) / 2, math.fsum(values) / n
    across = math.fsum((index - middle) ** 2 for index in range(n))
    slope = math.fsum((i - middle) * (value - mean) for i, value in enumerate(values)) / across
    rest = math.fsum((v - mean - slope * (i - middle)) ** 2 for i, v in enumerate(values))
    error = math.sqrt(rest / (n - 2) / across)
    if error < 1e-12 * max(abs(mean), 1e-300):  # a straight line, but for rounding
        clear = abs(slope) > error
    else:
        from scipy.special import stdtr  # here, for it takes screens a while to load

        clear = float(stdtr(n - 2, -abs(slope / error))) < CHANCE
    return (1 if slope > 0 else -1) if clear else 0


def alerts(records: list[Record], kl: dict[str, Any]) -> dict[str, str]:
    """Sentences about what looks wrong, by what each is about, the worst first.

    Args:
        records: of a ppo stage.
        kl: the recipe's `ppo.kl`, for its target and limit; may be empty.
    """
    found = {
        "overoptimization": _overoptimized(records),
        "KL": _far_from_reference(records, kl),
        "entropy": _collapsed(records),
        "repetition": _repetitive(records),
        "length": _longer_not_better(records),
        "loss": _exploding(records),
    }
    return {subject: sentence for subject, sentence in found.items() if sentence}


def warnings(records: list[Record], kl: dict[str, Any]) -> list[str]:
    """The sentences of `alerts`."""
    return list(alerts(records, kl).values())


def _course(records: list[Record], name: str) -> list[float]:
    return numbers_of(records, name)[1]


def _gold(records: list[Record]) -> list[float]:
    names = judges(records)
    return _course(records, f"gold/{names[0]}") if names else []


def _overoptimized(records: list[Record]) -> str | None:
    """Over the last half of the updates (Gao et al., 2022, arXiv:2210.10760)."""
    proxy, gold = _course(records, "reward/proxy"), _gold(records)
    recent = max(FEWEST, len(proxy) // 2)
    if trend(proxy[-recent:]) > 0 > trend(gold[-recent:]):
        return f"proxy rises while gold falls (last {recent} updates): the reward is being gamed"
    return None


def _far_from_reference(records: list[Record], kl: dict[str, Any]) -> str | None:
    exact, length = _course(records, "kl/exact"), _course(records, "rollout/response_length")
    if not exact:
        return None
    now, limit, target = exact[-1], kl.get("limit"), kl.get("target")
    if isinstance(limit, int | float) and now > limit:
        return f"KL {now:.3g} nats is beyond kl.limit {limit:g}: a look there cannot be the best"
    if isinstance(target, int | float) and now > 3 * target:
        return f"KL {now:.3g} nats is over three times its target {target:g}"
    if length and now > NATS_A_TOKEN * max(length[-1], 1.0):
        return f"KL {now:.3g} nats a response is over {NATS_A_TOKEN} a token: far from reference"
    return None


def _collapsed(records: list[Record]) -> str | None:
    entropy = _course(records, "train/entropy")
    if len(entropy) < FEWEST:
        return None
    start = math.fsum(entropy[:3]) / 3
    if entropy[-1] < 0.3 * start:
        return f"entropy collapsed: {start:.2g} → {entropy[-1]:.2g} nats a token"
    return None


def _exploding(records: list[Record]) -> str | None:
    for name in ("policy_loss", "value_loss"):
        losses = _course(records, f"train/{name}")
        word = vitals.exploding(losses) if losses else None
        if word:
            return f"{name.replace('_', ' ')} {word}: {losses[-1]:.3g}"
    return None


def _repetitive(records: list[Record]) -> str | None:
    distinct = _course(records, "look/distinct_2")
    if len(distinct) > 1 and distinct[-1] < 0.7 * distinct[0]:
        return f"it repeats itself: distinct-2 {distinct[0]:.2f} → {distinct[-1]:.2f}"
    return None


def _longer_not_better(records: list[Record]) -> str | None:
    """Length hacking: responses and proxy grow, and yet they end less often, or gold does not grow.

    Longer answers may be better ones: growth that gold follows, properly ended, is no hacking.
    """
    length, proxy = _course(records, "rollout/response_length"), _course(records, "reward/proxy")
    if trend(length) <= 0 or trend(proxy) <= 0:
        return None
    window = max(2, len(length) // 10)
    before, after = (math.fsum(part) / window for part in (length[:window], length[-window:]))
    if after < 1.2 * before:
        return None
    grown = f"longer, not better: length {before:.3g} → {after:.3g} with the proxy"
    ends = _course(records, "rollout/end_share")
    if trend(ends) < 0 and ends[0] - ends[-1] > 0.1:
        return f"{grown}, ended {ends[0]:.0%} → {ends[-1]:.0%}"
    gold = _gold(records)
    if gold and trend(gold) <= 0:
        return f"{grown}, gold does not rise"
    if not gold and after > 2 * before:
        return f"{grown}, and no judge says whether that is better"
    return None


def pretraining_warnings(records: list[Record]) -> list[str]:
    """Sentences about a pretrain stage: held-out text is past its best."""
    steps, heldout = numbers_of(records, "eval/bits_per_character")
    if len(heldout) < 2 or heldout[-1] <= min(heldout) + 0.01:
        return []
    best = min(heldout)
    at = steps[heldout.index(best)]
    return [f"overfitting: held-out {heldout[-1]:.3f} bits/character, {best:.3f} at step {at:,}"]
