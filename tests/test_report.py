"""The report: one page, nothing fetched, everything from outside escaped."""

import math
import re
from collections.abc import Callable

from rl_lab.commands.kinds import differences_to_default
from rl_lab.metrics import MetricLog
from rl_lab.reports.report import write_report
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

HOSTILE = "</td><script>alert(1)</script>\x1b[2J\u202e"


def test_a_report_escapes_what_a_run_says(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole", {"description": HOSTILE.replace("\x1b", "")}))
    with MetricLog(run.metrics_file) as log:
        log.log(10, {"rollout/ep_rew_mean": 1.0})
        log.log(10, {"eval/mean_reward": 2.0, "eval/std_reward": 0.5})
        log.event(10, HOSTILE, HOSTILE, "warning")
    run.update_status(state="failed", reason=HOSTILE)
    page = write_report(run, differences_to_default).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert "<svg" in page


def test_a_report_fetches_nothing(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    page = write_report(make_run(make_recipe("cartpole")), differences_to_default).read_text(
        encoding="utf-8"
    )
    assert not re.findall(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert not re.findall(r"url\(\s*[\"']?(?!#)", page)
    assert "Not evaluated yet" in page


def test_an_evaluation_without_its_spread_is_not_drawn(
    make_recipe: Callable[..., AgentRecipe], make_run: Callable[..., Run]
) -> None:
    run = make_run(make_recipe("cartpole"))
    with MetricLog(run.metrics_file) as log:
        log.log(10, {"eval/mean_reward": 2.0, "eval/std_reward": math.nan})
        log.log(20, {"eval/mean_reward": 2.0, "eval/std_reward": 0.5})
        log.log(2**60, {"eval/mean_reward": 2.0, "eval/std_reward": 0.5})
        log.log(2**60 + 1, {"eval/mean_reward": 2.0, "eval/std_reward": 0.5})
    assert "<svg" in write_report(run, differences_to_default).read_text(encoding="utf-8")
