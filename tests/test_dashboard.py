"""The dashboard, rendered to text at the widths people have, from run directories alone."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rl_lab import vitals
from rl_lab.commands.watch import watch
from rl_lab.metrics import MetricLog
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.run_view import RunView
from rl_lab.screens import follow as screens_follow
from rl_lab.screens.dashboard import plain_line, render
from rl_lab.screens.drawing import duration, sparkline
from rl_lab.screens.follow import follow


@pytest.fixture
def view(make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]) -> RunView:
    return view_of(make_run(make_recipe("cartpole"), "pole"))


def view_of(run: Run, updates: int = 30) -> RunView:
    """A run half way, whose process is gone."""
    with MetricLog(run.metrics_file) as log:
        for update in range(1, updates + 1):
            log.log(
                update * 1000,
                {
                    "rollout/ep_rew_mean": 10.0 * update,
                    "train/approx_kl": 0.01,
                    "train/entropy_loss": -0.5,
                    "train/explained_variance": -0.25,
                    "phase/environment": 1.0 * update,
                    "phase/update": 3.0 * update,
                    "system/cpu_percent": 99.0,
                    "system/memory_mb": 321.0,
                },
            )
        log.log(updates * 1000, {"eval/mean_reward": 450.0, "eval/std_reward": 5.0})
        log.event(updates * 1000, "best", "evaluation return 450.00")
    lines = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    for line in lines:
        line["wall"] = line["step"] / 2000
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.update_status(
        state="stopped", reason="asked to by SIGINT", step=updates * 1000,
        best={"return": 450.0, "step": updates * 1000},
    )  # fmt: skip
    return RunView(run)


def text_of(views: list[RunView], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(render(views, width))
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [80, 140, 200])
def test_a_run_shows_what_matters_at_any_width(view: RunView, width: int) -> None:
    text = text_of([view], width)
    for words in (
        "PPO on CartPole-v1", "seed 0", "30%", "30,000 of 100,000 steps", "2,000 steps/s",
        "300.0", "450.0", "target 475", "KL", "explained variance", "negative",
        "update 75%", "environment 25%", "CPU 99 %", "321 MB", "stopped: asked to by SIGINT",
        "evaluation return 450.00", "▁",
    ):  # fmt: skip
        assert words in text, words
    assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 20), (80, 50)])
def test_a_run_fits_the_height_of_the_terminal(view: RunView, width: int, height: int) -> None:
    with MetricLog(view.run.metrics_file) as log:
        for number in range(20):
            log.event(30_000, "note", f"event {number}")
        log.log(30_000, {f"train/{name}": 0.5 for name in
                         ("clip_fraction", "value_loss", "loss", "learning_rate")})  # fmt: skip
    view.refresh()
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    console.print(render([view], width, height))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert len(text.splitlines()) <= height
    assert "event 19" in text


def test_a_wide_terminal_is_used(view: RunView) -> None:
    assert len(text_of([view], 140).splitlines()) < len(text_of([view], 80).splitlines())


@pytest.mark.parametrize("width", [80, 140])
def test_several_runs_are_a_row_each_and_their_mean(
    view: RunView,
    width: int,
    make_recipe: Callable[..., AgentRecipe],
    make_run: Callable[..., Run],
) -> None:
    empty = RunView(make_run(make_recipe("cartpole"), "other"))
    text = text_of([view, empty], width)
    assert "pole" in text
    assert "other" in text
    assert "2 runs" in text
    assert "450.0 (1)" in text  # the mean, and of how many
    assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("width", [80, 140])
def test_hostile_text_is_inert(view: RunView, width: int) -> None:
    with MetricLog(view.run.metrics_file) as log:
        log.event(30_000, "[/]", "[red]x[/] \x1b]0;owned\x07\x1b[2J \u202e")
    view.run.update_status(reason="\x1b[31m[/bold]")
    view.refresh()
    text = text_of([view], width)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "[red]x[/] \\x1b]0;owned" in text
    assert "\x1b" not in plain_line(view)


def test_a_run_with_nothing_in_it_yet_is_shown(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    view = RunView(make_run(make_recipe("cartpole")))
    assert "no update yet" in text_of([view], 80)
    assert view.live
    view.run.update_status(created=time.time() - 3600)
    view.refresh()
    assert not view.live  # whoever made it never started it


def test_a_damaged_run_is_shown(view: RunView) -> None:
    view.run.metrics_file.write_bytes(b"\xff\xfe{}\n" + view.run.metrics_file.read_bytes())
    (view.run.path / "status.json").write_text("{")
    (view.run.path / "recipe.yaml").write_text("a: [")
    assert text_of([RunView(view.run)], 80)
    assert plain_line(RunView(view.run))


def test_without_a_terminal_it_is_one_plain_line_a_run(view: RunView) -> None:
    console = Console(file=io.StringIO(), width=80)
    follow([view], lambda: False, console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert output.count("\n") == 1
    assert "30%" in output
    assert "stopped" in output
    assert "explained variance negative!" in output


def test_a_run_that_is_gone_on_with_is_not_told_as_ended(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(screens_follow, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(screens_follow, "LOOKS_PER_SECOND", 1000)
    console, looks = Console(file=io.StringIO(), width=80), iter(range(9))

    def more() -> bool:
        look = next(looks)
        if look == 4:
            view.run.update_status(state="finished", reason=None, step=100_000)
        return look < 8

    follow([view], more, console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "stopped" not in output
    assert output.count("finished") == 1


def test_who_shows_what_is_trained_stays_as_long_as_the_trainer(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def followed(views: list[RunView], more: Callable[[], bool]) -> None:
        asked[str(views[0].live)] = more()

    monkeypatch.setattr("rl_lab.commands.watch.follow", followed)
    for trainer, stays in ((None, False), (os.getppid(), True), (os.getppid() + 1, False)):
        watch(str(view.run.path), trainer=trainer)
        assert asked == {"False": stays}


def test_no_color_is_honoured(view: RunView, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> str:
        console = Console(file=io.StringIO(), width=80, force_terminal=True)
        console.print(render([view], 80))
        return console.file.getvalue()  # type: ignore[attr-defined]

    assert "\x1b[36m" in drawn()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in drawn()


def test_speed_is_told_also_where_lines_share_a_step(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole"))
    lines = [{"step": 0, "wall": 0.5}, {"step": 1000, "wall": 1.0}, {"step": 1000, "wall": 1.01}]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert RunView(run).steps_per_second == pytest.approx(1000 / 0.51)


def test_sparklines_go_from_lowest_to_highest() -> None:
    assert sparkline([], 5) == ""
    assert sparkline([1.0, 2.0, 3.0], 5) == "▁▅█"
    assert sparkline([2.0, 2.0], 5) == "▁▁"
    assert len(sparkline([float(i) for i in range(1000)], 40)) == 40


def test_durations_are_said_as_people_say_them() -> None:
    assert [duration(s) for s in (7.4, 59.7, 185, 3729)] == ["7 s", "1:00", "3:05", "1:02:09"]


@pytest.mark.parametrize(
    ("metric", "values", "warning"),
    [
        ("train/approx_kl", [0.01] * 11 + [0.5], "high"),
        ("train/approx_kl", [0.01] * 12, None),
        ("train/approx_kl", [0.5], None),  # too early to say
        ("train/entropy_loss", [-0.6] * 11 + [-0.001], "collapsed"),
        ("train/explained_variance", [0.5] * 11 + [-0.5], "negative"),
        ("train/value_loss", [1.0] * 30 + [5e4], "exploding"),
        ("train/value_loss", [1.0] * 30 + [5.0], None),
    ],
)
def test_a_number_that_looks_wrong_gets_a_word(
    metric: str, values: list[float], warning: str | None
) -> None:
    records = [{"step": step, "wall": 0.0, metric: value} for step, value in enumerate(values)]
    (reading,) = vitals.readings(records)
    assert reading.value == values[-1]
    assert reading.warning == warning


def test_a_gaussian_policy_may_have_negative_entropy() -> None:
    records = [
        {"step": step, "wall": 0.0, "train/entropy_loss": 0.001, "train/std": 0.3}
        for step in range(20)
    ]
    assert all(reading.warning is None for reading in vitals.readings(records))


def test_watching_does_not_write(view: RunView) -> None:
    def content(path: Path) -> dict[Path, float]:
        return {file: file.stat().st_mtime_ns for file in path.rglob("*")}

    before = content(view.run.path)
    follow([view], lambda: False, Console(file=io.StringIO()))
    assert content(view.run.path) == before


def test_a_heading_stands_above_the_runs(runs_directory: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30)
    follow([], lambda: False, console, lambda: "sweep: 3 of 20 [/] trials")
    assert "sweep: 3 of 20 [/] trials" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_screen_is_redrawn_as_seldom_as_its_cost_asks(
    view: RunView, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, spent, drawn_at = [0.0], [0.0], []
    refresh = view.refresh

    def costly_refresh() -> None:
        spent[0] += 0.03
        drawn_at.append(now[0])
        refresh()

    monkeypatch.setattr(view, "refresh", costly_refresh)
    monkeypatch.setattr(screens_follow.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(screens_follow.time, "process_time", lambda: spent[0])
    monkeypatch.setattr(
        screens_follow.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    console = Console(width=100, file=io.StringIO(), force_terminal=True)
    follow([view], lambda: now[0] < 10, console)
    assert drawn_at == [0, 3, 6, 9, 10]  # the end is always drawn
