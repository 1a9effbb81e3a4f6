"""Videos of judged episodes: played again they are the same, or it is said that they are not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rl_lab import checkpoint
from rl_lab.cli import main
from rl_lab.errors import UserError
from rl_lab.reports import agent_group, clips
from rl_lab.reports.clips import Clip
from rl_lab.rl import agent, agent_state
from rl_lab.rl.clips import record
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run

MakeRun = Callable[..., Run]


def judged(*returns: Any, **changes: Any) -> dict[str, Any]:
    """A result of `rl-lab evaluate` whose episodes have seeds 0, 1, ..."""
    episodes = [{"seed": seed, "episode_return": found} for seed, found in enumerate(returns)]
    return {"model": "best", "step": 9, "episodes": episodes} | changes


def test_best_median_and_worst_are_of_all_runs_together(
    make_recipe: Callable[..., AgentRecipe], make_run: MakeRun
) -> None:
    one, other = (make_run(make_recipe("cartpole"), name) for name in ("one", "other"))
    chosen = clips.choose([(one, judged(5.0, 1.0, 3.0)), (other, judged(9.0, 2.0))])
    assert [(clip.what, clip.run.name, clip.seed, clip.judged) for clip in chosen] == [
        ("best", "other", 0, 9.0), ("median", "one", 2, 3.0), ("worst", "one", 1, 1.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "result",
    [
        {}, judged(1.0, model="../best"), judged(1.0, step="9"), judged(1.0, episodes={}),
        judged("high"), judged(1.0, episodes=[{"seed": -1, "episode_return": 1.0}, 7]),
    ],
)  # fmt: skip
def test_what_is_damaged_is_left_out(
    result: dict[str, Any], make_recipe: Callable[..., AgentRecipe], make_run: MakeRun
) -> None:
    assert clips.choose([(make_run(make_recipe("cartpole")), result)]) == []


def test_an_episode_played_again_is_the_one_that_was_judged(
    make_recipe: Callable[..., AgentRecipe], make_run: MakeRun
) -> None:
    recipe = make_recipe("cartpole")
    run = make_run(recipe)
    model = agent.build(recipe)
    checkpoint.save(run.best, agent_state.playable(model))
    with pytest.raises(SystemExit):
        main(["evaluate", run.name, "--episodes", "5"])
    best, _, worst = agent_group.episodes_to_see([run])
    assert best.described() is None
    assert record(best) == best.judged
    said = best.described()
    assert said is not None
    assert said["same"] is True
    assert best.video.stat().st_size > 0
    before = best.video.stat().st_mtime_ns
    assert record(best) == best.judged  # it is there: nothing is played
    assert best.video.stat().st_mtime_ns == before
    claimed: Clip = replace(worst, judged=worst.judged + 1)  # the file says otherwise
    assert record(claimed) == worst.judged
    claims = claimed.described()
    assert claims is not None
    assert claims["same"] is False
    with pytest.raises(UserError, match="judge it again"):
        record(replace(best, step=7))
