"""`rl-lab doctor rlhf`: whether PPO for language models computes what it should, on any model."""

import json as json_module
from dataclasses import asdict

from rl_lab import threads


def doctor_rlhf(model: str | None, json: bool) -> int:
    """Run the checks with known answers, on a tiny model or on the one given.

    Returns:
        Exit code: 1 if an answer is wrong.
    """
    threads.pin(1)
    from rl_lab.rlhf.known_answers import run_checks
    from rl_lab.rlhf.known_subject import tiny_subject

    subject = tiny_subject() if model is None else _subject(model)
    if not json:
        print(f"model: found on {model or 'a tiny model'}; code: the same whatever the model")
    findings = []
    for finding in run_checks(subject):
        findings.append(finding)
        if not json:
            mark = "right" if finding.right else "WRONG"
            print(
                f"{mark}  {finding.about:5}  {finding.claim}: off by {finding.measured:.2g}, "
                f"at most {finding.allowed:g} is allowed",
                flush=True,
            )
    wrong = [finding for finding in findings if not finding.right]
    if json:
        print(json_module.dumps([asdict(one) | {"right": one.right} for one in findings], indent=2))
    elif wrong:
        of_model = model is not None and all(finding.about == "model" for finding in wrong)
        culprit = "this model" if of_model else "this installation"
        print(f"{len(wrong)} of {len(findings)} answers are wrong: do not train with {culprit}")
    else:
        print(f"all {len(findings)} answers are right")
    return 1 if wrong else 0


def _subject(model: str):  # type: ignore[no-untyped-def]  # its type needs torch
    from rl_lab.rlhf import language_model
    from rl_lab.rlhf.known_subject import subject_of
    from rl_lab.rlhf.ppo_recipe import SamplingSection
    from rl_lab.rlhf.ppo_stage import build_sampling
    from rl_lab.rlhf.sampling import check_cache

    loaded, tokenizer = language_model.load(model, "cpu")
    check_cache(loaded, tokenizer.eos_token_id)
    sampling = build_sampling(SamplingSection(), tokenizer, loaded)
    return subject_of(loaded, tokenizer, sampling)
