"""The few elements of HTML that a report is made of."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Any


def table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table; head: plain titles, lines: of `cell`s."""
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{titles}</tr>{body}</table></div>'


def facts_table(facts: Mapping[str, object]) -> str:
    """A table of names and values; None is left out."""
    lines = [[cell(name), cell(str(value), "text")] for name, value in facts.items() if value is not None]
    body = "".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    return f'<div class="scroll"><table>{body}</table></div>'


def cell(text: str, kind: str = "") -> str:
    """A table cell of plain text."""
    return f"<td{f' class={kind}' if kind else ''}>{html.escape(text)}</td>"


def note(text: str) -> str:
    """A paragraph under a table."""
    return f'<p class="note">{html.escape(text)}</p>'


def picture(image: bytes, kind: str, alt: str) -> str:
    """A picture inside the page; kind: 'png' or 'jpeg'."""
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(image).decode()}">'


def figure_picture(figure: Any, alt: str) -> str:
    """A figure of matplotlib as a picture inside the page; the figure is closed."""
    from matplotlib import pyplot

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    pyplot.close(figure)
    return picture(buffer.getvalue(), "png", alt)
