"""Chat completions in JSON: what is asked, and what came back as an `Answer`. Opens no connection."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from pipeline.errors import Refused
from pipeline.protocol import Answer, GenerateRequest, Sampling

THINKING = ("reasoning", "reasoning_content", "thinking")
FINISHES = ("stop", "length", "content_filter")


class Served(BaseModel):
    """What the card of a served model says about it; prices are US dollars per million tokens."""

    model_config = ConfigDict(frozen=True)
    model: str
    version: str
    logprobs: bool = False
    token_ids: bool = False
    price_in: float | None = None
    price_out: float | None = None

    def names(self) -> tuple[str, ...]:
        """The names that this model may answer under."""
        return self.model, self.version, f"{self.model}-{self.version}", f"{self.model}@{self.version}"

    def cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> float | None:
        """US dollars, where prices and numbers of tokens are known."""
        if prompt_tokens is None or completion_tokens is None or self.price_in is None or self.price_out is None:
            return None
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6


class Unreadable(ValueError):
    """What came back is no chat completion; asking again may help."""


@dataclass(frozen=True)
class Completions:
    """The format as one model speaks it; `name` is its instance, `url` where it is served."""

    name: str
    url: str
    served: Served

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
            body["logprobs"] = True
        if self.served.token_ids:
            body["return_token_ids"] = True
        return body

    def body(self, request: GenerateRequest, fixed: dict[str, Any]) -> bytes:
        """One request; its seed is cut to the 31 bits that every server takes."""
        return orjson.dumps({**fixed, "messages": request.messages, "seed": request.seed % 2**31})

    def answer(self, request: GenerateRequest, raw: bytes) -> Answer:
        """What came back; raises `Unreadable`, or `Refused` if the server does not give what it must."""
        try:
            body = _loads(raw)
            choices = body.get("choices")
            if not choices:
                said = f": {complaint(raw)[0]}" if "error" in body else ""
                raise Unreadable(f"the server gave 0 choices of the 1 asked for (parameter n){said}")
            self.check_name(body.get("model"))
            return self._answer(request.request_id, choices[0], body.get("usage") or {})
        except Unreadable:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise Unreadable(f"an answer that is no chat completion ({type(error).__name__}: {error})") from None

    def check_name(self, answered_as: str | None) -> None:
        """Refuse answers of another model; a server that gives no name is believed."""
        if answered_as is not None and answered_as not in self.served.names():
            raise Refused(
                f"asked for model {self.served.model!r}, {self.url} answered as {answered_as!r}. Its answers would be "
                f"recorded under a wrong name: write `model: {answered_as}` (and its version) in acquire.{self.name}, "
                f"or ask the endpoint that serves {self.served.model!r}."
            )

    def _answer(self, request_id: str, choice: dict[str, Any], usage: dict[str, Any]) -> Answer:
        message, finish = choice["message"], choice.get("finish_reason")
        if finish not in FINISHES:
            return Answer(request_id, None, "error", error=f"the server ended the answer with {finish!r}")
        thinking, content = split_thinking(message.get("content") or message.get("refusal") or "")
        apart = next((message[key] for key in THINKING if message.get(key)), None)
        logprobs = token_ids = None
        # An empty answer has no tokens, and a refusal's are listed elsewhere.
        if message.get("content") or apart:
            logprobs, token_ids = self._tokens(choice)
            if logprobs is not None and token_ids is not None and len(logprobs) != len(token_ids):
                text = f"{len(token_ids)} token ids (return_token_ids) and {len(logprobs)} logprobs do not match"
                return Answer(request_id, None, "error", error=text)
        prompt_tokens, completion_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        return Answer(
            request_id,
            _clean(content),
            finish,
            reasoning=_clean("\n".join(t for t in (apart, thinking) if t)) or None,
            token_ids=token_ids,
            logprobs=logprobs,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=self.served.cost(prompt_tokens, completion_tokens),
        )

    def _tokens(self, choice: dict[str, Any]) -> tuple[list[float] | None, list[int] | None]:
        """The sampled tokens' log-probabilities and ids, where they were asked for."""
        logprobs = token_ids = None
        if self.served.logprobs:
            listed = (choice.get("logprobs") or {}).get("content")
            if listed is None:
                raise Refused(self._lacks("logprobs", "logprobs: true"))
            logprobs = [float(token["logprob"]) for token in listed]
            if not all(value <= 1e-6 for value in logprobs):
                raise ValueError("a log-probability above 0")
        if self.served.token_ids:
            token_ids = choice.get("token_ids")
            if token_ids is None:
                raise Refused(self._lacks("return_token_ids", "tokenizer"))
        return logprobs, token_ids

    def _lacks(self, parameter: str, key: str) -> str:
        return (
            f"{self.url} ignores the parameter {parameter}: its answer has none. Serve the model {self.name} with a "
            f"server that gives it (vLLM does), or take `{key}` out of acquire.{self.name}."
        )


def split_thinking(text: str) -> tuple[str | None, str]:
    """Inline thinking and the answer after it. A template may have opened <think> before the model's first token."""
    opened = re.match(r"\s*<think>", text)
    begin = opened.end() if opened else 0
    end = text.find("</think>", begin)
    if end < 0:
        # Cut off while thinking: there is no answer yet.
        return (text[begin:].strip(), "") if opened else (None, text)
    if not opened and "<think>" in text[:end]:
        return None, text
    return text[begin:end].strip(), text[end + len("</think>") :].lstrip()


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
        return json.loads(raw.decode("utf-8", "replace"))


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
