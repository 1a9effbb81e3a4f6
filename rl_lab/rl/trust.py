"""Which modules an environment id may import: `module:Id` runs the module's code.

A recipe or a run directory may be somebody else's, so neither can give this trust: only the person
at the command line can, with `--trust MODULE`, anew for each command. The word is kept in an
environment variable because environments are also made in child processes.
"""

import os
from collections.abc import Sequence

from rl_lab.errors import UserError

VARIABLE = "RL_LAB_TRUST"


def grant(modules: Sequence[str]) -> None:
    """Trust exactly these modules from here on, in this process and its children.

    Args:
        modules: as given to `--trust`: names, or several with commas between them.

    Raises:
        UserError: one is no name of a module.
    """
    names = [name.strip() for given in modules for name in given.split(",")]
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"--trust {name!r}: should be the name of a Python module")
    os.environ[VARIABLE] = ",".join(names)


def granted() -> list[str]:
    """The modules that are trusted."""
    return [name for name in os.environ.get(VARIABLE, "").split(",") if name]
