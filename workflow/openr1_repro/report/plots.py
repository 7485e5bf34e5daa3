"""Plots as inline SVG, drawn by matplotlib in placeholder colours that become the page's own CSS variables.

So one drawing serves light, dark and paper. Text stays text: it takes the page's font, can be searched, and matplotlib
escapes it. Every plot is drawn at the width of a phone; wider pages show more of them side by side.
"""

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH = 360  # CSS pixels: the text below is then as large as the page's small print
NUM_COLOURS = 8
INK, FAINT, RULE, PAPER = "#010101", "#010102", "#010103", "#010104"
SERIES = [f"#0102{i:02x}" for i in range(NUM_COLOURS)]
_VARIABLES = {INK: "ink", FAINT: "faint", RULE: "rule", PAPER: "paper"} | {c: f"s{i}" for i, c in enumerate(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name with $ in it is a name
    "font.size": 11,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "axes.labelcolor": FAINT,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
}
MAX_POINTS = 300


def curve(steps: Sequence[Sequence[int]], values: Sequence[Sequence[float | None]], share: bool, label: str) -> Markup:
    """One measure against the optimizer step, a line for each variant: raw values faint, their running mean strong.

    ``steps[i]`` and ``values[i]`` belong to variant ``i``; None and NaN are gaps. ``share``: the measure is a fraction,
    shown as a percentage. Every axis holds 0. Long runs are averaged into at most 300 points.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(height=176)
        for i, (x, y) in enumerate(zip(steps, values, strict=True)):
            known = [(a, b) for a, b in zip(x, y, strict=True) if b is not None and np.isfinite(b)]
            if not known:
                continue
            bins = np.array_split(np.array(known, dtype=float), min(len(known), MAX_POINTS))
            points = np.array([b.mean(axis=0) for b in bins])
            window = max(1, round(len(points) / 10))
            strong = len(points) < 10
            # A centred mean over a tenth of the run; at the ends over what there is.
            smooth = [points[max(0, j - window // 2) : j + (window + 1) // 2, 1].mean() for j in range(len(points))]
            axes.plot(points[:, 0], points[:, 1], color=SERIES[i % NUM_COLOURS], lw=1, alpha=1 if strong else 0.35)
            if not strong:
                axes.plot(points[:, 0], smooth, color=SERIES[i % NUM_COLOURS], lw=2)
            elif len(points) == 1:
                axes.plot(points[:, 0], points[:, 1], "o", color=SERIES[i % NUM_COLOURS], ms=5)
        low, high = min(0.0, axes.dataLim.y0), max(0.0, axes.dataLim.y1)
        room = 0.08 * (high - low) or 0.5
        axes.set_ylim(low - room if low < 0 else 0, min(1.0, high + room) if share else high + room if high > 0 else 0)
        if low < 0 < high:
            axes.axhline(0, color=FAINT, lw=0.8)
        axes.yaxis.set_major_formatter(_PERCENT if share else FuncFormatter(_tick))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
        axes.margins(x=0.02)
        return _svg(figure, label)


def score_by_step(
    runs: Sequence[Sequence[dict[str, Any]]], chosen: Sequence[int], series: Sequence[int], label: str
) -> Markup:
    """A benchmark's score at every checkpoint with its 95 % interval, a line a variant; the first point is the base model.

    ``runs[i]``: ``{"step", "avg", "low", "high"}``, fractions, step -1 for a base model before a warm start; ``chosen[i]``: the
    step of the headline's checkpoint, drawn full; ``series[i]``: the number of the variant's colour.
    """
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(height=200)
        longest = max((p["step"] for points in runs for p in points), default=1) or 1

        def place(step: int) -> float:
            return step if step >= 0 else -0.14 * longest

        for i, points in enumerate(runs):
            colour = SERIES[series[i] % NUM_COLOURS]
            shift = longest * 0.012 * (i - (len(runs) - 1) / 2)  # intervals of variants beside each other, not on top
            x = [place(p["step"]) + shift for p in points]
            y = [p["avg"] for p in points]
            axes.plot(x, y, color=colour, lw=1, alpha=0.5)
            axes.vlines(x, [p["low"] for p in points], [p["high"] for p in points], color=colour, lw=1.5)
            for a, p in zip(x, points, strict=True):
                full = p["step"] == chosen[i]
                axes.plot(a, p["avg"], "o", ms=7 if full else 5.5, mfc=colour if full else PAPER, mec=colour, mew=1.5)
        top = max((p["high"] for points in runs for p in points), default=1.0)
        axes.set_ylim(0, min(1.02, max(0.1, top * 1.1)))
        axes.yaxis.set_major_formatter(_PERCENT)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        ticks = sorted({p["step"] for points in runs for p in points})
        if len(ticks) > 6:
            ticks = sorted({ticks[0], *ticks[-1 :: -max(1, len(ticks) // 5)]})
        axes.set_xticks([place(t) for t in ticks], ["base" if t == ticks[0] else f"{t:,}" for t in ticks])
        axes.margins(x=0.06)
        return _svg(figure, label)


def differences(rows: Sequence[dict[str, Any]], label: str) -> Markup:
    """Differences in points with their 95 % intervals, one line each, around a line at 0.

    ``rows``: ``{"name", "series"}`` and `statistics.compare`'s keys; a hollow dot: no difference shown.
    """
    with matplotlib.rc_context(_STYLE | {"axes.grid.axis": "x"}):
        figure, axes = _axes(height=44 + 40 * len(rows), left=8)
        axes.set_ylim(-0.5, len(rows) - 0.25)
        halo = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.5}  # a name may stand on the line at 0
        for i, row in enumerate(reversed(rows)):
            colour = SERIES[row["series"] % NUM_COLOURS]
            axes.hlines(i - 0.12, 100 * row["low"], 100 * row["high"], color=colour, lw=2)
            axes.plot(
                100 * row["difference"],
                i - 0.12,
                "o",
                ms=7.5,
                mfc=colour if row["different"] else PAPER,
                mec=colour,
                mew=1.5,
            )
            axes.text(
                0, i + 0.22, row["name"], transform=axes.get_yaxis_transform(), fontsize=11.5, va="center", bbox=halo
            )
        reach = 100 * max((max(abs(r["low"]), abs(r["high"])) for r in rows), default=0.1)
        low = 100 * min((min(r["low"], 0.0) for r in rows), default=0.0)
        high = 100 * max((max(r["high"], 0.0) for r in rows), default=0.0)
        axes.set_xlim(low - 0.06 * reach - 0.5, high + 0.06 * reach + 0.5)
        axes.axvline(0, color=INK, lw=1)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:+g}".replace("-", "−") if v else "0"))
        return _svg(figure, label)


def histogram(counts: Sequence[int], width: int, label: str) -> Markup:
    """Bars of equal ``width`` from 0; the last one is open."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(height=150)
        axes.bar(np.arange(len(counts)) * width, counts, width * 0.9, align="edge", color=SERIES[0], alpha=0.85, lw=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(_tick))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_formatter(FuncFormatter(_tick))
        axes.margins(x=0.01)
        return _svg(figure, f"Histogram. {label}: {sum(counts):,} rows, bars of {width:,}")


_PERCENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def _axes(height: int, left: int = 44) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((left / WIDTH, 26 / height, (WIDTH - left - 10) / WIDTH, (height - 36) / height))
    return figure, axes


def _tick(value: float, _: int) -> str:
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}").replace("-", "−")


def _svg(figure: Figure, label: str) -> Markup:
    text = io.StringIO()
    # Ids of clip paths and markers are hashed with the label: unique on the page, the same in every run.
    salt = hashlib.sha256(label.encode()).hexdigest()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    used = set(re.findall(r"#([A-Za-z]\w+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)  # the page's own
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL).replace("xlink:href", "href")
    svg = re.sub(r"\n\s*", "\n", svg)
    head = f'<svg viewBox="0 0 {WIDTH} {figure.get_size_inches()[1] * 72:g}" role="img" aria-label="{escape(label)}">'
    return Markup(head + svg[svg.index(">") + 1 :].strip())
