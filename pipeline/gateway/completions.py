"""Completions in JSON: what is asked, and what came back as an `Answer` or a `Reading`. Opens no connection."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, PositiveInt

from pipeline.errors import Refused
from pipeline.kinds.backend import Answer, GenerateRequest, Messages, Reading, Sampling, Structured, Tokens
from pipeline.model.chat import Chat
from pipeline.tables.pictures import data_url, files
from pipeline.text.thinking import parted, split_thinking, written

THINKING = ("reasoning", "reasoning_content", "thinking", "reasoning_details")
FINISHES = ("stop", "length", "content_filter")
# Keys of a reply that says what went wrong.
COMPLAINTS = {"error", "detail", "message"}


class Served(BaseModel):
    """What the card of a served model says about it; prices are US dollars per million tokens."""

    model_config = ConfigDict(frozen=True)
    model: str
    version: str
    api: Literal["chat", "completions"] = "chat"
    logprobs: bool = False
    token_ids: bool = False
    n: PositiveInt = 1
    structured: bool = False
    read: bool = False
    context: PositiveInt | None = None
    price_in: float | None = None
    price_out: float | None = None

    def names(self) -> tuple[str, ...]:
        """The names that this model may answer under."""
        return self.model, self.version, f"{self.model}-{self.version}", f"{self.model}@{self.version}"

    def cost(self, prompt_tokens: float | None, completion_tokens: float | None) -> float | None:
        """US dollars, where prices and numbers of tokens are known."""
        if prompt_tokens is None or completion_tokens is None or self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


class Unreadable(ValueError):
    """What came back is not a completion; asking again may help."""


@dataclass
class Completions:
    """The format as one model speaks it; `name` is its instance, `url` where it is served.

    With `api: completions` prompts are rendered here, with `chat`, and sent as token ids.
    """

    name: str
    url: str
    served: Served
    chat: Chat | None = None
    # The samples of a prompt come one after another and share their messages: it is rendered once for all.
    _rendered: tuple[Messages, list[int]] = field(default=((), []), init=False)

    def __post_init__(self) -> None:
        if self.served.api == "completions" and self.chat is None:
            raise Refused(f"acquire.{self.name}: api: completions needs `tokenizer`, which renders the prompts")

    @property
    def path(self) -> str:
        """Where requests go, below the address."""
        return "/completions" if self.served.api == "completions" else "/chat/completions"

    def groups(self, requests: Sequence[GenerateRequest]) -> Iterator[list[GenerateRequest]]:
        """The samples that are asked for together: up to `n` of one prompt.

        Which ones follows from their numbers and not from what is known already, so few change when a run is repeated.
        """
        if self.served.n == 1:
            yield from ([request] for request in requests)
            return
        for _, group in groupby(requests, lambda r: (r.prompt_id, r.sample // self.served.n)):
            yield list(group)

    def prompt(self, messages: Messages) -> list[int]:
        """A prompt in tokens."""
        assert self.chat is not None
        if self._rendered[0] is not messages:
            self._rendered = messages, self.chat.prompt(messages)
        return self._rendered[1]

    def fixed(self, sampling: Sampling) -> dict[str, Any]:
        """What every request of one sampling says."""
        body: dict[str, Any] = {
            "model": self.served.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self.served.logprobs:
            # A number of others to list for plain completions; SGLang takes 0 for "none".
            body["logprobs"] = 1 if self.served.api == "completions" else True
        if self.served.token_ids:
            body["return_token_ids"] = True
        if self.served.structured and sampling.structured is not None:
            body |= _form(sampling.structured)
        return body

    def body(self, request: GenerateRequest, fixed: dict[str, Any], n: int = 1) -> bytes:
        """One HTTP request for n samples; its seed is cut to the 31 bits that every server takes."""
        body = {**fixed, "seed": request.seed % 2**31}
        if self.served.api == "completions":
            if request.inputs:
                raise Refused(
                    f"prompt {request.prompt_id} shows pictures, and plain completions are asked in words alone: write "
                    f"`api: chat` into acquire.{self.name}"
                )
            body["prompt"] = self.prompt(request.messages)
        else:
            body["messages"] = with_pictures(request)
        if n > 1:
            body["n"] = n
        return orjson.dumps(body)

    def answer(self, request: GenerateRequest, raw: bytes) -> Answer:
        """What came back for one sample."""
        return self.answers([request], raw)[0]

    def answers(self, requests: Sequence[GenerateRequest], raw: bytes) -> list[Answer]:
        """What came back for the samples of one HTTP request.

        Raises `Unreadable`, or `Refused` if the server does not give what it must.
        """
        body = _loads(raw)
        try:
            body = _object(body, "it")
            if "choices" not in body and not COMPLAINTS & body.keys():
                raise ValueError(f"it has no `choices`, but {', '.join(map(repr, body)) or 'nothing'}")
            choices = body.get("choices")
            if not choices:
                said = f": {complaint(raw)[0]}" if COMPLAINTS & body.keys() else ""
                raise Unreadable(f"the server gave 0 choices of the {len(requests)} asked for (parameter n){said}")
            self.check_name(body.get("model"))
            if len(requests) > 1:
                choices = self._in_order(choices, len(requests))
            usage, fingerprint = body.get("usage") or {}, body.get("system_fingerprint")
            return [
                self._answer(request.request_id, choice, usage, fingerprint, number, len(requests))
                for number, (request, choice) in enumerate(zip(requests, choices, strict=False))
            ]
        except Unreadable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._never("an answer", f"one of {self.path}", error) from error

    def _in_order(self, choices: list[dict[str, Any]], n: int) -> list[dict[str, Any]]:
        if len(choices) != n:
            raise Refused(
                f"{self.url} gave {len(choices)} choices of the {n} asked for (parameter n). Serve the model "
                f"{self.name} with a server that gives them (vLLM does), or take `n` out of acquire.{self.name}."
            )
        indexes = [choice.get("index") for choice in choices]
        if set(indexes) != set(range(n)):
            raise Refused(
                f"{self.url} numbers the {n} choices of a request (parameter n) {indexes}, so an answer may be there "
                f"twice and another missing. Take `n` out of acquire.{self.name}."
            )
        return sorted(choices, key=lambda choice: choice["index"])

    def check_name(self, answered_as: str | None) -> None:
        """Refuse answers of another model; a server that gives no name is believed."""
        if answered_as is not None and answered_as not in self.served.names():
            raise Refused(
                f"asked for model {self.served.model!r}, {self.url} answered as {answered_as!r}. Its answers would be "
                f"recorded under a wrong name: write `model: {answered_as}` (and its version) in acquire.{self.name}, "
                f"or ask the endpoint that serves {self.served.model!r}."
            )

    def check_form(self, answer: Answer, structured: Structured) -> None:
        """Refuse a server that ended an answer without the form that it was held to."""
        if answer.finish_reason == "stop" and (fault := structured.fault(answer.content or "")) is not None:
            parameter = next(iter(_form(structured)))
            raise Refused(
                f"{self.url} ignores the parameter {parameter}: {fault}. Serve the model {self.name} with a server "
                f"that keeps to it, or take `structured: true` out of acquire.{self.name}: its answers are then looked "
                f"at, and asked for again, here."
            )

    def _answer(
        self, request_id: str, choice: dict[str, Any], usage: dict[str, Any], fingerprint: str | None, at: int, n: int
    ) -> Answer:
        """Choice `at` of n. The prompt is paid once for all; where only their sum is told, its tokens are shared."""
        choice = _object(choice, "a choice")
        plain = self.served.api == "completions"
        message = {"content": choice["text"]} if plain else _object(choice.get("message"), "the message of a choice")
        finish = choice.get("finish_reason")
        within, said = parted(message.get("content") or message.get("refusal") or "")
        inline, content = split_thinking(said)
        apart = next((written(message[key]) for key in THINKING if message.get(key)), None)
        logprobs = token_ids = error = None
        if finish not in FINISHES:
            error = f"the server ended the answer with {finish!r}"
        elif message.get("tool_calls") or message.get("function_call"):
            error = "the model called a tool, and tool calls are not supported"
        # An empty answer has no tokens, and a refusal's are listed elsewhere.
        elif message.get("content") or apart:
            logprobs, token_ids = self._tokens(choice)
            if logprobs is not None and token_ids is not None and len(logprobs) != len(token_ids):
                error = f"{len(token_ids)} token ids (return_token_ids) and {len(logprobs)} logprobs do not match"
        prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if n > 1 and completion_tokens is not None:
            known = token_ids if token_ids is not None else logprobs
            share = completion_tokens // n + (at < completion_tokens % n)
            completion_tokens = share if known is None else len(known)
        good = error is None
        return Answer(
            request_id,
            _clean(content) if good else None,
            str(finish) if good else "error",
            reasoning=_clean("\n".join(t for t in (apart, within, inline) if t)) or None if good else None,
            token_ids=token_ids if good else None,
            logprobs=logprobs if good else None,
            error=error,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=self.served.cost(None if prompt_tokens is None else prompt_tokens / n, completion_tokens),
            fingerprint=fingerprint,
        )

    def _tokens(self, choice: dict[str, Any]) -> tuple[list[float] | None, list[int] | None]:
        """The sampled tokens' log-probabilities and ids, where they were asked for."""
        logprobs = token_ids = None
        if self.served.logprobs:
            listed = choice.get("logprobs") or {}
            if self.served.api == "completions":
                logprobs = listed.get("token_logprobs")
            elif listed.get("content") is not None:
                logprobs = [token["logprob"] for token in listed["content"]]
            if logprobs is None:
                raise Refused(self._lacks("logprobs", "logprobs: true"))
            # A server may give null, NaN or infinity, and the answer is paid for: `asking` stores such a one as null.
            logprobs = [math.nan if value is None else float(value) for value in logprobs]
            if any(value > 1e-6 for value in logprobs):
                raise Unreadable("an answer with a log-probability above 0")
        if self.served.token_ids:
            token_ids = choice.get("token_ids")
            if token_ids is None:
                raise Refused(self._lacks("return_token_ids", "tokenizer"))
        return logprobs, token_ids

    def _never(self, what: str, form: str, error: Exception) -> Refused:
        """A reply that is whole and of another form: the next ones will be too, and each is paid."""
        why = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
        return Refused(
            f"{self.url} gave {what} that cannot be read as {form}: {why}. Asking again would be paid again; serve the "
            f"model {self.name} with a server that speaks this format. What was received before is kept."
        )

    def _lacks(self, parameter: str, key: str) -> str:
        return (
            f"{self.url} ignores the parameter {parameter}: its answer has none. Serve the model {self.name} with a "
            f"server that gives it (vLLM does), or take `{key}` out of acquire.{self.name}."
        )

    def read_body(self, tokens: Tokens, top_k: int) -> bytes:
        """The request whose reply has the log-probabilities of given tokens; it must answer one token at least."""
        return orjson.dumps({
            "model": self.served.model,
            "prompt": tokens.asked()[0],
            "max_tokens": 1,
            "temperature": 1.0,
            "prompt_logprobs": max(1, top_k),
        })  # fmt: skip

    def reading(self, tokens: Tokens, top_k: int, raw: bytes) -> Reading:
        """What came back for given tokens; raises `Unreadable`, or `Refused` if the server has not read them."""
        body = _loads(raw)
        try:
            self.check_name(body.get("model"))
            choice = body["choices"][0]
            listed = choice.get("prompt_logprobs")
            if listed is None:
                raise Refused(self._lacks("prompt_logprobs", "read: true"))
            if len(listed) != len(tokens.token_ids):
                raise Unreadable(f"prompt_logprobs of {len(listed)} tokens, not of the {len(tokens.token_ids)} sent")
            # Each position lists the likeliest tokens, and the token itself where it is none of them.
            at = [listed[position] for position in tokens.positions]
            own = [here[str(tokens.token_ids[p])]["logprob"] for p, here in zip(tokens.positions, at, strict=True)]
            target = np.asarray(own, np.float32)
            if not top_k:
                return Reading(tokens.id, target)
            best = [sorted(here.items(), key=lambda entry: entry[1]["rank"])[:top_k] for here in at]
            if any(len(here) < top_k for here in best):
                raise Unreadable(f"prompt_logprobs with fewer than the {top_k} tokens asked for")
            ids_NK = np.asarray([[int(key) for key, _ in here] for here in best], np.int32).reshape(-1, top_k)
            logprobs_NK = np.asarray([[v["logprob"] for _, v in here] for here in best], np.float32).reshape(-1, top_k)
        except (Unreadable, Refused):
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._never("a reading", "prompt_logprobs", error) from error
        tail = 1.0 - np.exp(logprobs_NK.astype(np.float64)).sum(-1)
        return Reading(tokens.id, target, ids_NK, logprobs_NK, np.maximum(tail, 0.0).astype(np.float32))


def with_pictures(request: GenerateRequest) -> Sequence[Mapping[str, Any]]:
    """A request's messages; the pictures that it is about stand before the words of the last turn."""
    if not request.inputs:
        return request.messages
    try:
        shown = files(request.inputs)
    except Refused as error:
        raise Refused(f"prompt {request.prompt_id} {error}") from error
    *before, last = request.messages
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in shown]
    if last["content"]:
        parts.append({"type": "text", "text": last["content"]})
    return [*before, {"role": last["role"], "content": parts}]


def _form(structured: Structured) -> dict[str, Any]:
    """What holds a server to a form: OpenAI's parameter for schemas, vLLM's for the rest."""
    if structured.json_schema is not None:
        schema = {"name": "answer", "schema": structured.json_schema, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    if structured.regex is not None:
        return {"structured_outputs": {"regex": structured.regex}}
    return {"structured_outputs": {"choice": structured.choice}}


def complaint(raw: bytes) -> tuple[str, str | None]:
    """What a server says is wrong, in one line, and its code for it if it has one."""
    said = code = None
    try:
        body = orjson.loads(raw)
        error = body.get("error", body)
        if isinstance(error, dict):
            said, code = error.get("message") or error.get("detail"), error.get("code")
        else:
            said = error
    except (orjson.JSONDecodeError, AttributeError):
        pass
    text = str(said) if said else raw.decode("utf-8", "replace")
    return " ".join(text.split())[:300] or "it says nothing", code if isinstance(code, str) else None


def _loads(raw: bytes) -> Any:
    """JSON, also with bytes that are no UTF-8, which become U+FFFD: a server may cut a token inside a character."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw.decode("utf-8", "replace"))
        except ValueError as error:
            raise Unreadable(f"an answer that is not a completion ({error})") from None


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object but {'nothing' if value is None else type(value).__name__}")
    return value


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
