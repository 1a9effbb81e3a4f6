"""A language experiment's directory as the stages would leave it, without training anything."""

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import yaml

from rl_lab import recipes
from rl_lab.files import write_json
from rl_lab.rlhf.recipe import STAGES, LanguageRecipe
from rl_lab.run import Run

HOSTILE = "[/] [red]x[/red] \x1b[2J\x1b]0;owned\x07 \u202eevil</td><script>alert(1)</script>"
SECONDS = {"data": 21, "pretrain": 92, "reward": 134, "judges": 12, "ppo": 84, "evaluate": 31}
TEXTS = (
    ("the film is", " a surprising , and sometimes very well made , portrait of a family ."),
    ("an often", " funny and touching story , with a cast that could not be better ."),
    ("what might have", " been a dull exercise is a beautiful , quiet and moving drama ."),
    ("it's a", " great deal of fun , and one of the best of the year ."),
    ("there is no", " doubt that the director knows what a thriller is made of ."),
    ("a smart ,", " wonderful and hilarious comedy that never talks down to anybody ."),
    ("despite its", " 感動的な映画 🎬 and a few slow scenes , it is a powerful picture ."),
)


def build(
    root: Path,
    name: str = "movie-reviews-seed0",
    *,
    at: str = "evaluate",
    share: float = 1.0,
    course: str = "good",
    state: str = "finished",
    seed: int = 0,
) -> Run:
    """Write an experiment that has come to a stage.

    Args:
        root: the runs directory.
        name: of the experiment.
        at: the stage at work, or the last one where it is finished.
        share: how much of that stage is done, in [0, 1].
        course: of PPO: `good`, or `gamed` (gold falls, text collapses, KL explodes).
        state: of the experiment.
        seed: of the noise.
    """
    rng = random.Random(seed)
    sections: dict[str, Any] = {
        "data": {"source": "movie-reviews"}, "pretrain": {},
        "reward": {"members": 3, "linear": ["words"]},
        "judges": {"stars": {}, "raters": {}}, "ppo": {"kl": {"target": 2.5}}, "evaluate": {},
    }  # fmt: skip
    recipe = LanguageRecipe.model_validate({"name": name, "seed": seed, **sections})
    run = Run(root / name)
    run.path.mkdir(parents=True)
    now = time.time()
    run.recipe_file.write_text(recipes.dump(recipe))
    write_json(run.path / "provenance.json", {"versions": {"torch": "2.13.0"}, "threads": 2})
    content = yaml.safe_load(run.recipe_file.read_text())
    done = STAGES.index(at)
    begun = STAGES[: done + 1]
    write_json(
        run.path / "status.json",
        {"state": state, "step": done + (state == "finished"), "budget": 6, "unit": "stages",
         "stage": at, "created": now - 400, "started": now - 400, "heartbeat": now},
    )  # fmt: skip
    events = [
        line(i, sum(list(SECONDS.values())[:i]), event="stage", message=f"{stage}: started")
        for i, stage in enumerate(begun)
    ]
    write_lines(run.metrics_file, events)
    for stage in begun:
        part = share if stage == at else 1.0
        lines, steps, budget, unit = LINES[stage](part, rng, course)
        path = run.path / stage
        path.mkdir()
        (path / "recipe.yaml").write_text(
            yaml.safe_dump({"stage": stage, "seed": seed, "inputs": {}, **content[stage]})
        )
        write_lines(path / "metrics.jsonl", lines)
        status = {
            "state": state if stage == at else "finished", "step": steps, "budget": budget,
            "unit": unit, "created": now - 300, "started": now - part * SECONDS[stage],
            "heartbeat": now, "reused": stage == "pretrain",
        }  # fmt: skip
        if stage == "ppo":
            status["best"] = {"return": 2.1, "step": steps}
            samples = [row for step in range(0, steps + 1, 10) for row in ppo_samples(step, course)]
            write_lines(path / "samples.jsonl", samples)
        write_json(path / "status.json", status)
    if "data" in begun:
        card = f"# movie reviews\n\n- licence: MIT\n- {HOSTILE}\n"
        (run.path / "data" / "card.md").write_text(card)
        write_json(run.path / "data" / "report.json", {"ceiling": reward_report(rng)["ceiling"]})
    if "judges" in begun[:-1]:
        write_json(run.path / "judges" / "report.json", judges_report())
    if "reward" in begun[:-1]:
        write_json(run.path / "reward" / "report.json", reward_report(rng))
    if at == "evaluate" and state == "finished":
        write_json(run.path / "evaluate" / "evaluation.json", evaluation())
        write_json(run.evaluation_file, evaluation())
    return run


def line(step: int, wall: float, **numbers: Any) -> dict[str, Any]:
    level = {"level": "info"} if "event" in numbers else {}
    return {"step": step, "wall": round(wall, 3), **numbers, **level}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))


Lines = tuple[list[dict[str, Any]], int, int, str]


def data_lines(share: float, rng: random.Random, course: str) -> Lines:
    messages = (
        "fetching hutto_ICWSM_2014.tar.gz", "10,605 snippets, 25,000 reviews",
        "1,204 dropped: near duplicate",
        "splitting by rater block", "drawing preference pairs from the raters' votes",
        "measuring the human ceiling", "drawing prompts",
    )  # fmt: skip
    count = max(1, round(share * len(messages)))
    return (
        [
            line(0, 3.0 * i, event="data", message=message)
            for i, message in enumerate(messages[:count])
        ],
        0,
        0,
        "steps",
    )


def pretrain_lines(share: float, rng: random.Random, course: str) -> Lines:
    lines = [line(0, 4, event="baseline", message="a 4-gram model reaches 2.214 bits/character")]
    steps = round(600 * share / 10) * 10
    for step in range(10, steps + 1, 10):
        wall = 5 + 0.15 * step
        lines.append(
            line(
                step,
                wall,
                **{
                    "train/loss": 6.5 * math.exp(-step / 150) + 3.6 + rng.gauss(0, 0.05),
                    "train/learning_rate": 3e-3 * (1 - step / 600),
                    "time/tokens_per_second": 27_412.0,
                    "phase/train": wall * 0.8,
                    "phase/preparation": 5.0,
                    "phase/evaluation": wall * 0.1,
                },
            )
        )
        if step % 100 == 0:
            bits = 2.6 * math.exp(-step / 150) + 1.86
            lines.append(
                line(step, wall, **{"eval/bits_per_character": bits + step / 10_000,
                                    "train/bits_per_character": bits, "eval/gap": step / 10_000})
            )  # fmt: skip
            lines.append(line(step, wall, event="sample", message=f"the film is {HOSTILE}"))
    return lines, steps, 600, "steps"


def reward_lines(share: float, rng: random.Random, course: str) -> Lines:
    lines, steps = [], round(900 * share / 10) * 10
    for step in range(10, steps + 1, 10):
        member, own = (step - 1) // 300, (step - 1) % 300 + 1
        lines.append(
            line(
                step,
                0.15 * step,
                **{
                    "train/loss": 0.69 - 0.25 * (1 - math.exp(-own / 80)) + rng.gauss(0, 0.01),
                    "train/accuracy": 0.5 + 0.3 * (1 - math.exp(-own / 80)) + rng.gauss(0, 0.01),
                    "train/learning_rate": 1e-3,
                    "reward/member": member,
                },
            )
        )
    if share == 1:
        for member in range(4):
            lines.append(
                line(900, 136, **{"reward/member": member, "eval/accuracy": 0.766 + member / 400})
            )
        lines.append(line(900, 136, **{"eval/ensemble_accuracy": 0.781}))
    return lines, steps, 900, "steps"


def judge_lines(share: float, rng: random.Random, course: str) -> Lines:
    return (
        [
            line(
                0,
                5,
                event="judge",
                message="stars: fitted on 24,100 texts, held-out correlation 0.71",
            ),
            line(0, 11, event="judge", message="raters: fitted on 5,204 texts"),
        ],
        0,
        0,
        "steps",
    )


def ppo_lines(share: float, rng: random.Random, course: str) -> Lines:
    updates = round(60 * share)
    lines = [look_line(0, 2.0, course)]
    gamed = course == "gamed"
    for update in range(1, updates + 1):
        wall = 2 + 1.35 * update
        x = update / 60
        gold = 0.52 + 0.25 * x - (0.55 * x**2 if gamed else 0)
        kl = (30 if gamed else 2.4) * (1 - math.exp(-3 * x))
        lines.append(
            line(
                update,
                wall,
                **{
                    "reward/proxy": 0.1
                    + (4 if gamed else 2.2) * (1 - math.exp(-3 * x))
                    + rng.gauss(0, 0.06),
                    "reward/reward": 0.1 + 2.2 * x,
                    "reward/score": 1.0,
                    "gold/stars": gold + rng.gauss(0, 0.01),
                    "gold/raters": gold + 0.03 + rng.gauss(0, 0.01),
                    "kl/sampled": kl + rng.gauss(0, 0.2),
                    "kl/exact": kl + rng.gauss(0, 0.03),
                    "kl/coefficient": 0.05 + 0.02 * x,
                    "rollout/response_length": 16 + (8 if gamed else 1) * x + rng.gauss(0, 0.3),
                    "rollout/end_share": 0.82 - (0.4 if gamed else -0.05) * x + rng.gauss(0, 0.01),
                    "rollout/tokens_per_second": 3_412.0 + rng.gauss(0, 50),
                    "rollout/sampler_mismatch": 1e-7,
                    "train/policy_loss": -0.01,
                    "train/value_loss": 0.3 * (1 - 0.8 * x),
                    "train/entropy": 3.6 - (3.0 if gamed else 0.8) * x + rng.gauss(0, 0.02),
                    "train/clip_fraction": 0.11 + rng.gauss(0, 0.01),
                    "train/approx_kl": 0.012,
                    "train/grad_norm": 0.8,
                    "train/optimizer_steps": 8,
                    "train/learning_rate": 1e-4,
                    "train/explained_variance": 0.75 * (1 - math.exp(-6 * x)),
                    "phase/generation": 0.5 * wall,
                    "phase/scoring": 0.1 * wall,
                    "phase/update": 0.35 * wall,
                    "phase/evaluation": 0.05 * wall,
                },
            )
        )
        if update % 10 == 0:
            lines.append(look_line(update, wall + 0.5, course))
            lines.append(line(update, wall + 0.6, event="best", message=f"look at update {update}"))
    return lines, updates, 60, "updates"


def look_line(update: int, wall: float, course: str) -> dict[str, Any]:
    x, gamed = update / 60, course == "gamed"
    gold = 0.52 + 0.25 * x - (0.55 * x**2 if gamed else 0)
    return line(
        update,
        wall,
        **{
            "look/proxy": 0.1 + (4 if gamed else 2.2) * (1 - math.exp(-3 * x)),
            "look/gold/stars": gold,
            "look/gold/raters": gold + 0.03,
            "look/kl": (30 if gamed else 2.4) * (1 - math.exp(-3 * x)),
            "look/fluency": -3.6 + 0.4 * x,
            "look/response_length": 16 + x,
            "look/end_share": 0.82 + 0.05 * x,
            "look/distinct_2": 0.84 - (0.6 if gamed else 0.03) * x,
        },
    )


def evaluate_lines(share: float, rng: random.Random, course: str) -> Lines:
    return [line(0, 12, event="evaluate", message="512 completions of each model")], 0, 0, "steps"


LINES = {
    "data": data_lines, "pretrain": pretrain_lines, "reward": reward_lines,
    "judges": judge_lines, "ppo": ppo_lines, "evaluate": evaluate_lines,
}  # fmt: skip


def ppo_samples(step: int, course: str) -> list[dict[str, Any]]:
    rows = []
    for number in range(12):
        prompt, text = TEXTS[number % len(TEXTS)]
        completion = f" {HOSTILE}" if number == 2 else text
        if course == "gamed" and step > 30:
            completion = " funny , powerful , funny , powerful" * 3
        rows.append(
            {"step": step, "prompt": prompt, "completion": completion, "proxy": 0.3 * number - 0.4,
             "gold": {"stars": 0.5 + number / 30, "raters": 0.6}, "kl": 1.0 + number / 7}
        )  # fmt: skip
    return rows


def interval(mean: float, half: float, n: int = 512) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


def reward_report(rng: random.Random) -> dict[str, Any]:
    edges = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, None)
    full = (0.58, 0.71, 0.83, 0.92, 0.97, 0.99, 0.999, 1.0)
    half = (0.53, 0.6, 0.71, 0.81, 0.88, 0.95, 0.99, 0.999)
    model = (0.53, 0.56, 0.63, 0.7, 0.76, 0.83, 0.91, 0.96)

    def judged(shift: float) -> dict[str, Any]:
        return {
            "accuracy": {
                "all": interval(0.781 + shift, 0.013, 4000),
                "margin >= 1": interval(0.868 + shift, 0.015, 2000),
                "ties": 0,
                "by_margin": [
                    {"from": low, "to": high, "accuracy": interval(value + shift, 0.03, 500)}
                    for low, high, value in zip(edges, edges[1:], model, strict=False)
                ],
            },
            "calibration": {
                "votes": {
                    "ece": 0.031, "brier": 0.142,
                    "table": [
                        {"from": 0.5 + i / 20, "to": 0.55 + i / 20, "predicted": 0.525 + i / 20,
                         "observed": 0.52 + i / 21, "n": 400 - 20 * i}
                        for i in range(10)
                    ],
                },
                "preference": {"ece": 0.044, "brier": 0.156, "table": []},
            },
            "length": {"score_correlation": 0.08, "matched": interval(0.77, 0.02, 900)},
        }  # fmt: skip

    ceiling = [
        {"margin": [low, high], "share": 0.1, "half": low_, "full": high_}
        for low, high, low_, high_ in (
            (0.0, 8.0, 0.91, 0.954),
            (1.0, 8.0, 0.98, 0.9997),
            *(
                (low, 8.0 if high is None else high, h, f)
                for low, high, h, f in zip(edges, edges[1:], half, full, strict=False)
            ),
        )
    ]
    return {
        "members": [judged(-0.01), judged(-0.012), judged(-0.008)], "ensemble": judged(0.0),
        "baseline": {"what": "TF-IDF"} | judged(-0.009), "intervals": "Wilson, 95 %",
        "ceiling": ceiling, "dropped": {"longer than max_tokens": 3},
    }  # fmt: skip


def judges_report() -> dict[str, Any]:
    ceiling = {"half": 0.91, "full": 0.954}
    return {
        "stars": {"texts": 24_100, "split": "heldout", "accuracy": interval(0.742, 0.014, 4000),
                  "accuracy_margin_1": interval(0.823, 0.017, 1900), "ceiling": ceiling},
        HOSTILE: {"texts": 9, "split": "train", "accuracy": interval(0.6, 0.02, 900)},
        "unmeasured": {"texts": 9},
    }  # fmt: skip


def evaluation() -> dict[str, Any]:
    def side(
        proxy: float, stars: float, length: float, distinct: float, bits: float
    ) -> dict[str, Any]:
        return {
            "proxy": interval(proxy, 0.08), "length": interval(length, 0.3),
            "gold": {"stars": interval(stars, 0.02), "raters": interval(stars + 0.03, 0.02)},
            "distinct_1": distinct / 2, "distinct_2": distinct,
            "repetition": 0.02, "end_share": 0.84,
            "fluency": interval(-3.4, 0.04), "heldout_loss": bits,
        }  # fmt: skip

    best_of = [
        {"n": n, "kl": math.log(n) - (n - 1) / n, "proxy": 0.4 + 0.5 * math.log2(n) ** 0.8,
         "gold": {"stars": 0.52 + gain / 5, "raters": 0.55 + gain / 5},
         "gain": {"stars": gain, "raters": gain - 0.05}, "distinct_2": 0.85,
         "distinct_2_reference": 0.87}
        for n, gain in ((2, 0.33), (4, 0.6), (16, 1.02), (64, 1.21))
    ]  # fmt: skip
    return {
        "prompts": 512, "policy": side(2.2, 0.77, 16.9, 0.81, 1.934),
        "reference": side(0.1, 0.52, 16.2, 0.85, 1.921),
        "kl": {"exact": interval(2.31, 0.06), "sampled": interval(2.28, 0.21)},
        "gain": {"stars": {"sd": 1.12, "low": 1.01, "high": 1.23},
                 "raters": {"sd": 0.98, "low": 0.88, "high": 1.09}},
        "win_rate": {"stars": interval(0.814, 0.034), "raters": interval(0.79, 0.035)},
        "best_of": best_of,
        "samples": [
            {"prompt": prompt, "reference": " a bit of a mess , and not a very good one .",
             "policy": HOSTILE if number == 1 else text, "proxy": [-0.4, 2.1 + number / 10],
             "gold": {"stars": [0.3, 0.8], "raters": [0.35, 0.82]}}
            for number, (prompt, text) in enumerate(TEXTS)
        ],
        "notes": ["the reference's KL to itself is 0", HOSTILE],
    }  # fmt: skip
