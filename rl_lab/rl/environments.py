"""Environments as the algorithms see them: made, wrapped, seeded, normalised, checked, timed.

From the inside out, each copy is

    gymnasium.make -> SeededResets -> the recipe's wrappers -> Monitor -> RepeatableEpisodes
                   -> Supervised, where failures are to be told or mended

and the copies together

    SerialVecEnv or SubprocVecEnv
        -> WatchedVecEnv -> RunningNormalization -> VecFrameStack -> channels first

Or there are no single copies, but one vector environment: VectorAdapter -> WatchedVecEnv -> ...

Scores are counted by Monitor, so they are raw: normalisation comes after it. AtariWrapper, whose
clipped rewards and lost lives are for learning only, goes around Monitor instead of inside it.
"""

import importlib
import importlib.util
import inspect
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import (
    SubprocVecEnv,
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from rl_lab.errors import UserError, nearest
from rl_lab.extras import EXTRAS, install_command, installed
from rl_lab.health import Health
from rl_lab.phases import PhaseClock
from rl_lab.provenance import ROOT
from rl_lab.rl import trust, vectorized
from rl_lab.rl.episodes import RepeatableEpisodes, SeededResets
from rl_lab.rl.recipe import Environment, Normalization
from rl_lab.rl.running_normalization import RunningNormalization
from rl_lab.rl.serial_vec_env import SerialVecEnv
from rl_lab.rl.supervision import Supervised
from rl_lab.rl.vector_adapter import VectorAdapter
from rl_lab.rl.watched_vec_env import WatchedVecEnv

# Packages that register environments when imported, by the ids they are known for. Without the
# user's trust only these are imported: an id such as `module:Name-v0` could name any module.
PACKAGES_BY_ID: dict[str, tuple[str, str | None]] = {
    "RLLab/": ("envs", None),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
    "ALE/": ("ale_py", "atari"),
    "NoFrameskip-": ("ale_py", "atari"),
}

# Wrappers that are not Gymnasium's own, by the name a recipe gives them.
WRAPPERS: dict[str, str] = {
    "AtariWrapper": "stable_baselines3.common.atari_wrappers:AtariWrapper",
    "ImgObsWrapper": "minigrid.wrappers:ImgObsWrapper",
    "FlatObsWrapper": "minigrid.wrappers:FlatObsWrapper",
    "FullyObsWrapper": "minigrid.wrappers:FullyObsWrapper",
    "RGBImgPartialObsWrapper": "minigrid.wrappers:RGBImgPartialObsWrapper",
}

MakeEnv = Callable[[], gymnasium.Env]

# All copies as one environment, by `env.vectorization`.
VECTORIZATIONS = {"vector": vectorized.in_arrays, "envpool": vectorized.pooled}


# --- one environment -----------------------------------------------------------------------------


def check_id(written: str) -> str:
    """Import the package that registers an environment and see that it does.

    Args:
        written: `Id` or `module:Id`.

    Returns:
        The id alone.

    Raises:
        UserError: the id is unknown, its package is missing, or its module is not to be imported.
    """
    module, colon, environment_id = written.rpartition(":")
    if colon:
        _import_named(module, written)
    for mark, (package, extra) in PACKAGES_BY_ID.items():
        if mark in environment_id:
            if extra is not None and not installed(extra):
                raise UserError(_missing(environment_id, extra))
            _import(package)
    if environment_id not in gymnasium.registry:
        _import("envs")
        raise UserError(
            f"env.id = {environment_id!r}: no such environment"
            + nearest(environment_id, gymnasium.registry)
        )
    return environment_id


def _import_named(module: str, written: str) -> None:
    """Import the module an id names: a package the lab knows, or one the user trusts."""
    extras = dict(PACKAGES_BY_ID.values())
    if module not in extras and module not in trust.granted():
        raise UserError(
            f"env.id = {written!r} would import the module {module!r}, and importing a module runs "
            f"its code; if you know it, `rl-lab train`, `evaluate` and `play` take --trust {module}"
        )
    extra = extras.get(module)
    if extra is not None and not installed(extra):
        raise UserError(_missing(written, extra))
    try:
        _import(module)
    except ImportError as error:
        raise UserError(f"env.id = {written!r}: {module!r} cannot be imported: {error}") from None


def _import(package: str) -> None:
    found = importlib.util.find_spec(package)
    location = Path((found and found.origin) or "nowhere").resolve()
    if package == "envs" and not location.is_relative_to(ROOT):  # before any of it is run
        raise UserError(
            f"the package `envs` found at {location.parent} is not the lab's; install the lab into "
            "a virtual environment of its own, and run it outside folders that hold an `envs`"
        )
    importlib.import_module(package)


def _missing(environment_id: str, extra: str) -> str:
    return (
        f"env.id = {environment_id!r} needs the extra {extra!r} ({EXTRAS[extra].purpose}): "
        f"{install_command(extra)}"
    )


def make(
    environment: Environment,
    seeds: list[int] | None = None,
    render_mode: str | None = None,
    record: Callable[[gymnasium.Env], gymnasium.Env] | None = None,
) -> gymnasium.Env:
    """Make one wrapped environment.

    Args:
        environment: the recipe's section.
        seeds: seeds of its first resets, in order; later ones draw on from the last.
        render_mode: None, `"human"` or `"rgb_array"`.
        record: a wrapper put directly around the bare environment.

    Raises:
        UserError: the id, an argument or a wrapper is wrong, or an extra is missing.
    """
    environment_id = check_id(environment.id)
    # Environments that draw nothing need not take a render_mode.
    rendering: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
    try:
        env = gymnasium.make(environment_id, **rendering, **environment.kwargs)
    except gymnasium.error.DependencyNotInstalled as error:
        entry_point = str(gymnasium.spec(environment_id).entry_point)
        for extra, mark in (("box2d", "box2d"), ("mujoco", "mujoco"), ("atari", "ale")):
            if mark in entry_point:
                raise UserError(_missing(environment.id, extra)) from None
        raise UserError(f"env.id = {environment.id!r} lacks a package: {error}") from None
    except (TypeError, ValueError, gymnasium.error.Error) as error:
        given = f" with env.kwargs {environment.kwargs}" if environment.kwargs else ""
        raise UserError(f"env.id = {environment.id!r} cannot be made{given}: {error}") from None
    if record is not None:
        env = record(env)
    env = SeededResets(env, list(seeds or []))
    wrappers = [wrapper(written) for written in environment.wrappers]
    for name, wrap in wrappers:
        if name == "AtariWrapper":
            env = Monitor(env)
        try:
            env = wrap(env)
        except (TypeError, ValueError, AssertionError, AttributeError, MemoryError) as error:
            raise UserError(f"env.wrappers: {name} cannot wrap {environment.id}: {error}") from None
    if not any(name == "AtariWrapper" for name, _ in wrappers):
        env = Monitor(env)
    return RepeatableEpisodes(env)


def wrapper(written: str | dict[str, dict[str, Any]]) -> tuple[str, Callable[..., gymnasium.Env]]:
    """Find a wrapper by the name a recipe gives it, its arguments checked and filled in.

    Raises:
        UserError: no such wrapper, or an argument it does not take.
    """
    if isinstance(written, dict) and len(written) != 1:
        raise UserError(f"env.wrappers: {written!r} should be one {{name: {{argument: value}}}}")
    name, arguments = (written, {}) if isinstance(written, str) else next(iter(written.items()))
    own = {
        key: value
        for key, value in vars(gymnasium.wrappers).items()
        if inspect.isclass(value) and issubclass(value, gymnasium.Wrapper)
    }
    if name in WRAPPERS:
        module, _, attribute = WRAPPERS[name].partition(":")
        if module.startswith("minigrid") and not installed("minigrid"):
            raise UserError(
                f"env.wrappers: {name} needs the extra 'minigrid': {install_command('minigrid')}"
            )
        wrapper_class = getattr(importlib.import_module(module), attribute)
    elif name in own:
        wrapper_class = own[name]
        if name == "RecordVideo":  # it writes wherever it is told, and --dry-run writes nothing
            raise UserError("env.wrappers: RecordVideo is not taken; see `rl-lab play --video`")
        if "func" in inspect.signature(wrapper_class.__init__).parameters:
            raise UserError(f"env.wrappers: {name} needs a function, which no recipe can give")
    else:
        raise UserError(f"env.wrappers: no wrapper {name!r}{nearest(name, [*WRAPPERS, *own])}")
    known = list(inspect.signature(wrapper_class.__init__).parameters)[2:]
    for argument in arguments:
        if argument not in known:
            raise UserError(
                f"env.wrappers: {name} takes no {argument!r}"
                f"{nearest(argument, known) or '; it takes ' + (', '.join(known) or 'none')}"
            )
    return name, partial(wrapper_class, **arguments)


# --- many environments ---------------------------------------------------------------------------


def make_vector(
    environment: Environment,
    seeds: list[list[int]],
    clock: PhaseClock | None = None,
    vectorization: str = "dummy",
    health: Health | None = None,
) -> VecEnv:
    """Make copies that step together; normalisation is `normalize`'s.

    Args:
        environment: the recipe's section.
        seeds: for each copy, the seeds of its first resets; its length is the number of copies.
        clock: told when time is spent in the environment.
        vectorization: `env.vectorization`, where the agent learns; where it is judged, `"dummy"`.
        health: what to do about a NaN; None: stop.

    Raises:
        UserError: as `make`, or a key does not go with the vectorization.
    """
    vector = _vector(environment, seeds, vectorization)
    return WatchedVecEnv(vector, clock or PhaseClock("policy"), health, environment.restarts)


def _vector(environment: Environment, seeds: list[list[int]], vectorization: str) -> VecEnv:
    if vectorization in VECTORIZATIONS:
        _import("envs")  # some of Gymnasium's are vectorised there
        make_copies = VECTORIZATIONS[vectorization]
        env = make_copies(environment, check_id(environment.id), len(seeds))
        return VectorAdapter(env, seed=next(iter(seeds[0]), None))
    supervised = vectorization == "subproc" or environment.restarts or environment.timeout
    make_copy = partial(_supervised, environment) if supervised else partial(make, environment)
    makers: list[MakeEnv] = [partial(make_copy, own) for own in seeds]
    if vectorization == "subproc":
        make(environment).close()  # errors of the user's are raised here, not in a child
        return SubprocVecEnv([partial(_undisturbed, maker) for maker in makers])
    return SerialVecEnv(makers)


def _supervised(environment: Environment, seeds: list[int]) -> gymnasium.Env:
    """Make a copy whose failures are told, and that a new one may take the place of."""
    return Supervised(partial(make, environment), seeds, environment.timeout)


def _undisturbed(maker: MakeEnv) -> gymnasium.Env:
    """Make an environment in a process that leaves Ctrl-C, which reaches it too, to its parent."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return maker()


def normalize(vector: VecEnv, normalization: Normalization, gamma: float) -> VecNormalize:
    """Add running normalisation; rewards use the algorithm's own discount.

    Raises:
        UserError: the observations are of a kind that cannot be normalised.
    """
    try:
        return RunningNormalization(
            vector,
            norm_obs=normalization.observations,
            norm_reward=normalization.rewards,
            clip_obs=normalization.clip_observation,
            clip_reward=normalization.clip_reward,
            gamma=gamma,
        )
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"env.normalize: {error}") from None


def stack_and_transpose(vector: VecEnv, frame_stack: int) -> VecEnv:
    """Stack frames and put image channels first, as SB3's CNN policies read them."""
    if frame_stack > 1:
        if not isinstance(vector.observation_space, spaces.Box | spaces.Dict):
            raise UserError(
                f"env.frame_stack: {vector.observation_space} cannot be stacked, only Box and Dict"
            )
        vector = VecFrameStack(vector, n_stack=frame_stack)
    space = vector.observation_space
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    if any(
        isinstance(part, spaces.Box)
        and is_image_space(part)
        and not is_image_space_channels_first(part)
        for part in parts
    ):
        vector = VecTransposeImage(vector)
    return vector
