"""Charts for a page: SVG as text, with the page's colours for text and axes, so dark pages work."""

import io
import re
from collections.abc import Callable
from typing import Any

import jinja2

from rl_lab.text import inert

GREEN, BLUE, ORANGE, PURPLE, GREY = "#4c9a5f", "#3b82c4", "#d08c2e", "#9a6fc8", "#888888"
"""Readable on white and on black."""
COLOURS = (GREEN, BLUE, ORANGE, PURPLE)


def svg(
    name: str, title: str, draw: Callable[[Any], None], size: tuple[float, float]
) -> jinja2.filters.Markup:
    """Draw a chart as an SVG element that a template puts into a page as it is.

    Args:
        name: of the chart, unique on its page: what identifies its parts.
        title: above it; may be empty.
        draw: takes the matplotlib axes.
        size: inches, of 72 points each.

    Returns:
        Markup: matplotlib escapes every text it writes.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    style: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "rl-lab", "font.size": 11,
        "text.parse_math": False, "axes.formatter.use_mathtext": False,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure, axes = pyplot.subplots(figsize=size, layout="constrained")
        draw(axes)
        axes.set_title(inert(title), fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, loc="best", fontsize=9)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)
    text = "\n".join(map(inert, buffer.getvalue().split("\n")))
    text = text[text.index("<svg") :].replace("#000000", "currentColor")
    text = text.replace("<text ", '<text fill="currentColor" ')
    # Several charts share a page: what one refers to must be its own.
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    return jinja2.filters.Markup(text)
