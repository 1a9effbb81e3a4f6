"""Wrappers that know of episodes: seeds for their starts, and an unfinished one played again.

An environment cannot be asked for its state (Box2D, MuJoCo and most others keep it where Python
does not see it), but it can be brought there again: put its random generator back to where it was
before the reset, reset, and take the same actions. Whether that worked is checked, not hoped.
"""

import collections
import hashlib
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.monitor import Monitor

LONGEST = 100_000
"""Actions kept of an episode; a longer one is not played again."""

RandomState = dict[str, Any]
"""State of a numpy generator, as JSON can hold it."""


class SeededResets(gymnasium.Wrapper):
    """Gives each reset the next of a list of seeds, so that an episode can be repeated alone."""

    def __init__(self, env: gymnasium.Env, seeds: list[int]) -> None:
        super().__init__(env)
        self.seeds = seeds
        """Of the resets to come."""

    def seed_next_reset(self, seed: int) -> None:
        """Give the next reset this seed."""
        self.seeds[:] = [seed]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is None and self.seeds:
            seed = self.seeds.pop(0)
        return super().reset(seed=seed, options=options)


@dataclass(frozen=True)
class UnfinishedEpisode:
    """An episode up to now: how it began, what was done in it, and what tells that it is the same.

    A copy's process sends it to the parent's, so it holds plain data and arrays only.
    """

    seed: int | None
    """Its reset was given; None: it drew on from the generator."""
    random_state: RandomState | None
    """Of the environment's generator before the reset; None: it had none."""
    actions: np.ndarray
    """(steps, ...), as the environment was given them."""
    rewards: np.ndarray
    """(steps,) float64, as the environment gave them."""
    random_state_now: RandomState | None
    """Of the environment's generator after the last step."""
    observation: str
    """SHA-256 of the last observation."""
    memory: str
    """SHA-256 of the plain attributes of the environment and of the wrappers around it."""


class RepeatableEpisodes(gymnasium.Wrapper):
    """Outermost around one environment: records the episode under way, and plays one again."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self._to_come: list[int] = env.get_wrapper_attr("seeds")  # SeededResets' own
        self._bare = env.unwrapped
        self._resets = 0
        self._keeps_world = False
        self._seed: int | None = None
        self._random_state: RandomState | None = None
        self._actions: list[Any] = []
        self._rewards: list[float] = []
        self._observation: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        world = getattr(self._bare, "world", None)
        self._resets += 1
        self._seed = self._to_come[0] if seed is None and self._to_come else seed
        self._random_state = _random_state(self._bare)
        self._actions, self._rewards = [], []
        self._observation, info = super().reset(seed=seed, options=options)
        # A Box2D world that outlives episodes (BipedalWalker, CarRacing) remembers in which order
        # its bodies came, and nothing shows it.
        self._keeps_world = world is not None and world is getattr(self._bare, "world", None)
        return self._observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if len(self._actions) <= LONGEST:  # an array is copied: the caller's may be written over
            self._actions.append(action if isinstance(action, np.generic) else np.array(action))
        self._observation, reward, terminated, truncated, info = self.env.step(action)
        if len(self._rewards) <= LONGEST:
            self._rewards.append(float(reward))
        return self._observation, reward, terminated, truncated, info

    def unfinished_episode(self) -> UnfinishedEpisode | None:
        """What `play_again` needs; None: none began, it is too long, or it hides what it needs."""
        hidden = self._keeps_world and self._resets > 1
        if self._resets == 0 or hidden or len(self._actions) > LONGEST:
            return None
        return UnfinishedEpisode(
            self._seed, self._random_state, np.array(self._actions), np.array(self._rewards),
            _random_state(self._bare), _digest(self._observation), _digest(_memory(self.env)),
        )  # fmt: skip

    def play_again(self, episode: UnfinishedEpisode) -> bool:
        """Bring the environment to where an episode was; return whether it came to the same.

        It did if every reward, the last observation, the generator's state, and all plain
        attributes of environment and wrappers (running means, counters) are what they were, bit for
        bit. If not, the environment is to be reset.
        """
        self._to_come.clear()
        if episode.seed is None and episode.random_state is not None:
            self._bare.np_random = _generator(episode.random_state)
        self.reset(seed=episode.seed)
        for action, expected in zip(episode.actions, episode.rewards, strict=True):
            _, reward, terminated, truncated, _ = self.step(action)
            if float(reward) != expected or terminated or truncated:
                return False
        return (
            _random_state(self._bare) == episode.random_state_now
            and _digest(self._observation) == episode.observation
            and _digest(_memory(self.env)) == episode.memory
        )

    def last_observation(self) -> Any:
        """What the last reset or step showed."""
        return self._observation


def _random_state(env: gymnasium.Env) -> RandomState | None:
    """State of the generator Gymnasium gives an environment; None if it has drawn nothing."""
    generator = getattr(env, "_np_random", None)
    if not isinstance(generator, np.random.Generator):
        return None
    state = dict(generator.bit_generator.state)
    return state if state["bit_generator"] == "PCG64" else None


def _generator(state: RandomState) -> np.random.Generator:
    bits = np.random.PCG64()
    bits.state = state  # type: ignore[assignment]
    return np.random.Generator(bits)


KEEPERS = (SeededResets, Monitor, OrderEnforcing, PassiveEnvChecker)
"""Wrappers whose memory reaches beyond the episode without changing what comes."""
UNIMPORTANT = ("env", "spec", "_np_random", "_np_random_seed")
PLAIN = (bool, int, float, str, bytes, np.generic, np.ndarray)


def _memory(env: gymnasium.Env) -> dict[str, Any]:
    """The plain attributes of an environment and its wrappers: what can be seen of its memory."""
    found: dict[str, Any] = {}
    depth = 0
    while True:
        if not isinstance(env, KEEPERS):
            for name, value in vars(env).items():
                plain = None if name in UNIMPORTANT else _plain(value)
                if plain is not None:
                    found[f"{depth}/{name}"] = plain
        if not isinstance(env, gymnasium.Wrapper):
            return found
        env, depth = env.env, depth + 1


def _plain(value: Any) -> Any:
    """A value that `_digest` takes; None for what it does not, such as a simulator's objects."""
    if isinstance(value, PLAIN):
        return None if np.asarray(value).dtype.kind == "O" else value
    if isinstance(value, np.random.Generator):
        return str(value.bit_generator.state)
    if isinstance(value, list | tuple | collections.deque):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if all(hasattr(value, name) for name in ("mean", "var", "count")):  # running moments
        return [_plain(value.mean), _plain(value.var), _plain(value.count)]
    return None


def _digest(observation: Any) -> str:
    """SHA-256 over the arrays of an observation, or the like, in a fixed order."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                digest.update(str(key).encode())
                add(value[key])
        elif isinstance(value, tuple | list):
            for part in value:
                add(part)
        elif isinstance(value, str):
            digest.update(value.encode(errors="surrogatepass"))
        elif value is None or isinstance(value, bytes | int) or np.asarray(value).dtype.kind == "O":
            digest.update(repr(value).encode())
        else:
            digest.update(np.ascontiguousarray(value).tobytes())

    add(observation)
    return digest.hexdigest()
