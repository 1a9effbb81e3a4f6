"""Text from outside on every screen and page: seen, and inert."""

import html
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rl_lab import cli
from rl_lab.provenance import ROOT
from rl_lab.reports import figures
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.text import inert
from tests import fake_experiment as fake
from tests.hostile.conftest import Refused

EVIL = (
    "[/] [red]x[/red] [link=https://evil.example]y[/link] \x1b[2J\x1b]0;owned\x07"
    "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\ \x9b31m \x90q \u202eevil\u2066 "
    "zero\u200bwidth\ufeff \r\noverwritten\x7f\u2028next \U000e0041tag"
    "</td></style></pre><script>alert(1)</script><img src=x onerror=alert(1)> "
    '"><a href="javascript:alert(1)">z</a> {{ 7 * 7 }} $x^2$ =cmd()'
)
NAME = "evil\x1b]0;owned\x07[red]\u202e<script>"  # what a file system takes


def show(*tokens: str) -> None:
    with pytest.raises(SystemExit) as ending:
        cli.main(list(tokens))
    assert ending.value.code == 0, tokens


def assert_inert(text: str) -> None:
    """One character for each that may be on a screen, and the newlines that are ours."""
    wild = {mark for mark in text if unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert wild <= {"\n"}


def assert_safe_page(page: str) -> None:
    assert_inert(page)
    assert not re.search(r"<(script|img|iframe|object|a)\b", page)
    assert not re.search(r"<[^>]*\s(on\w+|href|src)\s*=\s*[\"']?\s*(?!#|data:video/mp4)", page)
    assert page.count("</style>") == page.count("<style")
    assert "{{" not in page.replace("{{ 7 * 7 }}", "")  # what was written is not a template
    assert html.escape("<script>") in page


@pytest.fixture
def evil_agent(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run], runs_directory: Path
) -> Run:
    """An agent's run from a stranger: every text in it, and its name."""
    made = make_run(make_recipe("cartpole"), "pole")
    run = Run(made.path.rename(runs_directory / NAME))
    recipe = yaml.safe_load(run.recipe_file.read_text())
    recipe |= {"name": EVIL, "description": EVIL, "seed": EVIL}
    recipe["env"]["id"] = recipe["algorithm"]["name"] = recipe["evaluation"]["episodes"] = EVIL
    run.recipe_file.write_text(yaml.dump(recipe))
    lines = [
        {"step": 1, "wall": 1.0, "rollout/ep_rew_mean": 1.0, f"phase/{EVIL}": 1.0, EVIL: 2.0,
         "train/loss": 1.0, "system/cpu_percent": 1.0, "system/memory_mb": 1.0},
        {"step": 2, "wall": 2.0, "eval/mean_reward": 1.0, "eval/std_reward": 1.0},
        {"step": 2, "wall": 2.0, "event": EVIL, "message": EVIL, "level": EVIL},
    ]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run.update_status(state="failed", reason=EVIL, unit=EVIL, best={"return": 1.0, "step": 1})
    interval = {"mean": 1.0, "low": 0.0, "high": 2.0, "n": 3}
    result = {"model": EVIL, "actions": EVIL, "step": 2, "return": interval,
              "length": interval, "truncated": 0}  # fmt: skip
    run.evaluation_file.write_text(json.dumps({EVIL: result}))
    whence: dict[str, Any] = {"versions": {EVIL: EVIL}, "hardware": {EVIL: EVIL},
                              "threads": EVIL, "git": {"commit": EVIL}}  # fmt: skip
    (run.path / "provenance.json").write_text(json.dumps(whence))
    run.videos.mkdir()
    (run.videos / f"{NAME}.mp4").write_bytes(b"")
    return run


@pytest.fixture
def evil_experiment(runs_directory: Path) -> Run:
    """A language experiment from a stranger."""
    run = Run(fake.build(runs_directory, "movie").path.rename(runs_directory / f"{NAME}2"))

    def spoil(value: Any) -> Any:
        """Every text replaced, and every judge's name."""
        if isinstance(value, dict):
            return {EVIL if key == "stars" else key: spoil(item) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item) for item in value]
        return EVIL if isinstance(value, str) else value

    for path in (run.evaluation_file, run.path / "evaluate/evaluation.json",
                 run.path / "reward/report.json", run.path / "pretrain/report.json"):  # fmt: skip
        if path.exists():
            path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    for path in run.path.rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        renamed = [
            {re.sub("stars$", EVIL.replace("\\", ""), key): item for key, item in row.items()}
            for row in rows
        ]
        path.write_text("".join(json.dumps(spoil(row)) + "\n" for row in renamed))
    (run.path / "data" / "card.md").write_text(EVIL)
    run.update_status(reason=EVIL)
    return run


def test_every_screen_of_an_agent_is_inert(
    evil_agent: Run, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    for tokens in (["runs"], ["runs", "--json"], ["watch", NAME], ["watch", NAME, NAME]):
        show(*tokens)
        output, error = capsys.readouterr()
        assert_inert(output + error)
        assert "evil" in output
    show("report", NAME)
    assert_inert(capsys.readouterr().out)
    assert_safe_page(evil_agent.report_file.read_text(encoding="utf-8"))
    for command in (["play", NAME], ["evaluate", NAME], ["train", "--resume", NAME],
                    ["train", str(evil_agent.recipe_file)]):  # fmt: skip
        refused(*command)  # sees that it is inert


def test_every_screen_of_an_experiment_is_inert(
    evil_experiment: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    name = evil_experiment.name
    stages = [f"{name}/{stage}" for stage in ("ppo", "reward", "pretrain", "data", "evaluate")]
    screens = [["watch", run] for run in (name, *stages)]
    screens += [["runs"], ["runs", "--json"], ["watch", name, *stages], ["evaluate", name]]
    for tokens in screens:
        show(*tokens)
        output, error = capsys.readouterr()
        assert_inert(output + error)
        assert output
    show("report", name)
    page = evil_experiment.report_file.read_text(encoding="utf-8")
    assert_safe_page(page)
    assert page.count("&lt;script&gt;") > 10


def test_what_is_inert_can_still_be_seen() -> None:
    for seen in ("\\x1b[2J", "\\x9b31m", "\\u202e", "\\u200b", "\\ufeff", "\\r\\n", "\\x7f",
                 "\\u2028", "\\U000e0041", "[red]x[/red]", "<script>"):  # fmt: skip
        assert seen in inert(EVIL)


def test_charts_escape_their_texts() -> None:
    chart = figures.svg("x", EVIL, lambda axes: axes.plot([1], label=EVIL), (4, 3))
    assert_inert(chart)
    assert "<script" not in chart
    assert "&lt;script&gt;" in chart


def test_csv_is_written_in_one_place_only() -> None:
    """Where `test_exports` sees that no spreadsheet runs anything of it."""
    for package in ("rl_lab", "reward_models", "envs", "scripts"):
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text(encoding="utf-8")
            written = re.search(r"csv\.(writer|DictWriter)|to_csv|write_csv|savetxt", source)
            assert not written or path.name == "table_files.py", path
