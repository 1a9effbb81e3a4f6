"""Model directories from a stranger: no code is run, no memory taken on a file's word."""

import json
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForSequenceClassification

from reward_models.ensemble import load_member
from reward_models.linear import LinearText, fit_preferences
from reward_models.text import TextRewardModel, quiet
from rl_lab.errors import UserError
from rl_lab.provenance import ROOT
from rl_lab.rlhf import language_model, preference_trainer
from rl_lab.rlhf.judges import LinearJudge
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer

PICKLE = b"\x80\x04cos\nsystem\n(S'touch pickle-was-read'\ntR."

PICKLING = {"sb3_zip.py", "export_zip.py"}
"""Exchange with Stable-Baselines3, whose format is pickles: read only with --trust."""

Edit = Callable[[Path], object]


def edit(file: str, **changes: Any) -> Edit:
    def change(directory: Path) -> None:
        path = directory / file
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def write(file: str, content: str | bytes) -> Edit:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda directory: (directory / file).write_bytes(data)


def pickled_only(directory: Path) -> None:
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(PICKLE)


def bring_code(file: str) -> Edit:
    def change(directory: Path) -> None:
        names = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification")
        edit(file, auto_map=dict.fromkeys(names, "evil.Evil"))(directory)
        (directory / "evil.py").write_text("raise SystemExit('it was run')")

    return change


def safetensors(header: dict[str, Any], size: int = 64) -> bytes:
    said = json.dumps(header).encode()
    return struct.pack("<Q", len(said)) + said + bytes(size)


def tensor(start: int, end: int, shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


DEEP = '{"a":' * 5000 + "1" + "}" * 5000
HOSTILE: dict[str, tuple[Edit, str]] = {
    "code in the config": (bring_code("config.json"), "code of its own"),
    "code in the tokenizer": (bring_code("tokenizer_config.json"), "code of its own"),
    "pickled weights only": (pickled_only, "safetensors"),
    "a deep config": (write("config.json", DEEP), "nested|JSON"),
    "a config of 50 levels": (write("config.json", '{"a":' * 60 + "1" + "}" * 60), "nested deeper"),
    "no JSON": (write("config.json", "{"), "no JSON"),
    "a list for a config": (write("config.json", "[]"), "should hold a JSON object"),
    "bad UTF-8": (write("config.json", b'{"a": "\xff"}'), "no JSON"),
    "10^9 layers": (edit("config.json", num_hidden_layers=10**9), "num_hidden_layers is 1e.09"),
    "9,000 layers": (edit("config.json", num_hidden_layers=9000), "9,000 layers"),
    "10^9 wide": (edit("config.json", hidden_size=10**9), "hidden_size is 1e.09"),
    "5,000,000 wide": (edit("config.json", hidden_size=5_000_000), "describes .* numbers"),
    "10^30 wide": (edit("config.json", hidden_size=10**30), "hidden_size is 1e.30"),
    "10^9 heads": (edit("config.json", num_attention_heads=10**9), "num_attention_heads"),
    "10^12 positions": (edit("config.json", max_position_embeddings=10**12), "max_position"),
    "10^9 words": (edit("config.json", vocab_size=10**9), "vocab_size"),
    "-1 layers": (edit("config.json", num_hidden_layers=-1), "num_hidden_layers is -1"),
    "infinitely wide": (write("config.json", '{"hidden_size": 1e999}'), "hidden_size"),
    "a width in words": (edit("config.json", hidden_size="wide"), "hidden_size|cannot|describes"),
    "a list of layers": (edit("config.json", num_hidden_layers=[1]), "num_hidden_layers|cannot"),
    "unknown model_type": (edit("config.json", model_type="no-such"), "no-such|cannot"),
    "model_type is a list": (edit("config.json", model_type=[]), "cannot|model_type|no reward"),
    "a broken tokenizer": (write("tokenizer.json", '{"version": "1.0"}'), "tokenizer|no reward"),
    "a tokenizer of nonsense": (
        write("tokenizer.json", '{"model": {"type": "BPE", "vocab": 3}}'), "tokenizer|no reward",
    ),
    "a deep tokenizer": (write("tokenizer.json", DEEP), "tokenizer.json|nested"),
    "a header of 10^15 bytes": (
        write("model.safetensors", struct.pack("<Q", 10**15) + b"{}"), "damaged"
    ),
    "a tensor of 10^15 bytes": (
        write("model.safetensors", safetensors({"a": tensor(0, 4 * 10**15, [10**15])})), "damaged"
    ),
    "a shape that overflows": (
        write("model.safetensors", safetensors({"a": tensor(0, 0, [2**32, 2**32])})), "damaged"
    ),
    "overlapping tensors": (
        write("model.safetensors",
              safetensors({"a": tensor(0, 64, [16]), "b": tensor(32, 64, [8])})), "damaged",
    ),
    "half of a file": (write("model.safetensors", b"\x01\x02"), "damaged"),
    "a pickle called safetensors": (write("model.safetensors", PICKLE), "damaged"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A language model and a reward model, as they should be."""
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=32, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    models = {
        "causal": tiny_model(len(tokenizer)), "reward": LlamaForSequenceClassification(config)
    }  # fmt: skip
    paths = {}
    for name, model in models.items():
        paths[name] = tmp_path_factory.mktemp(name)
        with quiet():
            model.save_pretrained(paths[name])
        tokenizer.save_pretrained(paths[name])
    return paths


@pytest.mark.parametrize("name", HOSTILE)
def test_every_reader_refuses_it_in_a_sentence(
    name: str, sound: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    for kind, path in sound.items():
        shutil.copytree(path, tmp_path / kind)
        change(tmp_path / kind)
    with pytest.raises(UserError, match=words):
        language_model.load(tmp_path / "causal", "cpu")
    with pytest.raises(ValueError, match=words):
        TextRewardModel(tmp_path / "reward")
    if "tokenizer" not in name or "code" in name:  # it is read with the weights' model only
        with pytest.raises(UserError, match="cannot start from"):
            preference_trainer.load_base(str(tmp_path / "causal"), "auto", "cpu")
    assert not (tmp_path / "pickle-was-read").exists()


def test_what_is_sound_is_loaded(sound: dict[str, Path]) -> None:
    language_model.load(sound["causal"], "cpu")
    assert TextRewardModel(sound["reward"])([""], ["a b"]).shape == (1,)
    preference_trainer.load_base(str(sound["causal"]), "causal", "cpu")


def test_a_huge_claim_takes_no_memory(sound: dict[str, Path], tmp_path: Path) -> None:
    """In a process that may have little: torch itself, and a few hundred megabytes."""
    shutil.copytree(sound["causal"], tmp_path / "model")
    edit("config.json", hidden_size=5_000_000)(tmp_path / "model")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30, 12 * 2**30))
        resource.setrlimit(resource.RLIMIT_CPU, (120, 120))

    program = (
        "import sys\nfrom rl_lab.errors import UserError\nfrom rl_lab.rlhf import language_model\n"
        "try:\n    language_model.load(sys.argv[1], 'cpu')\n"
        "except UserError as error:\n    sys.exit(str(error))"
    )
    result = subprocess.run(
        [sys.executable, "-P", "-c", program, str(tmp_path / "model")],
        capture_output=True, text=True, check=False, env=os.environ, preexec_fn=limit,
    )  # fmt: skip
    assert "describes" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_a_pipe_does_not_hang(sound: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sound["causal"], tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    os.mkfifo(tmp_path / "model" / "config.json")
    with pytest.raises(UserError, match=r"config\.json is no file"):
        language_model.load(tmp_path / "model", "cpu")


def test_no_source_ever_trusts_remote_code_or_reads_pickled_weights() -> None:
    calls = 0
    for package in ("rl_lab", "reward_models", "envs", "scripts"):
        for path in (ROOT / package).rglob("*"):
            if not path.is_file() or path.suffix not in ("", ".py"):
                continue
            source = path.read_text(encoding="utf-8")
            assert not re.search(r"trust_remote_code\s*=\s*(?!False)", source), path
            if path.name not in PICKLING:
                assert not re.search(r"\btorch\.load\(|import (cloud)?pickle|joblib\.load", source)
            assert not re.search(r"allow_pickle\s*=\s*(?!False)", source), path
            assert not re.search(r"yaml\.(unsafe_load|full_load|Loader|UnsafeLoader)\b", source)
            for found in re.finditer(r"(\w+)\.from_pretrained\(", source):
                calls += 1
                call = source[found.end() : source.index(")", found.end())]
                assert "trust_remote_code=False" in call, (path, call)
                if found[1].startswith("AutoModel"):
                    assert "use_safetensors=True" in call, (path, call)
    assert calls >= 6  # the search finds what it is to find


@pytest.mark.parametrize(
    ("words", "message"),
    [('["a"]', "one weight for each word"), ("{}", "one weight"), ("[" * 5000, "cannot be read"),
     ('["a", "a"]', "different words"), ("3", "cannot be read"), (None, "cannot be read")],
)  # fmt: skip
def test_a_damaged_judge_is_a_sentence(words: str | None, message: str, tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good good", "bad"]
    LinearJudge.fit(texts, [1.0, 0.0, 1.0, 0.0]).save(tmp_path)
    assert LinearJudge.load(tmp_path)(["good", "bad"]).argmax() == 0
    if words == '["a", "a"]':
        np.savez(tmp_path / "weights.npz", weights=[1.0, 2.0], idf=[1.0, 1.0], bias=0.0)
    (tmp_path / "words.json").unlink()
    if words is not None:
        (tmp_path / "words.json").write_text(words)
    with pytest.raises(UserError, match=message):
        LinearJudge.load(tmp_path)
    (tmp_path / "weights.npz").write_bytes(PICKLE)
    with pytest.raises(UserError, match="cannot be read"):
        LinearJudge.load(tmp_path)


@pytest.mark.parametrize(
    ("pieces", "message"),
    [('{"kind": "words", "pieces": ["a"]}', "one weight for each piece"), ("{}", "cannot be read"),
     ('{"kind": "words", "pieces": ["a", "a"]}', "different pieces"), ("3", "cannot be read"),
     ('{"kind": "words", "pieces": [["a"], ["b"]]}', "different pieces"),
     ('{"kind": "words", "pieces": [1, null]}', "different pieces"),
     ('{"kind": "words", "pieces": []}', "different pieces"),
     ('{"kind": "os.system", "pieces": ["a"]}', "none of words, characters"),
     ('{"kind": ["words"], "pieces": ["a"]}', "cannot be read"),
     ("[" * 5000, "cannot be read"), (None, "cannot be read")],
)  # fmt: skip
def test_a_damaged_linear_model_is_a_sentence(
    pieces: str | None, message: str, tmp_path: Path
) -> None:
    fit_preferences("words", ["good film", "good"], ["bad film", "bad"], [1.0, 1.0]).save(tmp_path)
    assert load_member(tmp_path)(["", ""], ["good", "bad"]).argmax() == 0
    whole = (tmp_path / "pieces.json").read_bytes()
    (tmp_path / "pieces.json").unlink()
    if pieces is not None:
        (tmp_path / "pieces.json").write_text(pieces)
    with pytest.raises(ValueError, match=message):
        LinearText.load(tmp_path)
    (tmp_path / "pieces.json").write_bytes(whole)
    (tmp_path / "linear.safetensors").write_bytes(PICKLE)
    with pytest.raises(ValueError, match="cannot be read"):
        load_member(tmp_path)
    for weight in (np.nan, np.inf, np.complex64(1j)):
        count = len(json.loads(whole)["pieces"])
        weights, idf = np.full(count + 1, weight), np.ones(count)
        save_file({"weights": weights, "idf": idf}, tmp_path / "linear.safetensors")
        with pytest.raises(ValueError, match="not all finite numbers"):
            load_member(tmp_path)
