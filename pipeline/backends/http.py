"""Models served elsewhere, behind an OpenAI-compatible HTTP API: vLLM, SGLang, llama.cpp, hosted endpoints.

One HTTP request per sample, each with its own seed: servers that do not know a parameter ignore it silently, and a
missing second choice is then an answer never given. What a server must give and does not is an error that names
the parameter. Answers come as they arrive, from an event loop in a thread of its own; a bounded number is in flight.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import orjson

from pipeline.backends.completions import Completions, Served, Unreadable, complaint
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.execution import Endpoint, RunSettings
from pipeline.plugins import backend, lazy
from pipeline.protocol import Answer, Backend, GenerateRequest, Reading, Sampling, Tokens

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

T = TypeVar("T")
PASSING_STATUS = frozenset({408, 409, 425, 429})
BUSY_STATUS = frozenset({429, 503})
UNKNOWN_PARAMETER = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
# An endpoint that asks for a longer pause than this is not waited for: the run ends, to be started again.
LONGEST_PAUSE_S = 900.0
CONNECT_S = 15.0
# Answers that may wait for the caller before no new request is sent: memory stays flat.
WAITING_ANSWERS = 512
# A shorter key is no secret ("EMPTY", "token-abc"), and hiding it would spoil every text that holds the word.
SECRET_CHARACTERS = 12


@backend(gives=("generate", "token_logprobs"))
def openai(*, folder: Path, card: dict[str, Any], settings: RunSettings) -> AbstractContextManager[Backend]:
    """Chat completions of the endpoint that `run.endpoints` names for this model.

    Paper: none.
    Differs: `n` is never used; every sample is a request with a seed of its own, cut to the 31 bits all servers take.
    """
    return Gateway(folder.name, Served.model_validate(card), endpoint_of(folder.name, settings))


def endpoint_of(name: str, settings: RunSettings) -> Endpoint:
    """Where a model is served; refuses a model without an address, and an address that holds a secret."""
    endpoint = settings.endpoints.get(name)
    if endpoint is None:
        raise Refused(
            f"the model {name} is served, and params.yaml does not say where. Add to it:\n"
            f"  run:\n    endpoints:\n      {name}:\n        url: http://127.0.0.1:8000/v1"
        )
    where = f"run.endpoints.{name}.url"
    parts = urlsplit(endpoint.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"{where}: must be like http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query:
        raise Refused(f"{where}: holds a secret. Put the key into an environment variable and name it in api_key_env")
    return endpoint


class _Passing(Exception):
    """A failure that may pass: asked again after `wait_s`, or after a growing pause.

    `endpoint` tells that it is the endpoint's and not this request's: when it does not pass, no row can be blamed.
    """

    def __init__(self, text: str, wait_s: float | None = None, *, endpoint: bool = False) -> None:
        super().__init__(text)
        self.text, self.wait_s, self.endpoint = text, wait_s, endpoint


@dataclass
class _Run:
    """One call of `generate`: what its workers share."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Refused | None = None
    answered: int = 0
    resume_at: float = 0.0

    def fail(self, failure: Refused) -> None:
        self.failure = self.failure or failure
        self.stop.set()

    async def rest(self, seconds: float) -> None:
        """Wait, but not when the run is stopped."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return

    async def turn(self) -> None:
        """Wait for the end of a pause that the endpoint asked for; not all workers begin at once after it."""
        while (left := self.resume_at - time.monotonic()) > 0 and not self.stop.is_set():
            await self.rest(left + random.random() * BACKOFF_S)


class Gateway:
    """An opened endpoint."""

    def __init__(self, name: str, served: Served, endpoint: Endpoint) -> None:
        self.name, self.endpoint = name, endpoint
        self.url = endpoint.url.rstrip("/").removesuffix("/chat/completions")
        self.format = Completions(name, self.url, served)
        self._key = self._key_of(endpoint)
        self._proxy = _proxy_for(self.url)

    def _key_of(self, endpoint: Endpoint) -> str | None:
        if endpoint.api_key_env is None:
            return None
        key = os.environ.get(endpoint.api_key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            what = "holds no usable key" if key else "is not set"
            raise Refused(
                f"the environment variable {endpoint.api_key_env} {what}; run.endpoints.{self.name}.api_key_env names "
                f"it as the key for {self.url}. Set it where the pipeline is started: export {endpoint.api_key_env}=..."
            )
        return key

    def __enter__(self) -> Gateway:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"gateway-{self.name}", daemon=True)
        self._thread.start()
        self._session = self._do(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the gateway's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open(self) -> aiohttp.ClientSession:
        limit = self.endpoint.timeout_s
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.endpoint.concurrency + 1),
            timeout=aiohttp.ClientTimeout(total=limit, sock_connect=min(limit, CONNECT_S)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            proxy=self._proxy,
        )

    async def _close(self) -> None:
        # A caller that failed amid the answers has left its requests running.
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()

    def generate(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> Iterator[Answer]:
        """Answer every request once, as the answers arrive.

        A request that fails for good is an answer with `error`. What is no request's fault (a wrong key, an unknown
        model, an endpoint that is down or keeps refusing) ends the run, after the answers in flight have arrived.
        """
        if not requests:
            return
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        task = self._do(self._start(requests, sampling, answers))
        try:
            while (answer := answers.get()) is not None:
                yield answer
        finally:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(task.cancel)
                self._do(asyncio.wait([task]))
        failure = task.result()
        if failure is not None:
            raise failure

    def read(self, sequences: Sequence[Tokens], *, top_k: int = 0, embedding: bool = False) -> Iterator[Reading]:
        """A served model is only asked for answers."""
        raise Refused(f"the model {self.name} is served (http.openai) and cannot read given texts; use a local model")

    def models(self) -> tuple[str, ...] | None:
        """The names that the endpoint serves, or None if it does not tell; raises if it is down or denies the key."""
        return self._do(self._models())

    async def _start(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, answers: SimpleQueue[Answer | None]
    ) -> asyncio.Task[Refused | None]:
        task = asyncio.create_task(self._run(requests, sampling, answers))
        task.add_done_callback(lambda _: answers.put(None))
        return task

    async def _run(
        self, requests: Sequence[GenerateRequest], sampling: Sampling, answers: SimpleQueue[Answer | None]
    ) -> Refused | None:
        run, waiting, fixed = _Run(), iter(requests), self.format.fixed(sampling)

        async def work() -> None:
            for request in waiting:
                while answers.qsize() >= WAITING_ANSWERS and not run.stop.is_set():
                    await run.rest(0.05)
                try:
                    answer = await self._answer(request, fixed, run)
                except Refused as failure:
                    run.fail(failure)
                    return
                if answer is None:
                    return
                run.answered += 1
                answers.put(answer)

        try:
            await self._models()
        except Refused as failure:
            return failure
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.endpoint.concurrency, len(requests))):
                group.create_task(work())
        return run.failure

    async def _answer(self, request: GenerateRequest, fixed: dict[str, Any], run: _Run) -> Answer | None:
        """Ask until it is answered or has failed for good; None if the run was stopped meanwhile."""
        body = self.format.body(request, fixed)
        tries, seen = 0, run.answered
        while True:
            await run.turn()
            if run.stop.is_set():
                return None
            try:
                return self._read(request, *await self._send("POST", "/chat/completions", body))
            except _Passing as failure:
                # An endpoint that answers others meanwhile only limits the rate: it is not failing.
                tries = 0 if failure.endpoint and run.answered > seen else tries + 1
                seen = run.answered
                if tries > self.endpoint.retries:
                    if failure.endpoint:
                        raise self._again(f"{failure.text}, {tries} times in a row") from None
                    return Answer(request.request_id, None, "error", error=f"{failure.text} (tried {tries} times)")
                if failure.wait_s is None:
                    backoff = min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** min(tries, 16))
                    await run.rest(backoff * (0.5 + random.random() / 2))
                elif failure.wait_s > LONGEST_PAUSE_S:
                    raise self._again(f"{failure.text} and asks to wait {failure.wait_s:.0f} s") from None
                else:
                    run.resume_at = max(run.resume_at, time.monotonic() + failure.wait_s)

    async def _send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """One exchange; every failure of the transport is a `_Passing`, and no key is left in what is returned."""
        try:
            async with self._session.request(method, self.url + path, data=body, allow_redirects=False) as response:
                raw = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise _Passing("no connection in time", endpoint=True) from None
        except TimeoutError:
            raise _Passing(f"no answer within {self.endpoint.timeout_s:g} s") from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise Refused(self._safe(f"{self.url} cannot be used: {error}")) from None
        except aiohttp.ClientConnectorError as error:
            raise _Passing(self._safe(f"no connection ({error})"), endpoint=True) from None
        except aiohttp.ClientError as error:
            raise _Passing(self._safe(f"the connection broke ({type(error).__name__}: {error})")) from None
        if self._secret is not None:
            raw = raw.replace(self._secret.encode(), self._mask.encode())
        return response.status, response.headers, raw

    @property
    def _secret(self) -> str | None:
        return self._key if self._key is not None and len(self._key) >= SECRET_CHARACTERS else None

    @property
    def _mask(self) -> str:
        return f"[{self.endpoint.api_key_env}]"

    def _safe(self, text: str) -> str:
        return text if self._secret is None else text.replace(self._secret, self._mask)

    def _again(self, what: str) -> TryAgain:
        return TryAgain(
            f"the endpoint of the model {self.name}, {self.url}, does not serve: {what}. Start it, or mend "
            f"run.endpoints.{self.name}, and run this again; what was received is kept."
        )

    async def _models(self) -> tuple[str, ...] | None:
        try:
            status, headers, raw = await self._send("GET", "/models")
        except _Passing as failure:
            raise self._again(failure.text) from None
        if status in (401, 403) or 300 <= status < 400:
            self._refuse(status, headers, raw)
        if status in (502, 503, 504):
            raise self._again(f"HTTP {status}")
        # A server without this list, or one that fails to make it, may serve all the same.
        try:
            return tuple(str(entry["id"]) for entry in orjson.loads(raw)["data"]) if status == 200 else None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def _refuse(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        """Raise what this status means for the whole run, if it means anything."""
        said, code = complaint(raw)
        where = f"{self.url} (HTTP {status}: {said})"
        if status in (401, 403):
            variable = self.endpoint.api_key_env
            key = f"the key in {variable}" if variable else "a request without a key; name its variable in api_key_env"
            raise Refused(f"the endpoint of the model {self.name} denies {key}: {where}")
        if status == 404:
            model = self.format.served.model
            raise Refused(
                f"the endpoint of the model {self.name} knows no model {model!r}, or no such address: {where}. "
                f"`{self.url}/models` lists its models; its address usually ends with /v1."
            )
        if status == 402 or code == "insufficient_quota":
            raise CapReached(f"the account behind the model {self.name} is used up: {where}. What came is kept.")
        if 300 <= status < 400:
            elsewhere = self._safe(headers.get("Location", "nowhere"))
            raise Refused(f"{where} sends us to {elsewhere}; write the address it means into params.yaml")
        if code in UNKNOWN_PARAMETER:
            raise Refused(f"the endpoint of the model {self.name} does not take a parameter it was sent: {where}")

    def _read(self, request: GenerateRequest, status: int, headers: Mapping[str, str], raw: bytes) -> Answer:
        """An HTTP answer as an `Answer`; raises `_Passing` to ask again and `Refused` to end the run."""
        if status != 200:
            self._refuse(status, headers, raw)
            text = f"HTTP {status}: {complaint(raw)[0]}"
            if status in PASSING_STATUS or status >= 500:
                raise _Passing(text, _retry_after(headers), endpoint=status in BUSY_STATUS)
            return Answer(request.request_id, None, "error", error=text)
        try:
            return self.format.answer(request, raw)
        except Unreadable as error:
            raise _Passing(str(error)) from None


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address.

    Asked once, by the standard library: aiohttp's `trust_env` asks it in a thread for every request, and sends
    passwords out of ~/.netrc, which nobody named here.
    """
    parts = urlsplit(url)
    proxy = None if urllib.request.proxy_bypass(parts.netloc) else urllib.request.getproxies().get(parts.scheme)
    if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
        raise Refused(f"{parts.scheme}_proxy names a {urlsplit(proxy).scheme} proxy; only http proxies are understood")
    return proxy


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: a number, or a date; nonsense counts as nothing."""
    asked = headers.get("Retry-After")
    if asked is None:
        return None
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    except ValueError:
        return None
