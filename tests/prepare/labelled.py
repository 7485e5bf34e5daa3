"""Rows labelled by hand: the step of the funnel that must drop each, null where it must be kept.

Written from the kinds of failure that NuminaMath and OpenR1-Math are known for: missing and placeholder answers, proofs, choices, figures that were
lost, parts of other problems, copies with new labels or markup, templates whose numbers differ, wrong answers, benchmark items, essays.
"""

from typing import Any

BENCHMARKS = {
    "aime24": [
        "Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards. When she walks at a constant speed of $s$ kilometers per hour, the walk takes her 4 hours, including $t$ minutes spent in the coffee shop.",  # noqa: E501
        "Let $x,y$ and $z$ be positive real numbers that satisfy the following system of equations: $\\log_2(x/yz) = 1/2$. Find $m+n$.",
    ],
    "math_500": [
        "Compute $\\sin 60^\\circ$.",
        "Define $p = \\sum_{k=1}^\\infty \\frac{1}{k^2}$. Express the double sum in terms of $p$ and $q$.",
        "What is the smallest positive perfect cube that can be written as the sum of three consecutive integers?",
        "Evaluate $i^6+i^{16}+i^{-26}$.",
    ],
    "gpqa": [
        "A quantum mechanical particle of mass m moves in two dimensions in a potential V as a function of r and theta."
    ],
}

_STEPS: dict[str | None, list[tuple[Any, ...]]] = {
    None: [
        # ordinary problems of every kind of answer
        ("Find the number of positive divisors of $2^{10} \\cdot 3^4$.", "55"),
        ("Solve the equation $x^2 - 5x + 6 = 0$ and give the larger root.", "3"),
        ("A train travels 240 km in 3 hours. What is its average speed in km/h?", "80"),
        ("Determine the probability that two fair dice show the same number.", "\\frac{1}{6}"),
        ("Express $\\cos 75^\\circ$ in radicals.", "\\frac{\\sqrt{6}-\\sqrt{2}}{4}"),
        ("Find all real $x$ with $|x - 3| < 2$ as an interval.", "(1, 5)"),
        ("What is the value of $\\int_0^1 x^3 \\, dx$?", "0.25"),
        ("Simplify $(a+b)^2 - (a-b)^2$.", "4ab"),
        ("Let $f(x) = 2x + 1$. Compute $f^{-1}(7)$.", "3"),
        ("How many ways can 5 people sit around a circular table?", "24"),
        ("Find the sum of the infinite series $1 + 1/2 + 1/4 + \\dots$", "2"),
        ("The polynomial $x^3 - 6x^2 + 11x - 6$ has three roots. List them as a set.", "\\{1, 2, 3\\}"),
        ("By what percent does an area grow if a square's side grows by 10 percent?", "21\\%"),
        ("Find the point where the lines $y = x$ and $y = 2 - x$ meet.", "(1,1)"),
        ("What is the remainder when $7^{100}$ is divided by 5?", "1"),
        ("Given that $\\log_2 x = 5$, find $x$.", "32"),
        ("A cone has radius 3 and height 4. Find its volume.", "12\\pi"),
        ("Compute $\\binom{10}{3}$.", "120"),
        ("The matrix $A$ has rows $(1, 2)$ and $(3, 4)$. What is its determinant?", "-2"),
        ("What is the distance from the origin to the plane $2x + 2y + z = 9$?", "3"),
        # words that other filters look for, in a harmless sense
        ("Round $3.14159$ to three significant figures.", "3.14"),
        ("A plane figure is bounded by $y = x^2$ and $y = 4$. Find its area.", "\\frac{32}{3}"),
        ("Figure out how many three-digit numbers are palindromes.", "90"),
        ("Find the area of the part of the graph above the $x$-axis of $y = 1 - x^2$.", "\\frac{4}{3}"),
        ("Events satisfy $P(A) = 0.5$, $P(B) = 0.4$ and $P(C) = 0.1$; they are independent. Find $P(A \\cap B \\cap C)$.", "0.02"),
        ("A line passes through point A. Another passes through B. Both meet the circle at C. Given $AB = 6$ and $AC = 10$ with a right angle at B, find $BC$.", "8"),  # noqa: E501
        ("What part of an hour is 25 minutes?", "\\frac{5}{12}"),
        ("Anna solved part of the problem in 20 minutes and the rest in 15. How many minutes did she need?", "35"),
        ("In the previous year a town had 8000 inhabitants, this year 10 percent more. How many now?", "8800"),
        ("Prove-or-not aside, what is the largest prime below 50?", "47"),
        ("[asy] draw((0,0)--(4,0)--(4,3)--cycle); [/asy] The triangle shown above has legs 4 and 3. Find its hypotenuse.", "5"),
        ("An image of a point under the reflection in the $y$-axis is $(3, 4)$. Find the point's $x$-coordinate.", "-3"),
        ("Find the number of sets (A, B) with A a subset of B in a set of 4 elements.", "81"),
        # eight words that no benchmark has
        ("Every morning Ben goes for a run of 5 kilometers and rests for 10 minutes; he is away 40 minutes. Find his speed in km/h.", "10"),
        ("What is the smallest positive perfect square that is a sum of two cubes of positive integers?", "9"),
        ("Compute $\\sin 30^\\circ$.", "\\frac{1}{2}"),
        ("Compute $\\cos 60^\\circ$.", "0.5"),
        # templates: other numbers, signs or telling words make another problem
        ("What is 47 + 38?", "85"),
        ("What is 47 + 36?", "83"),
        ("What is 47 - 38?", "9"),
        ("Tom has 12 apples and gives 5 of them to Mary, who already had 7 apples in her basket. How many apples does Mary have now?", "12"),
        ("Tom has 13 apples and gives 5 of them to Mary, who already had 7 apples in her basket. How many apples does Mary have now?", "12"),
        ("For real numbers with $x^2 + y^2 = 25$, find the maximum possible value of the expression $3x + 4y$.", "25"),
        ("For real numbers with $x^2 + y^2 = 25$, find the minimum possible value of the expression $3x + 4y$.", "-25"),
        ("How many even numbers are there between 10 and 100 whose digits are all different from each other?", "40"),
        ("How many odd numbers are there between 10 and 100 whose digits are all different from each other?", "40"),
        ("Simplify $\\sqrt{a+9}$ at $a = 7$.", "4"),
        ("Simplify $\\sqrt{a}+9$ at $a = 7$.", "\\sqrt{7}+9"),
        ("Let $g(x) = x^4$. Compute $g(2)$.", "16"),
        ("Let $g(x) = x^4$. Compute $g'(2)$.", "32"),
        ("In triangle $ABC$ the sides are $AB = 13$, $BC = 14$, $CA = 15$ and $H$ is the foot of the altitude from $A$. Find $BH$.", "5"),
        ("In triangle $ABC$ the sides are $AB = 13$, $BC = 14$, $CA = 15$ and $H$ is the foot of the altitude from $A$. Find $CH$.", "9"),
        # of several copies, the one with the most right traces
        ("Determine the number of integers $n$ with $n^2 < 50$.", "15", {"correctness_math_verify": [True, True]}),
        ("Let $r$ be the real root of $x^3 = 2$. Find $r^6$.", "4", {"correctness_math_verify": [True, True]}),
        ("A farmer has chickens and rabbits with 35 heads and 94 feet in total on the farm. How many rabbits are there on the farm?", "12",
         {"correctness_math_verify": [True, True]}),
        ("Compute the value of $\\frac{1}{2} + \\frac{1}{3}$.", "\\frac{5}{6}", {"correctness_math_verify": [True, True]}),
        # nulls and oddities that are no fault
        ("Find $3 \\cdot 17$.", "51", {"problem_type": None, "question_type": None, "source": None}),
        ("Find $4 \\cdot 17$.", "68", {"correctness_math_verify": None, "correctness_llama": [True, False]}),
        ("Find $5 \\cdot 17$.", "85", {"correctness_math_verify": [None, True]}),
        ("求 $6 \\cdot 17$ 的值。", "102"),
    ],
    "empty problem": [(None, "5"), ("", "7"), ("  \n\t ", "8")],
    "empty answer": [
        ("A problem whose answer was lost: find $9 \\cdot 9$.", None),
        ("A problem whose answer is blank: find $8 \\cdot 9$.", "   "),
        ("A problem whose answer is empty: find $7 \\cdot 9$.", ""),
    ],
    "empty solution": [
        ("A problem without solution: find $6 \\cdot 9$.", "54", {"solution": None}),
        ("A problem with an empty solution: find $5 \\cdot 9$.", "45", {"solution": ""}),
    ],
    "question type": [
        ("Prove that $\\sqrt{2}$ is irrational.", "proof", {"question_type": "proof"}),
        ("Show that the product of two odd numbers is odd.", "1", {"question_type": "proof"}),
        ("Which is prime: 21, 22, 23 or 24?", "C", {"question_type": "MCQ"}),
        ("Discuss the history of zero.", "0", {"question_type": "other"}),
    ],
    "verified trace": [
        ("Nobody solved this: find $11 \\cdot 12$.", "131", {"correctness_math_verify": [False, False]}),
        ("Only cut-off traces solved this: find $11 \\cdot 13$.", "143", {"is_reasoning_complete": [False, True]}),
        ("No verdict at all: find $11 \\cdot 14$.", "154", {"correctness_math_verify": None, "correctness_llama": None}),
        ("No traces: find $11 \\cdot 15$.", "165", {"correctness_math_verify": [], "is_reasoning_complete": []}),
        ("Right by Llama but cut off: find $11 \\cdot 16$.", "176",
         {"correctness_math_verify": [False, False], "correctness_llama": [False, True], "is_reasoning_complete": [True, False]}),
        ("Verdicts null inside: find $11 \\cdot 17$.", "187", {"correctness_math_verify": [None, None]}),
    ],
    "self-contained": [
        ("In the figure, $AB = 5$ and $BC = 12$. Find $AC$.", "13"),
        ("As shown in the figure, the circle with center $O$ has radius 5. Find the chord $AB$.", "8"),
        ("The diagram below shows a square of side 4 with two quarter circles. Find the shaded area.", "8\\pi-16"),
        ("Find the area of the shaded region shown.", "12"),
        ("Using the diagram, find $x$.", "30"),
        ("See Figure 3. What is the angle at $P$?", "45"),
        ("The graph shows the temperature over a day. What was the highest temperature?", "31"),
        ("In the accompanying drawing, lines $l$ and $m$ are parallel. Find the angle.", "70"),
        ("![](https://cdn.mathpix.com/cropped/2024_04_17.jpg?height=300) Find the perimeter.", "24"),
        ("\\includegraphics[width=5cm]{fig1.png} How many triangles are there?", "16"),
        ("A rectangle is divided into nine squares, as shown. Find its perimeter if the smallest has side 2.", "260"),
        ("如图,在三角形 $ABC$ 中,$AB = 5$,求 $BC$。", "6"),
        ("Points lie as pictured below. Find the length of the path.", "17"),
        ("The figure at right consists of five squares of area 4. Find its perimeter.", "24"),
        ("Consider the map below. How many routes lead from $A$ to $B$?", "10"),
        ("In the previous problem, replace 10 by 20. What is the answer now?", "190"),
        ("Use the result of part (a) to find $f(10)$.", "55"),
        ("Under the same conditions as in problem 4, find the speed of the second car.", "60"),
        ("Using part b, compute the limit.", "1"),
        ("As in Exercise 12, find the number of such paths.", "42"),
        ("Continuing the preceding question, find the variance.", "4"),
        ("From problem 3, deduce the value of $a_{10}$.", "89"),
        ("The table to the right lists the scores. Find the mean.", "7.5"),
    ],
    "multiple choice": [
        ("What is $2^5$? (A) 16 (B) 25 (C) 32 (D) 64", "32"),
        ("The value of $3!$ is $\\textbf{(A)}\\ 3 \\qquad \\textbf{(B)}\\ 6 \\qquad \\textbf{(C)}\\ 9$", "6"),
        ("Which of these is even?\nA. 3\nB. 4\nC. 5\nD. 7", "4"),
        ("The set $M \\cap N$ is ( ) A. $\\{1\\}$ B. $\\{2\\}$ C. $\\{1, 2\\}$ D. $\\emptyset$", "\\{1\\}"),
        ("$5 + 7 =$ ____?  A) 10  B) 11  C) 12  D) 13", "12"),
        ("How many? $(\\mathrm{A})$ one (A) 1, (B) 2, (C) 3", "2"),
    ],
    "answer text": [
        ("Prove it: find all primes $p$ with $p + 2$ prime below 10.", "proof"),
        ("What can be said of the sequence $a_n = 1/n$?", "See solution."),
        ("Find the value, if any, of $0/0$.", "not found"),
        ("The answer to this was lost in conversion: $13 \\cdot 3$.", "$N/A$"),
        ("State the theorem of Pythagoras.", "The square of the hypotenuse is the sum of the squares of the legs, " * 4),
        ("The answer to this is markup only: $13 \\cdot 5$.", "$ $"),
        ("The answer to this is a dot: $13 \\cdot 7$.", "."),
        ("The answer to this is a backslash: $13 \\cdot 9$.", "\\"),
        ("The answer to this is two braces: $13 \\cdot 11$.", "}{"),
    ],
    "answer parses": [
        ("Estimate the square root of 12 to one decimal.", "\\approx 3.5"),
        ("Give the answer of $13 \\cdot 10$ as a sentence.", "130."),
    ],
    "contradictory answers": [
        ("Find the number of diagonals of a regular nonagon with a marked vertex.", "27"),
        ("Find the number of diagonals of a regular nonagon with a marked vertex.", "36"),
        ("5. Calculate $\\frac{3}{4} \\cdot 12 + 1$ exactly.", "10"),
        ("Calculate $\\dfrac{3}{4} \\times 12 + 1$ exactly.", "11"),
        ("Three copies: what is $19 \\cdot 3$ in base ten?", "57"),
        ("Three copies: what is $19 \\cdot 3$ in base ten?", "57"),
        ("Three copies: what is $19 \\cdot 3$ in base ten?", "75"),
    ],
    "exact duplicates": [
        ("Determine the number of integers $n$ with $n^2 < 50$.", "15"),
        ("12. Determine the number of integers $n$ with $n^{2}<50$.", "15"),
        ("Problem 3: Determine the number of integers \\(n\\) with \\(n^2 < 50\\).", "15"),
        ("(7 points) DETERMINE the number of integers $n$ with $n² < 50$", "15"),
        ("【Example 5】 Determine the number of  integers\n$n$ with $n^2 < 50$.", "15"),
        ("## Let $r$ be the real root of $x^3=2$. Find $r^{6}$.", "4"),
        ("Let $r$ be the real root of $x^{3} = 2$.  Find $r^6$!" .replace("!", "."), "4"),
        ("Compute the value of $\\dfrac{1}{2}+\\dfrac{1}{3}$.", "5/6"),
    ],
    "contamination": [
        ("Every morning Aya goes for a $9$-kilometer-long walk and stops at a coffee shop afterwards. How long is she away?", "4"),
        ("every MORNING aya goes for a $9$-kilometer-long   walk and then rests. How far does she walk in 7 days?", "63"),
        ("Bob tells Ann: what is the smallest positive perfect cube that can be written as a sum?", "27"),
        ("What is the smallest positive perfect cube that can be written as the sum of three consecutive integers?", "27"),
        ("3. Compute $\\sin 60^{\\circ}$", "\\frac{\\sqrt{3}}{2}"),
        ("Evaluate \\(i^{6} + i^{16} + i^{-26}\\).", "-1"),
        ("Let x,y and z be positive real numbers that satisfy the following system with $x = yz$. Find the least $x$ among naturals.", "1"),
        ("A quantum mechanical particle of mass m moves in two dimensions, freely. How many quantum numbers has it?", "2"),
        ("Definep=\\sum_{k=1}^\\infty\\frac{1}{k^2}.Expressthedoublesuminterms of$p$and$q$.", "p-q"),
    ],
    "near duplicates": [
        ("A farmer has chickens and rabbits with 35 heads and 94 feet in total on his farm. How many rabbits are there on the farm?", "12"),
        ("A farmer has chickens and rabbits with 35 heads and 94 feet in total on the farm. So how many rabbits are there on the farm?", "12"),
        ("A farmer has chickens and rabbits with 35 heads and 94 feet in total on the farm. How many rabbits are there on that farm?", "12.0"),
    ],
    "prompt length": [
        ("Here is a long story before the question. " + "The king counted his coins again and again. " * 60 + "What is $23 \\cdot 3$?", "69"),
        ("Compute the sum: " + " + ".join(f"${n}$" for n in range(1, 200)), "19900"),
    ],
}  # fmt: skip

ROWS = [(step, *row) for step, rows in _STEPS.items() for row in rows]
"""(step, problem, answer) or (step, problem, answer, other columns)."""
