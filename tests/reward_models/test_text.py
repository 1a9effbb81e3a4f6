"""Loading and asking reward models of texts: padding, batches, templates, refusals."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from reward_models.text import TextRewardModel, encode, quiet

WORDS = [
    "good",
    "bad",
    "very",
    "dull",
    "and",
    "fun",
    "is",
    "a",
    "the",
    "film",
    "user",
    "assistant",
    ":",
    ".",
]
PROMPTS = ["", "the film is", "a", "the film"]
COMPLETIONS = ["good .", " very very good and fun", " dull", " is bad and dull and bad ."]
TEMPLATE = "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} {% endfor %}"
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}


def make_tokenizer(**settings: object) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    settings = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"} | settings
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def saved(model: PreTrainedModel, **settings: object) -> Path:
        with quiet():
            model.save_pretrained(tmp_path)
        make_tokenizer(**settings).save_pretrained(tmp_path)
        return tmp_path

    return saved


def llama(labels: int = 1) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForSequenceClassification(
        LlamaConfig(**SHAPE, intermediate_size=64, num_labels=labels, pad_token_id=0)
    )


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=32, num_labels=1, pad_token_id=0)
    return GPT2ForSequenceClassification(config)


def bert() -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(**SHAPE, intermediate_size=64, num_labels=1, pad_token_id=0)
    )


@pytest.mark.parametrize("build", [llama, gpt2, bert])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["<pad>", "<eos>"])
def test_a_score_does_not_depend_on_its_neighbours_or_padding(
    build: Callable[[], PreTrainedModel], side: str, pad: str, save: Callable[..., Path]
) -> None:
    path = save(build(), padding_side=side, pad_token=pad)
    together = TextRewardModel(path)(PROMPTS, COMPLETIONS)
    small_batches = TextRewardModel(path, batch=3)(PROMPTS, COMPLETIONS)
    one_by_one = TextRewardModel(path, batch=1)(PROMPTS, COMPLETIONS)
    assert together.shape == (4,)
    assert together.dtype == torch.float32
    assert together.std() > 0
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=0)
    torch.testing.assert_close(together, small_batches, atol=1e-5, rtol=0)


def test_the_score_is_the_models_own(save: Callable[..., Path]) -> None:
    model = llama().eval()
    path = save(model)
    ids = torch.tensor([make_tokenizer()("the film is good")["input_ids"]])
    expected = model(input_ids=ids).logits[0, 0].item()
    score = TextRewardModel(path)(["the film"], [" is good"])
    assert score.item() == pytest.approx(expected, abs=1e-5)


def test_conversations_go_through_the_models_template(save: Callable[..., Path]) -> None:
    model = TextRewardModel(save(llama(), chat_template=TEMPLATE))
    question = [{"role": "user", "content": "is the film good"}]
    answer = [{"role": "assistant", "content": "very"}]
    scores = model([question, question, "is the film good"], ["very", answer, answer])
    torch.testing.assert_close(scores, scores[:1].expand(3), atol=1e-6, rtol=0)
    said = make_tokenizer().decode(encode(model.tokenizer, question, "very"))
    assert said == "user : is the film good assistant : very"


def test_a_long_text_loses_its_beginning(save: Callable[..., Path]) -> None:
    model = TextRewardModel(save(llama()), max_tokens=4)
    scores = model(["a the film is very", "is very"], [" good and fun", " good and fun"])
    assert scores[0].item() == pytest.approx(scores[1].item(), abs=1e-6)


def test_no_texts_no_scores(save: Callable[..., Path]) -> None:
    assert TextRewardModel(save(llama()))([], []).shape == (0,)


def test_messages_without_a_template_are_refused(save: Callable[..., Path]) -> None:
    model = TextRewardModel(save(llama()))
    with pytest.raises(ValueError, match="no chat template"):
        model([[{"role": "user", "content": "good"}]], ["bad"])


def test_an_empty_text_is_refused(save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="empty text"):
        TextRewardModel(save(llama()))([" "], [""])


def test_two_labels_are_refused(save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="has 2 labels, a reward model has one"):
        TextRewardModel(save(llama(labels=2)))


def test_a_language_model_is_refused(save: Callable[..., Path]) -> None:
    config: PreTrainedConfig = LlamaConfig(**SHAPE, intermediate_size=64, num_labels=1)
    with pytest.raises(ValueError, match=r"no trained weights for score\.weight"):
        TextRewardModel(save(LlamaForCausalLM(config)))


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reward model at"):
        TextRewardModel(tmp_path)
