"""Tiny maths: problems about two whole numbers, and the ways a pupil might write out a solution.

A problem is one sum, difference or product, worded in one of several ways. A *trace* is a completion in the form that
the rewards ask for, ``<think>\\n…\\n</think>\\n<answer>\\n\\boxed{…}\\n</answer>``, by a method drawn at random: column
by column with carries (right but for a slip now and then), quickly (carries forgotten), or roughly (rounded to tens).
Its form is drawn too: as asked, or with tags, newlines or the box missing. A model trained on such traces chooses its
method and form at random; which ones pay is what reinforcement learning can teach it.
"""

import random
from dataclasses import dataclass

NAMES = "Ada Ben Cleo Dan Eva Finn Gina Hugo Iris Jack Kira Leo Mia Noah Olga Paul".split()  # noqa: SIM905
ITEMS = "apples books cards coins eggs flags hats keys maps nuts pens plums rings shells stamps toys".split()  # noqa: SIM905

# Every wording has at least 8 words, and every window of 8 words holds both numbers: a search for shared 8-grams finds
# a copied problem and never takes two different problems for one.
TEMPLATES = {
    "+": [
        "What is the value of ${a} + {b}$?",
        "Work out the sum of {a} and {b}.",
        "{name} has {a} {item} and buys {b} more. Total?",
        "A shop sold {a} {item}, then {b} more. How many?",
        "Add {a} {item} to {b} {item}. How many {item}?",
        "Red box: {a} {item}. Blue box: {b}. How many altogether?",
    ],
    "-": [
        "What is the value of ${a} - {b}$?",
        "Find the difference between {a} and {b}, please.",
        "{name} had {a} {item} and lost {b}. How many remain?",
        "{name} picks {a} {item} and sells {b}. What is left?",
        "Of {a} {item}, {name} sells {b}. How many stay?",
        "Take {b} away from {a}. What number is left?",
    ],
    "*": [
        "What is the value of ${a} \\times {b}$?",
        "Work out the product of {a} and {b}.",
        "{name} buys {b} boxes of {a} {item}. How many {item}?",
        "Each of {b} shelves holds {a} {item}. How many altogether?",
        "{name} reads {a} pages a day for {b} days. Total?",
    ],
}


@dataclass(frozen=True)
class Problem:
    """``a op b``, worded. For "-", a > b; for "*", b is one digit."""

    op: str
    a: int
    b: int
    text: str

    @property
    def operands(self) -> tuple[str, int, int]:
        """What makes two problems the same, whatever their wording and the order of their numbers."""
        return (self.op, max(self.a, self.b), min(self.a, self.b))

    @property
    def answer(self) -> str:
        """The right answer in decimal digits."""
        return str({"+": self.a + self.b, "-": self.a - self.b, "*": self.a * self.b}[self.op])


def draw_problem(rng: random.Random) -> Problem:
    """A problem with numbers of two or three digits; a product's second factor has one."""
    op, low = rng.choice("+-*"), rng.choice([10, 100])
    a, b = rng.randrange(low + 1, 10 * low), rng.randrange(low + 1, 10 * low)
    if op == "*":
        b = rng.randrange(2, 10)
    elif op == "-":
        a, b = max(a, b) + (a == b), min(a, b)
    return word(rng, op, a, b)


def word(rng: random.Random, op: str, a: int, b: int) -> Problem:
    """``a op b`` in a wording drawn at random."""
    text = rng.choice(TEMPLATES[op]).format(a=a, b=b, name=rng.choice(NAMES), item=rng.choice(ITEMS))
    return Problem(op, a, b, text)


def columns(rng: random.Random, op: str, a: int, b: int, slip: float) -> tuple[list[str], int]:
    """Work column by column from the right; each carry or borrow is forgotten with probability ``slip``.

    Returns the lines written and the result they lead to (the right one if nothing was forgotten).
    """
    lines, result, place, carry = [], 0, 1, 0
    while a >= place:
        left, right = a // place % 10, b if op == "*" else b // place % 10
        if op == "-":
            borrow = left - carry < right
            digit = 10 * borrow + left - carry - right
            lines.append(f"{10 * borrow + left}{'-1' * carry}-{right}={digit}")
            carry = int(borrow)
        else:
            total = (left * right if op == "*" else left + right) + carry
            lines.append(f"{left}{op}{right}{f'+{carry}' if carry else ''}={total}")
            carry, digit = divmod(total, 10)
        result += digit * place
        place *= 10
        if a >= place and carry and rng.random() < slip:
            carry = 0
    return lines, result if op == "-" else result + carry * place


def draw_trace(rng: random.Random, problem: Problem) -> tuple[str, str]:
    """A completion for ``problem`` and the answer that it gives ("" if it gives none in a box)."""
    op, a, b = problem.op, max(problem.a, problem.b), min(problem.a, problem.b)
    method = rng.choices(["Columns", "Quickly", "Roughly"], [0.4, 0.3, 0.3])[0]
    if method == "Columns" and rng.random() < 0.15:  # reads the problem wrongly
        op = {"+": "-", "-": "+", "*": "+"}[op]
    if method == "Roughly":
        tens = [(n + 5) // 10 * 10 for n in (a, b)] if op != "*" else [(a + 5) // 10 * 10, b]
        lines, result = [], {"+": tens[0] + tens[1], "-": tens[0] - tens[1], "*": tens[0] * tens[1]}[op]
        a, b = tens
    else:
        lines, result = columns(rng, op, a, b, slip=0.1 if method == "Columns" else 1.0)
    work = "\n".join([f"{method}:", f"{a}{op}{b}", *lines])
    form = rng.choices(["asked", "no box", "one line", "no answer tags", "stops"], [0.65, 0.1, 0.1, 0.08, 0.07])[0]
    if form == "no box":
        return f"<think>\n{work}\n</think>\n<answer>\n{result}\n</answer>", ""
    if form == "one line":
        return f"<think>{work}</think><answer>\\boxed{{{result}}}</answer>", str(result)
    if form == "no answer tags":
        return f"<think>\n{work}\n</think>\n\\boxed{{{result}}}", str(result)
    if form == "stops":
        return f"<think>\n{work}\n</think>", ""
    return f"<think>\n{work}\n</think>\n<answer>\n\\boxed{{{result}}}\n</answer>", str(result)
