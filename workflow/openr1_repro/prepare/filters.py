"""Filters that look at one row alone: each gives the reason to drop it, null to keep it."""

from pathlib import Path

import polars as pl

from openr1_repro.stage import UserError

from .settings import PassRate

_THING = "(?:figure|fig\\.|diagram|picture|drawing|sketch|illustration|image|photo)"
_SIDE = "(?:(?:at|on|to) )?(?:the )?(?:right|left)\\b"
_FIGURE = "|".join([
    # "in the figure", "see the diagram below"; not "in three significant figures", not "a plane figure"
    rf"(?:in|on|from|of|see|by|using|under) (?:the |this |that )?(?:above |following |given |left |right )?"
    rf"{_THING}(?:\s*\d|\s*[.,;:)$]|\s*$|\s+(?:above|below|shown|at|on|to)\b)",
    rf"(?:accompanying|adjoining|adjacent|attached) (?:{_THING}|graph)",
    rf"{_THING} ?(?:above|below|shown|{_SIDE}|\d)",
    rf"(?:graph|chart|map|grid|table) (?:shown|below|{_SIDE})",  # "above": of the x-axis, as a rule
    r"the (?:figure|diagram|picture|drawing|illustration|graph) (?:shows|depicts|illustrates|represents)",
    rf"the (?:following|given) {_THING} (?:shows|is|has)",
    rf"as (?:shown|illustrated|depicted|pictured)(?:,|\.| (?:above|below|here|{_SIDE})"
    rf"| (?:in|on) (?:the |this )?(?:right|left|{_THING}|graph|map|chart))",
    rf"(?:shown|pictured|depicted|drawn) (?:above|below|{_SIDE})",
    r"shaded (?:region|area|part|portion|triangle|square|circle)s? (?:in the (?:figure|diagram)|shown|above|below)",
])  # fmt: skip
_IMAGE = r"!\[|\\includegraphics|<img\b|https?://\S+\.(?:png|jpe?g|gif|svg)|cdn\.mathpix|如图|下图|上图|右图|左图"
_REFERENCE = "|".join([
    r"(?:previous|preceding|foregoing|last|above) (?:problem|exercise|question|part|example|task|result)s?\b",
    r"(?:using|from|by|of|in|use|see|as in) (?:the (?:result|answer)s? (?:of|from|to|in) )?"
    r"(?:part|problem|exercise|question|example|task|lemma)s? "
    r"(?:\(?(?:[a-h]|[ivx]{1,4})\)|\(?\d+(?:\.\d+)*\)?|[a-h]\b)",
    r"same (?:conditions|situation|setting|setup) as (?:in )?(?:the )?(?:previous|above|problem|part)",
])  # fmt: skip
# "(A) … (B) … (C)", but not P(A); or "A. … B. … C." where A opens a line or follows the question's end
_CHOICE = r"(?s)(?:^|\W)\(A\).*?\W\(B\).*?\W\(C\)|(?:^|\n|\s\s|[?:.．_。？]\s*|[(（]\s*[)）]\s*)A[.):、．].*?\sB[.):、．].*?\sC[.):、．]"


def empty(column: str) -> pl.Expr:
    """A null text, or one of white space only."""
    blank = pl.col(column).is_null() | (pl.col(column).str.strip_chars() == "")
    return pl.when(blank).then(pl.lit(f"no {column}"))


def not_among(column: str, values: list[str | None]) -> pl.Expr:
    """A value that is not listed; null is a value."""
    known = pl.col(column).is_in([v for v in values if v is not None]).fill_null(None in values)
    return pl.when(~known).then(pl.col(column).fill_null("none"))


def not_self_contained() -> pl.Expr:
    """A problem that needs a figure, or refers to another part or problem. A figure as code (Asymptote) is there."""
    problem = pl.col("problem")
    drawn = problem.str.contains("[asy]", literal=True)
    return (
        pl.when(problem.str.contains(_IMAGE)).then(pl.lit("holds an image"))
        .when(problem.str.contains(rf"(?i)\b(?:{_FIGURE})") & ~drawn).then(pl.lit("needs a figure"))
        .when(problem.str.contains(rf"(?i)\b(?:{_REFERENCE})")).then(pl.lit("refers to another part"))
    )  # fmt: skip


def lists_choices() -> pl.Expr:
    """A problem that lists at least three lettered answers, A, B, C, to choose from."""
    return pl.when(pl.col("problem").str.contains(_CHOICE)).then(pl.lit("lists choices"))


def unusable_text(max_chars: int, reject: list[str]) -> pl.Expr:
    """An answer that is too long, stands for none, or holds nothing but markup. Needs the column answer_form."""
    plain = pl.col("answer").str.strip_chars(" .$").str.to_lowercase()
    return (
        pl.when(plain.is_in(reject)).then(pl.lit("stands for no answer"))
        .when(pl.col("answer").str.len_chars() > max_chars).then(pl.lit("too long"))
        .when(~pl.col("answer_form").str.contains(r"[\p{L}\p{N}∞∅]")).then(pl.lit("no content"))
    )  # fmt: skip


def not_in_band(uuids: pl.Series, file: Path | None, settings: PassRate) -> pl.Series:
    """Marks the rows whose pass rate is not in the band, or not known.

    Raises:
        UserError: no file, or one without the columns uuid and rate.
    """
    if file is None:
        raise UserError(
            "prepare.pass_rate is set: give --pass-rates, what python -m openr1_repro.prepare.pass_rate wrote"
        )
    try:
        rates = pl.read_parquet(file, columns=["uuid", "rate"]).unique("uuid", keep="first", maintain_order=True)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file}: no file of pass rates ({reason}); run openr1_repro.prepare.pass_rate again") from None
    known = uuids.to_frame("uuid").join(rates, on="uuid", how="left", maintain_order="left")
    rate = pl.col("rate")
    return known.select(
        pl.when(rate.is_null()).then(pl.lit("not sampled"))
        .when(rate <= settings.above).then(pl.lit("solved too rarely"))
        .when(rate >= settings.below).then(pl.lit("solved too often"))
    )["literal"]  # fmt: skip
