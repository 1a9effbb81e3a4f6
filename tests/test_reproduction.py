"""What is said of a repetition: bit-equal, statistically equal or different, and by what."""

import json
from pathlib import Path
from typing import Any

import pytest

from rl_lab.cli import main
from rl_lab.files import write_json
from rl_lab.reproduction import compare
from rl_lab.results import JUDGED
from rl_lab.run import Run
from tests import fake_experiment
from tests.conftest import Lab

PROVENANCE = {
    "versions": {"torch": "2.13.0", "numpy": "2.3"}, "threads": 1,
    "hardware": {"cores": 2}, "git": {"commit": "abc", "diff": ""},
}  # fmt: skip


def judged(*returns: float) -> dict[str, Any]:
    episodes = [
        {"seed": seed, "episode_return": value, "length": 9} for seed, value in enumerate(returns)
    ]
    return {JUDGED: {"return": {"n": len(returns)}, "episodes": episodes}}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Run, Run]:
    runs = []
    for name in ("one", "other"):
        run = Run(tmp_path / name)
        run.path.mkdir()
        run.metrics_file.write_text('{"step": 1, "wall": 1.0, "train/loss": 0.5}\n')
        write_json(run.path / "provenance.json", PROVENANCE)
        runs.append(run)
    return runs[0], runs[1]


def other_bits(run: Run) -> None:
    run.metrics_file.write_text('{"step": 1, "wall": 1.0, "train/loss": 0.6}\n')


def test_the_same_bits_are_bit_equal(pair: tuple[Run, Run]) -> None:
    found = compare(*pair, judged(1, 2, 3), judged(1, 2, 3))
    assert (found.word, found.bits, found.circumstances) == ("bit-equal", [], [])


def test_other_bits_of_the_same_worth_are_statistically_equal(pair: tuple[Run, Run]) -> None:
    other_bits(pair[1])
    found = compare(*pair, judged(10, 20, 30, 40), judged(11, 19, 32, 39))
    assert found.word == "statistically equal"
    assert found.bits == ["metrics.jsonl: from step 1 on", "evaluation"]
    assert found.apart is not None
    assert found.apart.n == 4
    assert "its bits are others" in found.sentence


def test_a_shift_that_pairs_show_is_different(pair: tuple[Run, Run]) -> None:
    """Of independent returns so far apart, nobody could tell; the starts are the same, though."""
    other_bits(pair[1])
    found = compare(*pair, judged(10, 200, 30, 400), judged(12, 203, 32, 403))
    assert found.word == "different"
    assert found.apart is not None
    assert found.apart.low > 0


def test_an_evaluation_alone_can_differ(pair: tuple[Run, Run]) -> None:
    found = compare(*pair, judged(1, 2, 3), judged(1, 2, 4))
    assert found.bits == ["evaluation"]
    assert found.word == "statistically equal"


@pytest.mark.parametrize("then", [{}, {JUDGED: []}, judged(1), {JUDGED: {"episodes": [7, {}]}}])
def test_without_episodes_to_tell_by_other_bits_are_different(
    pair: tuple[Run, Run], then: dict[str, Any]
) -> None:
    other_bits(pair[1])
    found = compare(*pair, then, judged(1, 2, 3))
    assert found.word == "different"
    assert "no return to judge by" in found.sentence


def test_what_the_runs_were_made_with_is_told(pair: tuple[Run, Run]) -> None:
    changed = PROVENANCE | {
        "versions": {"torch": "2.14.0", "numpy": "2.3", "box2d": "2"}, "threads": 2,
        "git": {"commit": "def", "diff": "+"},
    }  # fmt: skip
    write_json(pair[1].path / "provenance.json", changed)
    assert compare(*pair, {}, {}).circumstances == [
        "box2d 2 (was None)", "torch 2.14.0 (was 2.13.0)", "threads 2 (was 1)",
        "commit def (was abc)", "other uncommitted changes to the lab's code",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "word"), [(0.0, "bit-equal"), (0.01, "statistically equal"), (0.2, "different")]
)
def test_experiments_are_judged_by_the_gold_judge(
    runs_directory: Path, shift: float, word: str
) -> None:
    one, other = (fake_experiment.build(runs_directory, name) for name in ("one", "other"))
    now = json.loads(json.dumps(other.evaluations))
    for end in ("mean", "low", "high"):
        now["policy"]["gold"]["stars"][end] += shift
    found = compare(one, other, one.evaluations, now)
    assert found.word == word
    assert found.measure == "gold score (stars)"


def test_a_run_is_reproduced_and_a_tampered_one_is_not(lab: Lab, runs_directory: Path) -> None:
    settings = ("--env.id", "RLLab/Match-v0", "--budget.steps", "512", "--evaluation.every", "256",
                "--evaluation.episodes", "2", "--quiet")  # fmt: skip
    assert lab("train", "cartpole", "--name", "one", *settings).returncode == 0
    one = Run(runs_directory / "one")
    before = {path: path.stat().st_mtime_ns for path in one.path.rglob("*")}
    same = lab("reproduce", "one", "--name", "again", "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["word"] == "bit-equal"
    assert {path: path.stat().st_mtime_ns for path in one.path.rglob("*")} == before

    # The same name goes on, here with nothing left to train; the numbers tell that one was changed.
    text = one.metrics_file.read_text()
    one.metrics_file.write_text(text.replace('"eval/mean_reward"', '"eval/mean"'))
    told = lab("reproduce", "one", "--name", "again")
    assert told.returncode == 0
    assert "again is statistically equal" in told.stdout
    assert "metrics.jsonl" in told.stdout


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["nowhere"], "no run 'nowhere'"),
        (["begun"], "is created, not finished"),
        (["done", "--name", "begun"], "repeats no 'done'"),
        (["done", "--name", "../x"], "'../x'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    tokens: list[str], words: str, make_recipe: Any, make_run: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_run(make_recipe("acrobot"), "begun")
    make_run(make_recipe("acrobot"), "done").update_status(state="finished")
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *tokens])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_seeds_that_are_no_numbers_pair_nothing_wrongly(pair: tuple[Run, Run]) -> None:
    other_bits(pair[1])
    then = judged(1, 2, 3)
    then[JUDGED]["episodes"][0]["seed"] = [0]
    found = compare(*pair, then, judged(1, 2, 3))
    assert found.apart is not None
    assert found.apart.n == 2
