"""The `reward` stage: an ensemble of reward models, each learned from the same preference pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl import RewardConfig

from reward_models import linear
from reward_models.linear import Pieces, TooFewPiecesError
from reward_models.text import plain, quiet
from rl_lab import checkpoint
from rl_lab.errors import UserError
from rl_lab.files import whole_directory, write_json, writing
from rl_lab.metrics import MetricLog, numbers_of, read_metrics
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import language_model, reward_report
from rl_lab.rlhf.language_model import has_bfloat16
from rl_lab.rlhf.preference_trainer import Comparisons, PreferenceTrainer, load_base
from rl_lab.rlhf.recipe import Reward
from rl_lab.rlhf.reward_data import add_words, read_pairs, reward_tokenizer, tokenized
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.run import Run
from rl_lab.signals import StopRequest

WARMUP = 0.1  # share of the steps


def train_reward(
    section: Reward,
    data: Path,
    base: Path | str,
    run: Run,
    log: MetricLog,
    stop: StopRequest,
    *,
    seed: int,
    device: str,
    snapshots_required: bool = True,
) -> None:
    """Train the members, judge them and their mean on held-out pairs, and write `report.json`.

    Args:
        section: the recipe's.
        data: the data stage's directory.
        base: what the members start from: a directory or hub id of a language model.
        run: takes `members/<i>/`, `members/words/` and the like of linear ones, and `report.json`;
            members that are there already are kept, and the one that was being trained goes on
            from its newest snapshot.
        log: takes the numbers; a step is an optimiser step of any member.
        stop: asked after every step.
        seed: of heads and orders.
        device: where to train.
        snapshots_required: whether a snapshot that cannot be written ends the stage.

    Raises:
        UserError: there are no pairs, none is short enough, they have too few words in common for
            a linear member, or the base cannot be used.
        Stopped: somebody asked to; the state is saved.
    """
    clock = PhaseClock("preparation")

    # 1. Pairs, as token ids.
    pairs = read_pairs(data / "pairs-train.jsonl", heldout=False)
    tokenizer = reward_tokenizer(base)
    max_tokens = _most_tokens(base, section.max_tokens)
    added = add_words(tokenizer, pairs)
    dataset, too_long = tokenized(pairs, tokenizer, max_tokens, section.soft_labels)
    if not len(dataset):
        raise UserError(
            f"no pair in {data / 'pairs-train.jsonl'} has at most {max_tokens} tokens; raise "
            "reward.max_tokens, or take a base of more positions"
        )
    steps = max(1, round(section.epochs * len(dataset) / section.batch))

    # 2. Members: the same base and pairs; another head, another order.
    directories = [run.path / "members" / str(index) for index in range(section.members)]
    seeds = np.random.SeedSequence(seed).generate_state(section.members) % 2**31
    finished = sum(directory.exists() for directory in directories)
    snapshots = Snapshots(run, log, "step", required=snapshots_required)
    snapshot = snapshots.newest(done=finished * steps)
    if snapshot is None and not finished:
        _say_what_is_read(log, added, too_long, len(pairs), max_tokens)
    step = snapshot.step if snapshot else finished * steps
    run.update_status(step=step, budget=steps * section.members, unit="steps")
    clock.enter("train")
    for index in range(finished, section.members):
        first_step = index * steps
        progress = Progress(
            snapshots, stop, clock, first_step, member=index, save_every=section.checkpoint_every
        )
        train_member(
            base, tokenizer, dataset, directories[index], progress,
            reading=section.reading, steps=steps, batch=section.batch,
            learning_rate=section.learning_rate,
            weight_decay=section.weight_decay, seed=int(seeds[index]), device=device,
            resume=snapshot is not None and index == finished,
        )  # fmt: skip
        stop.check()

    # 3. Members of another kind, which err elsewhere.
    for kind in section.linear:
        directories.append(run.path / "members" / kind)
        if not directories[-1].exists():
            stop.check()
            log.event(steps * section.members, "linear", f"fitting a linear model of {kind}")
            fit_linear(kind, pairs, section.soft_labels, directories[-1])

    # 4. Judged on pairs whose texts no member has seen.
    clock.enter("evaluation")
    heldout = read_pairs(data / "pairs-heldout.jsonl", heldout=True)
    report = reward_report.judge_members(directories, pairs, heldout, device, stop)
    report["ceiling"] = reward_report.read_ceiling(data / "report.json")
    report["dropped"] = {"longer than max_tokens": too_long}
    report["added_words"] = added
    write_json(run.path / "report.json", report)
    done = steps * section.members
    lines: list[dict[str, float]] = [
        {"reward/member": index, "eval/accuracy": member["accuracy"]["all"]["mean"]}
        for index, member in enumerate(report["members"])
    ]
    ensemble = {"eval/ensemble_accuracy": report["ensemble"]["accuracy"]["all"]["mean"]}
    lines.append(ensemble | phase_numbers(clock))
    # All of one step: a process killed between them left some.
    there = numbers_of(read_metrics(run.metrics_file), "eval/accuracy")[0]
    for line in lines[len(there) :]:
        log.log(done, line)


def _most_tokens(base: Path | str, wanted: int) -> int:
    """Tokens of a text that are learned from: no more than the base has positions.

    A reward model is asked about no more either (see `TextRewardModel`).
    """
    return min(wanted, language_model.positions(language_model.read_config(base)) or wanted)


def _say_what_is_read(
    log: MetricLog, added: int, too_long: int, pairs: int, max_tokens: int
) -> None:
    if added:
        log.event(0, "vocabulary", f"{added:,} words of the pairs, unknown to the base, are added")
    if too_long:
        log.event(
            0, "dropped", f"{too_long:,} of {pairs:,} pairs are longer than {max_tokens} tokens "
            "and are left out", "warning",
        )  # fmt: skip


def train_member(
    base: Path | str,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    directory: Path,
    progress: "Progress",
    *,
    reading: str,
    steps: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    device: str,
    resume: bool,
) -> None:
    """Train one reward model and save it, with its tokenizer, in `directory`, whole or not at all.

    Where `resume` says so, it goes on from the run's newest snapshot.

    Raises:
        UserError: the base is no model with a sequence-classification form.
    """
    with quiet():
        torch.manual_seed(seed)
        model = load_base(base, reading, device)
        if len(tokenizer) > model.config.get_text_config().vocab_size:
            model.resize_token_embeddings(len(tokenizer))
        config = RewardConfig(
            output_dir=str(progress.snapshots.run.path),  # nothing is put there
            use_cpu=device == "cpu",
            bf16=has_bfloat16(device),
            activation_checkpointing=False,
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=round(WARMUP * steps),
            weight_decay=weight_decay,
            optim="adamw_torch_fused",
            max_grad_norm=1.0,
            max_length=None,  # too long pairs are already left out
            remove_unused_columns=False,
            logging_steps=max(1, min(10, steps // 20)),
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=seed,
        )
        with writing(directory):  # it makes the directory
            trainer = PreferenceTrainer(
                model=model,
                args=config,
                train_dataset=dataset,
                processing_class=tokenizer,
                data_collator=Comparisons(tokenizer.pad_token_id),
                callbacks=[progress],
                to=progress.snapshots,
                first_step=progress.first_step,
            )
        trainer.remove_callback(PrinterCallback)
        there = checkpoint.directories(progress.snapshots.run.checkpoints)
        newest = str(there[-1]) if resume else None
        trainer.train(resume_from_checkpoint=newest)
        language_model.save(model, tokenizer, directory)


def fit_linear(
    kind: Pieces, pairs: Sequence[dict[str, Any]], soft_labels: bool, directory: Path
) -> None:
    """Fit one linear reward model and save it in `directory`, whole or not at all.

    Raises:
        UserError: the pairs have too few words in common.
    """
    chosen, rejected = (
        [plain(pair["prompt"]) + plain(pair[side]) for pair in pairs]
        for side in ("chosen", "rejected")
    )
    shares = [pair.get("share") if soft_labels else None for pair in pairs]
    try:
        model = linear.fit_preferences(
            kind, chosen, rejected, [1.0 if share is None else share for share in shares]
        )
    except TooFewPiecesError:
        raise UserError(
            f"reward.linear: the texts of {len(pairs)} pairs have no {kind} in common; leave it "
            "out, or give more"
        ) from None
    with whole_directory(directory) as whole:
        model.save(whole)


class Progress(TrainerCallback):
    """Hands the trainer's numbers to the metric log, and a request to stop to the trainer."""

    def __init__(
        self,
        snapshots: Snapshots,
        stop: StopRequest,
        clock: PhaseClock,
        first_step: int,
        member: int,
        save_every: int,
    ) -> None:
        """Keep where to report.

        Args:
            snapshots: take the trainer's; their run's status is kept up to date, and their log
                takes the numbers.
            stop: asked after every step but the last, after which the member is saved anyway.
            clock: its phases are logged as well.
            first_step: steps done by earlier members.
            member: number of the member.
            save_every: steps between snapshots.
        """
        self.snapshots, self.stop, self.clock = snapshots, stop, clock
        self.first_step, self.member, self.save_every = first_step, member, save_every

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """Let no gradient that is NaN or infinite be applied.

        Raises:
            UserError: it is.
        """
        gradients = [p.grad for p in given["model"].parameters() if p.grad is not None]
        if not torch.stack(torch._foreach_norm(gradients)).isfinite().all():
            raise UserError(
                f"NaN or infinity in the loss or its gradient at step {state.global_step + 1} of "
                f"member {self.member + 1}; lower reward.learning_rate ({args.learning_rate:g})"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Have a snapshot written now and then, and when somebody asked to stop."""
        due = state.global_step % self.save_every == 0 or self.stop.signal is not None
        control.should_save = due and state.global_step < state.max_steps

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Raise Stopped if somebody asked to stop."""
        self.stop.check()

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        logs: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        """Log loss, accuracy and learning rate."""
        if not logs or "loss" not in logs:
            return  # the summary at the end
        step = self.first_step + state.global_step
        names = ("loss", "accuracy", "learning_rate")
        numbers = {f"train/{name}": logs[name] for name in names}
        numbers |= {"reward/member": self.member} | phase_numbers(self.clock)
        self.snapshots.log.log(step, numbers)
        self.snapshots.run.update_status(step=step)


def phase_numbers(clock: PhaseClock) -> dict[str, float]:
    """Seconds of each phase so far, as they are logged."""
    return {f"phase/{name}": seconds for name, seconds in clock.totals().items()}
