"""Provider batch files: requests as one JSON Lines file, answered within a day for a part of the price.

It is OpenAI's batch API as others copy it: a file is uploaded, a batch made of it, and the batch asked about until it
has ended. What was sent is kept in a file under `data/.memo/batches/` before anything leaves this machine, so a run
that was killed at any moment goes on with the same batch. A name of its own, in the file's name and in the batch's
metadata, finds what was made when no id of it could be kept.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import orjson
from filelock import FileLock

from pipeline.core.run import How
from pipeline.core.settings import Batch, Endpoint
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.gateway.batch_state import Kept, Sent
from pipeline.gateway.completions import Completions, Served, Unreadable, complaint
from pipeline.gateway.connection import LONGEST_PAUSE_S, Connection, Passing, Reply, backoff
from pipeline.kinds.backend import PLAIN, Answer, GenerateRequest, Reading, Sampling, Structured, Tokens, Want
from pipeline.memo.ledger import Ledger
from pipeline.tables import ids

T = TypeVar("T")
ENDED = ("completed", "failed", "expired", "cancelled")
GOING = ("created", "queued", "pending", "validating", "running", "in_progress", "finalizing", "cancelling")
# How often one request may be in a batch that gave no answer to it.
ROUNDS = 3
# A finished file that lacks lines is fetched again before anything is paid for again.
FETCHES = 3
# A transfer of a file may take this many times the patience for one request.
FILE_PATIENCE = 10
# The pause between two questions grows to this many times `poll_s`.
LONGEST_POLL = 20
FILE_BYTES = 100 << 20
LISTED_PAGES = 20


class _Absent(Exception):
    """The endpoint has no such address (HTTP 404 or 405)."""


class BatchGateway:
    """An opened endpoint that is asked by batch files."""

    def __init__(self, name: str, served: Served, endpoint: Endpoint, how: How) -> None:
        self.name, self.endpoint = name, endpoint
        self.connection = Connection(name, endpoint, served.model)
        self.url = self.connection.url
        self.format = Completions(name, self.url, served)
        self.how, self.batch = how, endpoint.batch or Batch()
        self.kept = Kept(how.memo / "batches", name)
        self.ledger = Ledger(how.memo, name, endpoint.max_tokens, endpoint.max_cost)

    def __enter__(self) -> BatchGateway:
        self.connection.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def read(self, sequences: Sequence[Tokens], want: Want = PLAIN) -> Iterator[Reading]:
        """A served model is only asked for answers."""
        raise Refused(f"the model {self.name} is served (http.openai) and cannot read given texts; use a local model")

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once, a finished batch at a time.

        A request that fails for good is an answer with `error`. One that got no answer is sent in another batch, at
        most `ROUNDS` times.
        """
        if self.format.served.n > 1:
            raise Refused(
                f"run.endpoints.{self.name}.batch: take `n` out of acquire.{self.name}, or `batch` out of this"
            )
        waiting = {request.request_id: request for request in requests}
        tries: Counter[str] = Counter()
        sent: list[Sent] = []
        try:
            while waiting:
                self._dispatch(waiting, sent, sampling)
                ended, state = self._next_ended(sent)
                yield from self._collect(ended, state, waiting, tries, sampling.structured)
                sent.remove(ended)
        except KeyboardInterrupt:
            if left := len(list(self.kept)):
                self.how.say(
                    f"{left} batches go on at {self.url}; the same command fetches their answers and pays nothing twice"
                )
            raise

    # What is sent.

    def _dispatch(self, waiting: Mapping[str, GenerateRequest], sent: list[Sent], sampling: Sampling) -> None:
        """See that every waiting request is in a batch; as many as the caps allow, if they do not allow all."""
        self.kept.folder.mkdir(parents=True, exist_ok=True)
        # Of two processes that ask for the same, the second finds the batch of the first.
        with FileLock(self.kept.folder / f"{self.name}.lock"):
            form = ids.digest("batch", self.format.fixed(sampling))
            covered = {key for batch in sent for key in batch.requests}
            known = {batch.token for batch in sent}
            for batch in self.kept:
                if batch.token in known or batch.form != form or not waiting.keys() & set(batch.requests) - covered:
                    continue
                if self._resumed(batch, waiting):
                    sent.append(batch)
                    covered.update(batch.requests)
            for lines in self._files([r for key, r in waiting.items() if key not in covered], sampling):
                # A prompt has fewer tokens than its JSON has bytes.
                asked = sum(len(orjson.dumps(waiting[key].messages)) for key in lines)
                answered = len(lines) * sampling.max_tokens
                cost = (self.format.served.cost(asked, answered) or 0.0) * self.batch.price
                batch = Sent(uuid.uuid4().hex, self.url, form, list(lines), asked + answered, cost)
                try:
                    self.ledger.reserve(batch.tokens, batch.cost)
                except CapReached as reached:
                    if not sent:
                        raise CapReached(
                            f"{reached} Here it is a batch of {len(lines)} requests, counted whole before it is sent; "
                            f"a smaller run.endpoints.{self.name}.batch.max_requests needs less at once."
                        ) from None
                    # What the others really use may make room for it.
                    break
                self._send_batch(batch, b"".join(lines.values()))
                sent.append(batch)

    def _files(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[dict[str, bytes]]:
        """The lines of each file, by request."""
        fixed, lines, size = self.format.fixed(sampling), dict[str, bytes](), 0
        for request in requests:
            head = orjson.dumps({"custom_id": request.request_id, "method": "POST", "url": "/v1/chat/completions"})
            line = head[:-1] + b',"body":' + self.format.body(request, fixed) + b"}\n"
            if lines and (len(lines) == self.batch.max_requests or size + len(line) > FILE_BYTES):
                yield lines
                lines, size = {}, 0
            lines[request.request_id] = line
            size += len(line)
        if lines:
            yield lines

    def _send_batch(self, batch: Sent, lines: bytes) -> None:
        self.kept.keep(batch)
        body, headers = _multipart(f"{batch.token}.jsonl", lines)
        batch.file = self._made("/files", body, headers, lambda: self._uploaded(batch.token))
        self.kept.keep(batch)
        self._create(batch)

    def _create(self, batch: Sent) -> None:
        order = {
            "input_file_id": batch.file,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": {"stillhouse": batch.token},
        }
        batch.batch = self._made("/batches", orjson.dumps(order), {}, lambda: self._created(batch.token))
        self.kept.keep(batch)
        self.how.say(f"{len(batch.requests)} requests are in batch {batch.batch} at {self.url}")

    def _made(self, path: str, body: bytes, headers: Mapping[str, str], found: Callable[[], str | None]) -> str:
        """The id of what is made here; a failed attempt may have made it all the same, so it is looked for first."""
        try:
            return self._exchange("POST", path, lambda raw: str(_unwrapped(raw)["id"]), body, headers, found)
        except _Absent:
            raise Refused(
                f"{self.url} has no {path}, so it takes no batch files: take `batch` out of run.endpoints.{self.name}"
            ) from None

    # What an earlier run has sent.

    def _resumed(self, batch: Sent, waiting: Mapping[str, GenerateRequest]) -> bool:
        """Whether to go on with a batch of an earlier run, which may have been killed before it had any id."""
        if batch.url != self.url:
            raise Refused(
                f"requests of the model {self.name} are in batch {batch.batch} at {batch.url}, and run.endpoints now "
                f"says {self.url}. {self._let_go(batch)}"
            )
        if batch.batch is None:
            batch.batch = self._created(batch.token)
        if batch.batch is None:
            batch.file = batch.file or self._uploaded(batch.token)
            if batch.file is None or not waiting.keys() >= set(batch.requests):
                self._forget(batch, 0, 0.0)
                return False
            self._create(batch)
        self.kept.keep(batch)
        self.how.say(f"going on with batch {batch.batch} of {len(batch.requests)} requests at {self.url}")
        return True

    def _created(self, token: str) -> str | None:
        """The id of the batch with our token, if one was made."""
        return self._listed(
            "/batches?limit=100", lambda entry: (entry.get("metadata") or {}).get("stillhouse") == token
        )

    def _uploaded(self, token: str) -> str | None:
        return self._listed("/files?purpose=batch&limit=100", lambda entry: entry.get("filename") == f"{token}.jsonl")

    def _listed(self, path: str, ours: Callable[[Mapping[str, Any]], bool]) -> str | None:
        """The id of our entry in a list, newest first; an endpoint without the list has none."""
        after = ""
        for _ in range(LISTED_PAGES):
            try:
                entries, more = self._exchange("GET", path + after, _page)
            except _Absent:
                return None
            found = next((str(entry["id"]) for entry in entries if ours(entry)), None)
            if found or not entries or not more:
                return found
            after = f"&after={entries[-1]['id']}"
        return None

    # What comes back.

    def _next_ended(self, sent: Sequence[Sent]) -> tuple[Sent, dict[str, Any]]:
        """Wait for a batch to end, asking less and less often."""
        pause, total = self.batch.poll_s, sum(len(batch.requests) for batch in sent)
        while True:
            done, says = 0, Counter[str]()
            for batch in sent:
                try:
                    state = self._exchange("GET", f"/batches/{batch.batch}", _unwrapped)
                except _Absent:
                    raise Refused(f"{self.url} knows no batch {batch.batch}. {self._let_go(batch)}") from None
                status = str(state.get("status")).lower()
                if status in ENDED:
                    return batch, state
                if status not in GOING:
                    raise Refused(f"{self.url} says that batch {batch.batch} is {status!r}. {self._let_go(batch)}")
                says[status] += 1
                counts = state.get("request_counts")
                done += (counts.get("completed") or 0) if isinstance(counts, dict) else 0
            note = ", ".join(f"{n} {status}" for status, n in sorted(says.items()))
            self.how.progress(min(done, total - 1), total, f"answered at the provider; batches: {note}")
            time.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL * self.batch.poll_s)

    def _collect(
        self,
        batch: Sent,
        state: dict[str, Any],
        waiting: dict[str, GenerateRequest],
        tries: Counter[str],
        form: Structured | None,
    ) -> Iterator[Answer]:
        """The answers of an ended batch; what has none stays in `waiting`."""
        status = str(state["status"]).lower()
        lines = self._lines(batch, state, whole=status == "completed")
        ended = f"batch {batch.batch} of the model {self.name} {_ended(status)}{_words(state)}"
        if status != "completed":
            self.how.say(f"{ended}; {len(lines)} of its {len(batch.requests)} requests are answered")
        tokens, cost, lost, failure = 0, 0.0, 0, None
        for key in batch.requests:
            line = _entry(lines.get(key, b""))
            used = self._used(line, batch)
            tokens, cost = tokens + used[0], cost + used[1]
            if key not in waiting:
                continue
            try:
                answer = self._read_line(waiting[key], line, batch, status)
                if self.format.served.structured and form is not None:
                    self.format.check_form(answer, form)
            except Passing as passing:
                tries[key] += 1
                if tries[key] < ROUNDS or status != "completed":
                    lost += tries[key] >= ROUNDS
                    continue
                text = f"{passing.text} (in {tries[key]} batches)"
                answer = Answer(key, None, "error", error=text)
            except Refused as refusal:
                if used[0]:
                    raise Refused(f"{refusal} These answers are paid for. {self._let_go(batch)}") from None
                failure = failure or refusal
                continue
            del waiting[key]
            yield answer
        self._forget(batch, tokens, cost)
        if failure is not None:
            raise failure
        if status == "cancelled":
            raise Refused(f"{ended}. What was answered is kept; run this again to ask for the rest.")
        if lost:
            kind = TryAgain if status == "expired" else Refused
            raise kind(
                f"{ended}; {lost} requests got no answer in {ROUNDS} batches. What was answered is "
                f"kept; run this again to ask for the rest."
            )
        if status == "failed":
            # Often it is a limit on what may wait there at once.
            time.sleep(self.batch.poll_s)

    def _lines(self, batch: Sent, state: dict[str, Any], whole: bool) -> dict[str, bytes]:
        """The lines of a batch's files by request: the first of several, none that nobody asked for."""
        ours, lines, strange = set(batch.requests), dict[str, bytes](), 0
        names = [state.get(name) for name in ("output_file_id", "error_file_id")]
        for fetch in range(FETCHES):
            lines, strange, torn = {}, 0, 0
            for file in filter(None, names):
                try:
                    raw = self._exchange("GET", f"/files/{file}/content", lambda raw: raw)
                except _Absent:
                    raise Refused(
                        f"{self.url} has no file {file} of batch {batch.batch}. {self._let_go(batch)}"
                    ) from None
                for line in io.BytesIO(raw):
                    entry = _entry(line)
                    if entry is None:
                        torn += bool(line.strip())
                    elif (key := str(entry.get("custom_id"))) not in ours:
                        strange += 1
                    else:
                        lines.setdefault(key, line)
            if not torn and (not whole or len(lines) == len(ours)):
                break
            if fetch < FETCHES - 1:
                time.sleep(self.batch.poll_s)
        if strange:
            self.how.say(f"batch {batch.batch} has {strange} lines for requests that were not in it; they are ignored")
        return lines

    def _read_line(self, request: GenerateRequest, line: dict[str, Any] | None, batch: Sent, status: str) -> Answer:
        """A line as an `Answer`, read as an HTTP answer is."""
        if line is None:
            raise Passing(f"batch {batch.batch}, {status}, has no line for it")
        response = line.get("response")
        if not isinstance(response, dict):
            raise Passing(complaint(orjson.dumps({"error": line.get("error")}))[0])
        code = response.get("status_code")
        if not isinstance(code, int):
            raise Passing(f"batch {batch.batch} has a line for it without a status code")
        reply = Reply(code, {}, json.dumps(response.get("body")).encode())
        if (wrong := self.connection.check(reply)) is not None:
            return Answer(request.request_id, None, "error", error=wrong)
        try:
            answer = self.format.answer(request, reply.raw)
        except Unreadable as error:
            raise Passing(str(error)) from None
        return answer if answer.cost_usd is None else replace(answer, cost_usd=answer.cost_usd * self.batch.price)

    def _used(self, line: dict[str, Any] | None, batch: Sent) -> tuple[int, float]:
        """Tokens and US dollars of one line: an answer without usage counts as its share of the batch's bound."""
        response = (line or {}).get("response")
        if not isinstance(response, dict) or response.get("status_code") != 200:
            return 0, 0.0
        with suppress(AttributeError, KeyError, TypeError):
            usage = response["body"]["usage"]
            asked, answered = usage["prompt_tokens"], usage["completion_tokens"]
            return asked + answered, (self.format.served.cost(asked, answered) or 0.0) * self.batch.price
        return batch.tokens // len(batch.requests), batch.cost / len(batch.requests)

    # Files here, exchanges there.

    def _let_go(self, batch: Sent) -> str:
        return f"To ask for them anew, and pay again, remove {self.kept.file_of(batch)}."

    def _forget(self, batch: Sent, tokens: int, cost: float) -> None:
        """Remove a batch's state and settle what it used; only the process that removes it settles."""
        if self.kept.forget(batch):
            self.ledger.settle(batch.tokens, batch.cost, tokens, cost)

    async def _within(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None) -> Reply:
        file = path.startswith("/files") and (body is not None or path.endswith("/content"))
        limit = self.endpoint.timeout_s * (FILE_PATIENCE if file else 1)
        try:
            async with asyncio.timeout(limit):
                return await self.connection.send(method, path, body, headers)
        except TimeoutError:
            raise Passing(f"no answer to {method} {path} within {limit:g} s") from None

    def _exchange(
        self,
        method: str,
        path: str,
        read: Callable[[bytes], T],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        found: Callable[[], T | None] = lambda: None,
    ) -> T:
        """One exchange, tried again while its failure may pass, unless `found` tells that it was done all the same."""
        tries = 0
        while True:
            try:
                reply = self.connection.do(self._within(method, path, body, headers))
                if reply.status in (404, 405):
                    raise _Absent
                if reply.status != 201 and (wrong := self.connection.check(reply)) is not None:
                    raise Refused(
                        f"the endpoint of the model {self.name}, {self.url}, refuses {method} {path}: {wrong}"
                    )
                try:
                    return read(reply.raw)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise Passing(f"{method} {path} gives {complaint(reply.raw)[0]!r} ({error})") from None
            except Passing as failure:
                tries += 1
                if tries > self.endpoint.retries:
                    raise self.connection.again(f"{failure.text}, {tries} times in a row") from None
                # An endpoint that asks for a longer pause than LONGEST_PAUSE_S is asked again after that.
                time.sleep(backoff(tries) if failure.wait_s is None else min(failure.wait_s, LONGEST_PAUSE_S))
            if (done := found()) is not None:
                return done


def _multipart(filename: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A form with the file and its purpose. The boundary is the file's own random name."""
    boundary = f"stillhouse-{filename.removesuffix('.jsonl')}"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
        f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        f"Content-Type: application/jsonl\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def _unwrapped(raw: bytes) -> dict[str, Any]:
    """A JSON object; some providers put a batch into a `job`."""
    body = orjson.loads(raw)
    body = body.get("job", body)
    body["id"]
    return body


def _page(raw: bytes) -> tuple[list[dict[str, Any]], bool]:
    """The entries of a list that have an id, and whether there are more of them."""
    body = orjson.loads(raw)
    entries, more = (body, False) if isinstance(body, list) else (body["data"], bool(body.get("has_more")))
    return [entry for entry in entries if isinstance(entry, dict) and "id" in entry], more


def _entry(line: bytes) -> dict[str, Any] | None:
    """One line of a file, or None if it is not a JSON object."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            # Bytes that are no UTF-8, or half a surrogate pair.
            entry = json.loads(line.decode("utf-8", "replace"))
        except ValueError:
            return None
    return entry if isinstance(entry, dict) else None


def _ended(status: str) -> str:
    return {"completed": "is complete", "cancelled": "was cancelled at the provider"}.get(status, f"has {status}")


def _words(state: Mapping[str, Any]) -> str:
    """What the provider says of a batch that did not complete."""
    errors = state.get("errors") or {}
    listed = errors.get("data") if isinstance(errors, dict) else errors
    said = [str(error.get("message")) for error in listed or [] if isinstance(error, dict)]
    return f": {' '.join('; '.join(said[:3]).split())[:300]}" if said else ""
