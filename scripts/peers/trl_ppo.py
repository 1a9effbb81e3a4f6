"""TRL 1.12.0's PPOTrainer, the last there was, on the work of ppo_work; it is timed, not altered.

But for one thing: as it is, its optimiser makes one step where four minibatches should be four
(trl issue 5645). The count of gradient accumulation is set so that they are.
"""

import os
import tempfile
import time
import warnings

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true"}
warnings.filterwarnings("ignore")

import ppo_work as work  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    LlamaForSequenceClassification,
    TrainerCallback,
)
from transformers.trainer_callback import PrinterCallback  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # noqa: E402

PrinterCallback.on_log = lambda *_, **__: None
given = work.arguments()
size = work.SIZES[given.task]
config, tokenizer = work.config_of(size), work.tokenizer_of(size)
policy = AutoModelForCausalLM.from_config(config)
reference = AutoModelForCausalLM.from_config(config)
reference.load_state_dict(policy.state_dict())
config.num_labels = 1
reward, value = (LlamaForSequenceClassification(config) for _ in range(2))
prompts = work.prompts_of(size, given.seed)
minibatch = work.ROLLOUTS // work.MINIBATCHES

updates: list[dict[str, float]] = []
marks: dict[str, float] = {}
"""CPU-seconds at which phases of the update at work began and ended."""
generate, forward, scores_of = (
    ppo_trainer.batch_generation, ppo_trainer.forward, ppo_trainer.get_reward
)  # fmt: skip


def timed_generation(*args, **kwargs):
    marks.clear()
    marks.update(began=time.process_time(), steps=0)
    generated = generate(*args, **kwargs)
    marks["generated"] = time.process_time()
    marks["tokens"] = generated[0][:, work.PROMPT :].numel()
    return generated


def timed_forward(*args, **kwargs):
    if torch.is_grad_enabled():  # the first minibatch
        marks.setdefault("scored", time.process_time())
    return forward(*args, **kwargs)


def scored(model, texts, *args):
    found = scores_of(model, texts, *args)
    if given.task == "learning" and model is trainer.reward_model:
        return found[0], work.low_words(texts[:, work.PROMPT :], size), found[2]
    return found


def counted_step(*args, **kwargs):
    found = step(*args, **kwargs)
    marks["steps"] += 1
    marks["optimised"] = time.process_time()
    return found


class Record(TrainerCallback):
    """One entry an update."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        marks.update(score=logs["objective/scores"], kl=logs["objective/kl"])

    def on_step_end(self, args, state, control, **kwargs):
        updates.append({
            "total": time.process_time() - marks["began"],
            "generation": marks["generated"] - marks["began"],
            "scoring": marks["scored"] - marks["generated"],
            "update": marks["optimised"] - marks["scored"],
            **{name: marks[name] for name in ("steps", "tokens", "score", "kl")},
            "rollouts": work.ROLLOUTS,
        })  # fmt: skip


ppo_trainer.batch_generation = timed_generation
ppo_trainer.forward, ppo_trainer.get_reward = timed_forward, scored
with tempfile.TemporaryDirectory() as folder:
    settings = PPOConfig(
        output_dir=folder, per_device_train_batch_size=minibatch,
        gradient_accumulation_steps=work.MINIBATCHES, num_mini_batches=work.MINIBATCHES,
        num_ppo_epochs=work.EPOCHS, total_episodes=work.ROLLOUTS * given.updates,
        response_length=work.RESPONSE, temperature=1.0, learning_rate=size.learning_rate,
        lr_scheduler_type="constant", kl_coef=work.KL, local_rollout_forward_batch_size=64,
        cliprange=work.CLIP, cliprange_value=work.VALUE_CLIP, vf_coef=work.VALUE_COEFFICIENT,
        gamma=work.GAMMA, lam=work.LAMBDA, num_sample_generations=0, report_to="none",
        bf16=given.bf16, gradient_checkpointing=False, use_cpu=True, save_strategy="no",
        disable_tqdm=True, seed=given.seed, logging_steps=1,
    )  # fmt: skip
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=reference,
        reward_model=reward, value_model=value, callbacks=[Record()],
        train_dataset=Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=Dataset.from_dict({"input_ids": prompts[:64]}),
    )  # fmt: skip
    trainer.accelerator.gradient_accumulation_steps = 1
    step = trainer.optimizer.optimizer.step
    trainer.optimizer.optimizer.step = counted_step
    trainer.train()
work.report(updates, sum(parameter.numel() for parameter in policy.parameters()))
