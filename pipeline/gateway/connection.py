"""One address over HTTP: its key, certificates and proxy, its private event loop, and what its refusals mean.

The loop runs only while the caller waits for it, in the caller's own thread.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import ssl
import threading
import time
import urllib.request
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from pipeline.core.methods import lazy
from pipeline.core.settings import Endpoint
from pipeline.errors import CapReached, Refused, TryAgain
from pipeline.gateway.completions import complaint

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")


T = TypeVar("T")
PASSING_STATUS = frozenset({408, 409, 425, 429})
BUSY_STATUS = frozenset({429, 503})
UNKNOWN_PARAMETER = frozenset({"unsupported_parameter", "unsupported_value", "unknown_parameter"})
CONNECT_S = 15.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
# An endpoint that asks for a longer pause than this is not waited for: the run ends, to be started again.
LONGEST_PAUSE_S = 900.0
# A shorter key is no secret ("EMPTY", "token-abc"), and hiding it would spoil every text that holds the word.
SECRET_CHARACTERS = 12


class Passing(Exception):
    """A failure that may pass: asked again after `wait_s`, or after a growing pause.

    `endpoint` tells that it is the endpoint's and not this request's: when it does not pass, no row can be blamed.
    `busy` tells that it is sent too much at once, `billed` that the server may have answered, and bills it.
    """

    def __init__(
        self,
        text: str,
        wait_s: float | None = None,
        *,
        endpoint: bool = False,
        busy: bool = False,
        billed: bool = False,
    ) -> None:
        super().__init__(text)
        self.text, self.wait_s, self.endpoint, self.busy, self.billed = text, wait_s, endpoint, busy, billed


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer, with no key in it."""

    status: int
    headers: Mapping[str, str]
    raw: bytes


class Connection:
    """What is needed to send requests to one address of an endpoint, the first unless another is told; `name` is the
    model's instance, `model` its name there."""

    def __init__(self, name: str, endpoint: Endpoint, model: str, url: str = "") -> None:
        self.name, self.endpoint, self.model = name, endpoint, model
        self.url = (url or endpoint.addresses[0]).rstrip("/").removesuffix("/completions").removesuffix("/chat")
        self._key = self._key_of(endpoint)
        self._proxy = _proxy_for(self.url)
        self._tls = _certificates() if self.url.startswith("https:") else None

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

    def open(self, beside: Connection | None = None) -> None:
        """Make the session, and a loop unless one is shared with another; nothing is sent yet."""
        self._owns = beside is None
        self.loop: asyncio.AbstractEventLoop = asyncio.new_event_loop() if beside is None else beside.loop
        self._session = self.do(self._opened())

    def close(self) -> None:
        """End all that runs. A caller that failed amid the answers has left its requests running."""
        self.do(self._closed(asyncio.all_tasks(self.loop)))
        if not self._owns:
            return
        self.do(self.loop.shutdown_default_executor())
        self.loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, however often others stop the loop meanwhile."""
        task = self.loop.create_task(work)
        task.add_done_callback(lambda _: self.loop.stop())
        while not task.done():
            self.run()
        return task.result()

    def run(self) -> None:
        """Run the loop until something stops it. Ctrl-C stops it too and is raised here: raised wherever the loop
        happens to be, it would end one task, or be lost in a finalizer."""
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
            self.loop.run_forever()
            return
        interrupted = False

        def interrupt(*_: object) -> None:
            nonlocal interrupted
            interrupted = True
            self.loop.call_soon_threadsafe(self.loop.stop)

        signal.signal(signal.SIGINT, interrupt)
        try:
            self.loop.run_forever()
        finally:
            signal.signal(signal.SIGINT, before)
        if interrupted:
            raise KeyboardInterrupt

    async def _opened(self) -> aiohttp.ClientSession:
        headers = {"Content-Type": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        return aiohttp.ClientSession(
            # How many are in flight, and for how long, is the caller's to say.
            connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(self.endpoint.timeout_s, CONNECT_S)),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            proxy=self._proxy,
        )

    async def _closed(self, left: set[asyncio.Task[Any]]) -> None:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()

    async def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One exchange, however long it takes; every failure of the transport is a `Passing`."""
        try:
            async with self._session.request(
                method, self.url + path, data=body, headers=headers, allow_redirects=False
            ) as response:
                raw = await response.read()
        except aiohttp.ConnectionTimeoutError:
            raise Passing("no connection in time", endpoint=True) from None
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise Refused(self.safe(f"{self.url} cannot be used: {error}{_tls_advice(error)}")) from None
        except aiohttp.ClientConnectorError as error:
            raise Passing(self.safe(f"no connection ({error})"), endpoint=True) from None
        except aiohttp.ClientError as error:
            text = self.safe(f"the connection broke ({type(error).__name__}: {error})")
            raise Passing(text, billed=True) from None
        if self._secret is not None:
            raw = raw.replace(self._secret.encode(), self._mask.encode())
        return Reply(response.status, response.headers, raw)

    def exchange(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """One exchange, waited for at most `timeout_s`."""

        async def within() -> Reply:
            async with asyncio.timeout(self.endpoint.timeout_s):
                return await self.send(method, path, body, headers)

        try:
            return self.do(within())
        except TimeoutError:
            raise self.late() from None

    def late(self) -> Passing:
        """The failure of an exchange that took too long."""
        return Passing(f"no answer within {self.endpoint.timeout_s:g} s", billed=True)

    @property
    def _secret(self) -> str | None:
        return self._key if self._key is not None and len(self._key) >= SECRET_CHARACTERS else None

    @property
    def _mask(self) -> str:
        return f"[{self.endpoint.api_key_env}]"

    def safe(self, text: str) -> str:
        """A text without the key."""
        return text if self._secret is None else text.replace(self._secret, self._mask)

    def again(self, what: str) -> TryAgain:
        """The error of an endpoint that does not serve."""
        return TryAgain(
            f"the endpoint of the model {self.name}, {self.url}, does not serve: {what}. Start it, or mend "
            f"run.endpoints.{self.name}, and run this again; what was received is kept."
        )

    def check(self, reply: Reply) -> str | None:
        """None for a good reply, or what this request did wrong; raises `Passing`, and `Refused` for the whole run."""
        if reply.status == 200:
            return None
        self.refuse(reply)
        text = f"HTTP {reply.status}: {complaint(reply.raw)[0]}"
        if reply.status in PASSING_STATUS or reply.status >= 500:
            busy = reply.status in BUSY_STATUS
            raise Passing(text, retry_after(reply.headers), endpoint=busy, busy=busy)
        return text

    def refuse(self, reply: Reply) -> None:
        """Raise what this status means for the whole run, if it means anything."""
        status, (said, code) = reply.status, complaint(reply.raw)
        where = f"{self.url} (HTTP {status}: {said})"
        if status in (401, 403):
            variable = self.endpoint.api_key_env
            key = f"the key in {variable}" if variable else "a request without a key; name its variable in api_key_env"
            raise Refused(f"the endpoint of the model {self.name} denies {key}: {where}")
        if status == 404:
            raise Refused(
                f"the endpoint of the model {self.name} knows no model {self.model!r}, or no such address: {where}. "
                f"`{self.url}/models` lists its models; its address usually ends with /v1."
            )
        if status == 402 or code == "insufficient_quota":
            raise CapReached(f"the account behind the model {self.name} is used up: {where}. What came is kept.")
        if 300 <= status < 400:
            elsewhere = self.safe(reply.headers.get("Location", "nowhere"))
            raise Refused(f"{where} redirects to {elsewhere}; write that address into params.yaml")
        if code in UNKNOWN_PARAMETER:
            raise Refused(f"the endpoint of the model {self.name} does not take a parameter it was sent: {where}")


def _certificates() -> ssl.SSLContext:
    """Whom to trust: the system, or what SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE name.

    Made anew for each endpoint: aiohttp makes its own once, when it is imported, and knows only the first two.
    """
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        named = os.environ.get(variable)
        # OpenSSL passes over what is missing, and then trusts nobody.
        if named and not Path(named).exists():
            raise Refused(f"the environment variable {variable} names {named}, which does not exist")
    context = ssl.create_default_context()
    if bundle := os.environ.get("REQUESTS_CA_BUNDLE"):
        folder = Path(bundle).is_dir()
        context.load_verify_locations(cafile=None if folder else bundle, capath=bundle if folder else None)
    return context


def _tls_advice(error: Exception) -> str:
    if not isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ""
    return ". Name the file of the authority that signed its certificate in the environment variable SSL_CERT_FILE"


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


def backoff(tries: int) -> float:
    """Seconds to wait after this many failures in a row; never the same for two who failed together."""
    return min(LONGEST_BACKOFF_S, BACKOFF_S * 2 ** min(tries, 16)) * (0.5 + random.random() / 2)


def retry_after(headers: Mapping[str, str]) -> float | None:
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
