"""From names in a recipe to a policy, its sampling and its critic."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from reward_models.ensemble import Ensemble
from reward_models.text import encode
from rl_lab.errors import UserError
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.language_model import build, load
from rl_lab.rlhf.ppo_recipe import PPO, SamplingSection
from rl_lab.rlhf.ppo_stage import (
    build_policy,
    build_sampling,
    heldout_prompts,
    longest_prompt,
    save_model,
    text_mix,
)
from rl_lab.rlhf.prompts import Prompt, batch_of, completion_texts, read_prompts, tokenize_prompt
from rl_lab.rlhf.rewards import Rewards, Term
from rl_lab.rlhf.sampling import check_cache
from rl_lab.rlhf.tiny import tiny_model, tiny_tokenizer
from tests.rlhf.conftest import InMemory


def settings(**changes: Any) -> PPO:
    return PPO(rewards={"r": {"model": "x"}}, precision="float32", **changes)


def reward_model(tokenizer: Any) -> InMemory:
    config = tiny_model(len(tokenizer)).config
    config.num_labels = 1
    torch.manual_seed(1)
    return InMemory(LlamaForSequenceClassification(config), tokenizer)


def test_a_critic_starts_as_the_reward_model() -> None:
    tokenizer = tiny_tokenizer()
    member = reward_model(tokenizer)
    terms = Rewards({"r": Term(Ensemble([member]))})
    policy = build_policy(
        settings(critic={"kind": "reward"}), tiny_model(len(tokenizer)), tokenizer, terms
    )
    assert torch.equal(policy.critic.head.weight, member.model.score.weight)
    assert policy.critic.trunk is not member.model.base_model  # a copy: the reward stays frozen


def test_a_reward_model_of_other_tokens_cannot_be_the_critic() -> None:
    tokenizer = tiny_tokenizer()
    member = reward_model(tiny_tokenizer(("c", "b", "a")))
    with pytest.raises(UserError, match="other numbers for the policy's tokens"):
        build_policy(
            settings(critic={"kind": "reward"}), tiny_model(len(tokenizer)), tokenizer,
            Rewards({"r": Term(Ensemble([member]))}),
        )  # fmt: skip


def test_special_tokens_that_end_nothing_are_banned_and_stops_are_tokens() -> None:
    tokenizer = tiny_tokenizer()
    model = tiny_model(len(tokenizer) + 3)  # rows beyond the vocabulary, as padded models have
    sampling = build_sampling(SamplingSection(stop=["b"]), tokenizer, model)
    b = tokenizer.convert_tokens_to_ids("b")
    assert set(sampling.stop_ids) == {tokenizer.eos_token_id, b}
    assert set(sampling.banned_ids) == {tokenizer.pad_token_id, tokenizer.bos_token_id, 6, 7, 8}
    assert build_sampling(SamplingSection(stop=["<eos>"]), tokenizer, model).stop_ids == (1,)
    for text in ("a b", "unknown"):
        with pytest.raises(UserError, match="is not one token"):
            build_sampling(SamplingSection(stop=[text]), tokenizer, model)


def test_when_padding_is_the_end_token_it_still_ends() -> None:
    tokenizer = tiny_tokenizer(pad_is_eos=True)
    sampling = build_sampling(SamplingSection(), tokenizer, tiny_model(len(tokenizer)))
    assert tokenizer.eos_token_id in sampling.stop_ids
    assert tokenizer.eos_token_id not in sampling.banned_ids


def test_lora_names_that_are_not_there() -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(UserError, match=r"ppo\.lora\.targets"):
        build_policy(
            settings(lora={"targets": ["nothing"]}), tiny_model(len(tokenizer)), tokenizer,
            Rewards({}),
        )  # fmt: skip


def test_saved_with_adapters_it_is_the_same_model_without(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    policy = build_policy(
        settings(lora={"rank": 2}), tiny_model(len(tokenizer)), tokenizer, Rewards({})
    )
    with torch.no_grad():
        for tensor in policy.trained_tensors().values():
            tensor.add_(0.1)
    ids = torch.tensor([[2, 3, 4, 5]])
    save_model(policy, tokenizer, tmp_path / "model")
    loaded, _ = load(tmp_path / "model", "cpu")
    torch.testing.assert_close(loaded(ids).logits, policy.model(ids).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("targets", ["all-linear", ["lm_head"], ["embed_tokens"]])
def test_saved_a_matrix_for_both_ends_stays_one_unless_an_end_has_an_adapter(
    tmp_path: Path, targets: Any, precision: Any
) -> None:
    tokenizer = tiny_tokenizer()
    config = tiny_model(len(tokenizer)).config
    config.tie_word_embeddings = True
    ppo = settings(lora={"rank": 2, "targets": targets})
    ppo = ppo.model_copy(update={"precision": precision})
    policy = build_policy(ppo, LlamaForCausalLM(config).eval(), tokenizer, Rewards({}))
    with torch.no_grad():
        for tensor in policy.trained_tensors().values():
            tensor.add_(0.1)
    ids = torch.tensor([[2, 3, 4, 5]])
    with policy.precision():
        logits = policy.model(ids).logits.float()
    save_model(policy, tokenizer, tmp_path / "model")
    loaded, _ = load(tmp_path / "model", "cpu")
    both = loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    assert both == (targets == "all-linear")
    close = 1e-4 if precision == "float32" else 0.1
    torch.testing.assert_close(loaded(ids).logits, logits, atol=close, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_texts_are_mixed_in_beside_adapters_too(tmp_path: Path, precision: Any) -> None:
    tokenizer = tiny_tokenizer()
    write_jsonl(tmp_path / "texts-train.jsonl", [{"text": "a b c"}])
    ppo = settings(lora={"rank": 2}, pretraining_mix={}).model_copy(update={"precision": precision})
    policy = build_policy(ppo, tiny_model(len(tokenizer)), tokenizer, Rewards({}))
    mix = text_mix(ppo, tmp_path, tokenizer, seed=0)
    assert mix is not None
    mix(0)(policy, 0).backward()
    assert any(one.grad is not None for one in policy.trained_tensors().values())


def test_prompts_too_long_are_dropped_or_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    path = tmp_path / "prompts-train.jsonl"
    long = {"prompt": "a b c a", "from": "mine.txt, line 7"}
    write_jsonl(path, [{"prompt": "a"}, long, {"prompt": ""}])
    prompts, dropped = read_prompts(path, tokenizer, 3, refuse=False)
    assert [prompt.source for prompt in prompts] == ["a"]
    assert dropped[0].startswith("mine.txt, line 7 has 4 tokens")
    assert dropped[1].startswith("prompts-train.jsonl, line 3 has 0 tokens")
    with pytest.raises(UserError, match=r"mine\.txt, line 7: the prompt has 4 tokens"):
        read_prompts(path, tokenizer, 3, refuse=True)
    write_jsonl(path, [long])
    with pytest.raises(UserError, match=r"to train on can be used \(1 dropped: mine"):
        read_prompts(path, tokenizer, 3, refuse=False)


def test_what_is_said_of_held_out_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts-heldout.jsonl"
    rows: list[dict[str, Any]] = [{"prompt": word} for word in "abc"]
    write_jsonl(path, rows)
    heldout = heldout_prompts(tmp_path, tiny_tokenizer(), 3, False, 2)
    assert [prompt.source for prompt in heldout.looks] == ["a"]
    assert [prompt.source for prompt in heldout.evaluation] == ["b", "c"]
    assert heldout.remarks == []
    write_jsonl(path, [rows[0], {"prompt": "a b c a", "from": "mine.txt, line 7"}])
    heldout = heldout_prompts(tmp_path, tiny_tokenizer(), 3, False, 2)
    assert heldout.looks == heldout.evaluation
    assert "1 dropped: mine.txt, line 7 has 4 tokens" in heldout.remarks[0]
    assert "both looks and evaluation see it" in heldout.remarks[1]


def test_prompts_that_an_earlier_data_stage_did_not_leave(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    with pytest.raises(UserError, match=r"left no prompt to train on; set data\.prompts"):
        read_prompts(tmp_path / "prompts-train.jsonl", tokenizer, 3, refuse=False)
    write_jsonl(tmp_path / "prompts-heldout.jsonl", [])
    with pytest.raises(UserError, match=r"left no prompt held out to judge on"):
        read_prompts(tmp_path / "prompts-heldout.jsonl", tokenizer, 3, refuse=False)


def test_a_response_must_leave_room_for_a_prompt() -> None:
    config = tiny_model(6).config
    assert longest_prompt(config, 24) == 128 - 24
    with pytest.raises(UserError, match="leaves no room"):
        longest_prompt(config, 128)


def test_conversations_need_a_template_and_are_answered() -> None:
    tokenizer = tiny_tokenizer()
    messages = [{"role": "user", "content": "a b"}]
    with pytest.raises(UserError, match="no chat template"):
        tokenize_prompt(messages, tokenizer)
    tokenizer.chat_template = (
        "{% for m in messages %}<bos> {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}c{% endif %}"
    )
    assert tokenizer.decode(tokenize_prompt(messages, tokenizer)) == "<bos> a b c"
    assert Prompt(messages, [1]).text == "a b → "


REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}a"


def test_a_conversation_that_the_template_refuses_is_dropped_or_refused(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = REFUSING
    path = tmp_path / "prompts-train.jsonl"
    roles = ("user", "system")
    write_jsonl(path, [{"prompt": [{"role": role, "content": "b"}]} for role in roles])
    prompts, dropped = read_prompts(path, tokenizer, 3, refuse=False)
    assert len(prompts) == 1
    assert dropped == [
        f"{path.name}, line 2 is not taken by the policy's chat template (no system)"
    ]
    with pytest.raises(UserError, match=r"line 2: the prompt is not taken by .*; change its roles"):
        read_prompts(path, tokenizer, 3, refuse=True)
    with pytest.raises(ValueError, match="template refuses: no system"):
        encode(tokenizer, [{"role": "system", "content": "b"}], "a")


def test_a_model_that_takes_no_such_cache_is_no_policy() -> None:
    tokenizer = tiny_tokenizer()
    settings = {
        "model_type": "recurrent_gemma", "hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 2, "num_attention_heads": 2, "lru_width": 16,  # no layer attends
    }  # fmt: skip
    model = build(settings, tokenizer).eval()
    with pytest.raises(UserError, match="'recurrent_gemma' cannot be sampled from"):
        check_cache(model, tokenizer.eos_token_id)
    check_cache(tiny_model(len(tokenizer)), tokenizer.eos_token_id)


def test_batches_are_passes_over_the_prompts_and_need_no_history() -> None:
    prompts = [Prompt(str(number), [number]) for number in range(7)]
    drawn = [prompt.source for index in range(7) for prompt in batch_of(prompts, 3, index, 5)]
    for start in range(0, 21, 7):
        assert sorted(drawn[start : start + 7]) == [str(number) for number in range(7)]
    assert drawn[:7] != drawn[7:14]
    assert [p.source for p in batch_of(prompts, 3, 4, 5)] == drawn[12:15]


def test_completions_continue_their_prompts() -> None:
    tokenizer = tiny_tokenizer()
    prompt = Prompt("a b", [2, 3, 4])
    assert completion_texts([prompt], [[5, 1]], tokenizer) == [" c"]
    assert completion_texts([prompt], [[1]], tokenizer) == [""]
