"""What an agent's experiment consists of. No torch here: `rl-lab recipes` stays quick."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from rl_lab.health import Health
from rl_lab.recipe_types import Positive, Rate, Seed
from rl_lab.recipes import Section
from rl_lab.sweep_recipe import Sweep


class Normalization(Section):
    """Running normalisation (VecNormalize). Frozen, and rewards raw, when an agent is judged."""

    observations: bool = True
    """Subtract the running mean of observations and divide by their standard deviation."""
    rewards: bool = True
    """Divide rewards by the running standard deviation of the discounted return."""
    clip_observation: Annotated[float, Field(gt=0)] = 10.0
    """Clip normalised observations to plus or minus this."""
    clip_reward: Annotated[float, Field(gt=0)] = 10.0
    """Clip normalised rewards to plus or minus this."""


class Environment(Section):
    """The Gymnasium environment and what is wrapped around it."""

    id: str
    """Gymnasium id, such as CartPole-v1."""
    number: Annotated[int, Field(gt=0, le=10_000)] = 1
    """Copies stepped together."""
    kwargs: dict[str, Any] = {}
    """Keyword arguments for gymnasium.make."""
    wrappers: list[str | dict[str, dict[str, Any]]] = []
    """Wrappers from the inside out: a name, or {name: {argument: value}}."""
    normalize: Normalization | None = None
    """Running normalisation of observations and rewards; null: none."""
    frame_stack: Positive = 1
    """Observations stacked along the last axis (VecFrameStack)."""
    vectorization: Literal["dummy", "subproc", "vector", "envpool"] = "dummy"
    """dummy: copies take turns in this process; subproc: a process each (slow environments);
    vector: all in arrays, several times as quick (classic control, RLLab/...); envpool: in C++
    (extra: envpool). With the last two, wrappers, timeout and restarts do not go, and the agent
    is still judged in Gymnasium's single environments."""
    timeout: Rate | None = None
    """Seconds that a step or a reset of a copy may take; null: any."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """Copies that raise or take too long are replaced by new ones, so often over the whole run."""


class Hindsight(Section):
    """Hindsight experience replay for goal environments (Andrychowicz et al., 2017)."""

    goals: Positive = 4
    """Virtual transitions made for each real one."""
    strategy: Literal["future", "final", "episode"] = "future"
    """Where in the episode the substitute goals come from."""


class Algorithm(Section):
    """The algorithm, and beside these keys each of its own hyperparameters, by SB3's name.

    Hyperparameters are checked against the algorithm's signature by
    `rl_lab.rl.hyperparameters.resolve`, which knows torch and SB3; here they are only carried.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    """One of rl_lab.rl.algorithms.ALGORITHMS, such as ppo or sac."""
    policy: str = "auto"
    """SB3 policy name; auto: MLP, CNN or multi-input, as the observation space asks."""
    backend: Literal["auto", "sb3", "fast"] = "auto"
    """Whose code learns: the lab's fast one, SB3's, or auto: the fast one wherever it applies."""
    hindsight: Hindsight | None = None
    """Hindsight experience replay; null: none."""

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What the recipe sets beyond the keys declared above, as written."""
        return dict(self.model_extra or {})


class Budget(Section):
    """How long the agent may learn."""

    steps: Annotated[int, Field(gt=0, le=10**12)]
    """Environment steps, summed over the copies."""


class Evaluation(Section):
    """Judging the agent while it trains, on an environment, seeds and RNG of its own."""

    every: Positive = 10_000
    """Environment steps between evaluations (at the first update boundary after them)."""
    episodes: Positive = 20
    """Episodes an evaluation; the same starts each time, so its curve is comparable."""
    deterministic: bool = True
    """Greedy actions; false: sampled as in training."""
    stop_after_solved: Positive | None = None
    """End training once this many evaluations running reach target_return; null: never."""


class Checkpoints(Section):
    """Snapshots to resume from. The best model by evaluation return is kept besides."""

    every: Positive = 50_000
    """Environment steps between snapshots."""
    keep: Positive = 2
    """Newest snapshots kept."""
    replay_buffer: bool = True
    """Store the replay buffer too (off-policy algorithms): larger, but resuming forgets nothing."""
    required: bool = True
    """Stop when one cannot be written, as on a full disk; false: say so, and go on without it."""


class Logging(Section):
    """Where numbers go. metrics.jsonl is always written; the rest read along."""

    every: Positive = 1_000
    """Environment steps between lines (at the first update boundary after them)."""
    tensorboard: bool = False
    """Also write TensorBoard files into the run directory (extra: tensorboard)."""
    trackio: bool = False
    """Also log to trackio's local database (extra: trackio)."""
    wandb: bool = False
    """Also log to Weights & Biases, offline unless WANDB_MODE says otherwise (extra: wandb)."""


class AgentRecipe(Section):
    """One experiment: train one agent on one environment, with one seed."""

    name: str
    """Name of the experiment; a run directory is called after it."""
    description: str = ""
    """One line for `rl-lab recipes`."""
    source: str = ""
    """Where the hyperparameters come from."""
    target_return: float | None = None
    """Mean evaluation return from which the task counts as solved; null: no such line."""
    reference_return: float | None = None
    """Mean return published for them: one run, in rl-baselines3-zoo's benchmark.md."""
    env: Environment
    """The environment."""
    algorithm: Algorithm
    """The algorithm and its hyperparameters."""
    budget: Budget
    """How long to learn."""
    evaluation: Evaluation = Evaluation()
    """Judging the agent while it trains."""
    checkpoints: Checkpoints = Checkpoints()
    """Snapshots to resume from."""
    logging: Logging = Logging()
    """Where numbers go."""
    health: Health = Health()
    """What is done about a NaN or an infinity."""
    sweep: Sweep | None = None
    """What `rl-lab sweep` searches; training takes no notice of it."""
    seed: Seed = 0
    """Everything random follows from it."""
    threads: Positive = 1
    """CPU threads of torch and numpy. More is slower for small networks, and changes the bits."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the networks live; auto: a GPU for CNN policies if there is one, else the CPU."""

    @model_validator(mode="after")
    def _solved_needs_a_target(self) -> "AgentRecipe":
        if self.evaluation.stop_after_solved is not None and self.target_return is None:
            raise ValueError("evaluation.stop_after_solved needs a target_return to be reached")
        return self
