"""The command line, asked for something it must refuse."""

import unicodedata
from collections.abc import Callable

import pytest

from rl_lab import cli

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run `rl-lab` in this process, see it refuse in one inert sentence with code 2; return it."""

    def run(*tokens: str) -> str:
        with pytest.raises(SystemExit) as ending:
            cli.main(list(tokens))
        output, error = capsys.readouterr()
        assert ending.value.code == 2, error
        assert output == ""
        assert error.startswith("rl-lab: ")
        assert error.count("\n") == 1
        assert len(error) < 2000
        assert not any(unicodedata.category(mark) in {"Cc", "Cf", "Cs"} for mark in error[:-1])
        return error

    return run
