"""Agents to and from SB3's zips: they act the same, and nothing stored in a file is run."""

import base64
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from rl_lab import checkpoint
from rl_lab.cli import main
from rl_lab.errors import UserError
from rl_lab.rl import agent, agent_state, sb3_zip
from rl_lab.rl.algorithms import ALGORITHMS
from rl_lab.rl.export_zip import export_zip
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rl.saved import load_agent, recipe_of
from rl_lab.run import Run

MakeRecipe = Callable[..., AgentRecipe]
CLI = Callable[..., tuple[int, str, str]]

ENVIRONMENTS = {
    "ppo": "CartPole-v1", "dqn": "CartPole-v1", "recurrent_ppo": "CartPole-v1",
    "ars": "Pendulum-v1", "sac": "Pendulum-v1", "her": "RLLab/ReachPoint-v0",
}  # fmt: skip

# What somebody does who has the files, but not the lab.
WITHOUT_THE_LAB = """
import sys
for name in ("rl_lab", "envs", "reward_models"):
    sys.modules[name] = None
import importlib, json
import numpy as np
for path, package, name, observation in json.load(sys.stdin):
    model = getattr(importlib.import_module(package), name).load(path, device="cpu")
    if isinstance(observation, dict):
        observation = {key: np.array(part, np.float32) for key, part in observation.items()}
    else:
        observation = np.array(observation, model.observation_space.dtype)
    actions, _ = model.predict(observation, deterministic=True)
    print(json.dumps([model.num_timesteps, getattr(model, "buffer_size", 0), actions.tolist()]))
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CLI:
    """Run the command line in a directory of its own; return code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*tokens: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(tokens))
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run


def observations(space: Any) -> Any:
    space.seed(0)
    samples = [space.sample() for _ in range(20)]
    if isinstance(samples[0], dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
    return np.clip(np.stack(samples), -5, 5) if samples[0].dtype == np.float32 else samples


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: part.tolist() for key, part in value.items()}
    return np.asarray(value).tolist()


def test_sb3_reads_what_is_exported_and_acts_the_same_without_the_lab(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    schedule = {"schedule": "linear", "start": 1e-3, "end": 0}
    asked, expected = [], []
    for name, environment in ENVIRONMENTS.items():
        changes = {"env.id": environment, "algorithm.learning_rate": schedule}
        if name == "her":  # its buffer takes long to make
            changes["algorithm.buffer_size"] = 1000
        recipe = make_recipe(name, changes)
        model: Any = agent.build(recipe)
        model.num_timesteps = 123
        path = checkpoint.save(tmp_path / name, agent_state.playable(model))
        file = tmp_path / f"{name}.zip"
        assert export_zip(recipe, checkpoint.load(path), file) == [file]
        seen = observations(model.observation_space)
        actions, _ = model.predict(seen, deterministic=True)
        sb3_class = ALGORITHMS[recipe.algorithm.name]
        asked.append(
            [str(file), sb3_class.__module__.partition(".")[0], sb3_class.__name__, plain(seen)]
        )
        expected.append([123, getattr(model, "buffer_size", 0), actions.tolist()])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_THE_LAB],
        input=json.dumps(asked), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name, line, (step, size, actions) in zip(
        ENVIRONMENTS, done.stdout.splitlines(), expected, strict=True
    ):
        found = json.loads(line)
        assert found[:2] == [step, size], name
        assert np.allclose(found[2], actions, atol=1e-5), name


def test_from_a_run_to_sb3_and_back(cli: CLI, runs_directory: Path) -> None:
    settings = ("--env.normalize", "{}")
    small = ("--budget.steps", "512", "--evaluation.episodes", "1", "--quiet")
    assert cli("train", "cartpole", "--name", "pole", *settings, *small)[0] == 0
    code, output, _ = cli("export", "pole", "--model", "last")
    assert code == 0
    assert "pole.zip  the agent: stable_baselines3.PPO.load" in output
    assert "pole-vecnormalize.pkl  how its observations are normalised" in output
    assert "a pickle" in output
    written = Path("pole-vecnormalize.pkl").read_bytes()
    assert b"rl_lab" not in written  # it is read where there is no lab

    # As SB3's documentation has it.
    vector = VecNormalize.load("pole-vecnormalize.pkl", make_vec_env("CartPole-v1"))
    model = PPO.load("pole.zip")
    run = Run(runs_directory / "pole")
    ours, step = load_agent(run, recipe_of(run), "last", sampled=False)
    seen = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    normalizer = ours.get_vec_normalize_env()
    assert normalizer is not None
    assert np.array_equal(vector.normalize_obs(seen), normalizer.normalize_obs(seen))
    assert np.array_equal(model.predict(seen, deterministic=True)[0],
                          ours.predict(seen, deterministic=True)[0])  # fmt: skip
    assert model.num_timesteps == step == 512

    assert cli("export", "pole")[2] == "rl-lab: pole.zip exists; nothing was written\n"
    Path("pole.zip").rename("other.zip")
    assert "pole-vecnormalize.pkl exists" in cli("export", "pole")[2]
    assert Path("pole-vecnormalize.pkl").read_bytes() == written
    assert not Path("pole.zip").exists()
    assert "should end in .zip" in cli("export", "pole", "--output", "pole.pkl")[2]
    assert "by --output pole.zip" in cli("export", "pole", "pole.zip")[2]

    back = ("import", "other.zip", "--recipe", "cartpole", *settings)
    assert "give --normalization FILE.pkl" in cli(*back)[2]
    back = (*back, "--normalization", "pole-vecnormalize.pkl", "--name", "back")
    code, _, error = cli(*back)
    assert code == 2
    assert "runs whatever code is stored in it" in error
    assert not (runs_directory / "back").exists()
    code, output, error = cli(*back, "--trust")
    assert code == 0, error
    assert "imported: back · step 512" in output
    results = [json.loads(cli("evaluate", name, "--model", "last", "--episodes", "5", "--json")[1])
               for name in ("pole", "back")]  # fmt: skip
    assert results[0][0]["episodes"] == results[1][0]["episodes"]
    assert cli("report", "back")[0] == 0
    assert "finished" in cli("runs")[1]


@pytest.mark.parametrize(
    ("name", "environment", "sb3_class"),
    [("ppo", "CartPole-v1", PPO), ("dqn", "CartPole-v1", DQN), ("sac", "Pendulum-v1", SAC)],
)
def test_a_plain_sb3_agent_becomes_a_run(
    name: str, environment: str, sb3_class: Any, cli: CLI, runs_directory: Path
) -> None:
    few = {"n_steps": 64} if name == "ppo" else {"learning_starts": 10, "buffer_size": 500}
    theirs = sb3_class("MlpPolicy", environment, **few).learn(64)
    theirs.save("theirs.zip")
    code, _, error = cli(
        "import", "theirs.zip", "--recipe", name, "--env.id", environment, "--name", "x"
    )
    assert code == 0, error
    run = Run(runs_directory / "x")
    assert run.state == "finished"
    assert run.status["step"] == 64
    for which in ("best", "last"):
        ours, step = load_agent(run, recipe_of(run), which, sampled=False)
        assert step == 64
        seen = observations(theirs.observation_space)
        assert np.array_equal(theirs.predict(seen, deterministic=True)[0],
                              ours.predict(seen, deterministic=True)[0])  # fmt: skip
    # What it learnt on with is there as well.
    restored: Any = agent.build(recipe_of(run))
    snapshot, _ = checkpoint.latest(run.checkpoints)
    assert snapshot is not None
    agent_state.restore(restored, snapshot)
    mine, other = agent_state.learnt(restored, False), agent_state.learnt(theirs, False)
    assert set(mine.tensors) == set(other.tensors)
    for group, tensors in other.tensors.items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, mine.tensors[group][key]), (group, key)
    assert getattr(restored, "exploration_rate", 0) == getattr(theirs, "exploration_rate", 0)


class Trap:
    """A pickle that makes a file when it is read."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def rezipped(source: Path, target: Path, changes: dict[str, bytes | None], **options: Any) -> Path:
    """A copy of a zip with members replaced, added, or left out (None)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", **options) as new:
        for member in old.namelist():
            if member not in changes:
                new.writestr(member, old.read(member))
        for name, content in changes.items():
            if content is not None:
                new.writestr(name, content)
    return target


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sb3") / "good.zip"
    PPO("MlpPolicy", "CartPole-v1", n_steps=64).learn(64).save(path)
    return path


def torch_saved(value: Any, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("member", ["policy.pth", "policy.optimizer.pth", "pytorch_variables.pth"])
@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_a_trap_in_a_zip_is_refused_and_not_sprung(
    member: str, form: str, good: Path, tmp_path: Path, cli: CLI, runs_directory: Path
) -> None:
    trap, sprung = Trap(tmp_path / "sprung"), tmp_path / "sprung"
    content = pickle.dumps(trap) if form == "pickle" else torch_saved({"a": trap}, form == "legacy")
    file = rezipped(good, tmp_path / "bad.zip", {member: content})
    command = ("import", str(file), "--recipe", "ppo", "--env.id", "CartPole-v1", "--name", "x")
    code, _, error = cli(*command)
    assert code == 2
    assert member in error
    assert "give --trust only for a file from people you trust" in error
    assert len(error.splitlines()) == 1
    assert not sprung.exists()
    assert not runs_directory.exists()
    if form != "pickle":  # the trap is a trap
        assert cli(*command, "--trust")[0] in (0, 2)
        assert sprung.exists()


def test_a_trap_among_the_plain_values_is_not_even_read(
    good: Path, tmp_path: Path, cli: CLI
) -> None:
    with zipfile.ZipFile(good) as archive:
        data = json.loads(archive.read("data"))
    sprung = base64.b64encode(pickle.dumps(Trap(tmp_path / "sprung"))).decode()
    data |= {name: {":serialized:": sprung} for name in ("policy_class", "learning_rate")}
    file = rezipped(good, tmp_path / "bad.zip", {"data": json.dumps(data).encode()})
    code, _, error = cli("import", str(file), "--recipe", "ppo", "--env.id", "CartPole-v1")
    assert code == 0, error
    assert not (tmp_path / "sprung").exists()


def test_a_trap_for_a_normalisation_is_refused_and_not_sprung(
    good: Path, tmp_path: Path, cli: CLI
) -> None:
    (tmp_path / "trap.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    command = ("import", str(good), "--recipe", "ppo", "--env.id", "CartPole-v1",
               "--env.normalize", "{}", "--normalization", "trap.pkl")  # fmt: skip
    assert cli(*command)[0] == 2
    assert not (tmp_path / "sprung").exists()
    assert "not a VecNormalize" in cli(*command, "--trust")[2]


BOMB = bytes(20 * 2**20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"../evil.pth": b"x"}, "has a path"),
        ({"/etc/evil.pth": b"x"}, "has a path"),
        ({"a\\b.pth": b"x"}, "has a path"),
        ({"bomb.pth": BOMB}, "unpacks to 20,971,520 bytes"),
        ({"policy.pth": None}, "has no policy.pth"),
        ({"policy.pth": b""}, "policy.pth"),
        ({"policy.pth": torch_saved([1, 2])}, "holds a list"),
        ({"policy.pth": torch_saved({"a": torch.ones(2)})}, "has no mlp_extractor"),
        ({"policy.optimizer.pth": torch_saved({"state": {0: {"a": torch.ones(7)}}})}, "moments"),
        ({"policy.optimizer.pth": torch_saved({"state": {99: {}}})}, "moments"),
        ({"policy.optimizer.pth": torch_saved({})}, "no optimiser's state"),
        ({"data": b"[" * 10**5}, "should be a JSON object"),
        ({"data": b"[]"}, "should be a JSON object"),
        ({f"{n}.txt": b"" for n in range(1001)}, "larger than an agent"),
    ],
)  # fmt: skip
def test_what_sb3_would_not_write_is_refused(
    changes: dict[str, bytes | None], words: str, good: Path, tmp_path: Path, cli: CLI
) -> None:
    file = rezipped(good, tmp_path / "bad.zip", changes, compression=zipfile.ZIP_DEFLATED)
    code, _, error = cli("import", str(file), "--recipe", "ppo", "--env.id", "CartPole-v1")
    assert code == 2
    assert words in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_bomb_inside_a_member_is_refused(good: Path, tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", BOMB)
    file = rezipped(good, tmp_path / "bad.zip", {"policy.pth": inner.getvalue()})
    with pytest.raises(UserError, match=r"policy\.pth: the member 'archive/data/0' unpacks"):
        sb3_zip.read(file, trust=False)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(good: Path, tmp_path: Path) -> None:
    file = rezipped(good, tmp_path / "bad.zip", {})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("policy.pth", b"x")
    with pytest.raises(UserError, match="twice"):
        sb3_zip.read(file, trust=False)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (("ppo", "--env.id", "Acrobot-v1"),
         "has mlp_extractor.policy_net.0.weight of shape (64, 4), the recipe of (64, 6)"),
        (("dqn", "--env.id", "CartPole-v1"), "has no q_net.q_net.0.weight, of shape (64, 4)"),
        (("ppo", "--env.id", "CartPole-v1", "--algorithm.policy_kwargs", "{net_arch: [64]}"),
         "has 'mlp_extractor.policy_net.2.weight', which the recipe's network has not"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_named(
    recipe: tuple[str, ...], words: str, good: Path, cli: CLI
) -> None:
    code, _, error = cli("import", str(good), "--recipe", *recipe)
    assert code == 2
    assert words in error


@given(st.data())
def test_any_damage_is_a_sentence(
    good: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "damaged.zip"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        sb3_zip.read(file, trust=False)
    except UserError as error:
        assert str(error)
