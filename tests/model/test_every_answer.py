"""Every answer of a conversation is trained on where that is asked for, as it would have been answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import Refused
from pipeline.model.chat import Chat, Rendered
from tests.model.forms import CHATML, EOS, TOKENIZERS, byte_level, form, text_of

USER = {"role": "user", "content": "What is 2 + 2?"}
LONG = [
    USER, {"role": "assistant", "content": "Four."},
    {"role": "user", "content": "And\n3?"}, {"role": "assistant", "content": "\n\nFour."},
    {"role": "user", "content": "Be brief."},
]  # fmt: skip


@pytest.mark.parametrize("name", [*TOKENIZERS, "embedded"])
def test_every_answer_of_a_conversation_is_trained_on_after_what_it_answers(
    forms: dict[tuple[str, str], Chat], name: str
) -> None:
    """A law over every template: the last answer's tokens are those that it has alone; each earlier one is said as if
    it were the last, with its end token, after the text that the model would have been asked with."""
    for (tokenizer, _), chat in forms.items():
        if tokenizer != name:
            continue
        rendered, alone = chat.example(LONG, "Paris", answers="every"), chat.example(LONG, "Paris")
        assert len(rendered.spans) == 3 and len(alone.spans) == 1
        ids, learnt = rendered.token_ids, [rendered.token_ids[start:end] for start, end in rendered.spans]
        (start, end), (own_start, own_end) = rendered.spans[-1], alone.spans[0]
        assert (learnt[-1], ids[end:]) == (alone.token_ids[own_start:own_end], alone.token_ids[own_end:])
        assert text_of(chat, ids) == text_of(chat, alone.token_ids)
        for number, (start, end) in enumerate(rendered.spans[:-1]):
            asked, said = LONG[: 2 * number + 1], LONG[2 * number + 1]["content"]
            own = chat.example(asked, said)
            assert text_of(chat, ids[:end]) == text_of(chat, own.token_ids[: own.spans[0][1]])
            assert learnt[number] == own.token_ids[slice(*own.spans[0])] and learnt[number][-1] == chat.eos_id
            # Nothing but an earlier joint may be cut otherwise than in the prompt of `generate`.
            assert text_of(chat, ids[:start]) == text_of(chat, chat.prompt(asked))
            assert number or ids[:start] == chat.prompt(asked)
        assert chat.example([USER], "4", answers="every") == chat.example([USER], "4")


def test_a_greeting_answers_nothing_and_is_not_trained_on(tmp_path: Path) -> None:
    chat = Chat(form(tmp_path / "form", byte_level(), CHATML))
    greeted = [{"role": "assistant", "content": "Hello."}, *LONG[:3]]
    learnt = [text_of(chat, ids) for ids in _learnt(chat.example(greeted, "Six.", answers="every"))]
    assert learnt == ["Four." + EOS, "Six." + EOS]


def _learnt(rendered: Rendered) -> list[list[int]]:
    return [rendered.token_ids[start:end] for start, end in rendered.spans]


# What templates do with the thought of an earlier turn, what is trained on of such a turn, and where it is refused.
KEEPS = CHATML
STRIPS = CHATML.replace("message.content", "message.content.split('</think>')[-1].lstrip('\\n')")
# As Qwen3's: the last answer is given a thought, mostly an empty one, and those before are not.
LAST_ALONE = CHATML.replace(
    "+ message.content +",
    "+ ('<think>\\n\\n</think>\\n\\n' if loop.last and message.role == 'assistant' else '') + message.content +",
)
THOUGHT_OF = [("keeps", KEEPS), ("strips", STRIPS), ("the last alone", LAST_ALONE)]
TRAINED_EARLIER = {
    ("keeps", "both"): f"<think>\n2+2\n</think>\n\nFour.{EOS}",
    ("keeps", "answer"): None,
    ("strips", "both"): None,
    ("strips", "answer"): f"Four.{EOS}",
    ("the last alone", "both"): None,
    ("the last alone", "answer"): None,
}


@pytest.mark.parametrize(("what", "train_on"), TRAINED_EARLIER)
def test_earlier_thoughts_are_trained_on_as_they_are_shown_or_refused(tmp_path: Path, what: str, train_on: str) -> None:
    chat, wanted = Chat(form(tmp_path / "form", byte_level(), dict(THOUGHT_OF)[what])), TRAINED_EARLIER[what, train_on]
    thought = {"role": "assistant", "content": "<think>\n2+2\n</think>\n\nFour."}
    asked = [USER, thought, {"role": "user", "content": "And 3?"}]
    if wanted is None:
        with pytest.raises(Refused, match=r"an earlier answer otherwise|does not render an answer as it was kept"):
            chat.example(asked, "Six.", None, train_on, "every")
        return
    earlier, last = _learnt(chat.example(asked, "Six.", None, train_on, "every"))
    assert (text_of(chat, earlier), text_of(chat, last)) == (wanted, "Six." + EOS)
