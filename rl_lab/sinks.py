"""Where numbers go besides metrics.jsonl: TensorBoard, trackio, Weights & Biases. All offline."""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rl_lab.errors import UserError
from rl_lab.extras import install_command, installed
from rl_lab.files import writing
from rl_lab.metrics import Sink


@contextmanager
def open_sinks(
    run_path: Path, tensorboard: bool, trackio: bool, wandb: bool
) -> Iterator[tuple[Sink, ...]]:
    """Open the sinks a recipe asks for; at the end each has written all it was given.

    Args:
        run_path: the run's directory: its name becomes the run's name in the sink.
        tensorboard: write event files into `run_path/tensorboard`.
        trackio: log to trackio's local database, project `rl-lab`.
        wandb: log to Weights & Biases, offline (into `run_path/wandb`) unless WANDB_MODE is set.

    Raises:
        UserError: an extra is missing.
    """
    check_installed(tensorboard, trackio, wandb)
    with ExitStack() as sinks:
        wanted = ((tensorboard, _tensorboard), (trackio, _trackio), (wandb, _wandb))
        yield tuple(sinks.enter_context(sink(run_path)) for on, sink in wanted if on)


def check_installed(tensorboard: bool, trackio: bool, wandb: bool) -> None:
    """Refuse a sink whose package is missing.

    Raises:
        UserError: naming the extra and the command that installs it.
    """
    wanted = {"tensorboard": tensorboard, "trackio": trackio, "wandb": wandb}
    for name, on in wanted.items():
        if on and not installed(name):
            raise UserError(f"logging.{name} needs the extra {name!r}: {install_command(name)}")


@contextmanager
def _tensorboard(run_path: Path) -> Iterator[Sink]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run_path / "tensorboard"))

    def write(step: int, numbers: Mapping[str, float]) -> None:
        with writing(run_path / "tensorboard"):
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)
            writer.flush()

    with writer:
        yield write


@contextmanager
def _trackio(run_path: Path) -> Iterator[Sink]:
    import trackio

    trackio_run = trackio.init(project="rl-lab", name=run_path.name, embed=False)

    def write(step: int, numbers: Mapping[str, float]) -> None:
        trackio_run.log(dict(numbers), step=step)

    try:
        yield write
    finally:
        trackio.finish()  # a thread of its own writes: wait for it


@contextmanager
def _wandb(run_path: Path) -> Iterator[Sink]:
    import wandb

    wandb_run = wandb.init(
        project="rl-lab",
        name=run_path.name,
        dir=str(run_path),
        mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
        settings=wandb.Settings(silent=True, console="off"),
    )

    def write(step: int, numbers: Mapping[str, float]) -> None:
        wandb_run.log(dict(numbers), step=step)

    try:
        yield write
    except BaseException:
        wandb_run.finish(exit_code=1)  # as a context manager it would print the traceback too
        raise
    wandb_run.finish()
