"""What a run does when it meets what is no number, and how it says that something looks wrong."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from rl_lab.metric_sample import MetricSample
from rl_lab.metrics import MetricLog, Record
from rl_lab.recipe_types import Positive
from rl_lab.recipes import Section


class Health(Section):
    """What is done about a NaN or an infinity, which nothing is ever learned from."""

    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """stop: the run fails; skip: what it came with is left out; rollback: the run goes on from its
    newest snapshot, along another way and with a lower learning rate."""
    times: Positive = 3
    """Skips, or rollbacks, after which the run stops all the same."""
    rollback_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What the learning rate is multiplied by at each rollback."""


class Alerts:
    """Writes an `alert` event when something begins to look wrong, once until it has passed."""

    def __init__(self, log: MetricLog, judge: Callable[[list[Record]], dict[str, str]]) -> None:
        """Keep where to look and to write.

        Args:
            log: is read and written.
            judge: from a run's newest lines to sentences about what looks wrong, by what each is
                about.
        """
        self._log, self._judge = log, judge
        self._reader = MetricSample(log.path)
        self._known: set[str] = set()

    def look(self, step: int) -> None:
        """Read what is new, and tell of what was not so at the last look."""
        found = self._judge(self._reader.read().recent)
        for subject in found.keys() - self._known:
            self._log.event(step, "alert", found[subject], "warning")
        self._known = set(found)
