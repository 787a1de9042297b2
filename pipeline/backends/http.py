"""Models served elsewhere, behind an OpenAI-compatible HTTP API: vLLM, SGLang, llama.cpp, hosted endpoints.

What a server must give and does not is an error that names the parameter: many ignore what they do not know. Answers
come as they arrive. How requests are sent is `rounds`, how many at once `pace`, what they say `completions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from pipeline.core.run import How
from pipeline.core.settings import Endpoint, RunSettings
from pipeline.errors import Refused, TryAgain
from pipeline.gateway.completions import Completions, Served, Unreadable, with_pictures
from pipeline.gateway.connection import Connection, Passing, Reply
from pipeline.gateway.rounds import Job, Lane, Rounds
from pipeline.kinds.backend import (
    PLAIN,
    WITHIN,
    Answer,
    Backend,
    GenerateRequest,
    Reading,
    Sampling,
    Tokens,
    Want,
    backend,
)
from pipeline.memo.ledger import Ledger
from pipeline.model.chat import Chat


@backend(
    gives=("form", "generate", "token_logprobs", "structured", "read", "topk_logprobs"),
    shaped_by=("api", "chat", "logprobs", "token_ids", "n", "structured"),
    renders=lambda card: card.get("api") == "completions",
    shown=True,
)
def openai(*, folder: Path, card: dict[str, Any], how: How) -> AbstractContextManager[Backend]:
    """The endpoint that `run.endpoints` names for this model: its chat completions, or its plain ones.

    Paper: none.
    Differs: every sample is a request with a seed of its own, cut to the 31 bits all servers take; with `n` above 1,
    n samples of a prompt are one request with the seed of the first. A picture is a part of the last turn, before its
    words, as a data URL.
    """
    served, endpoint = Served.model_validate(card), endpoint_of(folder.name, how.settings)
    if endpoint.batch is not None:
        if served.api == "completions":
            raise Refused(f"run.endpoints.{folder.name}.batch: batch files hold chat completions; take `batch` out")
        from pipeline.gateway.batch import BatchGateway

        return BatchGateway(folder.name, served, endpoint, how)
    return Gateway(folder.name, served, endpoint, how, chat_of(folder))


def endpoint_of(name: str, settings: RunSettings) -> Endpoint:
    """Where a model is served; refuses a model without an address, and an address that holds a secret."""
    endpoint = settings.endpoints.get(name)
    if endpoint is None:
        raise Refused(
            f"the model {name} is served, and params.yaml does not say where. Add to it:\n"
            f"  run:\n    endpoints:\n      {name}:\n        url: http://127.0.0.1:8000/v1"
        )
    where = f"run.endpoints.{name}.url{'s' if endpoint.urls else ''}"
    for url in endpoint.addresses:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused(f"{where}: must be like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            text = "holds a secret. Put the key into an environment variable and name it in api_key_env"
            raise Refused(f"{where}: {text}")
    return endpoint


def chat_of(folder: Path) -> Chat | None:
    """The tokenizer and template of a model's folder, if its card was given them."""
    return Chat(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None


class Gateway:
    """An opened endpoint; `chat` is the model's tokenizer and template, if they are known."""

    def __init__(self, name: str, served: Served, endpoint: Endpoint, how: How, chat: Chat | None = None) -> None:
        self.name, self.served, self.endpoint, self.how, self.chat = name, served, endpoint, how, chat
        if endpoint.max_cost is not None and served.price_in is None:
            raise Refused(
                f"run.endpoints.{name}.max_cost needs prices: write price_in and price_out, in US dollars per million "
                f"tokens, into acquire.{name}"
            )
        addresses = (Connection(name, endpoint, served.model, url) for url in endpoint.addresses)
        self.lanes = [Lane(connection, endpoint.concurrency) for connection in addresses]
        self.connection = self.lanes[0].connection
        self.url = self.connection.url
        self.format = Completions(name, self.url, served, chat)
        self.ledger = Ledger(how.memo, name, endpoint.max_tokens, endpoint.max_cost)
        self._listed: list[list[dict[str, Any]] | None] = []

    def __enter__(self) -> Gateway:
        for lane in self.lanes:
            lane.connection.open(None if lane is self.lanes[0] else self.connection)
        return self

    def __exit__(self, *_: object) -> None:
        for lane in reversed(self.lanes):
            lane.connection.close()
        self.ledger.store.close()

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once, as the answers arrive."""
        for answers in self.arrivals(requests, sampling):
            yield from answers

    def arrivals(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[list[Answer]]:
        """Answer every request once; the answers of one reply are together.

        A request that fails for good is an answer with `error`. What is no request's fault (a wrong key, an unknown
        model, an endpoint that is down or keeps refusing) ends the run, after the answers in flight have arrived.
        """
        if not requests:
            return
        self.models()

        def understand(job: Job[list[GenerateRequest]], reply: Reply) -> list[Answer]:
            if reply.status == 200:
                # A reply that cannot be read was paid all the same.
                job.used = job.bound
            assert job.lane is not None
            answers = self._answers_in(job.asked, reply, job.lane.connection)
            if self.served.structured and sampling.structured is not None:
                for answer in answers:
                    self.format.check_form(answer, sampling.structured)
            if reply.status == 200:
                job.used = self._used(answers) or job.bound
            return answers

        def give_up(asked: list[GenerateRequest], text: str) -> list[Answer]:
            return [Answer(request.request_id, None, "error", error=text) for request in asked]

        before = [(lane.pace.refusals, lane.losses) for lane in self.lanes]
        jobs = self._jobs(requests, sampling)
        yield from Rounds(self.lanes, self.ledger, self.format.path, jobs, understand, give_up)
        for lane, (refusals, losses) in zip(self.lanes, before, strict=True):
            url, pace = lane.connection.url, lane.pace
            if pace.refusals > refusals:
                often = pace.refusals - refusals
                self.how.say(f"{url} refused more requests at once {often} times; it takes about {pace.level:.0f}")
            if lane.losses > losses:
                self.how.say(f"{url} did not answer {lane.losses - losses} times; the others were asked in its place")

    def _jobs(
        self, requests: Sequence[GenerateRequest], sampling: Sampling
    ) -> Iterator[Job[list[GenerateRequest]] | list[Answer]]:
        """HTTP requests; a prompt that leaves no room for its answer is answered here."""
        fixed, context = self.format.fixed(sampling), self._context()
        counted = self.chat is not None and (self.ledger.capped or context is not None)
        for asked in self.format.groups(requests):
            prompt_tokens = len(self.format.prompt(asked[0].messages)) if counted else None
            if prompt_tokens is not None and context is not None and prompt_tokens + sampling.max_tokens > context:
                text = (
                    f"the prompt has {prompt_tokens} tokens and max_tokens is {sampling.max_tokens}; together they "
                    f"pass the context of {context}"
                )
                yield [Answer(r.request_id, None, "error", error=text, prompt_tokens=prompt_tokens) for r in asked]
                continue
            job = Job(asked, self.format.body(asked[0], fixed, len(asked)))
            if self.ledger.capped:
                # What a picture costs no tokenizer tells: its bytes are more.
                words = None if asked[0].inputs else prompt_tokens
                job.bound = self._bound(with_pictures(asked[0]), words, len(asked) * sampling.max_tokens)
            yield job

    def _bound(self, messages: Any, prompt_tokens: int | None, completion_tokens: int) -> tuple[int, float]:
        """The most a request may use. A prompt that cannot be counted has fewer tokens than its JSON has bytes."""
        if prompt_tokens is None:
            prompt_tokens = len(orjson.dumps(messages))
        return prompt_tokens + completion_tokens, self.served.cost(prompt_tokens, completion_tokens) or 0.0

    def _answers_in(self, asked: Sequence[GenerateRequest], reply: Reply, by: Connection) -> list[Answer]:
        """An HTTP reply as answers; raises `Passing` to ask again and `Refused` to end the run."""
        rejected = by.check(reply)
        if rejected is not None:
            return [Answer(request.request_id, None, "error", error=rejected) for request in asked]
        try:
            answers = self.format.answers(asked, reply.raw)
        except Unreadable as error:
            raise Passing(str(error), billed=True) from None
        return answers if len(self.lanes) == 1 else [replace(answer, endpoint=by.url) for answer in answers]

    def _used(self, answers: Sequence[Answer]) -> tuple[int, float] | None:
        """What the answers of one request used together, or None if the server does not tell."""
        prompt_tokens, completion_tokens = answers[0].prompt_tokens, [answer.completion_tokens for answer in answers]
        if prompt_tokens is None or None in completion_tokens:
            return None
        tokens = prompt_tokens + sum(number or 0 for number in completion_tokens)
        return tokens, sum(answer.cost_usd or 0.0 for answer in answers)

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """Read every sequence once, where the server gives log-probabilities of prompts."""
        if not self.served.read or want.needs() & WITHIN:
            what = "give its states or gradients at what it reads" if self.served.read else "read given texts"
            raise Refused(
                f"the model {self.name} is served (http.openai) and cannot {what}; use a local model"
                + ("" if self.served.read else f", or write `read: true` into acquire.{self.name} if vLLM serves it")
            )
        return self._read(sequences, want.top_k)

    def _read(self, sequences: Sequence[Tokens], top_k: int) -> Iterator[Reading]:
        if not sequences:
            return
        self.models()

        def understand(job: Job[Tokens], reply: Reply) -> list[Reading]:
            assert job.lane is not None
            rejected = job.lane.connection.check(reply)
            if rejected is not None:
                give_up(job.asked, rejected)
            try:
                return [self.format.reading(job.asked, top_k, reply.raw)]
            except Unreadable as error:
                raise Passing(str(error), billed=True) from None

        def give_up(asked: Tokens, text: str) -> list[Reading]:
            raise Refused(f"the endpoint of the model {self.name}, {self.url}, does not read {asked.id}: {text}")

        jobs = self._read_jobs(sequences, top_k)
        for readings in Rounds(self.lanes, self.ledger, "/completions", jobs, understand, give_up):
            yield from readings

    def _read_jobs(self, sequences: Sequence[Tokens], top_k: int) -> Iterator[Job[Tokens]]:
        context = self._context()
        for tokens in sequences:
            length = len(tokens.token_ids)
            if context is not None and length + 1 > context:
                raise Refused(
                    f"a text of {length} tokens ({tokens.id}) cannot be read by the model {self.name}: with the one "
                    f"token that it must answer it passes the context of {context}"
                )
            bound = length + 1, self.served.cost(length, 1) or 0.0
            yield Job(tokens, self.format.read_body(tokens, top_k), bound, bound)

    def models(self) -> tuple[str, ...] | None:
        """The names that the endpoint serves, or None if it does not tell; raises if it is down or denies the key, of
        several addresses if all are down."""
        down: list[TryAgain] = []
        for lane in self.lanes if not self._listed else ():
            try:
                self._listed.append(self._list(lane.connection))
            except TryAgain as error:
                down.append(error)
                lane.lose(self.connection.loop.time())
        if len(down) == len(self.lanes):
            raise down[0]
        told = next((listed for listed in self._listed if listed is not None), None)
        return None if told is None else tuple(entry["id"] for entry in told)

    def _list(self, connection: Connection) -> list[dict[str, Any]] | None:
        try:
            reply = connection.exchange("GET", "/models")
        except Passing as failure:
            raise connection.again(failure.text) from None
        if reply.status in (401, 403) or 300 <= reply.status < 400:
            connection.refuse(reply)
        if reply.status in (502, 503, 504):
            raise connection.again(f"HTTP {reply.status}")
        # A server without this list, or one that fails to make it, may serve all the same.
        if reply.status != 200:
            return None
        try:
            return [{**entry, "id": str(entry["id"])} for entry in orjson.loads(reply.raw)["data"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def _context(self) -> int | None:
        """The most tokens of a prompt and its answer together: as declared, or as the server says (vLLM does)."""
        if self.served.context is not None:
            return self.served.context
        entries = (entry for listed in self._listed for entry in listed or () if entry["id"] in self.served.names())
        lengths = (entry.get("max_model_len") for entry in entries)
        return min((length for length in lengths if isinstance(length, int)), default=None)
