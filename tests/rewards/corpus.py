"""Completions with their golds in the shapes that mathematics takes: deterministic, by index, for parity and speed."""

import random

PARITY = 3200
"""Pairs that are held against open-r1."""

# (gold, answers that a model might write: right ones, wrong ones, and ones that only math-verify can tell)
SHAPES: list[tuple[str, list[str]]] = [
    (r"\frac{63}{400}", [r"\frac{63}{400}", r"\dfrac{63}{400}", "0.1575", "63/400", r"\frac{64}{400}", r"\frac63{400}"]),
    ("42", ["42", "42.0", r"\,42", "42!", "041", "-42", "forty-two", r"42\text{ cm}", r"6\cdot 7", "4 2"]),
    (r"\frac{1}{2}", ["0.5", ".5", r"50\%", r"\frac{2}{4}", r"2^{-1}", r"\frac{1}{3}", r"\frac12", "1:2"]),
    ("1000000", ["1,000,000", r"10^6", "1000000", "1 000 000", r"1{,}000{,}000", "100000", r"1\times10^{6}"]),
    (r"\{1,2,3\}", [r"\{3,2,1\}", "1,2,3", r"\{1,2\}", "1, 2 \\text{ and } 3", "(1,2,3)", r"\left\{1,2,3\right\}"]),
    (r"(-\infty, 3]", [r"(-\infty,3]", r"x \le 3", r"(-\infty, 3)", r"\left(-\infty, 3\right]", "[3, \\infty)"]),
    (r"[0,1) \cup (2,3]", [r"[0,1)\cup(2,3]", r"(2,3] \cup [0,1)", "[0,3]", r"0\le x<1", r"x\in[0,1)\cup(2,3]"]),
    (r"\sqrt{2}", [r"\sqrt2", r"\sqrt{2}", "1.41421356", r"2^{1/2}", r"\frac{2}{\sqrt{2}}", r"\sqrt{3}", r"\sqrt[3]{2}"]),
    (r"2\sqrt{3}+1", [r"1+2\sqrt{3}", r"1+\sqrt{12}", r"2\sqrt{3}", "4.4641016", r"\sqrt{3}+1", r"1+2\sqrt 3"]),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
     [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\end{bmatrix}",
      r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4", "1,2,3,4"]),
    ("25\\%", ["25\\%", "25%", "0.25", "25", r"\frac14", "25 percent", "20\\%"]),
    ("x=5", ["x=5", "5", "y=5", "5=x", "x = 5.0", "x=4", "x=2+3"]),
    ("y=2x+3", ["y=2x+3", "y=3+2x", "2x+3", "2x-y+3=0", "y=2x-3", "y = 2(x+1)+1"]),
    ("x^2+2x+1", ["(x+1)^2", "x^2+2x+1", "1+2x+x^2", "x^2+x+1", "x(x+2)+1", "(x-1)^2"]),
    ("(3,4)", ["(3,4)", "(4,3)", "3,4", r"\left(3,4\right)", "x=3, y=4", "(3, 4)", "[3,4]"]),
    (r"\pi", [r"\pi", "3.14159265", r"\frac{22}{7}", r"2\pi/2", "π", "3.14"]),
    (r"\frac{\pi}{4}", [r"\frac{\pi}{4}", r"45^\circ", r"\pi/4", "0.785398", r"\arctan 1", r"\frac{\pi}{3}"]),
    ("3+4i", ["3+4i", "4i+3", "3-4i", r"5e^{i\arctan(4/3)}", "3+4j", "(3,4)"]),
    ("10\\text{ cm}", ["10", "10 cm", r"10\text{ cm}", r"10\,\mathrm{cm}", "100 mm", r"10\text{ cm}^2", "1"]),
    ("\\text{Tuesday}", [r"\text{Tuesday}", "Tuesday", r"\text{tuesday}", r"\text{Monday}", r"\mathrm{Tuesday}"]),
    ("A", ["A", r"\text{A}", "B", r"\textbf{(A)}", "(A)", "A.", "a"]),
    (r"\text{yes}", [r"\text{yes}", "yes", r"\text{no}", r"\text{Yes}", "true"]),
    ("2^{10}", ["1024", "2^{10}", "1023", r"4^5", r"2^{11}-2^{10}"]),
    (r"\log_2 8", ["3", r"\log_2 8", r"\frac{\ln 8}{\ln 2}", "2", r"\log_{2}{8}"]),
    (r"\binom{5}{2}", ["10", r"\binom{5}{2}", r"\frac{5!}{2!3!}", r"C_5^2", "20"]),
    ("-7", ["-7", "−7", "(-7)", "7", "- 7", r"-\frac{14}{2}", "-7.0"]),
    ("0", ["0", "-0", "0.0", "zero", r"\emptyset", r"\frac{0}{5}"]),
    (r"\infty", [r"\infty", "∞", r"+\infty", r"-\infty", "infinity"]),
    (r"\emptyset", [r"\emptyset", r"\varnothing", r"\{\}", "0", r"\text{no solution}"]),
    ("a=1,b=2", ["a=1,b=2", "b=2,a=1", "(1,2)", "a=1", r"a=1 \text{ and } b=2", "1,2"]),
    ("x>3", ["x>3", "3<x", r"(3,\infty)", r"x\ge 3", "x>4"]),
    (r"1<x<2", ["1<x<2", r"(1,2)", "2>x>1", r"1\le x\le 2", r"x\in(1,2)"]),
    (r"\frac{x}{x+1}", [r"\frac{x}{x+1}", r"1-\frac{1}{x+1}", r"\frac{x}{1+x}", r"\frac{x+1}{x}", "x/(x+1)"]),
    (r"\sin x\cos x", [r"\frac12\sin 2x", r"\sin x\cos x", r"\cos x\sin x", r"\sin 2x", r"\sin(x)\cos(x)"]),
    (r"n(n+1)/2", [r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", r"\sum_{k=1}^n k", r"\frac{n(n-1)}{2}"]),
    ("12:30", ["12:30", "12.5", r"\frac{12}{30}", "12{:}30"]),
    (r"\$18.90", [r"\$18.90", "18.9", "18.90", r"\$18.9", "1890", r"18.90\text{ dollars}"]),
    ("3.14", ["3.14", "3.140", r"\frac{157}{50}", "3.1416", "3,14"]),
    (r"1.5\times10^{-3}", [r"1.5\times10^{-3}", "0.0015", r"1.5\cdot 10^{-3}", r"15\times10^{-4}", "1.5e-3"]),
    ("三", ["三", "3", r"\text{三}", "三个"]),
    (r"\text{甲}", [r"\text{甲}", "甲", r"\text{乙}"]),
    (r"\frac{a+b}{2}", [r"\frac{a+b}{2}", r"\frac{b+a}{2}", r"\frac a2+\frac b2", r"\frac{a-b}{2}"]),
    (r"f(x)=x^2", ["f(x)=x^2", "x^2", "y=x^2", "f(x)=x^3", "f(t)=t^2"]),
    (r"120^\circ", [r"120^\circ", "120", r"120°", r"\frac{2\pi}{3}", r"120\text{ degrees}"]),
    ("1,2", ["1,2", "2,1", r"1\text{ or }2", r"x=1 \text{ or } x=2", r"x_1=1, x_2=2", "1", r"\{1,2\}"]),
    (r"\pm 3", [r"\pm 3", "3,-3", "-3,3", "3", r"x=\pm3", r"\{-3,3\}"]),
    (r"e^2", ["e^2", "7.389056", r"e^{2}", r"\exp(2)", "e", "2e"]),
    (r"\vec{a}+\vec{b}", [r"\vec{a}+\vec{b}", r"\vec{b}+\vec{a}", "a+b", r"\overrightarrow{a}+\overrightarrow{b}"]),
]  # fmt: skip

# How an answer stands in a completion; {a} is the answer, {w} another one.
FRAMES = [
    "\\boxed{{{a}}}",
    "The answer is $\\boxed{{{a}}}$.",
    "So $\\boxed{{{w}}}$ was my first try, but the final answer is $\\boxed{{{a}}}$",
    "Therefore \\[ \\boxed{{{a}}} \\]",
    "$$x = \\boxed{{{a}}}$$ as required.",
    "\\(\\boxed{{{a}}}\\)",
    "The final answer is: ${a}$. I hope it is correct.",
    "The answer is ${a}$",
    "Answer: ${a}$",
    "Hence {a}.",
    "**Answer:** {a}",
    "\\boxed{{{a}",
    "\\boxed{a}",
    "\\boxed {{{a}}} and \\fbox{{{w}}}",
    "\\boxed{{{a}}} or \\boxed{{{w}}}",
    "$\\boxed{{{w}}}$ and $\\boxed{{{a}}}$",
    "因此,答案是 $\\boxed{{{a}}}$。",
    "答案:$\\boxed{{{a}}}$。",
    "\\boxed{{\\boxed{{{a}}}}}",
    "\\boxed{{{a}}}}}",
    "\\boxed{{x={a}}}",
    "\\boxed{{{a}}} \\text{{ units}}",
    "final answer is ${w}$ ... wait, the final answer is ${a}$",
    "The answer is \\[{a}\\] and not \\[{w}\\]",
    "$ {a} $",
    "",
    "\\boxed{{}}",
    "\\boxed{{{a}}}%",
    "so we get\n\n$$\n\\boxed{{{a}}}\n$$\n",
]

THOUGHTS = [
    "Let me see. We have $x^2+3x=4$, so by Vieta $x_1+x_2=-3$.",
    "First, \\[ \\frac{a}{b} = \\sqrt{2} \\] holds.\nSecond, we square.\n- one\n- two\nFinally, done.",
    "Step 1: compute $2+2=4$. Step 2: halve it, \\(4/2=2\\).",
    "我们先求解方程,得到 $x=2$ 或 $x=3$。",
    "We try $[1,2]$ and then [3,4] and \\$5 for each.",
    "this this this is is is repeated repeated text again again again",
]

GOLDS = [
    "{g}", "${g}$", "$\\boxed{{{g}}}$", "We add and find $2+3$.\nThus the answer is $\\boxed{{{g}}}$.",
    "By symmetry, the value is ${g}$.", "Solution. Let $t=1$. Hence \\[ {g} \\]",
]  # fmt: skip


def pair(index: int) -> tuple[str, str]:
    """The ``index``-th (gold, completion)."""
    chance = random.Random(index)
    gold, answers = chance.choice(SHAPES)
    if chance.random() < 0.35:  # plain numbers, the most frequent answers by far
        value = chance.randint(-20, 2000)
        gold, answers = (
            str(value),
            [str(value), str(value + chance.randint(0, 2)), f"{value}.0", rf"\frac{{{2 * value}}}{{2}}"],
        )
    frame = chance.choice(FRAMES[:6]) if chance.random() < 0.5 else chance.choice(FRAMES)
    answer = chance.choice(answers) if chance.random() < 0.85 else chance.choice(chance.choice(SHAPES)[1])
    said = frame.format(a=answer, w=chance.choice(answers))
    thought = "\n".join(chance.choices(THOUGHTS, k=chance.randint(0, 6)))
    shape = chance.random()
    if shape < 0.5:
        text = f"<think>\n{thought}\n</think>\n<answer>\n{said}\n</answer>"
    elif shape < 0.6:
        text = f"<think>{thought}</think>\n<answer>{said}</answer>"
    elif shape < 0.7:
        text = f"<think>\n{thought}\n</think>\n{said}"
    elif shape < 0.75:
        text = f"<think>\n{thought}\n</think>\n<answer>\n{said}\n</answer>\n\nThat is all."
    else:
        text = f"{thought}\n{said}"
    return chance.choice(GOLDS).format(g=gold), text


def pairs(count: int) -> list[tuple[str, str]]:
    """The first ``count`` pairs that differ from all before."""
    found: dict[tuple[str, str], None] = {}
    index = 0
    while len(found) < count:
        found[pair(index)] = None
        index += 1
    return list(found)
