"""All copies of an environment as one: versions in arrays, and EnvPool's in C++.

Neither is of single environments, so what goes around or happens to one of those has no place.
"""

import copy

import gymnasium
from gymnasium.vector import AutoresetMode, VectorEnv

from rl_lab.errors import UserError, nearest
from rl_lab.extras import EXTRAS, install_command, installed
from rl_lab.rl.recipe import Environment

OF_SINGLE_ENVIRONMENTS = ("wrappers", "timeout", "restarts")


def in_arrays(environment: Environment, environment_id: str, copies: int) -> VectorEnv:
    """Make the vectorised version of an environment: the lab's, or its own `vector_entry_point`.

    Args:
        environment: the recipe's section.
        environment_id: its id, known to be registered.
        copies: how many.

    Raises:
        UserError: there is none that fits, or a key of the recipe does not go with it.
    """
    from envs import VECTORIZED

    _refuse(environment, "vector", OF_SINGLE_ENVIRONMENTS)
    spec = copy.deepcopy(gymnasium.spec(environment_id))
    spec.vector_entry_point = VECTORIZED.get(environment_id, spec.vector_entry_point)
    if spec.vector_entry_point is None:
        raise UserError(
            f"env.vectorization = 'vector': {environment_id} has no vectorised version; "
            f"{', '.join(VECTORIZED)} and the lab's own environments (RLLab/...) have one"
        )
    try:
        env = gymnasium.make_vec(
            spec, copies, vectorization_mode="vector_entry_point", **environment.kwargs
        )
    except (TypeError, ValueError, ImportError, gymnasium.error.Error) as error:
        given = f" with env.kwargs {environment.kwargs}" if environment.kwargs else ""
        raise UserError(
            f"env.vectorization = 'vector': the vectorised {environment_id} cannot be made{given}: "
            f"{error}"
        ) from None
    if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
        raise UserError(
            f"env.vectorization = 'vector': the vectorised {environment_id} does not begin new "
            "episodes in the same step (AutoresetMode.SAME_STEP), as the algorithms need it to"
        )
    return env


def pooled(environment: Environment, environment_id: str, copies: int) -> VectorEnv:
    """Make EnvPool's version of an environment.

    Args:
        environment: the recipe's section.
        environment_id: its id, known to be registered.
        copies: how many.

    Raises:
        UserError: EnvPool is not installed, has none, or one that shows or takes something else
            than Gymnasium's; or a key of the recipe does not go with it.
    """
    _refuse(environment, "envpool", (*OF_SINGLE_ENVIRONMENTS, "kwargs"))
    if not installed("envpool"):
        raise UserError(
            f"env.vectorization = 'envpool' needs the extra 'envpool' "
            f"({EXTRAS['envpool'].purpose}): {install_command('envpool')}"
        )
    from rl_lab.rl import env_pool

    known = env_pool.known_ids()
    if environment_id not in known:
        raise UserError(
            f"env.vectorization = 'envpool': EnvPool has no {environment_id}"
            f"{nearest(environment_id, known)}"
        )
    one = gymnasium.make(environment_id)
    env = env_pool.SameStepPool(environment_id, copies, one)
    one.close()
    return env


def _refuse(environment: Environment, vectorization: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if getattr(environment, key):
            raise UserError(
                f"env.{key} does not go with env.vectorization = {vectorization!r}, which has no "
                "single environments; leave it out, or vectorise by dummy or subproc"
            )
