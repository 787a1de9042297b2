"""Programs: of those that an answer holds, the first that prints the right answer is kept, with its trace."""

from __future__ import annotations

import pytest

from pipeline.errors import Refused
from pipeline.kinds.operator import Child, Parent
from pipeline.sandbox import unsafe
from pipeline.text.programs import execute
from tests.operators.made import answer, made, prompt, unread

# They are harmless, so that they may run where there are no walls.
WALLS = "unshare" if unsafe() is None else "none"
SUM = prompt("What is 3 * 4 + 5?", reference="17")
RIGHT = "I compute it.\n```python\na = 3 * 4\nprint(a + 5)\n```"


def samples(to: Parent, *said: str) -> list[Parent]:
    return [answer(to, text, sample=i) for i, text in enumerate(said)]


def test_the_prompt_itself_is_given_with_the_trace_as_its_solution() -> None:
    [child] = made("programs.traced", samples(SUM, RIGHT), sandbox=WALLS)
    assert isinstance(child, Child) and child.columns == {
        "messages": SUM.messages, "level": 1, "verifier": "numeric.last", "reference": "17",
        "solution": "a = 3 * 4  # a = 12\nprint(a + 5)  # prints 17",
    }  # fmt: skip


def test_the_first_right_program_of_a_prompt_is_kept_and_the_others_told() -> None:
    parents = samples(SUM, "print(16)", "17", "print(1 / 0)", RIGHT, "print(17)")
    told = [one if isinstance(one, Child) else one.why for one in made("programs.traced", parents, sandbox=WALLS)]
    assert isinstance(told[-1], Child) and [parent.id for parent in told[-1].parents] == [parents[3].id]
    prints = "its program prints something else"
    assert told[:-1] == [prints, prints, "its program does not come to its end"]


@pytest.mark.parametrize(
    ("said", "reference", "verifier"),
    [
        ("print('The answer is', 17)", "17", "numeric.last"),
        ("print(1)\nprint(17.0)", "17", "numeric.last"),
        ("print(17)", "17", "text.marked"),
        ("if __name__ == '__main__':\n    print(' Paris ')", "paris", "text.line"),
        ("print('b')", "B", "text.choice"),
        ("print(17)\nraise SystemExit", "17", "numeric.last"),
    ],
)
def test_what_is_printed_is_read_as_a_reference_or_as_an_answer(said: str, reference: str, verifier: str) -> None:
    of = prompt("What is it?", reference=reference, verifier=verifier)
    assert unread("programs.traced", samples(of, said), sandbox=WALLS) == []


def test_where_nothing_can_tell_no_program_is_right() -> None:
    assert len(unread("programs.traced", samples(prompt("What is it?"), RIGHT), sandbox=WALLS)) == 1
    assert unread("programs.traced", samples(SUM, ""), sandbox=WALLS) == ["its program does not come to its end"]


def test_more_samples_verify_more_prompts() -> None:
    """The share of prompts with a verified trace rises with k, and every trace says again what is right."""
    prompts = [prompt(f"What is {i} + 1?", reference=str(i + 1)) for i in range(5)]
    answered = [
        answer(p, f"x = {i}\nprint(x + {int(k == i)})", sample=k) for i, p in enumerate(prompts) for k in range(5)
    ]
    shares = []
    for k in range(1, 6):
        kept = made("programs.traced", [a for a in answered if a.id < f"teacher {k}"], sandbox=WALLS)
        children = [one for one in kept if isinstance(one, Child)]
        assert all(f"prints {one.columns['reference']}" in str(one.columns["solution"]) for one in children)
        shares.append(len(children))
    assert shares == [1, 2, 3, 4, 5]


def test_a_program_that_never_ends_is_told() -> None:
    found = unread("programs.traced", samples(SUM, "while True: pass"), seconds=2.0, sandbox=WALLS)
    assert found == ["its program's time ran out"]


def test_without_walls_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sandbox.unsafe", lambda: "it has no unshare")
    execute.cache_clear()
    with pytest.raises(Refused, match="sandbox: none"):
        made("programs.traced", samples(SUM, "print('never run before')"))
