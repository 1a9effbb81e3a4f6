"""Optional parts: what each is for, how to see that it is there, and how to get it."""

import importlib.util
from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    module: str
    """Top-level module that is there when the extra is installed."""
    purpose: str


EXTRAS = {
    "box2d": Extra("Box2D", "LunarLander and BipedalWalker"),
    "mujoco": Extra("mujoco", "HalfCheetah, Hopper, Walker2d, Ant and the other MuJoCo tasks"),
    "minigrid": Extra("minigrid", "MiniGrid and BabyAI"),
    "atari": Extra("ale_py", "Atari games"),
    "envpool": Extra("envpool", "env.vectorization envpool"),
    "tensorboard": Extra("tensorboard", "logging.tensorboard"),
    "trackio": Extra("trackio", "logging.trackio"),
    "wandb": Extra("wandb", "logging.wandb"),
    "onnx": Extra("onnxscript", "export --format onnx"),
    "ray": Extra("ray", "benchmark --engine ray"),
    "slurm": Extra("submitit", "benchmark --engine slurm"),
}


def installed(name: str) -> bool:
    """Whether the extra's module can be imported (it is not imported to find out)."""
    return importlib.util.find_spec(EXTRAS[name].module) is not None


def install_command(name: str) -> str:
    """The command that installs an extra at the pinned versions."""
    return f"pip install -e '.[{name}]' -c constraints.txt"
