"""Answers that are worth the same, and answers that are not."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.grading import rewritings
from multiverse.evaluation.graders.equivalence import candidates, equivalent, readings

DATA = Path(__file__).parents[5] / "shared" / "data" / "math500.json"

SAME = r"""
1/2^99 | \frac{1}{2^{99}}
1/2^99 | 2^{-99}
1/2004! | \frac{1}{2004!}
1/2004! | \frac{1}{2004 \cdot 2003!}
1e-7 | 10^{-7}
1e-7 | 0.0000001
6.72 \times 10^{-5} | .0000672
6.72e-5 | .0000672
6.72*10^-5 | .0000672
\sqrt{\frac1n} | \frac{1}{\sqrt n}
sqrt(1/n) | 1/sqrt(n)
\sqrt{\frac{1}{n}} | n^{-1/2}
1,234 | 1234
1{,}234 | 1234
1\,234 | 1234
1 234 567 | 1234567
$1,234.50 | 1234.5
2\frac12 | 5/2
2 1/2 | 2.5
-2\frac12 | -2.5
\{1,2\} | \{2,1\}
1,2 | 2, 1
1 \text{ and } 2 | 2,1
1 or 2 | \{2,1\}
x=1 \text{ or } x=2 | 1,2
x=1, 2 | x = 2 \text{ or } x = 1
x\in\{1,2\} | 1,2
5 = x | 5
5 = x | x = 5
{10 \choose 3} | \binom{10}{3}
{10 \choose 3} | 120
[2,\infty) | x\ge 2
[2,\infty) | \{x : x \geq 2\}
(2,\infty) | x>2
(-\infty,2)\cup(2,\infty) | x\ne 2
(-\infty,2)\cup(2,\infty) | \mathbb{R}\setminus\{2\}
(2,12) \cup (12,102) | \{x \mid 2<x<102, x \neq 12\}
(-\infty, 2) \cup (3, \infty) | x<2 or x>3
(0,9)\cup[9,36) | (0,36)
2x+1>5 | x > 2
2x+1>5 | 5 < 2x + 1
y=2x+3 | 2x+3
y=2x+3 | 2x-y+3=0
5x - 7y + 11z + 4 = 0 | -5x+7y-11z=4
10\% | 10
10\% | 0.1
10 percent | 10\%
90^\circ | 90
90° | 90 degrees
1 \text{ hour} | 60 minutes
1 hour 30 minutes | 90 min
864 \mbox{ inches}^2 | 864 square inches
864 \mbox{ inches}^2 | 864
864 in^2 | 6 \text{ square feet}
60 mph | 60 \text{ miles per hour}
15\mbox{ cm}^2 | 15 \mathrm{cm}^2
\$18.90 | 18.90
\$18.90 | 18.90 dollars
5.4 \text{ cents} | \$0.054
\frac{\pi}{6} radians | 30^\circ
\cot x | \frac{1}{\tan x}
\cot x | \frac{\cos x}{\sin x}
\sin^2 x + \cos^2 x | 1
\sin 30^\circ | 1/2
\ln 8 | 3 \ln 2
\log_2 8 | 3
x^2+2x+1 | (x+1)^2
(a+5)(b+2) | ab+2a+5b+10
\frac{x}{2} | 0.5x
1 \pm \sqrt{19} | 1-\sqrt{19}, 1+\sqrt{19}
\{1\pm\sqrt{5},-2\} | \{-2, 1+\sqrt5, 1-\sqrt5\}
3 \pm 2 \sqrt{2} | 3 \mp 2\sqrt2
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{bmatrix} 1 \\ 2 \end{bmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \langle 1, 2 \rangle
\begin{pmatrix} 1/2 \\ 1 \end{pmatrix} | \frac12\begin{pmatrix} 1 \\ 2 \end{pmatrix}
\text{Evelyn} | evelyn
\text{(C)} | C
\text{(C)} | (C)
\text{ellipse} | an ellipse
52_8 | 52_{8}
52_8 | 52_{\text{eight}}
0.\overline{3} | 1/3
0.1\overline{6} | \frac16
(1,2) | (x,y)=(1,2)
(1,2) | \left(1, 2\right)
f(x)=2x | 2x
AB = 5 | 5
5 | \angle ABC = 5
\sqrt{2} | 1.41421356
\sqrt{2} | \sqrt{2} \approx 1.414
\frac{20000}{\pi} | \frac{20000}{\pi} \approx 6366
20000/\pi | x = \frac{20000}{\pi} \approx 6366
\sqrt[3]{-8} | -2
\sqrt4 | 2
|x| | \sqrt{x^2}
\binom{5}{2} | 10
x=5 | 5
x=5 | 5=x
x=5 | x = 5.0
70 | 70.
70 | 70\)
\frac{3}{4} | {3 \over 4}
\frac{3}{4} | ¾
3:4 | 6:8
3:4 | \frac34
1.5 | 1{,}5
\emptyset | \{\}
42 apples | 42
p - q | -q+p
10! | 3628800
2^{10} | 1024
e^{i\pi} | -1
\infty | infinity
-\infty | -\infty
[-2,7] | x \in [-2,7]
[-2,7] | -2 \le x \le 7
\lfloor 3.7 \rfloor | 3
(10^6)! | (10^6)!
2^{10^9} | 4^{5\cdot 10^8}
12\text{ inches} | 1 \text{ foot}
12 \text{ m/s} | 12
\dfrac{1}{2} | 50\%
\text{no solution} | no solution
\text{No real solutions.} | no real solutions
x^{2} - 1 | (x-1)(x+1)
\frac{1}{x-1} - \frac{1}{x+1} | \frac{2}{x^2-1}
2\sqrt{3} | \sqrt{12}
\frac{1}{\sqrt{2}} | \frac{\sqrt2}{2}
2^{1/3} | \sqrt[3]{2}
6 - 5i | -5i+6
|3+4i| | 5
\tan^{-1}(1) | \frac{\pi}{4}
\arctan 1 | \pi/4
5000 | 5 \times 10^3
5000 | 5,000 \text{ people}
\text{42} | 42
1\frac{4}{5} | \frac95
137 \frac{1}{2} | 137.5
0 | \sin(\pi)
100^{1/2} | 10
8^{2/3} | 4
\{x\mid x=1 \text{ or } x=2\} | \{1,2\}
3\ \text{or}\ 4 | 4, 3
\{1, 1, 2\} | \{1,2\}
(-\infty, 0] | (-\infty, 0]
x \equiv 3 \pmod{5} | x\equiv 3 \pmod 5
\frac{n(n+1)}{2} | \frac{n^2+n}{2}
2 \cdot 3 | 6
5x^2y | 5yx^2
\vec{v} | \mathbf{v}
11\sqrt2 | 11 * sqrt(2)
C | \text{C}
(3, \pi/2) | \left( 3, \frac{\pi}{2} \right)
2,\!500,\!000 | 2.5 million
30\% | \frac{3}{10}
-\frac{1}{2} | \frac{-1}{2}
-\frac{1}{2} | -.5
6\pi \text{ cm}^2 | 6 \pi
\frac{\pi}{6} | \pi/6
2^{2^{2^{2}}} | 65536
1, 2, 3 | 3, 2, 1
(1,2),(3,4) | (3,4),(1,2)
\{(1,2),(3,4)\} | (3,4), (1,2)
a=1, b=2 | b=2, a=1
10 \text{ cm} | 100 mm
2 x 3 | 6
(1,2) | x=1, y=2
(-\infty,\infty) | \text{all real numbers}
\mathbb{R} | all real numbers
5 | five
5 | \text{five}
\frac12 | \frac12 \text{ or } 0.5
\frac13 | \frac13 = 0.333
x = \frac13 | x = \frac13 = 0.333
\pm 5 | x = 5 \text{ or } x = -5
5,-5 | x = \pm 5
3:45 | 03:45
9.8 m/s^2 | 9.8
5 m/s | 5
5 \text{ m/s} | 5
10 cubic centimeters | 10 cm^3
\frac{\sqrt{6}+\sqrt{2}}{4} | \cos 15^\circ
\sqrt{3+2\sqrt2} | 1+\sqrt2
\frac{1}{1+i} | \frac{1-i}{2}
\sqrt{-1} | i
\binom{n}{2} | \frac{n(n-1)}{2}
n! | n \cdot (n-1)!
2^n 3^n | 6^n
y=\frac12x+3 | 2y=x+6
x^2+y^2=25 | y^2=25-x^2
a_n=2n+1 | 2n+1
\sin\theta\cos\theta | \frac12\sin 2\theta
x\sqrt{x} | x^{3/2}
|x-2| | |2-x|
0.\overline{142857} | \frac17
\pi r^2 | πr²
12.5\% | \frac18
−½ | -\frac{1}{2}
2√3 | 2\sqrt{3}
\frac{100000!}{99999!} | 100000
6.02 \times 10^{23} | 6.02e23
\frac12 m v^2 | 0.5 m v^2
A, B, D | \text{A, B, and D}
\{(1,2),(2,1)\} | (2,1),(1,2)
[0,1]\cup[2,3] | [2,3]\cup[0,1]
x<-1 \text{ or } x>1 | (-\infty,-1)\cup(1,\infty)
-1<x<1 | (-1,1)
|x|<1 | |x|<1
10^6 | 1,000,000
10^6 | 1\,000\,000
10^6 | 1 000 000
$x=5$ | 5
\(5\) | 5
\[5\] | $$5$$
5 | {5}
5 | \displaystyle 5
5 | \mathbf{5}
5 | \textbf{5}
x+1 | \left(x+1\right)
\frac{x+1}{2} | (x+1)/2
e^{2} | \exp(2)
2\ln 3 | \ln 9
\frac{\pi}{2} | 90^\circ \cdot \frac{\pi}{180^\circ}
-\sqrt3 | -3^{1/2}
1+\frac12 | 1\frac12
(2k+1)\pi | 2k\pi+\pi
\frac{2}{3}x | \frac{2x}{3}
3\text{ feet} | 36\text{ inches}
16:9 | \frac{16}{9}
x=-2 \text{ and } x=3 | \{-2,3\}
\{x \mid x \ne 0\} | (-\infty,0)\cup(0,\infty)
\left\{ x \,\middle|\, x>2 \right\} | (2,\infty)
\{x : -1 \le x < 3\} | [-1,3)
\{x \in \mathbb{R} \mid x^2 = 4\} | \{x \in \mathbb{R} \mid x^2=4\}
1{,}234{,}567 | 1234567
0.5 | \tfrac{1}{2}
0.5 | \frac{1}{2}.
\$5 | 5 dollars
\$1{,}000 | 1000
5^\circ | 5 deg
5 \text{ degrees} | 5°
"""

DIFFERENT = r"""
1/2^99 | 1/2^98
1/2004! | 1/2006!
1/2004! | 1/2005!
1/2004! | 0
1e-7 | 2e-7
1e-7 | 0
10^{-30} | 2\cdot 10^{-30}
10^{-20} | 0
1 2 | 12
12 | 1 2
1 2 3 | 123
1 234 | 1 2 3 4
\frac13 | 0.333333
\frac13 | 0.3333333333333333333
0.1 | 0.10000000000001
3.14159265358979 | 3.1415926535898
\pi | 3.14
\pi | \frac{22}{7}
2^{99} | 2^{98}
10^{100} | 10^{100}+1
2^{1000000000} | 2^{1000000000}+1
(10^6)! | (10^6)!+1
100000000000000000001 | 100000000000000000000
x=5 | y=5
x^2=25 | x=5
-2,1 | (-2,1)
(1,2) | (2,1)
(1,2) | [1,2]
(1,2) | (1,2]
[0,1) | [0,1]
1,2 | 1
1,2 | 1,3
52_8 | 52_9
52_8 | 52
40_9 | 36
3R^2 | 3r^2
2k | 2k+2
p-q | q-p
10\text{ cm} | 10\text{ m}
15\mbox{ cm}^2 | 15 \text{ m}^2
5.4 \text{ cents} | \$5.4
\sqrt{2} | \sqrt{3}
\sqrt{x^2} | x
x>2 | x\ge 2
x>2 | x<2
(-\infty,2)\cup(3,\infty) | (-\infty,2)\cup[3,\infty)
\text{even} | \text{odd}
\text{east} | \text{seat}
\text{(C)} | \text{(E)}
C | E
1/n | 1/n^2
\cot x | \tan x
10\% | 0.01
e^{\pi\sqrt{163}} | 262537412640768744
\frac{1}{2} | \frac{1}{3}
x^2+y | x^2-y
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 1 & 2 \end{pmatrix}
\begin{pmatrix} 1 \\ 2 \end{pmatrix} | \begin{pmatrix} 2 \\ 1 \end{pmatrix}
9^{9^{9^{9^9}}} | 9^{9^{9^{9^8}}}
1 | 9^{9^{9^{9^9}}}
10^{10^{10^{10}}} | 10^{10^{10^{11}}}
3:4 | 4:3
90^\circ | 90 cm
1 hour | 1 minute
\infty | -\infty
2\frac12 | 1
23 | 2,3
1.000000001 | 1
12,345 | 12.345
\{1,2\} | \{1,2,3\}
i | -i
6-5i | 6+5i
x+C | x
\text{no} | \text{on}
\frac{1}{2^{100}} | \frac{1}{2^{100}+1}
10^{-400} | 0
\sqrt{10^{-60}} | 0
\sqrt{2}\cdot 10^{-30} | 0
5! | 5
3^{-50} | 3^{-51}
3:45 | 1:15
12 | 1\ 2
12 | 1\,2
1,23 | 123
1-10^{-20} | 1
\sqrt{2}\cdot 10^{-50} | \sqrt{3}\cdot 10^{-50}
\pi - 3.14159265358979323846 | 0
2^{300000}+1 | 2^{300000}
\frac13 | 0.333
\frac13 | \frac13+10^{-30}
x+\frac13 | x+0.333333
\frac{x}{3} | 0.333333x
10^{-7}x | 2\cdot10^{-7}x
\{10^{-7}\} | \{2 \cdot 10^{-7}\}
(10^{-7}, 1) | (2\cdot 10^{-7}, 1)
[0,10^{-7}] | [0,2\cdot10^{-7}]
\begin{pmatrix} 10^{-7} \\ 1 \end{pmatrix} | \begin{pmatrix} 2 \cdot 10^{-7} \\ 1 \end{pmatrix}
x = 10^{-7} | x = 2 \cdot 10^{-7}
f(x)=x^2 | g(x)=x^2
(1,2) | x=2, y=1
\frac{1}{100!} | \frac{1}{101!}
(1/2)^{50} | (1/2)^{51}
1 2 3 | 1,2,3
2 3 | 23
-5 | 5
5 | \pm 5
1:2 | 2:1
\{1,2\} | (1,2)
"""

# Forms of MATH's references, with numbers of our own: what the data set has is tested where it is.
REFERENCES = r"""
\left( 5, \frac{\pi}{3} \right)
q - r
\frac{17}{4}
41
7230
\text{Martha}
70^\circ
4\sqrt{17}
3 + 8i
x=9
2,-5
4, 6, 11
37_9
1120_{3}
13\sqrt3
.00081
0.45
x^3 + 2x - 7
\cot y
2 \pm \sqrt{23}
\begin{pmatrix} -2/7 \\ 1/7 \end{pmatrix}
(b+3)(c+4)
(2,9]
\frac94
\frac 37
\frac5{19}
\frac{310}7\text{ degrees}
2x - 5y + 3z + 8 = 0
(7,\infty)
12,\!960
21,\! 222,\! 333,\! 100
\text{(D)}
\$41,\!760
\$21.50
2\frac{3}{7}
143 \frac{1}{2}
\left(\frac{2}{5},\frac{9}{4}\right]
7.3 \text{ cents}
321 \mbox{ inches}^2
23\mbox{ cm}^2
(-\sqrt{5}, \sqrt{5})
(0,4) \cup (4,25)
x \in [-5,3]
\{2\pm\sqrt{7},-3\}
\left[ \frac{\pi^2}{6}, \frac{7 \pi^2}{4} \right]
(-\infty, 1) \cup (6, \infty)
y = 3x + 8
\frac{3003}{\pi}
6R^2
"""


def lines(block: str) -> list[str]:
    return block.strip().splitlines()


@pytest.mark.parametrize("line", lines(SAME))
def test_the_same(line: str) -> None:
    one, other = line.split(" | ")
    assert equivalent(one, other) is True
    assert equivalent(other, one) is True


@pytest.mark.parametrize("line", lines(DIFFERENT))
def test_different(line: str) -> None:
    one, other = line.split(" | ")
    assert equivalent(one, other) is False
    assert equivalent(other, one) is False


def test_a_decimal_comma_is_read_where_one_number_is_expected() -> None:
    assert equivalent("1.5", "1,5") is True
    assert equivalent("0.25", "0,25") is True
    assert equivalent("1,5", "1.5") is False
    assert equivalent("12.345", "12,345") is False


@pytest.mark.parametrize("reference", lines(REFERENCES))
def test_references_are_the_same_however_they_are_written(reference: str) -> None:
    assert equivalent(reference, reference) is True
    wrong = [(kind, text) for kind, text in rewritings(reference) if equivalent(reference, text) is not True]
    assert wrong == []


def test_references_are_not_the_same_as_each_other() -> None:
    answers = lines(REFERENCES)
    wrong = [(one, other) for one in answers for other in answers if one != other and equivalent(one, other)]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9^9}}}",
        "(10^{10^{10}})!",
        "((((9!)!)!)!)!",
        "\\sin(10^{10^{12}})",
        "2^{-10^{18}}",
        "\\binom{10^{12}}{5 \\cdot 10^{11}}",
        "(" * 5000 + "1" + ")" * 5000,
        "\\sqrt" * 3000 + "2",
        "\\frac{1}{" * 500 + "x" + "}" * 500,
        "1e999999999",
        "9" * 15_000,
        "x^{x^{x^{x^{x^{x^{99999}}}}}}",
        "\\log_{1}{2}",
        "0^0",
        "0^{-1}",
        "1," * 5000,
        "(x+1)^{1000000}",
        "\\lfloor 10^{10^{15}} \\rfloor",
        "\\gcd(10^{100000}, 2)",
    ],
)
def test_hostile_answers_are_wrong_at_once(text: str) -> None:
    started = time.monotonic()
    assert not equivalent("2", text)
    assert not equivalent(text, "x+1")
    assert time.monotonic() - started < 5


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    if not DATA.is_file():
        pytest.skip("../shared/data/math500.json is not there")
    found: list[dict[str, Any]] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def test_math500_references_are_the_same_as_their_solutions(records: list[dict[str, Any]]) -> None:
    wrong = [
        record["answer"]
        for record in records
        if not equivalent(record["answer"], next(candidates(record["solution"]))) or not readings(record["answer"])
    ]
    assert wrong == []


def test_math500_references_are_the_same_however_they_are_written(records: list[dict[str, Any]]) -> None:
    answers = {record["answer"] for record in records}
    wrong = [(answer, text) for answer in sorted(answers) for _, text in rewritings(answer) if not equivalent(answer, text)]
    assert wrong == []


# Written differently, and worth the same.
TRULY_THE_SAME = {
    frozenset(pair.split(" | "))
    for pair in lines(r"""
-2,1 | 1,-2
10,\!080 | 10080
120 | 120^\circ
15 | 15\mbox{ cm}^2
2 \sqrt{5} | 2\sqrt{5}
30 | 30^\circ
36 | 36^\circ
36 | \$36
36^\circ | \$36
5 | x=5
90 | 90^\circ
\frac14 | \frac{1}{4}
""")
}


def test_math500_references_are_not_the_same_as_each_other(records: list[dict[str, Any]]) -> None:
    answers = sorted({record["answer"] for record in records})
    draw = random.Random(0)
    pairs = [draw.sample(answers, 2) for _ in range(5000)]
    wrong = [pair for pair in pairs if equivalent(*pair) and frozenset(pair) not in TRULY_THE_SAME]
    assert wrong == []
