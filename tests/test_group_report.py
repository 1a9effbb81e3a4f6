"""Reports of groups and suites: one result, shown as a page and kept as JSON; nothing fetched."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rl_lab import results, suites
from rl_lab.cli import main
from rl_lab.commands.kinds import differences_to_default
from rl_lab.files import write_json
from rl_lab.metrics import MetricLog
from rl_lab.reports.report import write_group_report
from rl_lab.run import Run
from tests import fake_experiment, fake_suite
from tests.fake_experiment import HOSTILE
from tests.judged_runs import judged_run


class Page(HTMLParser):
    """What a browser would fetch, which tables stand outside of a scrolling box, and the words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.loose_tables = 0
        self.tags: list[str] = []
        self.words = ""
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = dict(attributes)
        self.tags.append(tag)
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            target = known.get(name)
            if target and not target.startswith(("#", "data:")):
                self.fetched.append(target)
        if tag == "table" and not any("scroll" in kind for _, kind in self._open):
            self.loose_tables += 1
        if tag in ("div", "section", "details"):
            self._open.append((tag, known.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1][0] == tag:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words += f" {data}"


def report_of(directory: Path) -> tuple[str, dict[str, Any]]:
    page = write_group_report(
        results.groups(results.find([str(directory)])), directory.name, differences_to_default,
        directory / "report.html", suites.load(str(directory)),
    )  # fmt: skip
    return page.read_text(encoding="utf-8"), json.loads((directory / "report.json").read_text())


def words(text: str) -> str:
    return " ".join(Page(text).words.split())


def test_a_suite_is_told_of_verdict_first(runs_directory: Path) -> None:
    text, said = report_of(fake_suite.build(runs_directory))
    shown = words(text)
    assert [group["name"] for group in said["groups"]] == ["pendulum", "cartpole"]  # as the suite
    pendulum, cartpole = said["groups"]
    assert pendulum["standing"]["word"] == "met"
    assert cartpole["standing"]["word"] == "below"
    assert shown.index("Verdict") < shown.index("below") < shown.index("Results")
    assert "corrected by Holm for 2 groups" in shown
    assert cartpole["at_target"] == sum(run["score"] >= 475 for run in cartpole["runs"])
    assert pendulum["n"] == 6
    assert pendulum["cost"] == {
        "wall_seconds": 360.0, "cpu_seconds": 180.0, "joules": 2160.0, "how": "estimated"
    }  # fmt: skip
    assert "0.6 Wh estimated" in shown
    assert "the first <source>" in shown
    assert "-90.0*" in shown  # beside, not against
    assert "rl-lab benchmark small" in shown
    assert "The same as the built-in recipe cartpole" in shown
    [trouble] = cartpole["background"]["troubles"]  # they differ in a number only
    assert (trouble["count"], trouble["runs"]) == (6, 6)
    assert trouble["message"] in shown


def test_json_and_page_say_the_same(runs_directory: Path) -> None:
    text, said = report_of(fake_suite.build(runs_directory))
    shown = words(text)
    for group in said["groups"]:
        for name in ("iqm", "mean"):
            found = group[name]
            assert f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]" in shown
        assert group["standing"]["sentence"] in shown
        for run in group["runs"]:
            assert f"{run['name']} finished {run['score']:.1f}" in shown
    across = said["across"]
    for name in ("iqm", "mean", "median", "optimality_gap"):
        assert f"{across[name]['mean']:.2f} " in shown
        assert f"[{across[name]['low']:.2f}, {across[name]['high']:.2f}]" in shown
    assert across["tasks"] == ["pendulum", "cartpole"]
    assert across["improvement"]["mean"] == 0.5  # every run of one task, none of the other
    assert "50% of runs above the published value [50%, 50%]" in shown


def test_a_page_fetches_nothing_scrolls_its_tables_and_knows_dark_print_and_phone(
    runs_directory: Path,
) -> None:
    text, _ = report_of(fake_suite.build(runs_directory, seeds=2))
    page = Page(text)
    assert page.fetched == []
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert not re.findall(r"url\(\s*[\"']?(?!#)|@import", text)
    assert page.loose_tables == 0
    assert "overflow-x: auto" in text
    for needed in ("prefers-color-scheme: dark", "color-scheme: light dark", "@media print",
                   "width=device-width"):  # fmt: skip
        assert needed in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_few_seeds_are_a_plain_warning(runs_directory: Path) -> None:
    text, said = report_of(fake_suite.build(runs_directory, seeds=2))
    assert words(text).count("only 2 runs: other seeds may come out quite differently") >= 3
    assert said["across"]["warning"] is not None


def test_runs_that_are_not_judged_or_not_begun_are_counted(runs_directory: Path) -> None:
    directory = fake_suite.build(runs_directory)
    (directory / "cartpole-seed1" / "evaluation.json").unlink()
    late = Run(directory / "cartpole-seed2")
    late.evaluation_file.write_text("{}")
    late.metrics_file.write_text("")
    (late.path / "status.json").write_text('{"state": "created"}')
    text, said = report_of(directory)
    cartpole = said["groups"][1]
    assert (cartpole["n"], len(cartpole["runs"])) == (4, 6)
    assert "4 of 6" in words(text)
    assert cartpole["cost"]["cpu_seconds"] == 150.0
    for run in (directory).glob("cartpole-seed*"):
        (run / "evaluation.json").unlink(missing_ok=True)
    text, said = report_of(directory)
    assert said["groups"][1]["standing"]["word"] == "not judged"
    assert said["across"] is None


def test_what_strangers_wrote_is_inert(runs_directory: Path) -> None:
    directory = fake_suite.build(runs_directory, seeds=2)
    run = Run(directory / "cartpole-seed0")
    with MetricLog(run.metrics_file) as log:
        log.event(5000, HOSTILE, HOSTILE, "error")
    run.update_status(state="failed", reason=HOSTILE)
    write_json(run.path / "provenance.json", {
        "command": ["x", HOSTILE], "versions": {HOSTILE: HOSTILE}, "hardware": {"machine": HOSTILE},
        "git": {"commit": HOSTILE}, "threads": HOSTILE,
    })  # fmt: skip
    (run.path / "videos").mkdir()
    suite = (directory / "suite.yaml").read_text()
    (directory / "suite.yaml").write_text(suite.replace("the second", "<script>alert(2)</script>"))
    text, _ = report_of(directory)
    assert "<script" not in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", text)
    assert text.count("&lt;script&gt;") >= 6


def test_numbers_that_nobody_can_calculate_with_are_left_out(runs_directory: Path) -> None:
    directory = fake_suite.build(runs_directory, seeds=2)
    suite = (directory / "suite.yaml").read_text()
    (directory / "suite.yaml").write_text(suite.replace("random: 20.0", "random: 500.0"))
    for run in directory.glob("cartpole-seed*"):
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(
            recipe.replace("target_return: 475.0", "target_return: .inf")
        )
    _, said = report_of(directory)
    assert said["groups"][1]["target"] is None
    assert said["across"] is None  # of the second task no scale is left


def test_experiments_over_seeds(runs_directory: Path) -> None:
    for seed in range(3):
        run = fake_experiment.build(runs_directory, f"movies-seed{seed}", seed=seed)
        found = json.loads(run.evaluation_file.read_text())
        found["gain"]["stars"]["sd"] = 1.0 + seed / 10
        write_json(run.evaluation_file, found)
    groups = results.groups(results.find(["movies"]))
    page = write_group_report(groups, "movies", differences_to_default, runs_directory / "x.html")
    text, said = page.read_text(encoding="utf-8"), json.loads(page.with_suffix(".json").read_text())
    [group] = said["groups"]
    language, shown = group["language"], words(text)
    assert group["mean"]["mean"] == pytest.approx(1.1)
    assert language["samples"]["run"] == "movies-seed1"  # the middle one
    assert [len(chart["runs"]) for chart in language["against_kl"]] == [3, 3, 3]
    [everything] = [row for row in language["reward"]["accuracy"] if row["margin"] == "all pairs"]
    assert everything["full"]["mean"] == pytest.approx(0.954)
    assert language["reward"]["ece"]["mean"] == pytest.approx(0.031)
    [forgotten] = [row for row in language["measures"] if row["what"] == "held-out loss"]
    assert forgotten["policy"]["mean"] == pytest.approx(1.934)
    assert forgotten["reference"]["mean"] == pytest.approx(1.921)
    for said_so in ("+1.10", "The policy is better than its reference",
                    "ceiling, all raters", "calibrated", "mean of 3", "movies-seed1",
                    "81.4%", "held-out loss", "Reward against KL"):  # fmt: skip
        assert said_so in shown, said_so
    assert "<script" not in text
    assert Page(text).fetched == []


def report(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["report", *arguments])
    return int(end.value.code or 0)


def test_the_command_takes_a_run_runs_or_a_directory(
    runs_directory: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = fake_suite.build(runs_directory, seeds=2)
    run = fake_suite.agent(runs_directory, "cartpole", 0, threads=2)
    fake_suite.agent(runs_directory, "cartpole", 1, threads=2)
    for arguments, page in (
        (["small"], directory / "report.html"),
        (["cartpole-seed0"], run.report_file),
        (["cartpole"], runs_directory / "cartpole-report.html"),
        (["cartpole-seed0", "cartpole-seed1"], runs_directory / "cartpole-report.html"),
        (["cartpole-seed*", "--output", str(tmp_path / "mine.html")], tmp_path / "mine.html"),
    ):
        assert report(*arguments) == 0
        assert Path(capsys.readouterr().out.strip()).resolve() == page.resolve()
        assert page.is_file()
        said = json.loads(page.with_suffix(".json").read_text())
        assert [group["n"] for group in said["groups"]] in ([1], [2], [2, 2])
    [differs] = said["groups"][0]["background"]["differences"]
    assert differs == {"key": "threads", "value": 2, "other": 1}


@pytest.mark.parametrize(
    ("arguments", "words_"),
    [
        ([], "report needs a run"),
        (["nothing"], "no run 'nothing'"),
        (["small", "--output", "x.json"], "should be the page"),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(
    arguments: list[str], words_: str, runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_suite.build(runs_directory, seeds=1)
    assert report(*arguments) == 2
    assert words_ in capsys.readouterr().err


def test_runs_and_experiments_of_which_nothing_is_known_yet_have_a_report(
    runs_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("new-seed0", 0), ("new-seed1", 1)):
        judged_run(runs_directory / "suite" / name, seed, None)
    empty = runs_directory / "suite" / "text-seed0"
    empty.mkdir()
    (empty / "recipe.yaml").write_text("name: text\ndata: {}\nppo: {}\nevaluate: {}\n")
    with pytest.raises(SystemExit) as end:
        main(["report", "suite"])
    assert not end.value.code, capsys.readouterr().err
    page = (runs_directory / "suite" / "report.html").read_text()
    assert "new" in page
    assert "text" in page
