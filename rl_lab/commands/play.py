"""`rl-lab play`: see a trained agent act."""

from typing import Annotated

from cyclopts import Parameter

from rl_lab.errors import UserError
from rl_lab.rl.trust import grant
from rl_lab.run import Run
from rl_lab.text import inert, short


def play(
    run: str,
    /,
    *,
    video: Annotated[bool, Parameter(negative=())] = False,
    episodes: int = 1,
    model: str = "best",
    sampled: Annotated[bool, Parameter(negative=())] = False,
    seed: int = 0,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> int:
    """See a trained agent act, in a window or as a video.

    Parameters
    ----------
    run
        Name or directory.
    video
        Record to videos/ in the run directory instead of opening a window.
    episodes
        How many.
    model
        best (by evaluation return) or last (the newest checkpoint).
    sampled
        Sample actions as in training, instead of greedy ones.
    seed
        The same seed shows the same episodes.
    trust
        A module that the environment's id may import (module:Id); importing it runs its code.
    """
    grant(trust or [])
    chosen = Run.open(run)
    if not 1 <= episodes <= 1000:
        raise UserError(f"--episodes {episodes}: should be from 1 to 1000")
    if not 0 <= seed < 2**31:
        raise UserError(f"--seed {seed}: should be from 0 to {2**31 - 1}")
    from rl_lab.rl import seeding
    from rl_lab.rl.play import play as play_episodes
    from rl_lab.rl.saved import load_agent, recipe_of
    from rl_lab.seeding import stream

    recipe = recipe_of(chosen)
    agent, _ = load_agent(chosen, recipe, model, sampled)
    path = chosen.videos / f"{model}-seed{seed}" if video else None
    seeds = stream(seed, seeding.PLAY, episodes)
    with seeding.own_randomness(seed, agent.action_space):
        played = play_episodes(agent, recipe.env, seeds, not sampled, path)
        for number, (_, episode_return) in enumerate(played):
            print(f"episode {number}: return {short(episode_return)}")
            if path is not None:
                print(inert(f"  {path}-episode-{number}.mp4"))
    return 0
