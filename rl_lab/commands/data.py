"""`rl-lab data check`: what the data stage would make of a file, before anything is trained."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from rl_lab.errors import UserError
from rl_lab.text import inert, inert_text


def check(
    file: Path,
    /,
    *,
    near_duplicate: float = 0.8,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Report on a file of preferences, prompts or texts: rows, what is dropped and why, lengths.

    The columns say what the file is: chosen and rejected (and prompt, share, margin), prompt, or
    text. It changes nothing, and is the report that the data stage of a recipe writes.

    Parameters
    ----------
    file
        JSONL, Parquet, or plain text with one text a line.
    near_duplicate
        Jaccard similarity of word 3-grams from which two texts are one; 1: only the same words.
    json
        Print the report as JSON, and nothing else.
    """
    from rl_lab.rlhf.data.own_check import check_file

    if not 0.5 <= near_duplicate <= 1:
        raise UserError(f"--near-duplicate {near_duplicate:g}: should be from 0.5 to 1")
    report = check_file(file, near_duplicate)
    if json:
        print(json_module.dumps(report, indent=2))
    else:
        _show(file, report, Console())
    return 0


def _show(file: Path, report: dict[str, Any], console: Console) -> None:
    console.print(
        inert_text(
            f"{file}: {report['kind']}, {report['read']:,} rows read, {report['kept']:,} usable"
        )
    )
    if report["cannot be split"]:
        console.print(inert_text(f"training would stop: {report['cannot be split']}", "yellow"))
    if report["kind"] == "preferences":
        for line in _about_pairs(report):
            console.print(inert_text(line))
    console.print(_lengths(report["words"]))
    for reason, dropped in report["dropped"].items():
        console.print()
        console.print(inert_text(f"dropped {dropped['count']:,}: {reason}", "yellow"))
        for example in dropped["examples"]:
            (unit, number), (_, text) = example.items()
            line = f"  {unit} {number}: {inert(text)}"
            console.print(inert_text(line, "dim"), no_wrap=True, overflow="ellipsis")
        if dropped["count"] > len(dropped["examples"]):
            console.print(inert_text("  ...", "dim"))


def _about_pairs(report: dict[str, Any]) -> list[str]:
    """What matters of preferences besides their lengths."""
    lines = [
        f"{report['groups']:,} groups that share no prompt and no text; the split keeps each whole",
        f"{report['with share']:,} with a share of votes, {report['with margin']:,} with a margin",
        f"the chosen text is the longer one in {report['chosen is longer']:.0%}",
    ]
    if report["no space after prompt"]:
        lines.append(
            f"in {report['no space after prompt']:,} a completion runs into the prompt's last "
            "word; begin completions with a space"
        )
    return lines


def _lengths(words: dict[str, dict[str, float]]) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column("words in")
    names = ("mean", "min", "median", "p95", "max")
    for name in names:
        table.add_column(name, justify="right")
    for column, lengths in words.items():
        if lengths:
            table.add_row(column, *(f"{lengths[name]:,.4g}" for name in names))
    return table
