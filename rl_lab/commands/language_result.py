"""What became of a language model, as tables: `rl-lab evaluate EXPERIMENT`."""

import json as json_module
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl_lab import recipes
from rl_lab.errors import UserError
from rl_lab.run import Run
from rl_lab.text import inert, inert_text

SAMPLES_SHOWN = 5


def show_result(run: Run, json: bool) -> None:
    """Print what the `evaluate` stage of an experiment measured.

    Raises:
        UserError: it has not been evaluated, or what was measured is damaged.
    """
    result = run.evaluations
    if "policy" not in result:
        if recipes.read(str(run.recipe_file))[2].get("evaluate") is None:
            raise UserError(
                f"the recipe of experiment {run.name!r} has no `evaluate` section: nothing is "
                "judged; `rl-lab report` shows what its stages logged"
            )
        raise UserError(
            f"experiment {run.name!r} has no evaluation yet; `rl-lab train --resume {run.name}` "
            "goes on with it"
        )
    if json:
        print(json_module.dumps(result, indent=2))
        return
    try:
        head = Text(f"{inert(run.name)}: {result['prompts']:,} held-out prompts", style="bold")
        tables = [_comparison(result), _samples(result["samples"])]
        if result.get("best_of"):
            tables.insert(1, _best_of(result))
    except (AttributeError, LookupError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{run.evaluation_file} is damaged ({type(error).__name__}: {error}); "
            f"`rl-lab report {run.name}` shows what is whole of it"
        ) from None
    console = Console()
    for part in (head, *tables):
        console.print(part)


def _comparison(result: dict[str, Any]) -> Table:
    """Policy beside reference, a row a measure."""
    reference, policy = result["reference"], result["policy"]
    table = _table("", "reference", "policy", "change")
    for name in reference["gold"]:
        gain, win = result["gain"][name], result["win_rate"][name]
        table.add_row(
            inert_text(f"gold: {name}"), _value(reference["gold"][name]),
            _value(policy["gold"][name]),
            _text(f"{gain['sd']:+.2f} SD [{gain['low']:+.2f}, {gain['high']:+.2f}]"
                  f"  wins {win['mean']:.0%} [{win['low']:.0%}, {win['high']:.0%}]"),
        )  # fmt: skip
    table.add_row("proxy reward", _value(reference["proxy"]), _value(policy["proxy"]))
    exact, sampled = result["kl"]["exact"], result["kl"]["sampled"]
    table.add_row("exact KL (nats)", "", _value(exact), _text(f"sampled: {sampled['mean']:.2f}"))
    rows = {
        "length (tokens)": ("length", "mean"), "ends by itself": ("end_share", None),
        "distinct-1": ("distinct_1", None), "distinct-2": ("distinct_2", None),
        "repetition": ("repetition", None), "fluency (nats/token)": ("fluency", "mean"),
        "held-out loss (nats/token)": ("heldout_loss", None),
    }  # fmt: skip
    for label, (key, part) in rows.items():
        if key not in policy:
            continue
        before, after = (side[key][part] if part else side[key] for side in (reference, policy))
        share = _text(f"{after / before:.0%}") if key.startswith("distinct") else ""
        table.add_row(label, f"{before:.3f}", f"{after:.3f}", share)
    return table


def _best_of(result: dict[str, Any]) -> Table:
    """Best-of-n beside PPO, so that the distance to it is always seen."""
    judges = list(result["gain"])
    table = _table("against the reference", "KL (nats)", *(f"{name}, SD" for name in judges),
                   "proxy", "distinct-2")  # fmt: skip
    for row in result["best_of"]:
        table.add_row(
            f"best of {row['n']}", f"at most {row['kl']:.2f}",
            *(f"{row['gain'][name]:+.2f}" for name in judges), f"{row['proxy']:.2f}",
            f"{row['distinct_2'] / row['distinct_2_reference']:.0%}",
        )  # fmt: skip
    policy, reference = result["policy"], result["reference"]
    table.add_row(
        Text("PPO", style="bold"), f"{result['kl']['exact']['mean']:.2f}",
        *(f"{result['gain'][name]['sd']:+.2f}" for name in judges),
        f"{policy['proxy']['mean']:.2f}",
        f"{policy['distinct_2'] / reference['distinct_2']:.0%}",
    )  # fmt: skip
    return table


def _samples(samples: list[dict[str, Any]]) -> Table:
    table = _table("proxy", "before and after")
    for sample in samples[:SAMPLES_SHOWN]:
        for side in ("reference", "policy"):
            score = sample["proxy"][side == "policy"]
            text = Text(inert(sample["prompt"]), style="dim")
            text.append(inert(sample[side]), style="green" if side == "policy" else "not dim")
            table.add_row(f"{score:+.2f}", text)
        table.add_row()
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(inert_text(first))
    for name in others:
        table.add_column(inert_text(name), overflow="fold")
    return table


def _value(interval: dict[str, float]) -> Text:
    return _text(f"{interval['mean']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]")


def _text(text: str) -> Text:
    """Without markup: brackets are brackets."""
    return Text(text)
