"""Some hundred wild inputs for everything the lab reads; `scripts/fuzz` tries many more."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.fuzz_targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=100, suppress_health_check=list(HealthCheck), print_blob=True, derandomize=True
)
@given(data=st.data())
def test_nothing_that_is_read_is_a_traceback(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    directory = Path(tempfile.mkdtemp())
    try:
        target.read(data.draw(target.wild), directory)
    finally:
        shutil.rmtree(directory)
