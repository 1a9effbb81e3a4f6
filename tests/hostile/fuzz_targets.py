"""What is fuzzed: for each thing the lab reads, wild input and what must stand it.

A target returns; it raises none but the errors it is documented to raise, and those are caught
here. `test_fuzz.py` tries some hundred inputs a target, `scripts/fuzz` as many as it is told.
"""

import contextlib
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st
from rich.console import Console

from rl_lab import checkpoint, recipes
from rl_lab.checkpoint import CheckpointError
from rl_lab.commands import kinds
from rl_lab.commands.kinds import differences_to_default
from rl_lab.commands.language_result import show_result
from rl_lab.commands.runs import runs
from rl_lab.errors import UserError
from rl_lab.experiment_view import view_of
from rl_lab.reports import report
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.rlhf.data.own_check import check_file
from rl_lab.rlhf.data.own_data import prepare_own_data
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.run import Run
from rl_lab.screens.dashboard import plain_line, render
from tests import fake_experiment as fake

# --- wild values ---------------------------------------------------------------------------------

HOSTILE = ["", "\x00", "\x1b]0;x\x07", "[/]", "[red]", "\ud800", "\u202e", "<script>", "=cmd()",
           "../../x", "1e999", "nan", "a" * 300, "{}", "null"]  # fmt: skip
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20))
numbers = st.one_of(
    st.integers(-3, 3),
    st.integers(),
    st.floats(),
    st.sampled_from([0, -1, 10**30, -(10**400), 10**400, 2**63, 1e-320, 1e308, 0.5]),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)


def values_of(keys: list[str]) -> st.SearchStrategy[Any]:
    """JSON-like values whose objects have these keys, and others."""
    names = st.one_of(st.sampled_from(keys), texts)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
        max_leaves=12,
    )


def objects_of(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(
        st.one_of(st.sampled_from(keys), texts), values_of(keys) | numbers, max_size=10
    )


def lines_of(keys: list[str], likely: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A file of JSON lines, most of them nearly sound, some of them anything."""
    row = objects_of(keys).map(lambda wild: json.dumps(likely | wild).encode())
    tail = objects_of(keys).map(lambda wild: json.dumps(wild | likely).encode())
    line = st.one_of(row, tail, row, st.binary(max_size=40), texts.map(
        lambda text: json.dumps(text).encode()))  # fmt: skip
    return st.lists(line, max_size=14).map(b"\n".join).map(lambda text: text + b"\n")


def files_of(value: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    return st.one_of(
        value.map(lambda content: json.dumps(content).encode()), st.binary(max_size=60)
    )


def recipe_texts() -> st.SearchStrategy[str]:
    """YAML of sections with known keys and wild values; built-in recipes with a wild splice."""
    dotted = [key for kind in (AgentRecipe, LanguageRecipe) for key, _ in recipes.fields(kind)]
    keys = sorted({part for key in dotted for part in key.split(".")})
    written = objects_of(keys).map(lambda value: yaml.dump(value, allow_unicode=True))
    sources = [path.read_text() for path in sorted(recipes.BUILT_IN.glob("*.yaml"))]
    marks = st.sampled_from(["&a ", "*a", "!!set ", "<<: ", "{", "[", "|\n", "- ", "? ", "\t", ":"])
    spliced = st.builds(
        lambda source, at, wild, cut: source[: at % len(source)] + wild
        + source[at % len(source) + cut :],
        st.sampled_from(sources), st.integers(0, 5000), marks | texts | leaves.map(str),
        st.integers(0, 30),
    )  # fmt: skip
    known = st.sampled_from([path.stem for path in recipes.BUILT_IN.glob("*.yaml")])
    changed = st.builds(
        lambda name, changes: yaml.dump(recipes.override(recipes.read(name)[2], changes)),
        known, st.dictionaries(st.sampled_from(dotted), leaves | values_of(keys), max_size=2),
    )  # fmt: skip
    return st.one_of(written, changed, changed, spliced, st.text(max_size=200))


OVERRIDES = [
    "--env.id", "--env.kwargs", "--env.normalize.rewards", "--algorithm.learning_rate", "--seed",
    "--algorithm.policy_kwargs.net_arch", "--budget.steps", "--name", "--data.words", "--threads",
    "--env.wrappers", "--algorithm.clip_range.end", "--judges.x.scores", "--ppo.kl.target", "--a.b",
]  # fmt: skip
METRICS = [
    "step", "wall", "event", "message", "level", "rollout/ep_rew_mean", "eval/mean_reward",
    "eval/std_reward", "train/loss", "train/value_loss", "train/entropy_loss", "train/approx_kl",
    "train/std", "phase/update", "system/cpu_percent", "system/memory_mb", "look/kl", "look/proxy",
    "look/gold/stars", "gold/stars", "kl/exact", "reward/proxy", "train/entropy", "reward/member",
    "rollout/response_length", "rollout/end_share", "rollout/tokens_per_second", "look/distinct_2",
    "eval/bits_per_character", "train/accuracy", "eval/accuracy", "eval/ensemble_accuracy",
    "time/tokens_per_second", "kl/coefficient",
]  # fmt: skip
STATUS = ["state", "step", "heartbeat", "created", "started", "budget", "best", "reason", "unit",
          "stage", "host", "pid", "wall", "reused", "return"]  # fmt: skip
EVALUATION = [
    "policy", "reference", "gold", "gain", "win_rate", "kl", "exact", "sampled", "mean", "low",
    "high", "n", "sd", "stars", "raters", "best_of", "samples", "proxy", "prompt", "prompts",
    "notes", "distinct_2", "distinct_2_reference", "length", "end_share", "model", "actions",
    "return", "step", "truncated", "best greedy",
]  # fmt: skip
PAIRS = ["prompt", "chosen", "rejected", "share", "margin", "text", "role", "content"]


# --- targets -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """Something that is read: the input to try, and the reading of it in an empty directory."""

    wild: st.SearchStrategy[Any]
    read: Callable[[Any, Path], None]


def silent() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(io.StringIO())


def see(path: Path) -> None:
    """Look at a run as every screen does."""
    view = view_of(Run(path))
    console = Console(file=io.StringIO(), width=140, legacy_windows=False)
    console.print(render([view], 140, 45))
    console.print(render([view, view], 140, 45))
    assert "\x1b" not in plain_line(view)
    with mock.patch.dict("os.environ", RL_LAB_RUNS=str(path.parent)), silent():
        runs()
        runs(json=True)


def an_agents_run(directory: Path) -> Path:
    path = directory / "runs" / "pole"
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text((recipes.BUILT_IN / "cartpole.yaml").read_text())
    return path


def an_experiment(directory: Path) -> Path:
    return Path(shutil.copytree(_short_experiment(), directory / "runs" / "movie"))


@functools.cache
def _short_experiment() -> Path:
    """One that is finished, its recipes and logs cut short: it is read very often."""
    path = fake.build(Path(tempfile.mkdtemp()), "movie").path
    (path / "recipe.yaml").write_text("name: movie\nppo: {kl: {target: 2.5}}\n")
    for recipe in path.glob("*/recipe.yaml"):
        recipe.write_text(f"stage: {recipe.parent.name}\n")
    for log in [*path.glob("*/metrics.jsonl"), *path.glob("*/samples.jsonl")]:
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:12]))
    return path


def read_recipe(text: str, directory: Path) -> None:
    path = directory / "wild.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        _, recipe = kinds.load(str(path))
    except UserError:
        return
    again = directory / "again.yaml"
    again.write_text(recipes.dump(recipe), encoding="utf-8")
    kinds.load(str(again))


def read_overrides(tokens: list[str], directory: Path) -> None:
    for name in ("cartpole", "movie-reviews"):
        try:
            _, recipe = kinds.load(name, recipes.parse_overrides(tokens))
        except UserError:
            continue
        again = directory / "again.yaml"
        again.write_text(recipes.dump(recipe), encoding="utf-8")
        kinds.load(str(again))


def read_pairs(content: bytes, directory: Path) -> None:
    path = directory / "pairs.jsonl"
    path.write_bytes(content)
    for refuse in (False, True):
        try:
            check_file(path, 0.8)
            prepare_own_data(path, None, None, 0.2, 0.1, 0.8, (1, 100), refuse, 0, lambda _: None)
        except UserError:
            continue


def read_agents_metrics(content: bytes, directory: Path) -> None:
    path = an_agents_run(directory)
    (path / "metrics.jsonl").write_bytes(content)
    see(path)


def read_experiments_metrics(content: bytes, directory: Path) -> None:
    path = an_experiment(directory)
    for stage in ("ppo", "reward", "pretrain"):
        (path / stage / "metrics.jsonl").write_bytes(content)
        view = view_of(Run(path / stage))
        Console(file=io.StringIO()).print(render([view], 80, 24))
        plain_line(view)
    (path / "ppo" / "samples.jsonl").write_bytes(content)
    see(path)


def read_status(content: bytes, directory: Path) -> None:
    path = an_agents_run(directory)
    (path / "status.json").write_bytes(content)
    see(path)
    Run(path).update_status(state="stopped")
    other = an_experiment(directory)
    for place in (other, other / "ppo", other / "evaluate"):
        (place / "status.json").write_bytes(content)
    see(other)


def read_evaluation(content: bytes, directory: Path) -> None:
    paths = an_agents_run(directory), an_experiment(directory)
    for path in paths:
        (path / "evaluation.json").write_bytes(content)
        see(path)
        with mock.patch("rl_lab.reports.figures.svg", return_value=""), \
             mock.patch("rl_lab.reports.language_charts.svg", return_value=""):  # fmt: skip
            report.write_report(Run(path), differences_to_default)
    with silent():
        try:
            show_result(Run(paths[1]), json=False)
        except UserError:
            return


def read_manifest(content: tuple[bytes, bytes], directory: Path) -> None:
    path = directory / f"{1:012d}"
    path.mkdir()
    (path / "state.json").write_bytes(content[1])
    (path / "manifest.json").write_bytes(content[0])
    checkpoint.latest(directory)
    # As somebody writes it who can hash.
    hashes = {"state.json": hashlib.sha256(content[1]).hexdigest()}
    (path / "manifest.json").write_text(json.dumps({"step": 1, "sha256": hashes}))
    with contextlib.suppress(CheckpointError):
        checkpoint.load(path)


TARGETS = {
    "recipe": Target(recipe_texts(), read_recipe),
    "overrides": Target(
        st.lists(
            st.tuples(st.sampled_from(OVERRIDES), leaves.map(str) | values_of(["a"]).map(str))
            | st.tuples(texts, texts),
            max_size=3,
        ).map(lambda pairs: [token for pair in pairs for token in pair]),
        read_overrides,
    ),
    "preferences": Target(
        lines_of(PAIRS, {"chosen": "a film of note", "rejected": "a dull one"}), read_pairs
    ),
    "metrics, agent": Target(lines_of(METRICS, {"step": 1, "wall": 1.0}), read_agents_metrics),
    "metrics, experiment": Target(
        lines_of(METRICS, {"step": 1, "wall": 1.0}), read_experiments_metrics
    ),
    "status": Target(files_of(objects_of(STATUS)), read_status),
    "evaluation": Target(files_of(objects_of(EVALUATION)), read_evaluation),
    "manifest": Target(
        st.tuples(
            files_of(objects_of(["step", "sha256", "state.json"])), files_of(values_of(["a"]))
        ),
        read_manifest,
    ),
}
