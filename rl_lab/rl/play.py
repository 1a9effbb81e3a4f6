"""Watching an agent act: in a window, or in video files."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import gymnasium
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from rl_lab.errors import UserError
from rl_lab.phases import PhaseClock
from rl_lab.rl import environments
from rl_lab.rl.evaluate import act, frozen_like
from rl_lab.rl.recipe import Environment
from rl_lab.rl.watched_vec_env import WatchedVecEnv


def play(
    model: BaseAlgorithm,
    environment: Environment,
    seeds: list[int],
    deterministic: bool,
    video: Path | None,
) -> Iterator[tuple[int, float]]:
    """Play one episode from each seed, shown in a window or recorded.

    Args:
        model: the agent.
        environment: where it acts.
        seeds: of the episodes, played one after the other.
        deterministic: greedy actions, or sampled ones.
        video: where to record, as a path that `-episode-N.mp4` is added to; None: a window.

    Yields:
        The seed and raw return of each episode as it ends.

    Raises:
        UserError: there is no display, or the environment cannot draw itself.
    """
    render_mode = "human" if video is None else "rgb_array"
    record = None
    if video is None:
        _check_display()
    else:
        # Drawing to memory needs no display; without this SDL looks for one, and complains.
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
        record = _recorder(video, len(seeds))
    make = partial(environments.make, environment, seeds, render_mode, record)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RecordVideo's remark that the folder exists
        vector: VecEnv = WatchedVecEnv(DummyVecEnv([make]), PhaseClock("policy"))
    if render_mode not in vector.get_attr("metadata")[0].get("render_modes", []):
        vector.close()
        raise UserError(f"{environment.id} cannot draw itself as {render_mode}")
    vector = frozen_like(model, vector, environment.frame_stack)
    try:
        observations, states, starts = vector.reset(), None, np.ones(1, dtype=bool)
        for seed in seeds:
            ended = False
            while not ended:
                actions, states = act(model, vector, observations, states, starts, deterministic)
                observations, _, starts, infos = vector.step(actions)
                if "episode" in infos[0]:
                    ended = True
                    yield seed, float(infos[0]["episode"]["r"])
    finally:
        vector.close()


def _recorder(video: Path, episodes: int) -> Callable[[gymnasium.Env], gymnasium.Env]:
    return partial(
        gymnasium.wrappers.RecordVideo,
        video_folder=str(video.parent),
        name_prefix=video.name,
        episode_trigger=lambda episode: episode < episodes,
        disable_logger=True,
    )


def _check_display() -> None:
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in displays):
        raise UserError("there is no display to open a window on; use --video to record instead")
