"""NaN and infinity in PPO: caught before anything is learned from them."""

from typing import TYPE_CHECKING

from torch import Tensor

from rl_lab.errors import UserError
from rl_lab.health import Health

if TYPE_CHECKING:
    from rl_lab.rlhf.train_ppo import Progress


class NotFiniteError(FloatingPointError):
    """A number that would have been learned from is NaN or infinite; nothing was."""

    def __init__(self, source: str, message: str) -> None:
        """Say so.

        Args:
            source: what is not finite: `loss`, `gradient`, `value`, `reward 'name'`, ...
            message: the sentence.
        """
        super().__init__(message)
        self.source = source


class RewardNotFiniteError(UserError, NotFiniteError):
    """A term of the reward is NaN or infinite, which is its author's to mend."""


def check(source: str, numbers: Tensor) -> None:
    """Refuse numbers of a rollout that cannot be learned from.

    Args:
        source: what they are.
        numbers: (B, ...), of B responses.

    Raises:
        NotFiniteError: one is NaN or infinite.
    """
    bad = ~numbers.isfinite().flatten(1).all(1)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise NotFiniteError(
            source, f"the {source} of response {row + 1} of {len(bad)} is NaN or infinite; "
            "nothing was learned from it",
        )  # fmt: skip


def forgive(error: NotFiniteError, health: Health, progress: "Progress") -> str:
    """Count a NaN that the run may go on from.

    Returns:
        Which of how many it is.

    Raises:
        FloatingPointError: the run is to stop at one (the error itself), or there were too many.
    """
    if health.on_nan == "stop":
        raise error
    if progress.forgiven == health.times:
        raise FloatingPointError(
            f"{error}; ppo.health.on_nan {health.on_nan} went on {health.times} times before"
        ) from error
    progress.forgiven += 1
    return f"{progress.forgiven} of {health.times}"
