"""Expansion: which prompts are shown together, and in which way one is to be rewritten."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pipeline.kinds.operator import Child
from pipeline.operators.expansion import WAYS
from tests.operators.made import asked, made, prompt

POOL = [prompt(f"What is {i}?", "ab"[i % 2]) for i in range(10)]


def test_instruct_shows_prompts_of_a_domain_and_asks_for_more() -> None:
    [text] = asked("expansion.instruct", [prompt("Sum {1} and 2."), prompt("Sum 3 and 4.")], rows=1, count=7)
    first, second = (line for line in text.splitlines() if line[:3] in ("1. ", "2. "))
    assert {first[3:], second[3:]} == {"Sum {1} and 2.", "Sum 3 and 4."}
    assert text == (
        f"Here are 2 tasks:\n\n{first}\n{second}\n\nWrite 7 new tasks of the same kind, each with other content and "
        "other words. Begin each with its number, and write nothing else."
    )


def test_domains_take_turns_and_no_prompt_is_shown_twice_in_a_question() -> None:
    children = [one for one in made("expansion.instruct", POOL, rows=9, shown=3) if isinstance(one, Child)]
    assert Counter(child.parents[0].domain for child in children) == {"a": 5, "b": 4}
    for child in children:
        assert len({parent.id for parent in child.parents}) == 3
        assert len({parent.domain for parent in child.parents}) == 1
        places = [str(child.columns["prompt"]).index(parent.question) for parent in child.parents]
        assert places == sorted(places)


def test_a_draw_is_of_the_seed_the_domain_and_the_turn() -> None:
    """More rows leave the first ones as they are, and a domain that is gone leaves the other's."""
    first = asked("expansion.instruct", POOL, rows=4)
    assert asked("expansion.instruct", POOL, rows=8)[:4] == first
    assert asked("expansion.instruct", POOL[::2], rows=2) == first[::2]
    assert asked("expansion.instruct", POOL, seed=4, rows=4) != first


def test_evolve_shows_the_prompt_and_one_way() -> None:
    [text] = asked("expansion.evolve", [prompt("Sum 1 and 2.")], way="constrain", words=9)
    assert text == (
        "Here is a task:\n\nSum 1 and 2.\n\nAdd one more condition or requirement to it. The new task must be one that "
        "a person can understand and answer, and at most 9 words longer. Write the new task and nothing else."
    )


def test_of_a_conversation_all_turns_are_shown() -> None:
    turns = [("system", "Be brief."), ("user", "Sum 1 and 2."), ("assistant", "3"), ("user", "And 4?")]
    talk = replace(POOL[0], messages=[{"role": role, "content": content} for role, content in turns])
    [text] = asked("expansion.evolve", [talk])
    assert "\n\nUser: Sum 1 and 2.\nAssistant: 3\nUser: And 4?\n\n" in text and "Be brief." not in text
    assert replace(talk, messages=talk.messages[:2]).question == "Sum 1 and 2."


@pytest.mark.parametrize("way", WAYS)
def test_every_way_can_be_asked_for(way: str) -> None:
    assert all(WAYS[way] in text for text in asked("expansion.evolve", POOL, way=way))


def test_a_drawn_way_is_of_the_seed_and_the_prompt() -> None:
    pool = [prompt(f"What is {i}?") for i in range(200)]
    ways = [next(way for way in WAYS if WAYS[way] in text) for text in asked("expansion.evolve", pool)]
    assert min(Counter(ways).values()) > 15 and len(set(ways)) == 6
    assert asked("expansion.evolve", pool[:1]) == [t for t in asked("expansion.evolve", pool) if "What is 0?" in t]
    assert asked("expansion.evolve", pool, seed=4) != asked("expansion.evolve", pool)
