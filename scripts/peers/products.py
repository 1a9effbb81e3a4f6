"""The matrix products of an update on the work of ppo_work, and nothing else: the least it takes.

Products of activations with weights and of gradients with both; attention, norms, softmax, sampling
and the optimiser cost nothing here. Operands stay where they are from one product to the next.
"""

import time

import ppo_work as work
import torch
from torch import Tensor

given = work.arguments()
size = work.SIZES[given.task]
dtype = torch.bfloat16 if given.bf16 else torch.float32
SQUARE, WIDEN, NARROW = (size.width, size.width), (size.width, size.inner), (size.inner, size.width)
LAYERS = size.layers * (4 * [SQUARE] + 2 * [WIDEN] + [NARROW])
"""(inputs, outputs) of every matrix but the last."""
HEAD = [(size.width, size.vocabulary)]
LENGTH, MINIBATCH = work.PROMPT + work.RESPONSE, work.ROLLOUTS // work.MINIBATCHES
operands: dict[tuple[int, int], Tensor] = {}


def operand(*shape: int) -> Tensor:
    """A matrix of this shape, always the same one."""
    if shape not in operands:
        operands[shape] = torch.randn(shape).to(dtype)
    return operands[shape]


def products(matrices: list[tuple[int, int]], tokens: int, backward: bool = False) -> None:
    """Each matrix with so many tokens; with the gradients of both, if asked."""
    for inputs, outputs in matrices:
        activations, weight = operand(tokens, inputs), operand(outputs, inputs)
        torch.mm(activations, weight.t(), out=operand(tokens, outputs))
        if backward:
            gradient = operand(tokens, outputs)
            torch.mm(gradient, weight)
            torch.mm(gradient.t(), activations)


def generation() -> None:
    """The prompts at once, then a token at a time."""
    products(LAYERS, work.ROLLOUTS * work.PROMPT)
    products(HEAD, work.ROLLOUTS)
    for _ in range(work.RESPONSE - 1):
        products(LAYERS + HEAD, work.ROLLOUTS)


def scoring() -> None:
    """Policy and reference with their heads, and the reward model."""
    for _ in range(work.MINIBATCHES):
        for head in (HEAD, HEAD, []):
            products(LAYERS, MINIBATCH * LENGTH)
            products(head, MINIBATCH * work.RESPONSE)


def optimisation() -> None:
    """Every minibatch of every epoch, there and back."""
    for _ in range(work.EPOCHS * work.MINIBATCHES):
        products(LAYERS, MINIBATCH * LENGTH, backward=True)
        products(HEAD, MINIBATCH * work.RESPONSE, backward=True)


def seconds(phase: str) -> float:
    """CPU-seconds of a phase."""
    before = time.process_time()
    {"generation": generation, "scoring": scoring, "update": optimisation}[phase]()
    return time.process_time() - before


updates = []
for _ in range(given.updates):
    of_phase = {phase: seconds(phase) for phase in ("generation", "scoring", "update")}
    updates.append({
        **of_phase, "total": sum(of_phase.values()), "rollouts": work.ROLLOUTS,
        "tokens": float(work.ROLLOUTS * work.RESPONSE), "steps": work.EPOCHS * work.MINIBATCHES,
    })  # fmt: skip
norms = (2 * size.layers + 1) * size.width
weights = sum(inputs * outputs for inputs, outputs in LAYERS + HEAD) + norms
work.report(updates, weights)
