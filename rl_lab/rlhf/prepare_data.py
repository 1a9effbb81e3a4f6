"""The data stage: from a recipe's `data` section to the files every later stage reads.

    texts-{train,heldout}.jsonl    {"text"}                                          pretraining
    pairs-{train,heldout}.jsonl    {"prompt", "chosen", "rejected", "share", "margin", "group"}
    prompts-{train,heldout}.jsonl  {"prompt"}; "from": place in the user's file      rollouts
    scores-<judge>.jsonl           {"text", "score"}                                 gold judges
    rated-heldout.jsonl            {"text", "ratings", "block"}                      human ceiling
    report.json, card.md           what went where and why; for machines and for people

A kind of data that the source has not is a file that is not there.
"""

from pathlib import Path

from rl_lab.errors import UserError
from rl_lab.files import write_atomically, write_json
from rl_lab.metrics import MetricLog
from rl_lab.rlhf.data import movie_reviews, own_data
from rl_lab.rlhf.data.card import card
from rl_lab.rlhf.data.cleaning import lengths
from rl_lab.rlhf.data.preferences import said
from rl_lab.rlhf.data.prepared import Prepared, Row, Say
from rl_lab.rlhf.jsonl import write_jsonl
from rl_lab.rlhf.recipe import Data
from rl_lab.run import Run
from rl_lab.signals import StopRequest

ANY_LENGTH = (1, 10**9)


def prepare_data(
    section: Data,
    run: Run,
    log: MetricLog,
    stop: StopRequest,
    *,
    seed: int,
    device: str,
    for_ppo: bool = False,
) -> None:
    """Fetch or read, clean, de-duplicate, split, and write the stage's files.

    Args:
        section: what to prepare.
        run: whose directory the files go to; the caller holds its lock.
        log: gets an event before each part of the work, and the number of rows of each file.
        stop: looked at between the parts.
        seed: not used: the split follows from `section.split_seed`, whatever the experiment's seed.
        device: not used: nothing here needs one.
        for_ppo: whether a `ppo` stage will need prompts to train on and others to judge on.

    Raises:
        UserError: a file or a download cannot be used.
        rl_lab.signals.Stopped: a signal came.
    """
    del seed, device
    steps = 1 + (movie_reviews.STEPS if section.source == "movie-reviews" else own_data.STEPS)
    run.update_status(budget=steps, step=0, unit="steps")
    done = 0

    def say(message: str) -> None:
        nonlocal done
        stop.check()
        run.update_status(step=done)
        log.event(done, "data", message)
        done += 1

    prepared = _prepare(section, say, stop, for_ppo)
    say("writing")
    sizes = {name: len(rows) for name, rows in prepared.files.items()}
    for name, rows in prepared.files.items():
        write_jsonl(run.path / f"{name}.jsonl", rows)
    prepared.report["files"] = {
        name: {"rows": len(rows), "words": _words(rows)} for name, rows in prepared.files.items()
    }
    write_json(run.path / "report.json", prepared.report)
    write_atomically(run.path / "card.md", card(prepared.report, sizes))
    run.update_status(step=steps)
    log.log(steps, {f"data/{name}": float(rows) for name, rows in sizes.items()})


def _prepare(section: Data, say: Say, stop: StopRequest, for_ppo: bool) -> Prepared:
    own = {name: getattr(section, name) for name in ("preferences", "prompts", "texts")}
    given = [name for name, file in own.items() if file is not None]
    if section.source == "movie-reviews":
        if given:
            raise UserError(
                f"data.{given[0]} is given, but data.source is movie-reviews; "
                "`data.source: files` reads your own files"
            )
        return movie_reviews.prepare_movie_reviews(
            section.heldout_share,
            section.heldout_texts,
            section.near_duplicate,
            section.words or movie_reviews.WORDS,
            (section.train_pairs, section.heldout_pairs),
            section.prompt_words,
            section.split_seed,
            say,
            stop,
        )
    if not given:
        raise UserError(
            "data.source is files, but none of data.preferences, data.prompts and data.texts is "
            "given; name a file, or set data.source to movie-reviews"
        )
    preferences, prompts, texts = (
        Path(file) if file is not None else None for file in own.values()
    )
    return own_data.prepare_own_data(
        preferences,
        prompts,
        texts,
        section.heldout_share,
        section.heldout_texts,
        section.near_duplicate,
        section.words or ANY_LENGTH,
        section.bad_rows == "refuse",
        section.split_seed,
        say,
        for_ppo=for_ppo,
    )


def _words(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Lengths of the texts of each column that holds texts."""
    columns = ("text", "prompt", "chosen", "rejected")
    return {
        name: lengths(said(row[name]) for row in rows)
        for name in columns
        if rows and name in rows[0]
    }
