"""Eight kinds of small tasks: how each is drawn, solved and told from the others, by a procedure and without a model.

An answer is `work#result`; the work may be empty. Each kind has three levels, which are sizes, a misconception that a
solution may carry from its first step to its result, and, but for one kind, an easy part of its operands.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

LETTERS = "abcdefghijklmnopqrstuvwxyz"
UPPER = (100, 500, 1000)

DomainName = Literal["add", "mul", "mod", "sort", "shift", "count", "logic", "rev"]


class Dice:
    """Random numbers that are the same in every version of Python: only `random()` is promised to be."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def word(self, alphabet: str, n: int) -> str:
        """n characters, repeats allowed."""
        return "".join(alphabet[self.below(len(alphabet))] for _ in range(n))

    def distinct(self, n: int) -> str:
        """n different letters."""
        left = list(LETTERS)
        return "".join(left.pop(self.below(len(left))) for _ in range(n))


@dataclass(frozen=True)
class Domain:
    """A kind of task. The prompt holds all of it, so solving and judging need nothing else; `form` is a regular
    expression of what it looks like."""

    form: str
    draw: Callable[[Dice, int], str]
    solve: Callable[[str, bool], tuple[str, str]]
    easy: Callable[[str], bool] = lambda prompt: True
    key: Callable[[str], str] = lambda prompt: prompt


def draw_add(dice: Dice, level: int) -> str:
    return f"add {dice.below(UPPER[level]):03d} {dice.below(UPPER[level]):03d}"


def solve_add(prompt: str, slip: bool) -> tuple[str, str]:
    """Digit by digit from the right. Misconception: a carry is never added."""
    _, a, b = prompt.split()
    carry, total, steps, digits = 0, 0, [], ""
    for x, y in zip(reversed(a), reversed(b), strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}+{carry}={total:02d}")
        digits = str(total % 10) + digits
        carry = 0 if slip else total // 10
    return ",".join(steps), str(total // 10) + digits


def key_add(prompt: str) -> str:
    """a + b and b + a are one item."""
    return " ".join(["add", *sorted(prompt.split()[1:])])


def draw_mul(dice: Dice, level: int) -> str:
    return f"mul {dice.below(UPPER[level]):03d} {2 + dice.below(8)}"


def solve_mul(prompt: str, slip: bool) -> tuple[str, str]:
    """Digit by digit from the right. Misconception: a carry is never added."""
    _, a, k = prompt.split()
    carry, total, steps, digits = 0, 0, [], ""
    for x in reversed(a):
        total = int(x) * int(k) + carry
        steps.append(f"{x}*{k}+{carry}={total:02d}")
        digits = str(total % 10) + digits
        carry = 0 if slip else total // 10
    return ",".join(steps), str(total // 10) + digits


def draw_chain(dice: Dice, operands: str, operators: str, n: int) -> str:
    """n operands with operators between them, to be worked from left to right without precedence."""
    values, between = dice.word(operands, n), dice.word(operators, n - 1)
    return values[0] + "".join(o + x for o, x in zip(between, values[1:], strict=True))


def solve_chain(chain: str, apply: Callable[[str, str, str], str]) -> tuple[str, str]:
    """Work a chain from left to right; every step is `left operator right = value`."""
    left, steps = chain[0], []
    for operator, right in zip(chain[1::2], chain[2::2], strict=True):
        value = apply(left, operator, right)
        steps.append(f"{left}{operator}{right}={value}")
        left = value
    return ",".join(steps), left


def draw_mod(dice: Dice, level: int) -> str:
    return "mod " + draw_chain(dice, "0123456789", "+-*", 3 + level)


def solve_mod(prompt: str, slip: bool) -> tuple[str, str]:
    """A chain of operations modulo 10. Misconception: minus is taken the wrong way round."""

    def apply(left: str, operator: str, right: str) -> str:
        a, b = int(left), int(right)
        return str({"+": a + b, "-": b - a if slip else a - b, "*": a * b}[operator] % 10)

    return solve_chain(prompt.split()[1], apply)


def draw_sort(dice: Dice, level: int) -> str:
    return "sort " + dice.distinct(4 + level)


def solve_sort(prompt: str, slip: bool) -> tuple[str, str]:
    """Letters in alphabetic order, without work. Misconception: the last two are swapped."""
    letters = sorted(prompt.split()[1])
    if slip:
        letters[-2:] = reversed(letters[-2:])
    return "", "".join(letters)


def key_sort(prompt: str) -> str:
    """The same letters in any order are one item: they share their result."""
    return "sort " + "".join(sorted(prompt.split()[1]))


def draw_shift(dice: Dice, level: int) -> str:
    return f"shift {1 + dice.below(9)} {dice.word(LETTERS, 2 + level)}"


def solve_shift(prompt: str, slip: bool) -> tuple[str, str]:
    """Each letter k places on in the alphabet, round the end. Misconception: one place too far."""
    _, k, word = prompt.split()
    shifted = "".join(LETTERS[(LETTERS.index(letter) + int(k) + slip) % 26] for letter in word)
    return ",".join(a + b for a, b in zip(word, shifted, strict=True)), shifted


def draw_count(dice: Dice, level: int) -> str:
    """How often a letter stands in a word that is full of it."""
    letter = dice.word(LETTERS, 1)
    length = (4, 5, 7)[level]
    word = "".join(letter if dice.random() < 0.4 else dice.word(LETTERS, 1) for _ in range(length))
    return f"cnt {letter} {word}"


def solve_count(prompt: str, slip: bool) -> tuple[str, str]:
    """How often a letter occurs, with a running count. Misconception: the first letter always counts."""
    _, letter, word = prompt.split()
    count, steps = 0, ""
    for i, each in enumerate(word):
        count += each == letter or (slip and i == 0)
        steps += f"{each}{count}"
    return steps, str(count)


def draw_logic(dice: Dice, level: int) -> str:
    return "lg " + draw_chain(dice, "TF", "&|^", 4 + level)


def solve_logic(prompt: str, slip: bool) -> tuple[str, str]:
    """A chain of and, or, exclusive or. Misconception: exclusive or is read as and."""

    def apply(left: str, operator: str, right: str) -> str:
        a, b = left == "T", right == "T"
        and_ = a and b
        return "T" if {"&": and_, "|": a or b, "^": and_ if slip else a != b}[operator] else "F"

    return solve_chain(prompt.split()[1], apply)


def draw_rev(dice: Dice, level: int) -> str:
    return "rev " + dice.distinct(4 + level)


def solve_rev(prompt: str, slip: bool) -> tuple[str, str]:
    """Letters backwards, without work. Misconception: the first letter stays where it is."""
    word = prompt.split()[1]
    return "", word[0] + word[:0:-1] if slip else word[::-1]


DOMAINS: Mapping[DomainName, Domain] = {
    "add": Domain(r"add \d{3} \d{3}", draw_add, solve_add, key=key_add),
    "mul": Domain(r"mul \d{3} [2-9]", draw_mul, solve_mul, easy=lambda prompt: prompt[-1] in "234"),
    "mod": Domain(r"mod \d([-+*]\d)+", draw_mod, solve_mod, easy=lambda prompt: "*" not in prompt),
    "sort": Domain(r"sort [a-z]+", draw_sort, solve_sort, easy=lambda prompt: False, key=key_sort),
    "shift": Domain(r"shift [1-9] [a-z]+", draw_shift, solve_shift, easy=lambda prompt: prompt[6] in "123"),
    "count": Domain(r"cnt [a-z] [a-z]+", draw_count, solve_count),
    "logic": Domain(r"lg [TF]([&|^][TF])+", draw_logic, solve_logic, easy=lambda prompt: "^" not in prompt),
    "rev": Domain(r"rev [a-z]{2,}", draw_rev, solve_rev),
}


def solution(domain: DomainName, prompt: str, slip: bool = False) -> str:
    """The worked answer to a prompt, with the domain's misconception or without."""
    return "#".join(DOMAINS[domain].solve(prompt, slip))


def kind_of(prompt: str) -> DomainName | None:
    """Which kind of task a text is; None if it is none."""
    return next((name for name, domain in DOMAINS.items() if re.fullmatch(domain.form, prompt)), None)
