"""Greedy policies as ONNX: the same actions without the lab, and no file where they differ."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO

from rl_lab import checkpoint
from rl_lab.checkpoint import Snapshot
from rl_lab.cli import main
from rl_lab.errors import UserError
from rl_lab.rl import agent, agent_state
from rl_lab.rl.export_onnx import export_onnx
from rl_lab.rl.greedy_policy import GreedyPolicy
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.saved import load_agent, recipe_of
from rl_lab.run import Run

MakeRecipe = Callable[..., AgentRecipe]

QUICK = {
    "a2c": {"env.id": "Pendulum-v1", "env.normalize": {}},
    "maskable_ppo": {"env.id": "RLLab/Match-v0"},
    "qrdqn": {"env.id": "CartPole-v1", "env.frame_stack": 2},
    "sac": {"env.id": "Pendulum-v1"},
}
SLOW = {
    "ppo": {"env.id": "FrozenLake-v1"},
    "dqn": {"env.id": "CartPole-v1"},
    "td3": {"env.id": "Pendulum-v1"},
    "ddpg": {"env.id": "Pendulum-v1"},
    "tqc": {"env.id": "Pendulum-v1", "algorithm.use_sde": True},
    "crossq": {"env.id": "Pendulum-v1"},
    "ars": {"env.id": "Pendulum-v1", "env.normalize": {}},
    "trpo": {"env.id": "CartPole-v1", "env.normalize": {"clip_observation": 0.5}},
    "her": {"env.id": "RLLab/ReachPoint-v0", "algorithm.buffer_size": 1000, "env.normalize": {}},
    "minigrid-empty": {},
    "breakout": {"algorithm.n_steps": 8},
}
EVERY = [
    *QUICK.items(),
    *(pytest.param(name, changes, marks=pytest.mark.slow) for name, changes in SLOW.items()),
]


def trained(recipe: AgentRecipe, path: Path) -> Snapshot:
    """An agent of some steps; where observations are normalised, by what these came upon."""
    model = agent.build(recipe)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        model.env.reset()  # type: ignore[union-attr]
        for _ in range(50):
            model.env.step([model.action_space.sample()] * recipe.env.number)  # type: ignore[union-attr]
    for parameter in model.policy.parameters():  # SB3's last layers are all but 0
        if parameter.dim() > 1:
            torch.nn.init.orthogonal_(parameter)
    model.env.close()  # type: ignore[union-attr]
    return checkpoint.load(checkpoint.save(path, agent_state.playable(model)))


@pytest.mark.parametrize(("name", "changes"), EVERY)
@pytest.mark.filterwarnings("ignore")
def test_the_graph_acts_as_the_agent(
    name: str, changes: dict[str, Any], make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(name, changes)
    snapshot = trained(recipe, tmp_path / "model")
    file = tmp_path / "policy.onnx"
    assert export_onnx(recipe, snapshot, file, "test") == 400
    content = file.read_bytes()
    assert b".py" not in content  # no line of this machine's files
    model = onnx.load_from_string(content)
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert said["environment"] == recipe.env.id
    assert said["algorithm"] == recipe.algorithm.name
    assert said["run"] == "test"
    assert "torch" in json.loads(said["versions"])
    session = onnxruntime.InferenceSession(content)
    (batch, *_) = session.get_outputs()[0].shape
    assert isinstance(batch, str)  # of any size


ALONE = """
import sys
for name in ("torch", "stable_baselines3", "gymnasium", "rl_lab"):
    sys.modules[name] = None
import json
import numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
seen = numpy.array(json.load(sys.stdin), numpy.float32)
print(json.dumps(session.run(None, {"observation": seen})[0].tolist()))
"""


def test_a_run_is_exported_and_acts_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def lab(*tokens: str) -> int:
        with pytest.raises(SystemExit) as end:
            main(list(tokens))
        return int(end.value.code or 0)

    small = ("--budget.steps", "512", "--evaluation.episodes", "1", "--quiet")
    assert lab("train", "cartpole", "--name", "pole", "--env.normalize", "{}", *small) == 0
    assert lab("export", "pole", "--format", "onnx", "--model", "last") == 0
    assert "on 400 observations" in capsys.readouterr().out
    run = Run.open("pole")
    model, _ = load_agent(run, recipe_of(run), "last", sampled=False)
    seen = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    normalizer = model.get_vec_normalize_env()
    assert normalizer is not None
    expected, _ = model.predict(normalizer.normalize_obs(seen), deterministic=True)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "pole.onnx"],
        input=json.dumps(seen.tolist()), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == expected.tolist()
    assert len(set(expected.tolist())) == 2

    before = Path("pole.onnx").read_bytes()
    assert lab("export", "pole", "--format", "onnx") == 2
    assert "pole.onnx exists" in capsys.readouterr().err
    assert Path("pole.onnx").read_bytes() == before
    for output, words in (("pole.zip", "should end in .onnx"), ("no/pole.onnx", "no directory")):
        assert lab("export", "pole", "--format", "onnx", "--output", output) == 2
        assert words in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["actions", "scale"])
def test_a_graph_that_acts_differently_is_not_kept(
    wrong: str, make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"actions": "CartPole-v1", "scale": "Pendulum-v1"}[wrong]
    recipe = make_recipe("a2c", {"env.id": environment})
    snapshot = trained(recipe, tmp_path / "model")
    right = GreedyPolicy.forward

    def forward(self: GreedyPolicy, *given: torch.Tensor) -> torch.Tensor:
        actions = right(self, *given)
        return 1 - actions if wrong == "actions" else actions + 1e-3

    monkeypatch.setattr(GreedyPolicy, "forward", forward)
    with pytest.raises(UserError, match=r"acts differently from the agent \(.*nothing was written"):
        export_onnx(recipe, snapshot, tmp_path / "policy.onnx", "test")
    assert not (tmp_path / "policy.onnx").exists()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("recurrent_ppo", {"env.id": "CartPole-v1"}, "remembers earlier observations"),
        ("ppo", {"env.id": "CartPole-v1", "env.frame_stack": 2, "env.normalize": {}}, "stacked"),
    ],
)
def test_what_is_no_function_of_an_observation_is_refused(
    name: str, changes: dict[str, Any], words: str, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(name, changes)
    with pytest.raises(UserError, match=words):
        export_onnx(recipe, trained(recipe, tmp_path / "model"), tmp_path / "x.onnx", "test")
    assert not (tmp_path / "x.onnx").exists()


def test_a_missing_package_is_a_sentence(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnxscript", "onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=rf"extra 'onnx' \({package} is missing\): pip install"):
            export_onnx(make_recipe("ppo", {"env.id": "x"}), Snapshot(0), tmp_path / "x", "test")


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("space", [spaces.MultiDiscrete([3, 2]), spaces.MultiBinary(3)])
def test_several_choices_at_once(masked: bool, space: spaces.Space) -> None:
    class Choices(gymnasium.Env):
        observation_space = spaces.Box(-1, 1, (4,), np.float32)
        action_space = space

        def reset(self, **_: Any) -> Any:
            return self.observation_space.sample(), {}

        def action_masks(self) -> np.ndarray:
            return np.ones(6 if isinstance(space, spaces.MultiBinary) else 5, bool)

    model = (MaskablePPO if masked else PPO)("MlpPolicy", Choices())
    torch.nn.init.orthogonal_(model.policy.action_net.weight)
    policy = GreedyPolicy(model, Choices.observation_space)
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(50, 4)).astype(np.float32)
    masks = rng.random((50, len(Choices().action_masks()))) < 0.5
    masks[:, ::2] |= ~masks[:, 1::2] if isinstance(space, spaces.MultiBinary) else True
    given = {"action_masks": masks} if masked else {}
    expected, _ = model.predict(seen, deterministic=True, **given)
    arguments = [torch.from_numpy(seen), *map(torch.from_numpy, given.values())]
    assert np.array_equal(policy(*arguments).numpy(), expected)
    assert len(np.unique(expected, axis=0)) > 2
