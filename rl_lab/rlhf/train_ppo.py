"""PPO for language models, top to bottom in `train_ppo`.

The steps are those of Ziegler et al. (2019) and Stiennon et al. (2020), with the details of Huang
et al., "The N implementation details of RLHF with PPO" (2023). The maths is in `ppo_math`.

Everything random in update u follows from (seed, u), so an update is the same whether or not the
process was ended and resumed before it.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rl_lab import checkpoint, language_vitals
from rl_lab.checkpoint import Snapshot
from rl_lab.health import Alerts
from rl_lab.phases import PhaseClock
from rl_lab.rlhf import not_finite, ppo_math, ppo_state, token_bias
from rl_lab.rlhf.distributions import Sampling
from rl_lab.rlhf.looks import Judges, Look, texts_of
from rl_lab.rlhf.memory import Memory
from rl_lab.rlhf.not_finite import NotFiniteError
from rl_lab.rlhf.policy import Policy, Reference
from rl_lab.rlhf.ppo_recipe import PPO
from rl_lab.rlhf.ppo_rewards import rewards_of_tokens, scores_at_end
from rl_lab.rlhf.ppo_update import MixLoss, optimize
from rl_lab.rlhf.prompts import Prompt, batch_of
from rl_lab.rlhf.rewards import Rewards, RunningMoments
from rl_lab.rlhf.rollout import Rollout, collect
from rl_lab.rlhf.snapshots import Snapshots
from rl_lab.seeding import stream
from rl_lab.signals import StopRequest

PROMPTS, SAMPLES, ORDER = range(3)
"""What an update's streams of random numbers are for."""


@dataclass
class Progress:
    """What an update leaves to the next, besides weights and optimiser."""

    update: int = 0
    """Updates done."""
    coefficient: float = 0.0
    """KL coefficient in use."""
    moments: RunningMoments = field(default_factory=RunningMoments)
    """Of all scores so far."""
    best: dict[str, float] | None = None
    """The best look: `return` (its objective), `step`, and whether its KL is `within` the limit."""
    forgiven: int = 0
    """How often it went on after a NaN."""
    rate: float = 1.0
    """Factor on the learning rate, lowered by rollbacks."""


def train_ppo(  # noqa: PLR0915 -- a run reads top to bottom
    ppo: PPO,
    policy: Policy,
    prompts: Sequence[Prompt],
    rewards: Rewards,
    tokenizer: PreTrainedTokenizerBase,
    sampling: Sampling,
    look: Look,
    snapshots: Snapshots,
    snapshot: Snapshot | None,
    stop: StopRequest,
    *,
    seed: int,
    mix_loss: Callable[[int], MixLoss] | None = None,
) -> None:
    """Optimise a policy against rewards; the policy ends as the best look found it.

    Args:
        ppo: the hyperparameters.
        policy: changed in place; in evaluation mode throughout (no dropout, so that the first
            ratio is 1).
        prompts: what responses are sampled to.
        rewards: what they earn.
        tokenizer: the policy's.
        sampling: how they are drawn.
        look: judges the policy on held-out prompts; training shares its `memory`.
        snapshots: take those of this run; its log gets a line an update.
        snapshot: the one to go on from; None: from the start.
        stop: asked before each update.
        seed: everything random follows from it.
        mix_loss: an update's number -> its language-modelling loss (PPO-ptx); None: none.

    Raises:
        SamplerMismatchError: log-probabilities in training are not those of sampling.
        FloatingPointError: a NaN or infinity that `ppo.health` does not forgive; nothing was
            learned from it.
        UserError: memory does not suffice for one response.
        Stopped: asked to stop; the state is saved.
    """
    run, log = snapshots.run, snapshots.log
    policy.eval()
    start = reference = policy.reference_of()
    optimizer = _optimizer(policy, ppo)
    progress, memory = Progress(coefficient=ppo.kl.coefficient), look.memory
    if snapshot is not None:
        reference = ppo_state.restore(run, snapshot, policy, start, optimizer, progress, memory)
    run.start(ppo.updates, progress.update, progress.best)
    run.update_status(unit="updates")
    clock = PhaseClock("update")
    alerts = Alerts(log, partial(language_vitals.alerts, kl=ppo.kl.model_dump()))
    if progress.best is None:
        _look(look, policy, start, progress, ppo, snapshots, clock)
    if ppo.health.on_nan == "rollback" and not checkpoint.steps(run.checkpoints):
        ppo_state.save(snapshots, policy, reference, optimizer, progress, memory)

    def skip(error: NotFiniteError, what: str) -> None:
        which = not_finite.forgive(error, ppo.health, progress)
        log.event(progress.update + 1, "skipped", f"{what}: {error} ({which})", "warning")

    while progress.update < ppo.updates:
        if stop.signal is not None:
            ppo_state.save(snapshots, policy, reference, optimizer, progress, memory)
            stop.check()
        update = progress.update
        began = time.perf_counter()
        # After a rollback other responses are drawn: the same ones would lead to the same NaN.
        turn = progress.forgiven if ppo.health.on_nan == "rollback" else 0
        part = update + 1 + turn * 10**9
        torch.manual_seed(stream(seed, ORDER, 1, part)[0])
        generator = torch.Generator(policy.device)
        generator.manual_seed(stream(seed, SAMPLES, 1, part)[0])
        numbers: dict[str, float] = {}
        try:
            # 1. Prompts, a response sampled to each, its reward, log-probabilities and values.
            batch = batch_of(prompts, ppo.rollouts, update, stream(seed, PROMPTS, 1)[0])
            rollout = collect(
                policy, reference, batch, rewards, tokenizer, sampling, generator, memory, clock
            )

            # 2. The reward of each token: what it earned, the score at the end, the KL penalty.
            scores, bootstrap = scores_at_end(rollout, ppo.scores, progress.moments)
            token_rewards = rewards_of_tokens(rollout, scores, ppo.kl, progress.coefficient)

            # 3. Advantages and returns.
            mask = rollout.responses.mask
            advantages, returns = ppo_math.generalized_advantages(
                token_rewards, rollout.values, mask, bootstrap, ppo.gamma, ppo.gae_lambda
            )
            if ppo.whiten_advantages:
                advantages = ppo_math.masked_whiten(advantages, mask)

            # 4. Epochs of minibatches, each one optimiser step.
            share = learning_rate(ppo, update) * progress.rate
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * share
            with clock.during("update"):
                numbers = optimize(
                    ppo, policy, reference, optimizer, rollout, advantages, returns, sampling,
                    progress.coefficient, memory, update < ppo.critic.warmup_updates,
                    mix_loss and mix_loss(update), skip if ppo.health.on_nan == "skip" else None,
                )  # fmt: skip
                # Where steps were left out, or an update ended early by its KL, it goes no further.
                whole = numbers["train/optimizer_steps"] == ppo.steps_an_update
                if ppo.token_bias is not None and whole and update >= ppo.critic.warmup_updates:
                    numbers |= token_bias.step(
                        ppo, policy, rollout, token_rewards, bootstrap,
                        ppo.token_bias.rate * share / progress.coefficient, sampling.temperature,
                        memory,
                    )  # fmt: skip
        except NotFiniteError as error:
            if ppo.health.on_nan == "rollback":
                reference = _roll_back(error, ppo, policy, start, optimizer, progress, memory,
                                       snapshots)  # fmt: skip
                continue
            skip(error, f"nothing is learned in update {update + 1}")

        # 5. The coefficient follows the KL; the reference may follow the policy.
        progress.update = update + 1
        if numbers:
            numbers |= _describe(rollout, scores, returns, look.judges)
            numbers["kl/coefficient"] = progress.coefficient
            numbers["train/learning_rate"] = ppo.learning_rate * share
            if ppo.kl.target is not None:
                progress.coefficient = ppo_math.adapted_coefficient(
                    progress.coefficient, numbers["kl/exact"], ppo.kl.target, ppo.kl.adaptation
                )
        if ppo.refresh_reference and progress.update % ppo.refresh_reference == 0:
            reference = policy.reference_of(refreshed=True)
            log.event(progress.update, "reference", "refreshed: it is the policy of now")

        # 6. A line in the log; now and then a look at held-out prompts, and a snapshot.
        if numbers:
            tokens_per_second = int(mask.sum()) / (time.perf_counter() - began)
            numbers["rollout/tokens_per_second"] = tokens_per_second
            phases = {f"phase/{name}": seconds for name, seconds in clock.totals().items()}
            log.log(progress.update, numbers | phases)
            alerts.look(progress.update)
        last = progress.update == ppo.updates
        if progress.update % ppo.looks.every == 0 or last:
            _look(look, policy, start, progress, ppo, snapshots, clock)
        if progress.update % ppo.checkpoint_every == 0 or last:
            ppo_state.save(snapshots, policy, reference, optimizer, progress, memory)
        run.update_status(step=progress.update, best=progress.best)

    if progress.best is None:
        log.event(progress.update, "last", "no policy could be kept as the best; this is the last")
    else:
        ppo_state.load_best(run, policy)


def _roll_back(
    error: NotFiniteError,
    ppo: PPO,
    policy: Policy,
    start: Reference,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    memory: Memory,
    snapshots: Snapshots,
) -> Reference:
    """Go back to the last snapshot and lower the learning rate; return the reference of then."""
    which = not_finite.forgive(error, ppo.health, progress)
    failed, fits, forgiven = progress.update + 1, memory.state(), progress.forgiven
    rate = progress.rate * ppo.health.rollback_rate
    if not checkpoint.steps(snapshots.run.checkpoints):  # none could be written
        raise error
    snapshot = snapshots.newest()
    assert snapshot is not None
    reference = ppo_state.restore(
        snapshots.run, snapshot, policy, start, optimizer, progress, memory
    )
    memory.restore(fits)
    progress.forgiven, progress.rate = forgiven, rate
    snapshots.log.event(
        progress.update, "rollback", f"from update {failed} to {progress.update}, the learning "
        f"rate times {rate:g} from here on: {error} ({which})", "warning",
    )  # fmt: skip
    ppo_state.save(snapshots, policy, reference, optimizer, progress, memory)
    return reference


def learning_rate(ppo: PPO, update: int) -> float:
    """Share of the peak learning rate in an update, counted from 0."""
    if update < ppo.warmup_updates:
        return (update + 1) / ppo.warmup_updates
    done = (update - ppo.warmup_updates) / max(ppo.updates - ppo.warmup_updates, 1)
    match ppo.schedule:
        case "linear":
            return 1 - done
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        case _:
            return 1.0


def _optimizer(policy: Policy, ppo: PPO) -> torch.optim.Optimizer:
    """AdamW over what is trained; the critic's own weights may have a rate of their own."""
    critic = {id(parameter) for parameter in policy.critic.parameters()}
    trained = list(policy.trained_tensors().values())
    groups = [
        {"params": [p for p in trained if (id(p) in critic) == own], "peak": peak}
        for own, peak in (
            (False, ppo.learning_rate),
            (True, ppo.critic.learning_rate or ppo.learning_rate),
        )
    ]
    return torch.optim.AdamW(
        groups, lr=ppo.learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )


def _describe(
    rollout: Rollout, scores: Tensor, returns: Tensor, judges: Judges
) -> dict[str, float]:
    """What a rollout looked like, before it was learned from."""
    responses = rollout.responses
    mask = responses.mask
    kl = (rollout.log_probs - rollout.reference_log_probs).sum(1)
    texts = texts_of(rollout)
    return {
        "reward/proxy": rollout.scored.total.mean().item(),
        **{f"reward/{name}": term.mean().item() for name, term in rollout.scored.terms.items()},
        **{f"gold/{name}": float(judge(texts).mean()) for name, judge in judges.items()},
        "reward/score": scores.mean().item(),
        "kl/sampled": kl.mean().item(),
        "kl/exact": rollout.exact_kl.sum(1).mean().item(),
        "train/entropy": ppo_math.masked_mean(rollout.entropy, mask).item(),
        "rollout/response_length": mask.sum(1).float().mean().item(),
        "rollout/end_share": responses.terminated.float().mean().item(),
        "rollout/sampler_mismatch": rollout.mismatch,
        "train/explained_variance": ppo_math.explained_variance(
            rollout.values[:, :-1], returns, mask
        ).item(),
    }


def _look(
    look: Look,
    policy: Policy,
    start: Reference,
    progress: Progress,
    ppo: PPO,
    snapshots: Snapshots,
    clock: PhaseClock,
) -> None:
    """Judge the policy on held-out prompts; keep it if no look was better.

    Better is a higher objective, proxy - coefficient x KL with the recipe's own coefficient (an
    adapted one would move the goal) and the KL to where training started. Any look within
    `kl.limit` is better than one beyond it; the first is kept whatever it is. A look that meets a
    NaN is left out, for nothing is learned from it, unless `ppo.health` says stop.
    """
    kl = ppo.kl
    try:
        with clock.during("evaluation"):
            numbers = look.at(progress.update, policy, start)
    except NotFiniteError as error:
        if progress.best is None:  # there has to be one to keep
            raise
        which = not_finite.forgive(error, ppo.health, progress)
        snapshots.log.event(progress.update, "skipped", f"a look: {error} ({which})", "warning")
        return
    snapshots.log.log(progress.update, numbers)
    objective = numbers["look/proxy"] - kl.coefficient * numbers["look/kl"]
    within = kl.limit is None or numbers["look/kl"] <= kl.limit
    best = progress.best
    better = best is None or (within, objective) > (bool(best["within"]), best["return"])
    if better and ppo_state.save_best(snapshots, policy, progress.update):
        progress.best = {"return": objective, "step": progress.update, "within": float(within)}
