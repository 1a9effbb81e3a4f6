"""How good is a reward model? Anything with scores, judged on pairs that people have compared.

Four questions: how often does it agree with people (and how often do people agree with each
other), does it know how sure it may be, does it merely count words, and does it beat a simple
baseline? Pairs share texts and raters, so the intervals, which take pairs for independent, are
somewhat too narrow.
"""

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from reward_models.ensemble import Scorer, load_member
from reward_models.text import plain
from rl_lab.signals import StopRequest
from rl_lab.statistics import wilson_interval

Pair = dict[str, Any]
MARGINS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, None)
"""Edges of the margin bins, in units of the mean rating; the last one is open."""
LENGTH_MATCH = 0.1
"""Two texts are of one length if their words differ by at most this share of the longer one."""
BINS = 10
"""Of predicted probabilities, between 0.5 and 1."""
BASELINE_ALPHA = 10.0
"""Ridge penalty of the baseline; from 5 to 20 its accuracy moves by less than 0.01."""


def judge_members(
    directories: Sequence[Path],
    training: Sequence[Pair],
    heldout: Sequence[Pair],
    device: str,
    stop: StopRequest,
) -> dict[str, Any]:
    """Judge each member, their mean and the baseline on held-out pairs.

    Args:
        directories: of the members.
        training: pairs that the baseline learns from.
        heldout: pairs that none of them has seen.
        device: where the members compute.
        stop: asked between members.

    Returns:
        `members` (a list), `ensemble` and `baseline`, each as of `judge`.
    """
    scores = []
    for directory in directories:
        stop.check()
        scores.append(pair_scores(load_member(directory, device), heldout))
    stop.check()
    return {
        "members": [judge(member, heldout) for member in scores],
        "ensemble": judge(np.mean(scores, axis=0), heldout),
        "baseline": {"what": BASELINE} | judge(baseline_scores(training, heldout), heldout),
        "intervals": "Wilson, 95 %; pairs share texts, so they are somewhat too narrow",
    }


def judge(scores: np.ndarray, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Everything the report says about one scorer.

    Args:
        scores: (2, pairs) of chosen and rejected completions.
        pairs: what was scored; `margin`, `share` may be missing or None.
    """
    difference = scores[0] - scores[1]
    return {
        "accuracy": accuracy(difference, [pair.get("margin") for pair in pairs]),
        "calibration": calibration(difference, [pair.get("share") for pair in pairs]),
        "length": length_bias(scores, pairs),
    }


def pair_scores(scorer: Scorer, pairs: Sequence[Pair]) -> np.ndarray:
    """Score both sides of each pair, each distinct text once.

    Returns:
        (2, pairs): of the chosen and of the rejected completions.
    """
    sides = [[(pair["prompt"], pair[side]) for pair in pairs] for side in ("chosen", "rejected")]
    distinct = {json.dumps(text): text for side in sides for text in side}
    prompts, completions = zip(*distinct.values(), strict=True)
    known = dict(zip(distinct, scorer(prompts, completions).tolist(), strict=True))
    return np.array([[known[json.dumps(text)] for text in side] for side in sides])


# --- agreement with people -----------------------------------------------------------------------


def accuracy(difference: np.ndarray, margins: Sequence[float | None]) -> dict[str, Any]:
    """Share of pairs whose chosen side scores higher; equal scores count half.

    Args:
        difference: (pairs,) score of chosen less score of rejected.
        margins: (pairs,) differences of the mean ratings, or None.

    Returns:
        `all` and, where margins are known, `margin >= 1` and `by_margin` (bins `from`, `to`):
        intervals, None of no pairs; `ties`: pairs of equal scores.
    """
    margin = np.array([np.nan if value is None else value for value in margins], dtype=float)
    said: dict[str, Any] = {
        "all": _share(difference),
        "ties": int((difference == 0).sum()),
    }
    if np.isfinite(margin).any():
        said["margin >= 1"] = _share(difference[margin >= 1])
        said["by_margin"] = [
            {"from": low, "to": high, "accuracy": _share(difference[_inside(margin, low, high)])}
            for low, high in itertools.pairwise(MARGINS)
        ]
    return said


def read_ceiling(path: Path) -> list[dict[str, Any]] | None:
    """Read how often people agree with each other, by margin, from the data stage's report.

    Returns:
        Rows of `margin` (from, to), `half` (one half of the raters against the other) and `full`
        (against the label that all of them make); None where raters are unknown.
    """
    if not path.is_file():
        return None
    return json.loads(path.read_text(encoding="utf-8")).get("ceiling")


def ceiling_from(ceiling: Sequence[dict[str, Any]] | None, least: float) -> dict[str, Any] | None:
    """How often people agree on pairs of at least this margin.

    Args:
        ceiling: as of `read_ceiling`.
        least: 0 or 1, the margins that it was measured from.

    Returns:
        `half` and `full`, as of `read_ceiling`; None where it was not measured.
    """
    for row in ceiling or ():
        low, high = row["margin"]
        if low == least and high >= 8:  # ratings are from -4 to 4
            return {"half": row["half"], "full": row["full"]}
    return None


def _share(difference: np.ndarray) -> dict[str, Any] | None:
    """Accuracy with its interval; None of no pairs."""
    if not difference.size:
        return None
    successes = float((difference > 0).sum() + 0.5 * (difference == 0).sum())
    return asdict(wilson_interval(successes, difference.size))


def _inside(values: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    assert low is not None
    return (values >= low) & (values < (np.inf if high is None else high))


# --- calibration ---------------------------------------------------------------------------------


def calibration(difference: np.ndarray, shares: Sequence[float | None]) -> dict[str, Any]:
    """Compare sigmoid(score difference) with what people said, in two ways.

    The side that the model prefers is looked at, so probabilities are at least 0.5.

    Args:
        difference: (pairs,) score of chosen less score of rejected.
        shares: (pairs,) share of the votes for chosen, or None.

    Returns:
        `votes`: as the probability of one person's vote, against the share of votes; None unless
        every share is known. `preference`: as the probability that people on the whole prefer that
        side, which they do or do not. A model that learned shares predicts votes, and is too
        modest about preferences; one that learned preferences cannot tell votes. Each as of
        `reliability`.
    """
    sign = np.sign(difference)
    known = None not in shares
    return {
        "votes": reliability(difference, 0.5 + sign * (np.array(shares) - 0.5)) if known else None,
        "preference": reliability(difference, 0.5 + sign * 0.5),
    }


def reliability(difference: np.ndarray, agreed: np.ndarray) -> dict[str, Any]:
    """Expected calibration error (Guo et al., 2017, arXiv:1706.04599) and what it comes from.

    Args:
        difference: (pairs,) score differences.
        agreed: (pairs,) how far people agree with the side that scores higher, in [0, 1]; 0.5
            where the scores are equal.

    Returns:
        `ece` over BINS equal bins of [0.5, 1], `brier` (mean squared error), `table` of the bins
        in use.
    """
    predicted = expit(np.abs(difference))
    which = np.minimum(((predicted - 0.5) * 2 * BINS).astype(int), BINS - 1)
    table = [
        {
            "from": 0.5 + bin_ / (2 * BINS),
            "to": 0.5 + (bin_ + 1) / (2 * BINS),
            "predicted": float(predicted[which == bin_].mean()),
            "observed": float(agreed[which == bin_].mean()),
            "n": int((which == bin_).sum()),
        }
        for bin_ in np.unique(which).tolist()
    ]
    gaps = [abs(row["predicted"] - row["observed"]) * row["n"] for row in table]
    return {
        "ece": float(sum(gaps) / len(predicted)),
        "brier": float(np.mean((predicted - agreed) ** 2)),
        "table": table,
    }


# --- length --------------------------------------------------------------------------------------


def length_bias(scores: np.ndarray, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Ask whether the score follows the length.

    Args:
        scores: (2, pairs).
        pairs: what was scored.

    Returns:
        `score_correlation`: Spearman's rank correlation of score and words over the distinct
        texts (None if all are equal); `people_prefer_longer` and `model_prefers_longer`: in what
        share of the pairs of unequal length; `matched`: accuracy on pairs of one length
        (LENGTH_MATCH).
    """
    words = np.array(
        [[_words(pair[side]) for pair in pairs] for side in ("chosen", "rejected")], dtype=float
    )
    distinct = {
        json.dumps((pair["prompt"], pair[side])): (scores[row, column], words[row, column])
        for row, side in enumerate(("chosen", "rejected"))
        for column, pair in enumerate(pairs)
    }
    score, length = np.array(list(distinct.values())).T
    varied = np.ptp(score) > 0 and np.ptp(length) > 0
    difference, longer = scores[0] - scores[1], np.sign(words[0] - words[1])
    alike = np.abs(words[0] - words[1]) <= LENGTH_MATCH * words.max(axis=0)
    return {
        "score_correlation": float(stats.spearmanr(score, length).statistic) if varied else None,
        "people_prefer_longer": _share(longer[longer != 0]),
        "model_prefers_longer": _share((longer * difference)[longer != 0]),
        "matched": _share(difference[alike]),
    }


def _words(completion: str | list[dict[str, str]]) -> int:
    return len(plain(completion).split())


# --- a simple baseline ---------------------------------------------------------------------------

BASELINE = "ridge regression of the votes' log-odds on TF-IDF differences (words and word pairs)"


def baseline_scores(training: Sequence[Pair], heldout: Sequence[Pair]) -> np.ndarray:
    """Score pairs by a linear model of their words, learned from the same pairs.

    A Bradley-Terry model whose scores are linear in TF-IDF features, fitted by least squares to
    the log-odds of the shares of votes.

    Returns:
        (2, held-out pairs).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge

    def texts(pairs: Sequence[Pair], side: str) -> list[str]:
        return [plain(pair["prompt"]) + plain(pair[side]) for pair in pairs]

    chosen, rejected = texts(training, "chosen"), texts(training, "rejected")
    place = {text: row for row, text in enumerate(dict.fromkeys(chosen + rejected))}
    # Words in one text alone say nothing about others, unless there are hardly any texts.
    features = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2 if len(place) > 100 else 1, sublinear_tf=True
    )
    counted = features.fit_transform(place)
    shares = [1.0 if pair.get("share") is None else pair["share"] for pair in training]
    difference = (
        counted[[place[text] for text in chosen]] - counted[[place[text] for text in rejected]]
    )
    model = Ridge(alpha=BASELINE_ALPHA, fit_intercept=False, solver="lsqr")
    model.fit(difference, logit(np.clip(shares, 0.02, 0.98)))
    sides = [features.transform(texts(heldout, side)) for side in ("chosen", "rejected")]
    return np.stack([side @ model.coef_ for side in sides])
