"""Gold judges: what completions are judged by that no model is trained against.

A judge is fitted on other people's judgements of other texts than the reward model. It is a linear
model of words and word pairs, while most of the reward model's members are transformers, and it is
bounded, so that no single excess can buy an endless gold reward.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from rl_lab.arrays import load_npz
from rl_lab.errors import UserError
from rl_lab.files import whole_directory, write_json
from rl_lab.metrics import MetricLog
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.rlhf.recipe import Judge
from rl_lab.rlhf.reward_report import ceiling_from, read_ceiling
from rl_lab.run import Run
from rl_lab.signals import StopRequest
from rl_lab.statistics import Interval, wilson_interval

FEATURES = {"ngram_range": (1, 2), "sublinear_tf": True, "max_features": 200_000}
"""The most frequent words and pairs of words, by tf-idf with damped counts."""


class LinearJudge:
    """tf-idf of words and word pairs -> logistic regression -> a score in [0, 1]."""

    def __init__(self, vectorizer: TfidfVectorizer, weights: np.ndarray, bias: float) -> None:
        self._vectorizer = vectorizer
        self._weights = weights
        self._bias = bias

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) scores in [0, 1]: the expected score, as a share of the scale it learned."""
        features = self._vectorizer.transform(texts)
        return np.asarray(expit(features @ self._weights + self._bias))

    @classmethod
    def fit(cls, texts: Sequence[str], scores: Sequence[float]) -> "LinearJudge":
        """Fit on texts and scores of any scale.

        The scores are mapped to [0, 1] between their least and greatest. Logistic regression on
        such shares is that on two copies of each text, good and bad, weighted by the share.
        """
        values = np.asarray(scores, dtype=float)
        shares = (values - values.min()) / np.ptp(values)
        # Of few texts, a word that is in five of them is a rare thing.
        rarest = 5 if len(texts) >= 1000 else 1
        vectorizer = TfidfVectorizer(dtype=np.float32, min_df=rarest, **FEATURES)
        features = vectorizer.fit_transform(texts)
        rows = np.concatenate([np.flatnonzero(shares > 0), np.flatnonzero(shares < 1)])
        labels = np.concatenate([np.ones((shares > 0).sum()), np.zeros((shares < 1).sum())])
        weights = np.concatenate([shares[shares > 0], 1 - shares[shares < 1]])
        model = LogisticRegression(C=1.0, max_iter=200)
        model.fit(features[rows], labels, sample_weight=weights)
        return cls(vectorizer, model.coef_[0], float(model.intercept_[0]))

    def save(self, directory: Path) -> None:
        """Write it as numbers and words; nothing that loading would have to run."""
        words = sorted(self._vectorizer.vocabulary_, key=self._vectorizer.vocabulary_.get)
        with whole_directory(directory) as whole:
            with (whole / "weights.npz").open("wb") as file:
                np.savez_compressed(
                    file, allow_pickle=False,
                    weights=self._weights, bias=self._bias, idf=self._vectorizer.idf_,
                )  # fmt: skip
            (whole / "words.json").write_text(json.dumps(words), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> "LinearJudge":
        """Read what `save` wrote.

        Raises:
            UserError: it is not there, or damaged.
        """
        try:
            words = json.loads((directory / "words.json").read_text(encoding="utf-8"))
            arrays = load_npz(directory / "weights.npz")
            one_each = [(len(words),), (len(words),), ()]
            if [arrays[name].shape for name in ("weights", "idf", "bias")] != one_each:
                raise ValueError("there is not one weight for each word")
            if not isinstance(words, list) or len({str(word) for word in words}) < len(words):
                raise ValueError("words.json should be a list of different words")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"the judge in {directory} cannot be read: {error}") from None
        vectorizer = TfidfVectorizer(vocabulary=words, dtype=np.float32, **FEATURES)
        vectorizer.idf_ = arrays["idf"]
        return cls(vectorizer, arrays["weights"], float(arrays["bias"]))


class Vader:
    """The VADER lexicon and rules (Hutto and Gilbert, 2014): a weak third judge."""

    def __init__(self) -> None:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

        self._analyzer = SentimentIntensityAnalyzer()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """(texts,) compound scores, mapped from [-1, 1] to [0, 1]."""
        return np.array(
            [(self._analyzer.polarity_scores(text)["compound"] + 1) / 2 for text in texts]
        )


MOST_PAIRS = 4_000
"""Pairs a judge's accuracy is measured on."""

GoldJudge = LinearJudge | Vader


def load_judges(stage: Path | None, section: Mapping[str, Judge] | None) -> dict[str, GoldJudge]:
    """Load the judges that the stage left, in the recipe's order; none without the stage.

    Raises:
        UserError: one is not there, or damaged.
    """
    if stage is None or section is None:
        return {}
    return {
        name: Vader() if judge.lexicon == "vader" else LinearJudge.load(stage / name)
        for name, judge in section.items()
    }


def fit_judges(
    section: Mapping[str, Judge], data: Path, run: Run, log: MetricLog, stop: StopRequest
) -> None:
    """Fit each judge, and measure it on rated pairs of texts that it was not fitted on.

    Leaves `<name>/` for each fitted judge, and report.json with accuracies beside human ceilings.

    Raises:
        UserError: there are no scores to fit a judge on.
    """
    run.update_status(budget=len(section), step=0, unit="judges")
    ceiling = read_ceiling(data / "report.json")
    report = {}
    for number, (name, judge) in enumerate(section.items(), start=1):
        stop.check()
        fitted_on: set[str] = set()
        if judge.lexicon == "vader":
            gold: GoldJudge = Vader()
        else:
            rows = _scores(name, judge, data)
            log.event(number - 1, "judge", f"fitting {name} on {len(rows):,} texts")
            fitted_on = {row["text"] for row in rows}
            try:
                gold = LinearJudge.fit(
                    [row["text"] for row in rows], [row["score"] for row in rows]
                )
            except ValueError:
                raise UserError(
                    f"judges.{name}: {len(rows)} texts have too few words in common to fit a "
                    "judge on; give more"
                ) from None
            gold.save(run.path / name)
        report[name] = {"texts": len(fitted_on)} | _accuracy(gold, data, fitted_on, ceiling)
        log.event(number, "judge", f"{name}: {_said(report[name])}")
        run.update_status(step=number)
    write_json(run.path / "report.json", report)


def _scores(name: str, judge: Judge, data: Path) -> list[dict[str, Any]]:
    """What a judge is fitted on: rows of text and score."""
    key = f"judges.{name}.scores"
    path = Path(judge.scores) if judge.scores else data / f"scores-{name}.jsonl"
    if not path.is_file():
        raise UserError(f"{key}: there is no file {str(path)!r} of texts and scores")
    rows = []
    for line, row in enumerate(read_jsonl(path), start=1):
        score = row.get("score")
        if not isinstance(row.get("text"), str) or isinstance(score, bool):
            raise UserError(f"{path.name}, line {line}: needs a text `text` and a number `score`")
        if not isinstance(score, int | float) or not np.isfinite(score):
            raise UserError(f"{path.name}, line {line}: `score` should be a finite number")
        rows.append({"text": row["text"], "score": float(score)})
    if len({row["score"] for row in rows}) < 2:
        raise UserError(f"{path.name}: a judge needs texts with at least two different scores")
    return rows


def _accuracy(
    judge: GoldJudge,
    data: Path,
    fitted_on: set[str],
    ceiling: Sequence[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Accuracy on rated pairs whose texts the judge has not seen; {} if there are none.

    Beside it the human ceiling, where raters are known: of held-out pairs, whichever are judged.
    """
    for split in ("heldout", "train"):
        path = data / f"pairs-{split}.jsonl"
        pairs = [
            pair
            for pair in (read_jsonl(path) if path.exists() else [])
            if isinstance(pair["prompt"], str)
            and not fitted_on & {pair["prompt"] + pair["chosen"], pair["prompt"] + pair["rejected"]}
        ][:MOST_PAIRS]
        if pairs:
            chosen = judge([pair["prompt"] + pair["chosen"] for pair in pairs])
            rejected = judge([pair["prompt"] + pair["rejected"] for pair in pairs])
            right = (chosen > rejected) + 0.5 * (chosen == rejected)
            wide = np.array([(pair["margin"] or 0) >= 1 for pair in pairs])
            found = {"split": split, "accuracy": asdict(_rate(right))}
            if wide.any():
                found["accuracy_margin_1"] = asdict(_rate(right[wide]))
            for least, key in ((0, "ceiling"), (1, "ceiling_margin_1")):
                people = ceiling_from(ceiling, least)
                found |= {key: people} if people else {}
            return found
    return {}


def _rate(right: np.ndarray) -> Interval:
    return wilson_interval(float(right.sum()), len(right))


def _said(report: Mapping[str, Any]) -> str:
    if "accuracy" not in report:
        return "there are no pairs to measure it on"
    accuracy = report["accuracy"]
    said = f"agrees with raters on {accuracy['mean']:.1%} of {accuracy['n']:,} pairs it never saw"
    people = report.get("ceiling")
    return f"{said} (human ceiling: {people['full']:.1%})" if people else said
