"""Scores that are linear in how often words, or pieces of words, occur in a text.

Such a model sees no more of a sentence than two neighbouring words, and learns from few texts what
a transformer needs many for. The two err on different texts: their mean is right more often than
either.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from reward_models.text import Turn, plain

Pieces = Literal["words", "characters"]
"""words: words and pairs of neighbouring words; characters: runs of 2 to 5 characters in a word."""
ANALYSIS = {
    "words": {"analyzer": "word", "ngram_range": (1, 2)},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 5)},
}
MOST_PIECES = 200_000
"""The most frequent are kept."""
PIECES_FILE, WEIGHTS_FILE = "pieces.json", "linear.safetensors"


class TooFewPiecesError(ValueError):
    """Texts that no linear model can be fitted on."""


class LinearText:
    """Text -> score: a weight for each piece, times its tf-idf with damped counts, summed."""

    def __init__(self, kind: Pieces, vectorizer: TfidfVectorizer, weights: np.ndarray) -> None:
        """Put one together.

        Args:
            kind: of pieces.
            vectorizer: fitted; P pieces.
            weights: (P + 1,), the last of them what any text gets.
        """
        self.kind = kind
        self._vectorizer = vectorizer
        self._weights = weights

    def scores(self, texts: Iterable[str]) -> np.ndarray:
        """(texts,) float64."""
        features = self._vectorizer.transform(texts)
        return np.asarray(features @ self._weights[:-1] + self._weights[-1])

    def save(self, directory: Path) -> None:
        """Write it into a directory: numbers and words, nothing that loading would have to run."""
        places = self._vectorizer.vocabulary_
        pieces = {"kind": self.kind, "pieces": sorted(places, key=places.__getitem__)}
        (directory / PIECES_FILE).write_text(json.dumps(pieces), encoding="utf-8")
        numbers = {"weights": self._weights, "idf": self._vectorizer.idf_}
        save_file(
            {name: np.asarray(array, dtype=np.float64) for name, array in numbers.items()},
            directory / WEIGHTS_FILE,
        )

    @classmethod
    def load(cls, directory: Path) -> "LinearText":
        """Read what `save` wrote.

        Raises:
            ValueError: it is not there, or damaged.
        """
        try:
            said = json.loads((directory / PIECES_FILE).read_text(encoding="utf-8"))
            kind, pieces = said["kind"], said["pieces"]
            if kind not in ANALYSIS:
                raise ValueError(f"it reads {kind!r}, which is none of {', '.join(ANALYSIS)}")
            texts = isinstance(pieces, list) and all(isinstance(piece, str) for piece in pieces)
            if not texts or not pieces or len(set(pieces)) < len(pieces):
                raise ValueError(f"{PIECES_FILE} should hold a list of different pieces")
            arrays = load_file(directory / WEIGHTS_FILE)
            shapes = [arrays[name].shape for name in ("weights", "idf")]
            if shapes != [(len(pieces) + 1,), (len(pieces),)]:
                raise ValueError("there is not one weight for each piece")
            if not all(np.isrealobj(one) and np.isfinite(one).all() for one in arrays.values()):
                raise ValueError("its weights are not all finite numbers")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
            raise ValueError(f"the linear model in {directory} cannot be read: {error}") from None
        vectorizer = vectorizer_of(kind, vocabulary=pieces)
        vectorizer.idf_ = arrays["idf"]
        return cls(kind, vectorizer, arrays["weights"])


def is_linear(directory: str | Path) -> bool:
    """Whether `LinearText.save` wrote into this directory."""
    return (Path(directory) / PIECES_FILE).is_file()


def vectorizer_of(kind: Pieces, **options: object) -> TfidfVectorizer:
    """What counts the pieces of one kind; further options are scikit-learn's."""
    return TfidfVectorizer(sublinear_tf=True, max_features=MOST_PIECES, **ANALYSIS[kind], **options)


class LinearRewardModel:
    """Calls `(prompts, completions) -> (batch,) scores`; a difference of scores is in log-odds."""

    def __init__(self, text: LinearText, device: str = "cpu") -> None:
        """Take what scores whole texts, prompt and completion together.

        Args:
            text: is asked.
            device: where the scores are wanted.
        """
        self._text = text
        self._device = torch.device(device)

    def __call__(self, prompts: Sequence[Turn], completions: Sequence[Turn]) -> Tensor:
        """(batch,) float32 scores on the device; higher is better."""
        pairs = zip(prompts, completions, strict=True)
        texts = [plain(prompt) + plain(completion) for prompt, completion in pairs]
        scores = self._text.scores(texts) if texts else np.empty(0)
        return torch.as_tensor(scores, dtype=torch.float32, device=self._device)


def fit_preferences(
    kind: Pieces, chosen: Sequence[str], rejected: Sequence[str], shares: Sequence[float]
) -> LinearText:
    """Fit a Bradley-Terry model whose scores are linear in a text's pieces.

    Logistic regression on the difference of two texts' features, with an L2 penalty (scikit-learn's
    C = 1: half the weights' squared length, beside the sum of the pairs' losses). A pair that
    people disagree on stands for both its answers, each weighted by its share of the votes. The
    mean score of the texts is 0, as it nearly is of other members of an ensemble.

    Args:
        kind: of pieces.
        chosen: (pairs,) texts.
        rejected: (pairs,) texts.
        shares: (pairs,) of the votes for chosen, in [0, 1].

    Raises:
        TooFewPiecesError: the texts have none in common.
    """
    places = {text: row for row, text in enumerate(dict.fromkeys([*chosen, *rejected]))}
    # A piece of one text alone says nothing about others, unless there are hardly any texts.
    vectorizer = vectorizer_of(kind, min_df=2 if len(places) > 100 else 1)
    try:
        counted = vectorizer.fit_transform(places)
    except ValueError:  # an empty vocabulary
        raise TooFewPiecesError(f"the texts have no {kind} in common") from None
    difference = counted[[places[t] for t in chosen]] - counted[[places[t] for t in rejected]]
    votes = np.asarray(shares, dtype=float)
    regression = LogisticRegression(C=1.0, fit_intercept=False, max_iter=1000)
    regression.fit(
        sparse.vstack([difference, difference]),
        np.repeat([1, 0], len(votes)),
        sample_weight=np.concatenate([votes, 1 - votes]),
    )
    weights = regression.coef_[0]
    return LinearText(kind, vectorizer, np.append(weights, -(counted @ weights).mean()))
