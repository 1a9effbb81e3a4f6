"""Asking the C library to keep freed memory."""

import ctypes
from types import SimpleNamespace

import pytest

from rl_lab.rlhf.allocator import keep_freed_memory


def test_glibc_is_asked_and_another_library_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[int, int] = {}
    libraries = iter([SimpleNamespace(mallopt=asked.__setitem__), SimpleNamespace()])
    monkeypatch.setattr(ctypes, "CDLL", lambda name: next(libraries))
    keep_freed_memory()
    assert asked.keys() == {-1, -3}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
    keep_freed_memory()
