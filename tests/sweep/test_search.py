"""Trials from draw to verdict, with workers that do nothing and runs that the test writes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl_lab import recipes
from rl_lab.rl.recipe import AgentRecipe
from rl_lab.run import Run
from rl_lab.sweep.measure import AgentMeasure, LanguageMeasure
from rl_lab.sweep.search import Search
from rl_lab.sweep.study import Study
from rl_lab.sweep_recipe import Parameter, Pruning, Sweep
from rl_lab.workers import Job
from tests import fake_experiment

EVERY, BUDGET = 100, 1000


class IdleWorkers:
    """Have jobs at work until the test says that they ended."""

    def __init__(self, at_a_time: int = 1) -> None:
        self.at_a_time, self.stopping = at_a_time, False
        self.jobs: list[Job] = []
        self.asked_to_end: list[str] = []

    @property
    def free(self) -> bool:
        return len(self.jobs) < self.at_a_time

    def add(self, job: Job) -> None:
        self.jobs.append(job)

    def at_work(self, run: Run) -> bool:
        return any(job.run.path == run.path for job in self.jobs)

    def end(self, run: Run) -> None:
        self.asked_to_end.append(run.name)
        self.left(run, "stopped")

    def left(self, run: Run, state: str, **status: Any) -> None:
        self.jobs = [job for job in self.jobs if job.run.path != run.path]
        run.update_status(state=state, **status)


class Bench:
    """A sweep in a directory, which may be left and taken up again."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        parameters = {"algorithm.gamma": Parameter(low=0.9, high=0.999)}
        changes = {"trials": 4, "startup_trials": 1, "pruning": Pruning(warmup=0), **changes}
        self.sweep = Sweep(parameters=parameters, **changes)
        self.directory = directory
        self.said: list[str] = []
        self.take_up()

    def take_up(self) -> None:
        def recipe_of(values: Mapping[str, Any], seed: int) -> AgentRecipe:
            return recipes.load(AgentRecipe, "acrobot", {**values, "seed": seed})

        self.workers = IdleWorkers(self.sweep.seeds_a_trial)
        self.study = Study(self.directory, self.sweep, 0, BUDGET // EVERY)
        self.search = Search(
            self.directory, self.sweep, self.study, AgentMeasure(EVERY, BUDGET), recipe_of,
            range(self.sweep.seeds_a_trial), self.workers, [], self.said.append,  # type: ignore[arg-type]
        )  # fmt: skip

    def run(self, trial: int, seed: int = 0) -> Run:
        return Run(self.directory / f"trial{trial}-seed{seed}")

    def states(self) -> list[str]:
        return [trial.state.name.lower() for trial in self.study.trials]


def evaluations(run: Run, *returns: float) -> None:
    """Write what a run's evaluations found, the first at the start; later calls replace it."""
    lines = [
        {"step": k * EVERY, "wall": float(k), "eval/mean_reward": value}
        for k, value in enumerate(returns)
    ]
    run.metrics_file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_trials_are_trained_one_after_the_other_to_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path, pruning=None)
    for number in range(4):
        assert bench.search.poll()
        run = bench.run(number)
        assert [job.run.path for job in bench.workers.jobs] == [run.path]
        assert recipes.load(AgentRecipe, str(run.recipe_file)).seed == 0
        evaluations(run, -500, -400, -90 + number, -80, -70)
        bench.workers.left(run, "finished")
    assert not bench.search.poll()
    # The mean of the last three evaluations: neither the best of them nor the last alone.
    assert [trial.value for trial in bench.study.trials] == [
        (-90 + number - 80 - 70) / 3 for number in range(4)
    ]
    assert len(bench.said) == 4


def test_a_trial_below_the_median_is_asked_to_end_and_no_more_is_heard_of_it(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path)
    bench.search.poll()
    evaluations(bench.run(0), -500, -300, -200, -100)
    bench.workers.left(bench.run(0), "finished")
    bench.search.poll()
    evaluations(bench.run(1), -500, -250)
    bench.search.poll()
    assert bench.states() == ["complete", "running"]
    evaluations(bench.run(1), -500, -310, -300)
    bench.take_up()  # killed before it read that
    bench.search.poll()
    assert bench.workers.asked_to_end == ["trial1-seed0"]
    assert bench.states()[:2] == ["complete", "pruned"]
    assert "pruned at 20%" in bench.said[-1]
    bench.take_up()
    assert [job.run.name for job in bench.workers.jobs] == ["trial2-seed0"]


def test_there_is_more_to_come_while_a_pruned_run_still_saves(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=3)
    bench.search.poll()
    evaluations(bench.run(0), -500, -100, -100)
    bench.workers.left(bench.run(0), "finished")
    bench.search.poll()
    evaluations(bench.run(1), -500, -200)
    bench.workers.end = lambda run: None  # type: ignore[assignment]  # it takes its time
    assert bench.search.poll()
    assert bench.states() == ["complete", "pruned"]


def test_one_that_was_killed_takes_up_what_was_not_finished(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=2, pruning=None)
    bench.search.poll()
    parameters = bench.study.trials[0].params
    bench.run(0).recipe_file.unlink()  # killed while the directory was being made
    bench.take_up()
    assert bench.run(0).recipe_file.exists()
    bench.run(0).update_status(state="stopped", step=300)
    bench.take_up()
    assert [job.run.name for job in bench.workers.jobs] == ["trial0-seed0"]
    assert bench.run(0).status["step"] == 300  # the run that was there
    evaluations(bench.run(0), -500, -100)
    bench.run(0).update_status(state="finished")
    bench.take_up()
    assert bench.workers.jobs == []  # finished meanwhile: there is nothing to train
    bench.search.poll()
    assert bench.states()[0] == "complete"
    assert bench.study.trials[0].params == parameters


def test_a_stop_leaves_trials_as_they_are(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.search.poll()
    bench.workers.stopping = True
    bench.workers.left(bench.run(0), "stopped")
    bench.search.poll()
    assert bench.states()[0] == "running"


def test_a_run_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=2)
    bench.search.poll()
    bench.workers.left(bench.run(0), "failed", reason="NaN in the loss")
    bench.search.poll()
    assert bench.states()[0] == "fail"
    assert "NaN in the loss" in bench.study.trials[0].user_attrs["why"]
    evaluations(bench.run(1))
    bench.workers.left(bench.run(1), "finished")
    assert not bench.search.poll()
    assert "not evaluated" in bench.said[-1]


def test_a_trial_of_several_seeds_is_worth_their_mean(tmp_path: Path) -> None:
    bench = Bench(tmp_path, trials=1, seeds_a_trial=2)
    bench.search.poll()
    for seed, value in enumerate((-100.0, -300.0)):
        evaluations(bench.run(0, seed), -500, value, *([value] if seed else []))
        bench.workers.left(bench.run(0, seed), "finished")
    bench.search.poll()
    (trial,) = bench.study.trials
    assert trial.value == -200
    assert trial.intermediate_values == {1: -200}  # the second, only one of them has


def test_evaluations_are_numbered_whenever_updates_end(tmp_path: Path) -> None:
    run = Run(tmp_path)
    lines = [(0, 9.0), (120, 1.0), (230, 2.0), (298, 7.0), (410, 4.0)]
    run.metrics_file.write_text(
        "".join(
            json.dumps({"step": s, "wall": 1.0, "eval/mean_reward": v}) + "\n" for s, v in lines
        )
    )
    assert AgentMeasure(100, 400).course(run) == {1: 1.0, 2: 2.0, 4: 4.0}


def test_experiments_are_measured_by_the_judge_that_counts(runs_directory: Path) -> None:
    run = fake_experiment.build(runs_directory)
    measure = LanguageMeasure("stars", 20, 60)
    assert measure.value(run) == 1.12
    course = measure.course(run)
    assert course.keys() == {1, 2, 3}
    assert course[1] < course[3]
    begun = fake_experiment.build(runs_directory, "begun", at="ppo", state="running", share=0.5)
    assert measure.value(begun) is None
    assert measure.course(begun).keys() == {1}
