"""Conversations to tokens: the chat template, the tokens, and which of them are trained on.

Uses `tokenizers` and `jinja2` alone, so that packing never loads torch. The rendering follows the templates of
`transformers` and is tested against it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from pipeline.errors import Refused
from pipeline.model import template
from pipeline.model.cutter import Cutter
from pipeline.tables import ids
from pipeline.text.thinking import INLINE, MARKS, split_thinking, telling, with_thinking

Messages = Sequence[Mapping[str, str]]
FILES = ("tokenizer.json", "tokenizer_config.json")
# Where a folder says which tokens end an answer: the first that is there, as for `transformers.generate`. A form has
# the first of them where there are others than the tokenizer's own.
ENDS = ("generation_config.json", "config.json")
# What of a teacher's answer is trained on where its thought came apart.
TrainOn = Literal["answer", "reasoning", "both"]
# Which of a conversation's answers are trained on.
Answers = Literal["last", "every"]
SHOWN = 80
# A turn that shows pictures has a mark for each under this key; a template is given such a turn in parts.
PICTURES = "pictures"
PICTURE = {"type": "image"}


@dataclass(frozen=True)
class Rendered:
    """A conversation in tokens; `spans` are the half-open ranges of positions to be trained on.

    `added` is a thought, mostly an empty one, that the template puts before an answer without any: it is trained on,
    since a student has to say it too.
    """

    token_ids: list[int]
    spans: list[tuple[int, int]]
    added: str = ""


@dataclass(frozen=True)
class _Turn:
    """What a template adds to a prompt for an answer, up to its end token, and what follows that. The answer begins
    at `answer_at`."""

    text: str
    rest: str
    answer_at: int


class Chat:
    """The tokenizer and chat template of one folder (`data/models/<name>/tokenizer`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        missing = [name for name in FILES if not (folder / name).exists()]
        if missing:
            raise Refused(
                f"{folder} has no {' and no '.join(missing)}. A model folder needs a fast tokenizer: save it with "
                f"`AutoTokenizer.from_pretrained(...).save_pretrained(...)` into the same folder."
            )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        self.config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))

    @cached_property
    def special(self) -> dict[str, str]:
        """bos_token, eos_token, ... as text. Older folders have them in a file of their own."""
        told, older = self.config, self.folder / "special_tokens_map.json"
        if "added_tokens_decoder" not in told and older.exists():
            told = {**told, **json.loads(older.read_text("utf-8"))}
        return {
            key: value["content"] if isinstance(value, dict) else value
            for key, value in told.items()
            if key.endswith("_token") and isinstance(value, str | dict)
        }

    @cached_property
    def eos_id(self) -> int:
        """Id of the token that ends an answer."""
        found = self.tokenizer.token_to_id(self.special.get("eos_token", ""))
        if found is None:
            raise Refused(f"{self.folder}/tokenizer_config.json names no eos_token that its tokenizer knows")
        return found

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Ids of what ends an answer: the tokenizer's own end token, and where `transformers.generate` stops."""
        file = next((self.folder / name for name in ENDS if (self.folder / name).exists()), None)
        named = None if file is None else json.loads(file.read_text("utf-8")).get("eos_token_id")
        others = named if isinstance(named, list) else [] if named is None else [named]
        return tuple(dict.fromkeys([self.eos_id, *others]))

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The tokens that end an answer, as text."""
        return tuple(filter(None, map(self.tokenizer.id_to_token, self.end_ids)))

    @cached_property
    def tokenizer_hash(self) -> str:
        return ids.digest("tokenizer", json.loads(self.tokenizer.to_str()))

    @cached_property
    def template_hash(self) -> str:
        return ids.digest("template", self.template_text, self.special)

    @cached_property
    def template_text(self) -> str:
        """The template's source."""
        return template.template_of(self.folder, self.config)

    @cached_property
    def _template(self) -> Any:
        return template.compiled(self.folder, self.template_text)

    @cached_property
    def _cutter(self) -> Cutter:
        added = self.tokenizer.get_added_tokens_decoder().values()
        named = {text for text in self.special.values() if self.tokenizer.token_to_id(text) is not None}
        # A form that names texts has no end of an answer.
        ends = self.ends if self.special.get("eos_token") in named else ()
        return Cutter(self.tokenizer, {*named, *ends, *(token.content for token in added if token.special)})

    def text(self, messages: Messages, *, answer_next: bool) -> str:
        """The conversation as one text; with `answer_next` it ends where the model's answer begins."""
        given = [_in_parts(m) if PICTURES in m else m for m in messages]
        return template.rendered(self.folder, self._template, given, answer_next, self.special)

    def _hidden(self, messages: Messages, answer_next: bool, stand_ins: Mapping[str, str]) -> str:
        """The text of a conversation with stand-ins; refuses where the template makes another one of it for them."""
        text = self.text(messages, answer_next=answer_next)
        if stand_ins:
            shown = [{key: self._cutter.shown(said, stand_ins) for key, said in m.items()} for m in messages]
            if self._cutter.shown(text, stand_ins) != self.text(shown, answer_next=answer_next):
                written = next(
                    m for said in reversed(shown) for m in self._cutter.written.findall(" ".join(said.values()))
                )
                raise Refused(
                    f"the chat template of {self.folder} looks into what is said, where the special token {written!r} "
                    f"is written as text, so it cannot be told from the token. Take such rows out, or write it "
                    f"otherwise: {_short(shown[-1]['content'])}"
                )
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids [T] of a text in which special tokens are text."""
        cutter = self._cutter
        stand_ins = cutter.stand_ins([text])
        return cutter.cut(cutter.hidden(text, stand_ins), stand_ins)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens without the special ones, but for those that tell a thought from an answer."""
        return self.tokenizer.decode([i for i in token_ids if i not in self._silent], skip_special_tokens=False)

    @cached_property
    def _silent(self) -> frozenset[int]:
        """Ids of the tokens that a text does not show."""
        added = self.tokenizer.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        return frozenset(special.values()) - {special[mark] for mark in telling(special)}

    def prompt(self, messages: Messages, pictures: int = 0) -> list[int]:
        """Token ids [T] of a conversation that the model is to answer; so many pictures stand before the words of its
        last turn, each as what the template puts there."""
        stand_ins = self._cutter.stand_ins(m["content"] for m in messages)
        said = self._showing(self._standing_in(messages, stand_ins), pictures)
        return self._cutter.cut(self._hidden(said, True, stand_ins), stand_ins)

    def _showing(self, messages: Messages, pictures: int) -> Messages:
        """A conversation whose last turn shows pictures; refuses a template that shows none."""
        if not pictures:
            return messages
        *before, last = messages
        shown, none = ([*before, {**last, PICTURES: "#" * count}] for count in (pictures, 0))
        text = self.text(shown, answer_next=True)
        if str(PICTURE) in text or text == self.text(none, answer_next=True):
            raise Refused(f"the chat template of {self.folder} shows no pictures; ask a model that is made for them")
        return shown

    def _standing_in(self, messages: Messages, stand_ins: Mapping[str, str]) -> Messages:
        if not stand_ins:
            return messages
        return [{**m, "content": self._cutter.hidden(m["content"], stand_ins)} for m in messages]

    def example(
        self,
        messages: Messages,
        answer: str,
        reasoning: str | None = None,
        train_on: TrainOn = "answer",
        answers: Answers = "last",
        pictures: int = 0,
    ) -> Rendered:
        """A conversation with its answer: the tokens of its prompt, and then those of the answer, cut apart.

        The answer and its end token are trained on, or the thought before it, or both; nothing else is. With
        `train_on: answer` a thought is left out. With `answers: every` those of the turns before are trained on too,
        each with its end token, and cut apart from what it answers. `pictures` are as in `prompt`.
        """
        thought = None if train_on == "answer" else reasoning
        if train_on == "reasoning" and not thought:
            raise Refused(
                "an answer came without reasoning, and `train_on: reasoning` has nothing to train on: let `select` say "
                "`where: reasoning IS NOT NULL`, or write `train_on: both`"
            )
        stand_ins = self._cutter.stand_ins([*(m["content"] for m in messages), answer, thought or ""])
        messages = self._showing(self._standing_in(messages, stand_ins), pictures)
        before = self._hidden(messages, True, stand_ins)
        turn = self._turn(messages, before, answer, thought, stand_ins)
        joint = turn.answer_at if train_on == "reasoning" else len(turn.text)
        earlier = self._earlier(messages, before, train_on, stand_ins) if answers == "every" else [(before, False)]
        whole = [*earlier, (turn.text[:joint], True), (turn.text[joint:], False)]
        token_ids: list[int] = []
        spans, after = [], None
        for text, learnt in whole:
            start = len(token_ids)
            token_ids += self._cutter.cut(text, stand_ins, after)
            spans += [(start, len(token_ids))] * learnt
            after = text or after
        if any(token_ids[end - 1] not in self.end_ids for _, end in [*spans[:-1], (0, len(token_ids))]):
            raise self._endless()
        token_ids += self._cutter.cut(turn.rest, stand_ins, after)
        added = turn.text[: turn.answer_at]
        told = thought is None and any(mark in added for mark in INLINE)
        return Rendered(token_ids, spans, added if told else "")

    def _earlier(
        self, messages: Messages, before: str, train_on: TrainOn, stand_ins: Mapping[str, str]
    ) -> Iterator[tuple[str, bool]]:
        """The text before an answer in pieces, and whether a piece is an answer to one of the user's earlier turns, as
        it was said there."""
        at = 0
        for number in range(1, len(messages)):
            if (messages[number - 1]["role"], messages[number]["role"]) != ("user", "assistant"):
                continue
            said = messages[number]["content"]
            if train_on == "answer":
                said = split_thinking(said)[1]
            asked = self._hidden(messages[:number], True, stand_ins)
            turn = self._turn(messages[:number], asked, said, None, stand_ins)
            if not before.startswith(asked + turn.text):
                raise Refused(
                    f"the chat template of {self.folder} says an earlier answer otherwise than it was said when it was "
                    f"the last, so it cannot be trained on where it stands: {_short(said)}. Write `answers: last`, use "
                    f"a template that leaves earlier answers as they were, or, where it shows their thoughts, "
                    f"`train_on: both`."
                )
            yield before[at : len(asked)], False
            at = len(asked) + len(turn.text)
            yield turn.text, True
        yield before[at:], False

    def _turn(
        self, messages: Messages, before: str, answer: str, thought: str | None, stand_ins: Mapping[str, str]
    ) -> _Turn:
        """The answer as the template says it, in the first way that shows all of it after the prompt."""
        begun = ended = False
        hidden, wanted = (None if t is None else self._cutter.hidden(t, stand_ins) for t in (thought, answer))
        for said in self._ways(wanted or "", hidden):
            whole = self._hidden([*messages, {"role": "assistant", **said}], False, stand_ins)
            if not whole.startswith(before):
                continue
            begun, after = True, whole[len(before) :]
            if _spot(whole.rfind, said["content"]) is None:
                ended = ended or self._end.search(after) is not None
                continue
            for end in self._end.finditer(after):
                ended, said_until = True, after[: end.start()]
                place = _found(said_until, hidden or "", wanted or "")
                if place is not None:
                    return _Turn(after[: end.end()], after[end.end() :], place)
        if begun and not ended:
            raise self._endless()
        if begun:
            kept = f"{_short(thought)} and the answer {_short(answer)}" if thought else _short(answer)
            raise Refused(
                f"the chat template of {self.folder} does not render an answer as it was kept; it leaves out or alters "
                f"some of {kept}. Use a template that renders the whole of it, or let `select` leave such answers out."
            )
        raise Refused(
            f"the chat template of {self.folder} renders an answered conversation that does not begin with the "
            f"unanswered one, so it is not clear which tokens to train on. Use a template whose generation prompt is a "
            f"prefix of the assistant's turn."
        )

    @cached_property
    def _end(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, sorted(self.ends, key=len, reverse=True))))

    def _ways(self, answer: str, thought: str | None) -> Iterator[dict[str, str]]:
        """How an assistant's turn may be given to a template: the thought under the keys that templates read, or
        written into the content."""
        if thought is None:
            yield {"content": answer}
            return
        yield {"content": answer, "reasoning_content": thought, "reasoning": thought, "thinking": thought}
        marks = next((pair for pair in MARKS if pair[0] in self.template_text), MARKS[0])
        yield {"content": with_thinking(thought, answer, marks)}

    def _endless(self) -> Refused:
        return Refused(
            f"the chat template of {self.folder} does not end an answer with {' or '.join(map(repr, self.ends))}; a "
            f"student trained on it would never stop"
        )


def _in_parts(message: Mapping[str, str]) -> dict[str, Any]:
    """A turn that shows pictures, as templates know it: pictures, and then words."""
    words = {"type": "text", "text": message["content"]}
    return {"role": message["role"], "content": [*[PICTURE] * len(message[PICTURES]), words]}


def _found(text: str, thought: str, answer: str) -> int | None:
    """Where the answer begins in a turn that holds the thought and then, last, the answer; None if it does not."""
    after = 0
    if thought.strip():
        place = _spot(text.find, thought)
        if place is None:
            return None
        after = place + 1
    if not answer.strip():
        return len(text)
    place = _spot(lambda part: text.rfind(part, after), answer)
    if place is None:
        return None
    blank = answer[: len(answer) - len(answer.lstrip())]
    return place - len(blank) if text[after:place].endswith(blank) else place


def _spot(find: Callable[[str], int], part: str) -> int | None:
    """Where a part stands, as it is or as JSON, without the blanks around it, which many templates take off."""
    part = part.strip()
    written = chain([part], (json.dumps(part, ensure_ascii=only)[1:-1] for only in (False, True)))
    return next((place for place in map(find, written) if place >= 0), None)


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")
