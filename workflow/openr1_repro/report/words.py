"""Numbers and foreign text as words of a report."""

import json
import math
import re
from typing import Any

MINUS, NARROW = "\u2212", "\u202f"


def percent(value: float) -> str:
    """0.4567 → 45.7 %."""
    return f"{100 * value:.1f}{NARROW}%"


def points(value: float) -> str:
    """A difference of shares in points, with its sign: -0.031 → −3.1."""
    return f"{100 * value:+.1f}".replace("-", MINUS) if value else "0.0"


def pvalue(value: float) -> str:
    """A p-value with two digits, small ones as a bound."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def count(value: float) -> str:
    """1234567 → 1,234,567."""
    return f"{value:,}"


def number(value: float | None, digits: int = 3) -> str:
    """A measured value with a few significant digits; – for none."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", MINUS)
    return f"{value:.{digits}g}".replace("-", MINUS)


def size(value: int) -> str:
    """Bytes for people."""
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g}{NARROW}{unit}"
        amount /= 1000
    return f"{amount:.3g}{NARROW}TB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def averaged(samples: int) -> str:
    """The name of a mean over ``samples`` samples a problem."""
    return f"avg@{samples}"


def shown(value: Any) -> str:
    """Foreign text for a page: control characters and direction overrides made visible, broken Unicode replaced.

    Escaping HTML is the template's.
    """
    text = (
        value
        if isinstance(value, str)
        else json.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | list)
        else str(value)
    )
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = text.replace("\r\n", "\n")
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda m: chr(0x2400 + ord(m[0])), text)
    return re.sub(
        "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]",
        lambda m: f"<U+{ord(m[0]):04X}>",
        text,
    )


def clipped(text: str, limit: int) -> dict[str, Any]:
    """``head``, ``tail`` and the number of characters ``left_out`` between them."""
    if len(text) <= limit:
        return {"head": text, "tail": "", "left_out": 0}
    half = limit // 2
    return {"head": text[:half], "tail": text[-half:], "left_out": len(text) - 2 * half}
