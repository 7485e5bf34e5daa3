"""Normal forms of problem text, as Polars expressions: what "the same problem" means everywhere in this stage."""

import polars as pl

# Labels that differ between copies of a problem: "12. ", "Problem 3:", "(7 points)", "【Example 5】", "### ". Only
# before something that reads like a sentence or a formula, so that "(3) + 4" keeps its 3.
_LABEL = (
    r"^\s*(?:(?:#{1,6}|\*\*)\s*"
    r"|[\[【(]?\s*(?:problem|example|exercise|question|task|ex)\b\.?\s*\d+(?:\.\d+)*\s*[\]】)]?\s*[.:)、]?(?:\*\*)?\s*"
    r"|(?:problem|question)\s*:\s*"
    r"|\(\s*\d+\s*(?:points?|marks?|pts?|分)\.?\s*\)\s*"
    r"|\(?\d{1,3}\s*[.)、]\s+)+"
    r"([\p{L}$\\(\[\"“「])"
)
# Markup without meaning: delimiters of maths, spacing, sizes, fonts.
_MARKUP = (
    r"\\[()\[\],;:!> ]|\$|~|&nbsp;"
    r"|\\(?:quad|qquad|left|right|bigl?|bigr?|biggl?|biggr?|displaystyle|textstyle|limits)\b"
    r"|\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|rm|operatorname)\b"
)
_SYNONYMS = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cdot": "*", "\\times": "*", "×": "*", "·": "*", "⋅": "*",
    "\\div": "/", "÷": "/", "\\leqslant": "<=", "\\leq": "<=", "\\le ": "<= ", "≤": "<=", "\\geqslant": ">=",
    "\\geq": ">=", "\\ge ": ">= ", "≥": ">=", "\\lt": "<", "\\gt": ">", "−": "-", "–": "-", "’": "'", "‘": "'",
    "²": "^2", "³": "^3",
}  # fmt: skip
_TOKEN = r"\p{Han}|[\p{L}--\p{Han}]+|\d+(?:\.\d+)?|[-+*/^=<>%!|'(){}\[\]]"
_TELLING = (
    "maximum|minimum|maximal|minimal|maximize|minimize|max|min|largest|smallest|greatest|least|most|fewest|longest"
    "|shortest|highest|lowest|more|less|fewer|odd|even|increasing|decreasing|increase|decrease|increased|decreased"
    "|positive|negative|not|without|with|acute|obtuse|inscribed|circumscribed|sin|cos|tan|cot|sec|csc|sum|difference"
    "|product|quotient|area|perimeter|volume|mean|median|mode|union|intersection|divisible|prime|composite"
    "|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen"
    "|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|half|twice|double|triple"
    "|third|quarter|fourth|fifth"
)


def normal_form(text: pl.Expr) -> pl.Expr:
    r"""A problem as its tokens with a space between: words, numbers, signs and brackets.

    Case, labels, punctuation and LaTeX markup are gone. Equal normal forms mean equal problems: whatever changes a
    value (a sign, a bracket, a prime, a digit) is a token. A brace around one token is dropped (``x^{2}`` is ``x^2``),
    any other stays (``\sqrt{a+b}`` is not ``\sqrt{a}+b``).
    """
    text = text.str.replace_many(list(_SYNONYMS), list(_SYNONYMS.values()), leftmost=True)
    text = text.str.normalize("NFKC").str.to_lowercase().str.replace(_LABEL, "$1").str.replace_all(_MARKUP, " ")
    text = text.str.replace_all(r"\{\s*(\d+(?:\.\d+)?|[a-z]|\\[a-z]+)\s*\}", " $1 ")
    return text.str.extract_all(_TOKEN).list.join(" ")


def facts(normal: pl.Expr) -> pl.Expr:
    """The tokens of a normal form that tell problems apart, in their order: numbers, signs, telling words."""
    return normal.str.extract_all(rf"\d+(?:\.\d+)?|[-+*/^=<>]|\b(?:{_TELLING})\b").list.join(" ")


def letters(normal: pl.Expr) -> pl.Expr:
    """A normal form's letters, digits and signs without spaces: what containment in a benchmark problem compares."""
    return normal.str.replace_all(r"[\s(){}\[\]']", "")


def words(text: str) -> str:
    """Lower case, single spaces: how s1 and open-r1 normalise before they look for n-grams."""
    return " ".join(text.lower().split())
