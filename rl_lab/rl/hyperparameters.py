"""From a recipe's plain data to the keyword arguments of an SB3 algorithm, checked on the way.

A hyperparameter is whatever the algorithm's constructor takes; its name and type are checked
against that signature, so the lab knows the options of the SB3 that is installed, not of one it
was written for. What data cannot say directly is said so:

    learning_rate: {schedule: linear, start: 3e-4}     any argument that SB3 takes as a function
    action_noise: {normal: 0.1}                        or {ornstein_uhlenbeck: 0.5}: the sigma
    policy_kwargs: {net_arch: [64, 64], activation_fn: relu}
"""

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from stable_baselines3.common.noise import (
    ActionNoise,
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
)
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN

from rl_lab.errors import UserError, nearest
from rl_lab.rl.algorithms import AlgorithmClass, algorithm_class
from rl_lab.rl.recipe import Algorithm
from rl_lab.rl.schedules import Schedule

# Arguments the lab sets itself, from other keys of the recipe or not at all.
MANAGED = {
    "self", "policy", "env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model",
    "replay_buffer_class", "rollout_buffer_class",
}  # fmt: skip

# (lowest, highest) allowed where SB3's type says less than the method does; None: no bound.
RANGES: dict[str, tuple[float | None, float | None]] = {
    "gamma": (0, 1),
    "gae_lambda": (0, 1),
    "tau": (0, 1),
    "learning_rate": (0, None),
    "clip_range": (0, None),
    "clip_range_vf": (0, None),
    "max_grad_norm": (0, None),
    "target_kl": (0, None),
    "delta_std": (0, None),
    "exploration_fraction": (0, 1),
    "exploration_initial_eps": (0, 1),
    "exploration_final_eps": (0, 1),
    "learning_starts": (0, None),
    "stats_window_size": (1, None),
    "n_epochs": (1, None),
    "n_steps": (1, None),
    "batch_size": (1, None),
    "buffer_size": (1, None),
    "n_delta": (1, None),
    "n_top": (1, None),
    "policy_delay": (1, None),
    "target_update_interval": (1, None),
    "top_quantiles_to_drop_per_net": (0, None),
}

# Classes among policy_kwargs, by the name a recipe gives them.
POLICY_CLASSES: dict[str, dict[str, type]] = {
    "activation_fn": {
        "tanh": torch.nn.Tanh,
        "relu": torch.nn.ReLU,
        "leaky_relu": torch.nn.LeakyReLU,
        "elu": torch.nn.ELU,
        "gelu": torch.nn.GELU,
        "silu": torch.nn.SiLU,
    },
    "optimizer_class": {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "rmsprop_tf_like": RMSpropTFLike,
    },
    "features_extractor_class": {
        "flatten": FlattenExtractor,
        "nature_cnn": NatureCNN,
        "combined": CombinedExtractor,
    },
}

ACTION_NOISES: dict[str, type[ActionNoise]] = {
    "normal": NormalActionNoise,
    "ornstein_uhlenbeck": OrnsteinUhlenbeckActionNoise,
}


def resolve(algorithm: Algorithm, budget: int) -> dict[str, Any]:
    """Check a recipe's hyperparameters and turn them into keyword arguments.

    Args:
        algorithm: the recipe's section.
        budget: environment steps, which schedules without `over` follow.

    Returns:
        Arguments for the algorithm's class. `action_noise`, if given, is a function from the
        action space's shape to the noise, for that shape is known only with the environment.

    Raises:
        UserError: an unknown algorithm, hyperparameter or name; a wrong type or range.
    """
    sb3_class = algorithm_class(algorithm.name)
    known = {
        name: parameter
        for name, parameter in inspect.signature(sb3_class.__init__).parameters.items()
        if name not in MANAGED
    }
    arguments: dict[str, Any] = {}
    for name, value in algorithm.hyperparameters.items():
        if name not in known:
            hint = nearest(name, [*known, *Algorithm.model_fields])
            raise UserError(
                f"unknown key {f'algorithm.{name}'!r}: {sb3_class.__name__} has no such "
                f"hyperparameter{hint}"
            )
        arguments[name] = _argument(sb3_class, name, value, known[name].annotation, budget)
    if (
        algorithm.hindsight is not None
        and "replay_buffer_class" not in inspect.signature(sb3_class.__init__).parameters
    ):
        raise UserError(
            f"algorithm.hindsight: {sb3_class.__name__} has no replay buffer to relabel; "
            "hindsight goes with dqn, qrdqn, sac, td3, ddpg, tqc or crossq"
        )
    return arguments


def _argument(
    sb3_class: AlgorithmClass, name: str, value: Any, annotation: Any, budget: int
) -> Any:
    key = f"algorithm.{name}"
    takes_function = "Callable" in str(annotation)
    if takes_function and isinstance(value, Mapping):
        return _schedule(key, value, budget)
    if name == "action_noise" and value is not None:
        return _action_noise(key, value)
    if name == "policy_kwargs":
        return _policy_arguments(sb3_class, key, value)
    adapter: TypeAdapter[Any] = TypeAdapter(
        annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False)
    )
    try:
        checked = adapter.validate_python(value)
    except ValidationError:
        raise UserError(f"{key} = {value!r}: should be {_describe(annotation)}") from None
    if isinstance(checked, int | float) and not isinstance(checked, bool):
        _check_range(key, checked, *RANGES.get(name, (None, None)))
    return checked


def _describe(annotation: Any) -> str:
    """Say a type as a recipe would: `float | Callable` is "a number or a schedule"."""
    words = {
        "NoneType": "null", "int": "a whole number", "float": "a number", "bool": "true or false",
        "str": "a string", "dict": "a mapping", "tuple": "a list such as [1, episode]",
    }  # fmt: skip
    parts = []
    for part in getattr(annotation, "__args__", None) or [annotation]:
        origin = getattr(part, "__origin__", part)
        name = getattr(origin, "__name__", str(origin))
        parts.append("a schedule" if "Callable" in str(part) else words.get(name, name))
    return " or ".join(dict.fromkeys(parts))


def _check_range(key: str, value: float, lowest: float | None, highest: float | None) -> None:
    too_low = lowest is not None and value < lowest
    too_high = highest is not None and value > highest
    if too_low or too_high:
        allowed = f"at least {lowest:g}" if highest is None else f"from {lowest:g} to {highest:g}"
        raise UserError(f"{key} = {value!r}: should be {allowed}")


def _schedule(key: str, value: Mapping[str, Any], budget: int) -> Callable[[float], float]:
    try:
        schedule = Schedule.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        part = ".".join(str(piece) for piece in fault["loc"])
        hint = nearest(part, Schedule.model_fields) if fault["type"] == "extra_forbidden" else ""
        message = fault["msg"].replace("Input should", "should")
        raise UserError(
            f"{key}.{part}: {message}{hint} "
            "(a schedule is written {schedule: linear, start: 3e-4, end: 0, over: 100000})"
        ) from None
    if schedule.schedule == "exponential" and not (schedule.start > 0 and schedule.end > 0):
        raise UserError(f"{key}: an exponential schedule needs start and end above 0")
    return schedule.for_sb3(budget)


def _action_noise(key: str, value: Any) -> Callable[[tuple[int, ...]], ActionNoise]:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UserError(
            f"{key} = {value!r}: should be {{normal: SIGMA}} or {{ornstein_uhlenbeck: SIGMA}}"
        )
    ((kind, sigma),) = value.items()
    if kind not in ACTION_NOISES:
        hint = nearest(str(kind), ACTION_NOISES) or f"; there are {', '.join(ACTION_NOISES)}"
        raise UserError(f"{key}: unknown noise {kind!r}{hint}")
    if isinstance(sigma, bool) or not isinstance(sigma, int | float) or not sigma >= 0:
        raise UserError(f"{key}.{kind} = {sigma!r}: sigma should be a number, at least 0")
    return partial(_noise_of_shape, ACTION_NOISES[kind], float(sigma))


def _noise_of_shape(
    noise_class: Callable[..., ActionNoise], sigma: float, shape: tuple[int, ...]
) -> ActionNoise:
    return noise_class(mean=np.zeros(shape), sigma=np.full(shape, sigma))


def _policy_arguments(sb3_class: AlgorithmClass, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{key} = {value!r}: should be a mapping such as {{net_arch: [64, 64]}}")
    # The aliases differ only in their default features extractor; any tells the names.
    policy_class = next(iter(sb3_class.policy_aliases.values()))
    known = set(inspect.signature(policy_class.__init__).parameters) - {
        "self", "observation_space", "action_space", "lr_schedule",
    }  # fmt: skip
    arguments = {}
    for name, item in value.items():
        if name not in known:
            hint = nearest(name, known)
            raise UserError(
                f"unknown key {f'{key}.{name}'!r}: {policy_class.__name__} takes none{hint}"
            )
        classes = POLICY_CLASSES.get(name)
        if classes is not None:
            if item not in classes:
                hint = nearest(str(item), classes) or f"; there are {', '.join(classes)}"
                raise UserError(f"{key}.{name} = {item!r}: unknown name{hint}")
            item = classes[item]  # noqa: PLW2901
        arguments[name] = item
    return arguments
