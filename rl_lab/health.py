"""What is done about NaN and infinity. No torch here: listing recipes stays quick."""

from typing import Annotated, Literal

from pydantic import Field

from rl_lab.recipe_types import Positive
from rl_lab.recipes import Section


class Health(Section):
    """What happens when a loss, a gradient or a reward is NaN or infinite."""

    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """stop: the run fails; skip: what would have been learned from it is left out; rollback: back
    to the last snapshot, and on from there at a lower learning rate."""
    times: Positive = 3
    """Skips or rollbacks of a run; at the next one it stops all the same."""
    rollback_rate: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor on the learning rate after a rollback."""
