"""The command line: `rl-lab COMMAND`. Parses and hands over.

Commands are registered by import path and imported only when run, so `--help` needs neither torch
nor gymnasium. Whatever a user got wrong arrives here as a `UserError` (or one of cyclopts' own
errors) and leaves as one sentence and exit code 2; a disk that is full or cannot be written, as one
sentence and exit code 1; everything else is a bug and shows a traceback.
"""

import os
import sys

from cyclopts import App, CycloptsError

from rl_lab import __version__
from rl_lab.errors import UserError
from rl_lab.files import StorageError
from rl_lab.text import inert

app = App(
    name="rl-lab",
    help="One lab for learning from reward: train, judge and watch, from the command line.",
    version=__version__,
    help_format="plaintext",
    result_action="return_value",
)

app.command(
    "rl_lab.commands.train:train",
    name="train",
    help="Train from a recipe: an agent, or a language model through RLHF.",
)
app.command(
    "rl_lab.commands.evaluate:evaluate", name="evaluate", help="Judge trained runs on fresh seeds."
)
app.command(
    "rl_lab.commands.runs:runs", name="runs", help="List the runs: state, step, best return, age."
)
app.command(
    "rl_lab.commands.recipes:recipes",
    name="recipes",
    help="List the built-in recipes, or show one.",
)
app.command(
    "rl_lab.commands.watch:watch", name="watch", help="Show runs live: running, finished or dead."
)
app.command(
    "rl_lab.commands.play:play",
    name="play",
    help="See a trained agent act, in a window or as a video.",
)
app.command(
    "rl_lab.commands.report:report",
    name="report",
    help="Write the report of runs, groups or a suite: one HTML page, and JSON.",
)
app.command(
    "rl_lab.commands.compare:compare_groups",
    name="compare",
    help="Say whether groups of runs differ, or that it cannot be told.",
)
app.command(
    "rl_lab.commands.benchmark:benchmark",
    name="benchmark",
    help="Train and judge a suite of recipes, several seeds each.",
)
app.command(
    "rl_lab.commands.sweep:sweep",
    name="sweep",
    help="Search better values for some keys of a recipe.",
)
app.command(
    "rl_lab.commands.reproduce:reproduce",
    name="reproduce",
    help="Train a run's recipe again, and say whether it came to the same.",
)
app.command(
    "rl_lab.commands.export:export",
    name="export",
    help="Write tables of runs (Parquet, CSV), or an agent (zip of SB3, ONNX).",
)
app.command(
    "rl_lab.commands.import_:import_",
    name="import",
    help="Make a run of an agent that Stable-Baselines3 saved.",
)
app.command(
    "rl_lab.commands.doctor:doctor", name="doctor", help="Check this installation and machine."
)
data = App(name="data", help="Look at files of preferences, prompts or texts.")
data.command(
    "rl_lab.commands.data:check",
    name="check",
    help="Report what is in a file, what would be dropped, and why.",
)
app.command(data)
app.register_install_completion_command(name="install-completion")


def main(tokens: list[str] | None = None) -> None:
    """Run the command line (`sys.argv` if no tokens are given); ends the process."""
    try:
        code = app(tokens, exit_on_error=False, print_error=False)
    except (UserError, CycloptsError) as error:
        print(f"rl-lab: {_one_line(str(error))}", file=sys.stderr)
        code = 2
    except StorageError as error:  # a full disk is no mistake of who typed the command
        print(f"rl-lab: {inert(error)}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `rl-lab runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code or 0)


def _one_line(message: str) -> str:
    """The message, inert and on one line; of one that quotes very much, the two ends."""
    line = inert(" ".join(message.split()))
    return line if len(line) <= 1000 else f"{line[:600]} ... {line[-300:]}"


if __name__ == "__main__":
    main()
