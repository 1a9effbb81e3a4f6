"""What is seen to be wrong with a recipe's models before any stage has run."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import BertConfig, BertForMaskedLM, LlamaForSequenceClassification

from reward_models.text import quiet
from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.rlhf.check import check
from rl_lab.rlhf.recipe import LanguageRecipe
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A policy, reward models of one and two labels, a masked language model."""
    tokenizer = tiny_tokenizer()
    policy = tiny_model(len(tokenizer))
    one, two = (tiny_model(len(tokenizer)).config for _ in range(2))
    one.num_labels, two.num_labels = 1, 2
    masked = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=1,
        intermediate_size=16,
    )  # fmt: skip
    made: dict[str, Any] = {
        "policy": policy, "one": LlamaForSequenceClassification(one),
        "two": LlamaForSequenceClassification(two), "masked": BertForMaskedLM(masked),
        "stage/members/0": LlamaForSequenceClassification(one),
        "wrong-stage/members/0": LlamaForSequenceClassification(two),
    }  # fmt: skip
    with quiet():
        for name, model in made.items():
            model.save_pretrained(tmp_path / name)
            tokenizer.save_pretrained(tmp_path / name)
        policy.save_pretrained(tmp_path / "endless")
        tokenizer.save_pretrained(tmp_path / "endless")
    settings = tmp_path / "endless" / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({k: v for k, v in content.items() if k != "eos_token"}))
    for name in ("weightless", "damaged"):
        tokenizer.save_pretrained(tmp_path / name)
    policy.config.save_pretrained(tmp_path / "weightless")
    (tmp_path / "damaged" / "config.json").write_text("{")
    return tmp_path


def recipe(models: Path, changes: dict[str, Any]) -> LanguageRecipe:
    """PPO on local models, with some keys changed; `{models}` stands for their directory."""
    (models / "pairs.txt").write_text("a\nb\n")
    (models / "mine.yaml").write_text(
        f"data: {{preferences: {models}/pairs.txt}}\n"
        f"ppo: {{policy: {models}/policy, rewards: {{r: {{model: {models}/one}}}}}}\n"
    )
    filled = json.loads(json.dumps(changes).replace("{models}", str(models)))
    return recipes.load(LanguageRecipe, str(models / "mine.yaml"), filled)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ppo.sampling.stop": ["a", "<eos>"]},
        {"ppo.rewards.r.model": "{models}/stage"},
        {"reward": {"base": "{models}/masked"}},
        {"ppo.policy": "{models}/weightless"},  # weights are the stage's to read
        {"ppo.policy": "somebody/somewhere"},  # the hub is not asked
    ],
)
def test_good_models_pass(models: Path, changes: dict[str, Any]) -> None:
    check(recipe(models, changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ppo.policy": "{models}/endless"}, r"^ppo\.policy: .* has no end token"),
        ({"ppo.policy": "{models}/masked"}, r"^ppo\.policy: .* no causal language model"),
        ({"ppo.policy": "{models}/one"}, r"^ppo\.policy: .* is a classifier or reward model"),
        ({"ppo.policy": "{models}/damaged"}, r"^ppo\.policy: .* cannot be read"),
        ({"ppo.rewards.r.model": "{models}/two"}, r"^ppo\.rewards\.r\.model: .* has 2 labels"),
        ({"ppo.rewards.r.model": "{models}/policy"}, r"^ppo\.rewards\.r\.model: .* 2 labels"),
        ({"ppo.rewards.r.model": "{models}/wrong-stage"}, r"members/0' .* 2 labels"),
        ({"ppo.sampling.stop": ["a b"]}, r"^ppo\.sampling\.stop: 'a b' is not one token"),
        ({"ppo.sampling.max_new_tokens": 128}, r"^ppo\.sampling.* leaves no room for a prompt"),
        ({"reward": {"base": "{models}/endless"}}, r"^reward\.base: .* has no end token"),
        ({"reward": {"base": "{models}/damaged"}}, r"^reward\.base: .* cannot be read"),
    ],
)
def test_bad_models_are_refused_before_anything_runs(
    models: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        check(recipe(models, changes))
