"""Filters that look at one row alone: each an expression giving the reason to drop it, null to keep it."""

import polars as pl

# A figure that is not there. Not: "significant figures", "figure out", a plane figure that is described.
_THING = r"(?:figure|fig\.|diagram|picture|drawing|sketch|illustration|image|photo)"
_FIGURE = (
    rf"(?i)\b(?:in|on|from|of|see|by|using|under) (?:the |this |that )?(?:(?:above|following|accompanying|adjacent|adjoining|given|attached|right|left) )?(?:figure|fig\.|diagram|picture|drawing|sketch|illustration)\s*(?:\d|[.,;:)$]|above|below|shown|on the|to the|at (?:the )?(?:right|left)|$)"
    rf"|\b(?:accompanying|adjoining|adjacent|attached) {_THING}"
    rf"|\b{_THING} ?(?:above|below|shown|at (?:the )?(?:right|left)|on the (?:right|left)|to the (?:right|left)|\d+(?:[-.]\d+)?\b)"
    rf"|\bthe (?:figure|diagram|picture|drawing|illustration|graph) (?:shows|depicts|illustrates|represents)"
    r"|\bas (?:shown|illustrated|depicted|pictured)(?: (?:in|on) (?:the |this )?(?:right|left|figure|fig|diagram|picture|drawing|sketch|graph|image|map|chart)|,| (?:above|below|at right|at left|here|to the right|on the right)|\.)"
    r"|\b(?:shown|pictured|depicted|drawn) (?:above|below|at (?:the )?right|at (?:the )?left|to the right|on the right)"
    r"|\b(?:graph|chart|map|grid|shape|table) (?:shown )?(?:above|at right|to the right|on the right)"
    r"|\b(?:graph|chart|map) (?:shown )?below"
    r"|如图|下图|上图|右图|左图|图示"
)
_IMAGE = r"!\[|\\includegraphics|<img\b|https?://\S+\.(?:png|jpe?g|gif|svg)|cdn\.mathpix"
_REFERENCE = (
    r"(?i)\b(?:in|from|of|using|by|see) (?:the )?(?:previous|preceding|last|above|foregoing) (?:problem|exercise|question|part|example|task)"
    r"|\b(?:previous|preceding) (?:problem|exercise|question|part|task)s?\b"
    r"|\b(?:using|from|by|of|in|use|see) (?:the (?:results?|answers?) (?:of|from|to|in) )?(?:part|problem|exercise|question|example|theorem|lemma) ?\(?(?:[a-h]|[ivx]{1,4}|\d+(?:\.\d+)*)\)?(?:[\s,.;:?!]|$)"
    r"|\bsame (?:conditions|situation|setting|setup) as (?:in )?(?:the )?(?:previous|above|problem|part)"
    r"|\b(?:results?|answers?) (?:of|from|to) (?:part|problem|question|the (?:previous|last|preceding))"
)
_CHOICE = r"(?s)(?:\(|\\textbf\{\(|\\text\{\(|\b|\\mathrm\{\(?)A(?:\)|\.|\)\}|:).*?(?:\(|\\textbf\{\(|\\text\{\(|\b|\\mathrm\{\(?)B(?:\)|\.|\)\}|:).*?(?:\(|\\textbf\{\(|\\text\{\(|\b|\\mathrm\{\(?)C(?:\)|\.|\)\}|:)"


def empty(column: str) -> pl.Expr:
    """A null text, or one of white space only."""
    blank = pl.col(column).is_null() | (pl.col(column).str.strip_chars() == "")
    return pl.when(blank).then(pl.lit(f"no {column}"))


def not_among(column: str, values: list[str | None]) -> pl.Expr:
    """A value that is not listed; null is a value."""
    known = pl.col(column).is_in([v for v in values if v is not None])
    keep = known.fill_null(None in values)
    return pl.when(~keep).then(pl.format("{}: not asked for", pl.col(column).fill_null("none")))


def not_self_contained() -> pl.Expr:
    """A problem that needs a figure, or refers to another part or problem."""
    problem = pl.col("problem")
    return (
        pl.when(problem.str.contains(_IMAGE))
        .then(pl.lit("holds an image"))
        .when(problem.str.contains(_FIGURE))
        .then(pl.lit("needs a figure"))
        .when(problem.str.contains(_REFERENCE))
        .then(pl.lit("refers to another part"))
    )


def lists_choices() -> pl.Expr:
    """A problem with at least three lettered answers, A, B, C, to choose from."""
    return pl.when(pl.col("problem").str.contains(_CHOICE)).then(pl.lit("lists choices"))
