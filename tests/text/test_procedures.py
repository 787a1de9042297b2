"""Tasks of eight kinds: each solved as by hand, and told from the others."""

from __future__ import annotations

import pytest

from pipeline.text.procedures import DOMAINS, Dice, DomainName, kind_of, solution

# Worked by hand: the right solution, and the one that carries the misconception.
SOLVED = {
    ("add", "add 045 178"): ("5+8+0=13,4+7+1=12,0+1+1=02#0223", "5+8+0=13,4+7+0=11,0+1+0=01#0113"),
    ("mul", "mul 045 3"): ("5*3+0=15,4*3+1=13,0*3+1=01#0135", "5*3+0=15,4*3+0=12,0*3+0=00#0025"),
    ("mod", "mod 3-5*4"): ("3-5=8,8*4=2#2", "3-5=2,2*4=8#8"),
    ("sort", "sort dbca"): ("#abcd", "#abdc"),
    ("shift", "shift 3 xy"): ("xa,yb#ab", "xb,yc#bc"),
    ("count", "cnt a bac"): ("b0a1c1#1", "b1a2c2#2"),
    ("logic", "lg T^F|F"): ("T^F=T,T|F=T#T", "T^F=F,F|F=F#F"),
    ("rev", "rev abcd"): ("#dcba", "#adcb"),
}


@pytest.mark.parametrize("case", SOLVED)
def test_tasks_are_solved_as_by_hand(case: tuple[DomainName, str]) -> None:
    assert (solution(*case), solution(*case, slip=True)) == SOLVED[case]


@pytest.mark.parametrize(
    "text", ["add 12 345", "mul 123 1", "mod 3", "sort", "lg T&", "addition", "fake: add 012 345", ""]
)
def test_what_is_no_task_is_of_no_kind(text: str) -> None:
    assert kind_of(text) is None


def test_every_task_that_is_drawn_is_told_from_the_other_kinds() -> None:
    for name, domain in DOMAINS.items():
        assert {kind_of(domain.draw(Dice(seed), level)) for seed in range(40) for level in range(3)} == {name}


def test_every_domain_is_solved_by_hand() -> None:
    assert {domain for domain, _ in SOLVED} == set(DOMAINS)
