"""A little of `scripts/chaos`: runs ended at random moments lose nothing, damage is noticed."""

import random
from pathlib import Path

import pytest

from rl_lab import checkpoint
from tests import chaos, chaos_subjects


@pytest.mark.parametrize("name", ["ppo", "dqn", "language"])
def test_what_is_ended_at_random_moments_ends_as_if_nobody_had(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RL_LAB_CACHE", str(tmp_path / "cache"))
    subjects = [*chaos_subjects.agents(), chaos_subjects.language(tmp_path)]
    (subject,) = (one for one in subjects if one.name == name)
    draw = random.Random(0)
    reference = chaos.undisturbed(subject)
    for end, times in ((chaos.kill, 3), (chaos.terminate, 1), (chaos.interrupt_twice, 1)):
        *_, found = chaos.disturb(subject, end, times, reference, draw)
        assert found.ended >= times
        assert found.unreadable == 0
        assert found.most_lost <= subject.interval
        assert found.finished >= 1
        assert not found.different


def test_every_damage_to_a_snapshot_is_noticed(tmp_path: Path) -> None:
    (subject,) = (one for one in chaos_subjects.agents() if one.name == "dqn")
    run, _ = chaos.undisturbed(subject)
    newest = checkpoint.directories(run.checkpoints)[-1]
    noticed = list(chaos.damage_each_file(newest, random.Random(0)))
    assert len(noticed) == 3 * len(list(newest.iterdir()))
    assert [where for *where, seen in noticed if not seen] == []
    checkpoint.verify(newest)  # mended again
