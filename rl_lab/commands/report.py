"""`rl-lab report`: one run, or one experiment, as a page."""

from rl_lab.run import Run
from rl_lab.text import inert


def report(run: str, /) -> int:
    """Write the report of a run or experiment: a self-contained HTML page in its directory.

    Parameters
    ----------
    run
        Name or directory.
    """
    from rl_lab.report import write_report

    print(inert(write_report(Run.open(run))))
    return 0
