"""A deterministic chat server for the faults: an answer depends on its request's body alone.

It writes down every request before anything else happens to it, in a file that outlives both sides, and counts by
body. Its orders say what goes wrong, for which share of the bodies and how often; they can be changed while it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODEL = "tiny"
PROMPT_TOKENS, COMPLETION_TOKENS = 10, 6
TOKENS = PROMPT_TOKENS + COMPLETION_TOKENS
# Faults of an answer that was made all the same.
LOST = ("hang", "cut", "truncated", "choices")


@dataclass
class Server:
    """The server as its test sees it. It can be killed and started again at the same port, with the same count."""

    book: Path
    port: int = 0
    orders: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [sys.executable, "-S", "-E", __file__, str(self.port), str(self.book), json.dumps(self.orders)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def wait_dead(self) -> None:
        assert self.process is not None
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    def kill(self) -> None:
        """End it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.wait_dead()

    def order(self, **orders: Any) -> None:
        """Replace the orders, also of a later start."""
        self.orders = orders
        self._call("/orders", json.dumps(orders).encode())

    def settle(self) -> None:
        """Wait until everybody else has hung up: all that was sent is in the book then."""
        self._call("/settle")

    def until_given(self, number: int) -> None:
        """Wait until this life of the server has given so many answers."""
        self._call(f"/given/{number}")

    def _call(self, path: str, body: bytes | None = None) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", body, timeout=60):
            pass

    def asked(self) -> Counter[str]:
        """How often each body was asked, in all lives of the server."""
        return Counter(line.split()[1] for line in self._lines() if line.startswith("asked"))

    def given(self) -> Counter[str]:
        """How often each body was answered well."""
        return Counter(line.split()[1] for line in self._lines() if line.startswith("given"))

    def tokens(self) -> int:
        """What the server would bill: all that it answered, whether that arrived or not."""
        return sum(line.startswith(("given", "lost")) for line in self._lines()) * TOKENS

    def _lines(self) -> list[str]:
        return self.book.read_text("ascii").splitlines() if self.book.exists() else []


@contextmanager
def serving(book: Path, **orders: Any) -> Iterator[Server]:
    """A running server, ended with the block."""
    server = Server(book, orders=orders)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Faults:
    """The server's inside. Orders:

    fault, share, times, retry_after: what the first `times` askings of a share of the bodies meet.
    storm: [from, to], the numbers of the requests that meet the fault instead, whatever they ask.
    odd, share: what the content of a share of the bodies is, always.
    shoot: [pid, signal, n, when]: the signal to a process `before` or `after` the n-th answer is sent.
    hold_at: give no more than so many answers until there are other orders.
    die_every: kill itself at every so many requests.
    """

    def __init__(self, book: Path, orders: dict[str, Any]) -> None:
        before = book.read_text("ascii").split("\n") if book.exists() else []
        self.attempts = Counter(line.split()[1] for line in before if line.startswith("asked"))
        self.book = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.orders = orders
        self.open = self.given = self.received = 0
        self.changed = asyncio.Condition()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = next((int(h[15:]) for h in head.split("\r\n") if h.lower().startswith("content-length:")), 0)
                await self.respond(head.split()[1], await reader.readexactly(length), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            self.open -= 1
            await self.tell()

    async def tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, true: Any) -> None:
        async with self.changed:
            await self.changed.wait_for(true)

    async def respond(self, path: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if path.endswith("/chat/completions"):
            await self.chat(body, reader, writer)
            return
        if path == "/orders":
            self.orders = json.loads(body)
            await self.tell()
        elif path == "/settle":
            await self.until(lambda: self.open == 1)
        elif path.startswith("/given/"):
            await self.until(lambda: self.given >= int(path[7:]))
        await send(writer, json.dumps({"data": [{"id": MODEL}]}).encode())

    async def chat(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        digest = hashlib.blake2b(body, digest_size=8).hexdigest()
        os.write(self.book, f"asked {digest}\n".encode())
        self.attempts[digest] += 1
        self.received += 1
        orders, turn = self.orders, self.received
        if turn == orders.get("die_every"):
            os.kill(os.getpid(), signal.SIGKILL)
        number = int(digest, 16)
        # Answers arrive in another order than they were asked for.
        await asyncio.sleep(number % 7 / 1000)
        chosen = number / 2**64 < orders.get("share", 1.0)
        due = chosen and self.attempts[digest] <= orders.get("times", 1)
        if "storm" in orders:
            due = orders["storm"][0] <= turn < orders["storm"][1]
        fault = orders.get("fault") if due else None
        if fault is not None and fault.isdigit():
            extra = f"Retry-After: {orders['retry_after']}\r\n" if "retry_after" in orders else ""
            await send(writer, b'{"error": {"message": "no"}}', fault, extra)
            return
        if fault in LOST:
            os.write(self.book, f"lost {digest}\n".encode())
        if fault == "hang":
            # Until the other side hangs up.
            await reader.readexactly(1)
        raw = answer(digest, json.loads(body).get("n", 1), orders.get("odd") if chosen else None, fault)
        if fault == "cut":
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw[:20])
            writer.transport.abort()
            return
        if fault in ("truncated", "choices"):
            await send(writer, raw[: len(raw) // 2] if fault == "truncated" else raw)
            return
        await self.until(lambda: self.given < self.orders.get("hold_at", math.inf))
        self.given += 1
        shot = orders.get("shoot")
        hit = shot is not None and shot[2] == self.given
        if hit and shot[3] == "before":
            os.kill(shot[0], shot[1])
        os.write(self.book, f"given {digest}\n".encode())
        # Twice the same answer, in one piece.
        await send(writer, raw, again=fault == "twice")
        if hit and shot[3] == "after":
            os.kill(shot[0], shot[1])
        await self.tell()


def answer(digest: str, n: int, odd: str | None, fault: str | None) -> bytes:
    """The JSON of an answer; all of it but what is wrong with it comes from the body's digest."""
    contents = {"empty": "", "megabyte": "é" * (1 << 19), "null": None}
    choices = []
    for index in range(2 if odd == "two_choices" else n):
        message = {"role": "assistant", "content": contents.get(odd or "", f"answer {index} of {digest} BROKEN")}
        choices.append({"index": index, "message": message, "finish_reason": "stop"})
    content = {
        # A server's own id says nothing about which request it answers: it is another one every time.
        "id": f"chatcmpl-{time.monotonic_ns()}",
        "model": "another" if fault == "model" else MODEL,
        "choices": [] if fault == "choices" else choices,
        "usage": {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS},
    }
    raw = json.dumps(content).encode()
    return raw.replace(b"BROKEN", b"\xff\xfe" if odd == "utf8" else b"\\ud800" if odd == "surrogate" else b"whole")


async def send(
    writer: asyncio.StreamWriter, raw: bytes, status: str = "200", extra: str = "", *, again: bool = False
) -> None:
    head = f"HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(raw)}\r\n\r\n"
    writer.write((head.encode() + raw) * (2 if again else 1))
    await writer.drain()


async def main(port: int, book: Path, orders: dict[str, Any]) -> None:
    """Serve until the standard input ends; the first line printed is the port."""
    server = await asyncio.start_server(Faults(book, orders).connection, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await ended.wait()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])))
