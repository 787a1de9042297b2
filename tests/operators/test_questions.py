"""Questions about answers: what they show, in which order, how often, and how the usual replies are read."""

from __future__ import annotations

import pytest

from pipeline.core.methods import find
from pipeline.kinds.operator import Child, Parent
from pipeline.kinds.verifier import answer_of

ADD, SORT = "What is 19 + 23?", "Sort 3 1 2."


def answer(id: str, content: str, asked: str = ADD, entry: str = "teacher") -> Parent:
    messages = [{"role": "user", "content": asked}]
    return Parent(id, asked, messages, "d", None, "numeric.last", "42", None, entry, content, content, None)


FOUR = [answer("a", "42"), answer("b", "41"), answer("c", "It is 42."), answer("d", "42", entry="base")]


def asked(name: str, parents: list[Parent], seed: int = 1, **arguments: object) -> list[Child]:
    method = find("operator", f"questions.{name}")
    operator = method.factory(**method.arguments.model_validate(arguments).model_dump())
    return list(operator(parents, seed))


def shown(children: list[Child]) -> list[str]:
    """The ids of the answers that every question shows, in their order."""
    return ["".join(parent.id for parent in child.parents) for child in children]


def test_points_are_asked_for_once_for_every_content_of_a_prompt() -> None:
    children = asked("points", [*FOUR, answer("e", "42", SORT)], scale=6, criteria=["whether it is kind"])
    assert shown(children) == ["a", "b", "c", "e"]
    text = children[1].columns["prompt"]
    assert all(
        part in text for part in (ADD, "<answer>\n41\n</answer>", "- whether it is kind", "from 1, the worst, to 6")
    )


@pytest.mark.parametrize("name", ["pairs", "equivalent"])
def test_pairs_are_of_one_prompt_in_both_orders_and_of_distinct_contents(name: str) -> None:
    children = asked(name, [*FOUR, answer("e", "42", SORT)])
    assert sorted(shown(children)) == ["ab", "ac", "ba", "bc", "ca", "cb"]
    first, second = (child.columns["prompt"] for child in children[:2])
    one, other = (parent.content for parent in children[0].parents)
    assert first.index(f">\n{one}\n<") < first.index(f">\n{other}\n<")
    assert second.index(f">\n{other}\n<") < second.index(f">\n{one}\n<")


@pytest.mark.parametrize("parents", [[], FOUR[:1], [FOUR[0], FOUR[3]], [FOUR[0], answer("e", "1 2 3", SORT)]])
def test_one_answer_is_no_pair(parents: list[Parent]) -> None:
    assert asked("pairs", parents) == asked("equivalent", parents) == []


def test_pairs_are_drawn_by_the_seed_and_by_what_they_are() -> None:
    parents = [answer(f"{i:02d}", f"answer {i}") for i in range(9)]
    drawn = {tuple(sorted(shown(asked("pairs", parents, seed, most=2)))) for seed in range(20)}
    assert {len(pairs) for pairs in drawn} == {4} and len(drawn) > 10
    # What is asked about one prompt is no matter of the others.
    more = asked("pairs", [*parents, answer("xa", "x", SORT), answer("xb", "y", SORT)], most=2)
    assert set(shown(asked("pairs", parents, most=2))) == set(shown(more)) - {"xaxb", "xbxa"}


def test_a_conversation_is_shown_whole_and_braces_are_text() -> None:
    messages = [{"role": "system", "content": "Be {brief}."}, {"role": "user", "content": "{question}"}]
    parent = Parent("a", "p", messages, "d", None, None, None, None, "teacher", "{answer} {0}", None, None)
    text = asked("points", [parent])[0].columns["prompt"]
    assert "system: Be {brief}.\n\nuser: {question}" in text and "{answer} {0}" in text


REPLIES = [
    ("points", "It is right.\n#### 4", "4"),
    ("points", "#### **4**", "4"),
    ("points", "#### 4.5", "4.5"),
    ("points", "I would give it 4 out of 5.", None),
    ("points", "I cannot judge that.", None),
    ("pairs", "A", "A"),
    ("pairs", "Answer A is off by one, answer B is right.\nThe better answer is: B", "B"),
    ("pairs", "Both are right. The better answer is: **C**.", "C"),
    ("pairs", "Neither is any good.", None),
    ("pairs", "The better answer is: D", None),
    ("equivalent", "The first says 42, and so does the second. The answer is: A", "A"),
    ("equivalent", "One says 41.\n\nThe answer is: B.", "B"),
    ("equivalent", "The answer is: C", None),
    ("equivalent", "That depends.", None),
]


@pytest.mark.parametrize(("name", "reply", "short"), REPLIES)
def test_a_reply_is_read_by_the_questions_verifier(name: str, reply: str, short: str | None) -> None:
    child = asked(name, FOUR)[0]
    assert answer_of(child.columns["verifier"], reply) == short
    assert child.columns["verifier"].split()[0] in find("operator", f"questions.{name}").traits["verifiers"]
