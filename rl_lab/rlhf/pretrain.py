"""The `pretrain` stage: a small language model from nothing, top to bottom in `pretrain`."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rl_lab.errors import UserError
from rl_lab.files import write_json
from rl_lab.metrics import MetricLog
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import language_model, pretrain_state
from rl_lab.rlhf import tokenizer as tokenizers
from rl_lab.rlhf.bits import Sample, Spelling, forward
from rl_lab.rlhf.jsonl import read_jsonl
from rl_lab.rlhf.ngram import NGram
from rl_lab.rlhf.optimizers import optimizers_for
from rl_lab.rlhf.packing import pack
from rl_lab.rlhf.pretrain_state import Progress
from rl_lab.rlhf.recipe import Pretrain
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.run import Run
from rl_lab.signals import StopRequest

LOG_EVERY = 10  # steps
NGRAM_ORDER = 4  # tokens
SAMPLES = 8
PROMPT_WORDS = 3  # of a held-out text
SAMPLE_TOKENS = 40
TEXTS_AT_ONCE = 8_192


def pretrain(  # noqa: PLR0915 -- a run reads top to bottom
    section: Pretrain,
    data: Path,
    run: Run,
    log: MetricLog,
    stop: StopRequest,
    *,
    seed: int,
    device: str,
    snapshots_required: bool = True,
) -> None:
    """Train a tokenizer and a language model on texts; leave `model/` and `report.json`.

    Everything before step 5 is made anew after a kill, to the same bits; then the newest snapshot
    is gone on from.

    Args:
        section: the recipe's `pretrain`.
        data: the data stage's directory, for its `texts-train.jsonl` and `texts-heldout.jsonl`.
        run: this stage's directory; the caller holds its lock. Its snapshots are gone on from.
        log: its metrics.
        stop: asked at every step.
        seed: what weights, order and samples follow from, unless the section has its own.
        device: where to train, as torch names it.
        snapshots_required: whether a snapshot that cannot be written ends the stage.

    Raises:
        UserError: there are no texts, the section's parts do not fit together, or the loss is no
            number any more.
        Stopped: `stop` said so; the state is saved.
    """
    seed = section.seed if section.seed is not None else seed
    torch.manual_seed(seed)
    clock = PhaseClock("preparation")
    snapshots = Snapshots(run, log, "step", required=snapshots_required)
    snapshot = snapshots.newest()
    if snapshot is not None:
        clock.seconds = snapshot.state["progress"]["phases"]
    run.update_status(budget=section.steps, step=snapshot.step if snapshot else 0, unit="steps")

    # 1. A tokenizer, and no more texts than the steps will see.
    texts = _read_texts(data / "texts-train.jsonl")
    words = section.tokenizer
    tokenizer = tokenizers.train(
        texts[: words.texts], words.kind, words.vocabulary, words.lowercase, section.context
    )
    sequences = _encode(tokenizer, texts, section.steps * section.batch_tokens, stop)
    texts = texts[: len(sequences)]
    rows = pack(sequences, section.context, tokenizer.pad_token_id)

    # 2. What models are measured on: held-out texts, and as many of those trained on. The gap
    #    between them also has a constant part where the two are of different kinds.
    heldout_texts = _read_texts(data / "texts-heldout.jsonl")
    heldout_texts = heldout_texts[
        : len(_encode(tokenizer, heldout_texts, section.evaluation_tokens, stop))
    ]
    # Spelling is learned from neither, so that the gap between them is the model's alone.
    others = texts[len(heldout_texts) :] or texts
    spelling = Spelling(tokenizer, others[: words.texts])
    heldout = Sample.of(heldout_texts, tokenizer, spelling, section.context)
    seen = Sample.of(texts[: len(heldout_texts)], tokenizer, spelling, section.context)

    # 3. What there is to beat, learned from the same tokens.
    ngram = NGram(sequences, NGRAM_ORDER, len(tokenizer))
    baseline = heldout.bits_per_character(float(ngram.nats(heldout.sequences).sum()))
    if snapshot is None:
        log.event(
            0, "baseline", f"a {NGRAM_ORDER}-gram model reaches {baseline:.3f} bits/character"
        )
    del ngram, sequences

    # 4. The model, its optimisers, and rows in random order.
    model = language_model.build(section.architecture, tokenizer)
    model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides `self`
    _check_context(model, section.context)
    optimizers = optimizers_for(model, section.optimizer, section.weight_decay)
    size = max(1, section.batch_tokens // section.context)
    batches = _batches(len(rows), size, seed)
    autocast = language_model.fast_autocast(device)
    if snapshot is None:
        progress = Progress()
        log.event(
            0, "model", f"{model.num_parameters():,} parameters, "
            f"{len(rows) * section.context:,} tokens of text, batches of {size} rows",
        )  # fmt: skip
    else:
        progress = pretrain_state.restore(snapshot, model, optimizers)
        for _ in range(progress.step):
            next(batches)

    while progress.step < section.steps and progress.looks_since_best < section.patience:
        if stop.signal is not None:
            pretrain_state.save(snapshots, model, optimizers, progress, clock)
            stop.check()
        progress.step = step = progress.step + 1

        # 5. Predict each next token of a batch of rows.
        clock.enter("train")
        model.train()
        with autocast:
            logits, targets, auxiliary = forward(model, rows, next(batches), device)
            loss = functional.cross_entropy(logits.float(), targets)
        (loss + auxiliary).backward()
        progress.losses.append(_finite("loss", loss, step, section.learning_rate))

        # 6. Step, at this step's learning rate.
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _finite("gradient", norm, step, section.learning_rate)
        rate = section.learning_rate * schedule(step, section.steps, section.warmup)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        clock.enter("preparation")

        if step % LOG_EVERY == 0 or step == section.steps:
            seconds = clock.totals()
            log.log(
                step,
                {
                    "train/loss": sum(progress.losses) / len(progress.losses),
                    "train/learning_rate": rate,
                    "time/tokens_per_second": step * size * section.context / seconds["train"],
                    **{f"phase/{phase}": spent for phase, spent in seconds.items()},
                },
            )
            run.update_status(step=step)
            progress.losses.clear()

        # 7. Look: held-out text, text trained on, samples. Keep the best; stop where none comes.
        if step % section.evaluate_every == 0 or step == section.steps:
            clock.enter("evaluation")
            with autocast:
                bits = heldout.measure(model, section.batch_tokens, device)
                train_bits = seen.measure(model, section.batch_tokens, device)
            look = {
                "eval/bits_per_character": bits,
                "train/bits_per_character": train_bits,
                "eval/gap": bits - train_bits,
            }
            log.log(step, look)
            for text in sample(model, tokenizer, heldout_texts[:2], seed):
                log.event(step, "sample", text)
            clock.enter("preparation")
            progress.looks_since_best += 1
            if not progress.best or bits < progress.best["eval/bits_per_character"]:
                progress.best, progress.looks_since_best = look | {"step": step}, 0
                weights = model.state_dict()
                progress.best_weights = {name: value.clone() for name, value in weights.items()}
            if progress.looks_since_best == section.patience:
                log.event(
                    step, "early-stop", f"no better at {section.patience} looks; kept the best"
                )

        if step % section.checkpoint_every == 0 and step < section.steps:
            pretrain_state.save(snapshots, model, optimizers, progress, clock)

    # 8. Leave the best model, and what is known of it.
    model.load_state_dict(progress.best_weights)
    language_model.save(model, tokenizer, run.path / "model")
    best = progress.best
    write_json(
        run.path / "report.json",
        {
            "heldout_bits_per_character": best["eval/bits_per_character"],
            "train_bits_per_character": best["train/bits_per_character"],
            "ngram_bits_per_character": baseline,
            "ngram_order": NGRAM_ORDER,
            "step": best["step"],
            "steps": progress.step,
            "tokens": progress.step * size * section.context,
            "heldout_characters": heldout.characters,
            "unknown_share": heldout.unknown_share,
            "parameters": model.num_parameters(),
            "seconds": sum(clock.totals().values()),
            "phases": clock.totals(),
            "samples": sample(model, tokenizer, heldout_texts[:SAMPLES], seed),
        },
    )


def schedule(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate at a step in 1..steps: a linear rise, a linear fall to 0."""
    rising = max(1, round(warmup * steps))
    return min(step / rising, (steps - step + 1) / (steps - rising + 1))


@torch.no_grad()
def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], seed: int
) -> list[str]:
    """Return the first words of texts, each gone on with by the model, drawn at temperature 1.

    Leaves torch's random numbers as they were.
    """
    model.eval()
    starts = [" ".join(text.split()[:PROMPT_WORDS]) for text in texts]
    positions = language_model.positions(model.config) or 2**31
    room = max(1, positions - SAMPLE_TOKENS)  # where nothing parts words, three may be a paragraph
    prompts = tokenizer.pad(
        {"input_ids": [sequence[:-1][:room] for sequence in tokenizers.encode(tokenizer, starts)]},
        return_tensors="pt",
    ).to(model.device)
    never = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        written = model.generate(  # type: ignore[operator]
            **prompts,
            do_sample=True,
            max_new_tokens=min(SAMPLE_TOKENS, positions - prompts["input_ids"].shape[1]),
            suppress_tokens=[token for token in never if token is not None],
        )
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def _read_texts(path: Path) -> list[str]:
    texts = [row["text"] for row in read_jsonl(path)] if path.exists() else []
    if not texts:
        raise UserError(
            f"there is no text to pretrain on ({path.name} is empty or absent); name texts in the "
            "recipe's data section, or start from a model with reward.base and ppo.policy"
        )
    return texts


def _encode(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], tokens: int, stop: StopRequest
) -> list[list[int]]:
    """Encode texts from the first on, until there are so many tokens or no more texts."""
    sequences: list[list[int]] = []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        stop.check()
        for sequence in tokenizers.encode(tokenizer, texts[start : start + TEXTS_AT_ONCE]):
            sequences.append(sequence)
            tokens -= len(sequence)
            if tokens <= 0:
                return sequences
    return sequences


def _batches(rows: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield batches of row numbers for ever, each row once an epoch, in another order each."""
    generator = torch.Generator().manual_seed(seed)
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < size:
            rest = torch.cat((rest, torch.randperm(rows, generator=generator)))
        yield rest[:size]
        rest = rest[size:]


def _check_context(model: PreTrainedModel, context: int) -> None:
    longest = language_model.positions(model.config)
    if longest is not None and context > longest:
        raise UserError(
            f"pretrain.context: rows of {context} tokens do not fit into a model of "
            f"{longest} positions; raise pretrain.architecture.max_position_embeddings"
        )


def _finite(what: str, number: Tensor, step: int, learning_rate: float) -> float:
    """Return a loss, or the norm of a gradient, as a number.

    Raises:
        UserError: it is none.
    """
    if not number.isfinite():
        raise UserError(
            f"the {what} of pretraining is {number.item()} at step {step}; lower "
            f"pretrain.learning_rate ({learning_rate:g})"
        )
    return number.item()
