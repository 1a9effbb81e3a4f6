"""Files and directories are there whole or not at all."""

from pathlib import Path

import pytest

from rl_lab.files import whole_directory


def test_a_directory_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "models" / "one"
    with pytest.raises(KeyboardInterrupt), whole_directory(path) as directory:
        (directory / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert not path.exists()
    for content in ("whole", "another"):
        with whole_directory(path) as directory:
            (directory / "inner").mkdir()
            (directory / "inner" / "file.txt").write_text(content)
            assert not (path / "inner" / "file.txt").exists() or content == "another"
        assert (path / "inner" / "file.txt").read_text() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["one"]
    assert [entry.name for entry in path.iterdir()] == ["inner"]
