"""Videos of judged episodes: each is played again from its seed by the agent that was judged."""

from rl_lab.errors import UserError
from rl_lab.reports.clips import Clip
from rl_lab.rl import seeding
from rl_lab.rl.play import play
from rl_lab.rl.saved import load_agent, recipe_of


def record(clip: Clip) -> float:
    """Play one episode again into its video, unless that is there; return what it came to.

    Raises:
        UserError: the run no longer has the agent that was judged, or its environment cannot draw.
        StorageError: the video cannot be kept.
    """
    known = clip.described()
    if known is not None:
        return float(known["played"])
    recipe = recipe_of(clip.run)
    agent, step = load_agent(clip.run, recipe, clip.model, sampled=False)
    if step != clip.step:
        raise UserError(
            f"run {clip.run.name!r} was judged at step {clip.step:,}, and its {clip.model} model "
            f"is of step {step:,} now; judge it again: rl-lab evaluate {clip.run.name}"
        )
    with seeding.own_randomness(clip.seed, agent.action_space):
        [(_, come_to)] = play(agent, recipe.env, [clip.seed], True, clip.path)
    clip.played(come_to)
    return come_to
