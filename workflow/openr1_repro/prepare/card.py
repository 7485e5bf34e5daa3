"""The data card: funnel, lengths, sources and examples as one piece of HTML that loads nothing."""

from html import escape
from typing import Any

_STYLE = """
.data-card{font:15px/1.5 system-ui,sans-serif;max-width:60rem}
.data-card svg{display:block;max-width:100%;height:auto;color:inherit}
.data-card text{font:13px system-ui,sans-serif;fill:currentColor}
.data-card table{border-collapse:collapse;width:100%}
.data-card td,.data-card th{padding:.25rem .5rem;text-align:left;vertical-align:top;border-bottom:1px solid #8884}
.data-card summary{cursor:pointer;padding:.25rem 0}
.data-card .problem{overflow-wrap:anywhere}
.data-card .kept{fill:#3b7dd8}.data-card .dropped{fill:#d8873b}
""".strip().replace("\n", "")


def render_card(record: dict[str, Any]) -> str:
    """``funnel.json`` as an HTML section; its style is its own and it runs no script."""
    rows_in = sum(part["rows"] for part in record["inputs"])
    rows_out = sum(record["output"].values())
    mixture = ", ".join(f"{escape(part['asset'])} ({part['rows']:,} rows)" for part in record["inputs"])
    parts = [
        f"<section class='data-card'><style>{_STYLE}</style><h2>Training data</h2>",
        f"<p>{mixture}: {rows_out:,} of {rows_in:,} problems are left, {record['output']['train']:,} to train on and "
        f"{record['output']['validation']:,} to choose a checkpoint by.</p>",
        _funnel(rows_in, record["steps"]),
        *(
            f"<h3>{title}</h3>" + _histogram(record[key])
            for key, title in (
                ("prompt_tokens", "Prompt, tokens"),
                ("problem_chars", "Problem, characters"),
                ("solution_chars", "Solution, characters"),
            )
            if record[key]
        ),
        "<h3>Sources</h3>" + _bars([(name, count, f"{count:,}") for name, count in record["sources"].items()]),
        "<h3>Kept, for example</h3>" + _examples(record["kept"]),
        "<h3>Dropped, for example</h3>",
        *(
            f"<details><summary>{escape(step['name'])}: {step['dropped']:,} "
            f"({escape(', '.join(f'{reason} {count:,}' for reason, count in list(step['reasons'].items())[:6]))})</summary>"
            f"{_examples(step['examples'])}</details>"
            for step in record["steps"]
            if step["dropped"]
        ),
        "</section>\n",
    ]
    return "\n".join(parts)


def _funnel(rows_in: int, steps: list[dict[str, Any]]) -> str:
    """A bar a filter: what it kept, and beside it what it dropped."""
    bars = []
    for number, step in enumerate(steps):
        y, kept, dropped = 24 * number, *(520 * step[key] / max(rows_in, 1) for key in ("rows_out", "dropped"))
        share = f"−{step['dropped']:,}" if step["dropped"] else "0"
        bars.append(
            f"<text x='150' y='{y + 16}' text-anchor='end'>{escape(step['name'])}</text>"
            f"<rect class='kept' x='160' y='{y + 3}' width='{kept:.1f}' height='18'/>"
            f"<rect class='dropped' x='{160 + kept:.1f}' y='{y + 3}' width='{dropped:.1f}' height='18'/>"
            f"<text x='{168 + kept + dropped:.1f}' y='{y + 16}'>{step['rows_out']:,} ({share})</text>"
        )
    label = "Rows left after every filter, and rows it dropped"
    return f"<svg viewBox='0 0 820 {24 * len(steps)}' role='img' aria-label='{label}'>{''.join(bars)}</svg>"


def _histogram(values: dict[str, Any]) -> str:
    width, top = values["bin"], max(values["counts"])
    bars = "".join(
        f"<rect class='kept' x='{40 * i + 1}' y='{120 - 110 * count / top:.1f}' width='38' height='{110 * count / top:.1f}'>"
        f"<title>{width * i:,} to {width * (i + 1) - 1:,}: {count:,}</title></rect>"
        for i, count in enumerate(values["counts"])
    )
    labels = "".join(f"<text x='{40 * i}' y='138'>{width * i:,}</text>" for i in range(0, len(values["counts"]), 4))
    caption = f"<p>Median {values['median']:,}, longest {values['max']:,}; the last bar holds all that is longer.</p>"
    return f"<svg viewBox='0 0 820 144' role='img' aria-label='Histogram'>{bars}{labels}</svg>{caption}"


def _bars(rows: list[tuple[str, int, str]]) -> str:
    top = max(count for _, count, _ in rows)
    bars = "".join(
        f"<text x='150' y='{24 * i + 16}' text-anchor='end'>{escape(name[:22])}</text>"
        f"<rect class='kept' x='160' y='{24 * i + 3}' width='{520 * count / top:.1f}' height='18'/>"
        f"<text x='{168 + 520 * count / top:.1f}' y='{24 * i + 16}'>{escape(label)}</text>"
        for i, (name, count, label) in enumerate(rows)
    )
    return f"<svg viewBox='0 0 820 {24 * len(rows)}' role='img' aria-label='Rows of every source'>{bars}</svg>"


def _examples(rows: list[dict[str, Any]]) -> str:
    cells = "".join(
        f"<tr><td class='problem'>{escape(row['problem'] or '(none)')}</td><td>{escape(row['answer'] or '(none)')}</td>"
        f"<td>{escape(row.get('reason') or row['source'] or '')}</td></tr>"
        for row in rows
    )
    return f"<table>{cells}</table>"
