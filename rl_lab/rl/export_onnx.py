"""An agent's greedy policy as an ONNX file, kept only if it acts as the agent does."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecFrameStack
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from rl_lab.checkpoint import Snapshot
from rl_lab.errors import UserError
from rl_lab.extras import install_command
from rl_lab.files import write_atomically
from rl_lab.provenance import versions
from rl_lab.rl import agent, environments, seeding
from rl_lab.rl.evaluate import act, frozen_like
from rl_lab.rl.greedy_policy import GreedyPolicy, parts_of
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.seeding import stream

COPIES, STEPS = 4, 100
"""Copies of the environment and steps of each: the observations the file is compared on."""
TOLERANCE = 1e-5
"""How far a continuous action may be from the agent's, beside this share of it."""


def export_onnx(recipe: AgentRecipe, snapshot: Snapshot, file: Path, run_name: str) -> int:
    """Write an agent's greedy policy as one ONNX graph that needs nothing beside it.

    Its inputs are what the environment gives, a batch of them: `observation`, or for a dictionary
    each part by its name; frames stacked where the recipe stacks them; for maskable_ppo also
    `action_masks`. Its output `action` is what the environment takes. The metadata say what it is.

    Args:
        recipe: the run's.
        snapshot: of its agent.
        file: where to; it must not exist.
        run_name: for the metadata.

    Returns:
        On how many observations of real episodes its actions were found to be the agent's.

    Raises:
        UserError: an extra is missing, the file exists, the agent's actions are no function of an
            observation, or those of the graph are others.
        StorageError: the file cannot be written.
    """
    try:
        import onnx
        import onnxruntime  # type: ignore[import-untyped]
        import onnxscript  # noqa: F401 -- torch's exporter asks for it only half way
    except ImportError as error:
        raise UserError(
            f"--format onnx needs the extra 'onnx' ({error.name} is missing): "
            f"{install_command('onnx')}"
        ) from None
    if file.exists():
        raise UserError(f"{file} exists; nothing was written")
    if recipe.env.frame_stack > 1 and recipe.env.normalize and recipe.env.normalize.observations:
        raise UserError(
            "env.frame_stack with env.normalize: frames are normalised before they are stacked, so "
            "the actions are no function of the environment's own frames, as ONNX would need"
        )
    model = agent.load(recipe.model_copy(update={"device": "cpu"}), snapshot)
    vector = _Recorder(_raw(recipe))
    try:
        policy = GreedyPolicy(model, vector.observation_space)
        names = [*parts_of(vector.observation_space)] + ["action_masks"] * policy.masked
        graph = _graph(policy, names, _inputs(vector.reset(), vector, policy.masked))
        for key, value in _metadata(recipe, snapshot, run_name).items():
            graph.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(graph)
        content = graph.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = recipe.threads
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        compared = _compare(model, session, names, vector)
    finally:
        vector.close()
    write_atomically(file, content)
    return compared


def _raw(recipe: AgentRecipe) -> VecEnv:
    """The environment, its frames stacked, neither normalised nor transposed."""
    seeds = stream(recipe.seed, seeding.PLAY, COPIES)
    vector = environments.make_vector(recipe.env, [[seed] for seed in seeds])
    stacked = recipe.env.frame_stack
    return VecFrameStack(vector, n_stack=stacked) if stacked > 1 else vector


class _Recorder(VecEnvWrapper):
    """Keeps the newest observation as it was before the wrappers around this one."""

    newest: VecEnvObs

    def reset(self) -> VecEnvObs:
        self.newest = self.venv.reset()
        return self.newest

    def step_wait(self) -> VecEnvStepReturn:
        self.newest, *rest = self.venv.step_wait()
        return self.newest, *rest  # type: ignore[return-value]


def _inputs(observation: VecEnvObs, vector: VecEnv, masked: bool) -> list[np.ndarray]:
    """The arguments of the policy, a row a copy."""
    parts = list(observation.values()) if isinstance(observation, dict) else [observation]
    masks = [get_action_masks(vector).astype(bool)] if masked else []
    return [np.asarray(part) for part in [*parts, *masks]]


def _graph(policy: GreedyPolicy, names: list[str], example: list[np.ndarray]) -> Any:
    """Trace the policy for batches of any size; return onnx's ModelProto."""
    batch = torch.export.Dim("batch")
    given = tuple(torch.from_numpy(array.copy()) for array in example)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's remarks on torch's own insides
        program = torch.onnx.export(
            policy, given, dynamo=True, verbose=False, input_names=names, output_names=["action"],
            dynamic_shapes=(tuple({0: batch} for _ in given),),
        )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    for node in graph.graph.node:
        del node.metadata_props[:]  # which line of which file on this machine it comes from
    return graph


def _metadata(recipe: AgentRecipe, snapshot: Snapshot, run_name: str) -> dict[str, str]:
    """What the file says of itself, as plain text and JSON."""
    return {
        "environment": recipe.env.id,
        "environment_kwargs": json.dumps(recipe.env.kwargs),
        "wrappers": json.dumps(recipe.env.wrappers),
        "frame_stack": str(recipe.env.frame_stack),
        "algorithm": recipe.algorithm.name,
        "recipe": recipe.name,
        "run": run_name,
        "seed": str(recipe.seed),
        "step": str(snapshot.step),
        "actions": "greedy",
        "versions": json.dumps(versions()),
    }


def _compare(model: BaseAlgorithm, session: Any, names: list[str], vector: _Recorder) -> int:
    """Play the agent, and ask the graph for each action as well; return how many were compared.

    Raises:
        UserError: they differ.
    """
    masked = "action_masks" in names
    around = frozen_like(model, vector, frame_stack=1)  # stacked already, where they are
    compared = 0
    with seeding.own_randomness(0, model.action_space):
        seen, starts = around.reset(), np.ones(COPIES, dtype=bool)
        for _ in range(STEPS):
            given = dict(zip(names, _inputs(vector.newest, vector, masked), strict=True))
            (found,) = session.run(["action"], given)
            actions, _ = act(model, around, seen, None, starts, deterministic=True)
            exact = np.issubdtype(model.action_space.dtype, np.integer)
            tolerance = 0 if exact else TOLERANCE
            equal = np.isclose(found, actions, rtol=tolerance, atol=tolerance)
            if found.shape != actions.shape or not equal.all():
                raise UserError(
                    f"the ONNX graph acts differently from the agent ({found[0]} for {actions[0]} "
                    f"after {compared} equal actions); nothing was written"
                )
            compared += len(actions)
            seen, _, starts, _ = around.step(actions)
    return compared
