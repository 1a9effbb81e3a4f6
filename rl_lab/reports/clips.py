"""Which judged episodes of a group of agents are worth seeing, and the videos made of them.

An episode is known by its seed: played again by the same agent, it comes to the same return, and
the video is of the episode that was judged. Where it does not, that is said.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rl_lab.files import write_json
from rl_lab.language_evaluation import number
from rl_lab.plain_json import read_object
from rl_lab.run import Run


@dataclass(frozen=True)
class Clip:
    """One judged episode to be seen."""

    what: str
    """`best`, `median` or `worst`: of all judged episodes of the group."""
    run: Run
    model: str
    """Which of the run's models was judged: `best` or `last`."""
    step: int
    """At which that model was saved."""
    seed: int
    """Of the episode."""
    judged: float
    """Its return when it was judged."""

    @property
    def path(self) -> Path:
        """Of the video, without what `rl_lab.rl.play` adds to its name."""
        return self.run.videos / f"judged-{self.model}-seed{self.seed}"

    @property
    def video(self) -> Path:
        """The video."""
        return self.path.with_name(f"{self.path.name}-episode-0.mp4")

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".json")

    def played(self, episode_return: float) -> None:
        """Write down what the episode came to when it was played again.

        Raises:
            StorageError: it cannot be written.
        """
        note = {"step": self.step, "seed": self.seed, "return": episode_return}
        write_json(self._note, note)

    def described(self) -> dict[str, Any] | None:
        """The clip as plain data; None where there is no video of this model's episode.

        `played` is the return it came to when it was recorded, `same` whether that is the judged.
        """
        note = read_object(self._note)
        again = number(note.get("return"))
        if again is None or note.get("step") != self.step or not self.video.is_file():
            return None
        said = asdict(self) | {"run": self.run.name, "video": str(self.video)}
        return said | {"played": again, "same": again == self.judged}


def choose(judged: Sequence[tuple[Run, dict[str, Any]]]) -> list[Clip]:
    """The best, the median and the worst episode of agents that were judged on the same task.

    Args:
        judged: runs, each with its result of greedy actions as `rl-lab evaluate` wrote it (sampled
            ones would not be the same when played again); the file may be damaged.
    """
    found: list[Clip] = []
    for run, result in judged:
        step, model, episodes = result.get("step"), result.get("model"), result.get("episodes")
        if model not in ("best", "last") or not isinstance(step, int):
            continue
        for episode in episodes if isinstance(episodes, list) else ():
            seed = episode.get("seed") if isinstance(episode, dict) else None
            come_to = number(episode.get("episode_return")) if isinstance(episode, dict) else None
            if isinstance(seed, int) and 0 <= seed < 2**31 and come_to is not None:
                found.append(Clip("", run, model, step, seed, come_to))
    if not found:
        return []
    found.sort(key=lambda clip: clip.judged, reverse=True)
    places = {"best": 0, "median": len(found) // 2, "worst": len(found) - 1}
    return [
        Clip(what, clip.run, clip.model, clip.step, clip.seed, clip.judged)
        for what, clip in ((what, found[place]) for what, place in places.items())
    ]
