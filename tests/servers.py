"""An OpenAI-compatible server that fails on request, in a process of its own.

The fault stands in the prompt, before a `|`: `429*2 retry=0.2 | What?` is refused twice and answered the third time;
without a number the fault stays. So each request of a test chooses its own; a server may have `always` some, too.
"""

from __future__ import annotations

import asyncio
import json
import math
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "tiny"
# A model that says how long its context is.
SHORT, SHORT_CONTEXT = "short", 48


def logprob(token: int) -> float:
    """What the model gives every token everywhere: 1/2, 1/4, 1/8, ... for 0, 1, 2, ..."""
    return -math.log(2) * (token + 1)


@dataclass
class Server:
    """A running server; `stats` tells what it was asked."""

    process: subprocess.Popen[str]
    port: int
    certificate: Path | None = None

    @property
    def address(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def stats(self) -> dict[str, Any]:
        trust = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        with urllib.request.urlopen(f"{self.address}/stats", context=trust) as answer:
            return json.load(answer)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(port: int = 0, certificate: Path | None = None, always: str = "") -> Iterator[Server]:
    """A server on loopback, ended with the block; it also ends when this process does.

    `certificate` is a file with its certificate and key, for https.
    """
    command = [sys.executable, __file__, str(port), str(certificate or ""), always]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(process, int(process.stdout.readline()), certificate)
        finally:
            process.kill()


class Faults:
    """The handlers, and what they count."""

    def __init__(self, always: str) -> None:
        self.always = always
        self.attempts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.times: dict[str, list[float]] = defaultdict(list)
        self.bodies: list[dict[str, Any]] = []
        self.now = self.most = self.dropped = 0

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"data": [{"id": MODEL}, {"id": "denied"}, {"id": SHORT, "max_model_len": SHORT_CONTEXT}]}
        )

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response({
            "attempts": self.attempts, "statuses": self.statuses, "times": self.times, "bodies": self.bodies,
            "now": self.now, "most_at_once": self.most, "dropped": self.dropped,
        })  # fmt: skip

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            response = await self._complete(request, await request.json())
            self.statuses[response.status] += 1
            return response
        finally:
            self.now -= 1

    async def _complete(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        # A prompt in tokens is one of the tests' tokenizer, whose tokens are bytes, or of any other.
        prompt = bytes(i % 256 for i in body["prompt"]).decode("utf-8", "replace") if "prompt" in body else None
        prompt = body["messages"][-1]["content"] if prompt is None else prompt
        if isinstance(prompt, list):
            prompt = "".join(part["text"] for part in prompt if part["type"] == "text")
        faults, _, question = prompt.rpartition("|")
        faults = f"{self.always} {faults}"
        self.attempts[prompt] += 1
        self.times[prompt].append(time.monotonic())
        self.bodies.append(body)
        options = dict(word.split("=", 1) for word in faults.split() if "=" in word)
        active = set()
        for word in (w for w in faults.split() if "=" not in w):
            name, _, times = word.partition("*")
            if not times or self.attempts[prompt] <= int(times):
                active.add(name)
        if self.now > int(options.get("room", self.now)):
            active.add("429")
        else:
            await asyncio.sleep(float(options.get("delay", 0)))

        for status in (s for s in active if s.isdigit()):
            key = request.headers.get("Authorization", "")
            error = {"message": f"no ({key})", "code": options.get("code"), "type": "error"}
            headers = {"Retry-After": options["retry"]} if "retry" in options else {}
            return web.json_response({"error": error}, status=int(status), headers=headers)
        if "hang" in active:
            await asyncio.Event().wait()
        raw = json.dumps(self._answer(body, question, active, options, request)).encode()
        if "utf8" in active:
            raw = raw.replace(b"BROKEN", b"\xff\xfe")
        if "surrogate" in active:
            raw = raw.replace(b"BROKEN", b"\\ud800")
        if "truncated" in active:
            raw = raw[: len(raw) // 2]
        if "cut" in active:
            response = web.StreamResponse(headers={"Content-Length": str(len(raw))})
            await response.prepare(request)
            await response.write(raw[: len(raw) // 2])
            assert request.transport is not None
            request.transport.abort()
            return response
        if "drop" in active:
            asyncio.get_running_loop().call_later(0.01, self._drop, request.transport)
        return web.Response(body=raw, content_type="application/json")

    def _drop(self, transport: asyncio.Transport) -> None:
        """Close a connection that is kept alive."""
        transport.abort()
        self.dropped += 1

    def _answer(
        self, body: dict[str, Any], question: str, active: set[str], options: dict[str, str], request: web.Request
    ) -> dict[str, Any]:
        n = body.get("n", 1)
        choices = [self._choice(body, question.strip(), number, active, options, request) for number in range(n)]
        if "shuffled" in active:
            choices.reverse()
        if "few" in active:
            choices.pop()
        if "twins" in active:
            choices[-1]["index"] = 0
        answer = {
            "model": "other" if "model" in active else body["model"],
            "choices": [] if "choices" in active else choices,
            "usage": {"prompt_tokens": 10, "completion_tokens": 2 * n},
        }
        if "usage" in active:
            del answer["usage"]
        if "print" in options:
            answer["system_fingerprint"] = options["print"]
        return answer

    def _choice(
        self,
        body: dict[str, Any],
        question: str,
        number: int,
        active: set[str],
        options: dict[str, str],
        request: web.Request,
    ) -> dict[str, Any]:
        content: str | None = f"{question} -> {body.get('seed')}" + (f".{number}" if number else "")
        message: dict[str, Any] = {"role": "assistant"}
        if "says" in options:
            content = options["says"]
        if "empty" in active:
            content = None
        if "think" in active:
            content = f"<think>\nI wonder.\n</think>\n\n{content}"
        if "megabyte" in active:
            content = "é" * (1 << 19)
        if active & {"utf8", "surrogate"}:
            content = "BROKEN"
        if "echo" in active:
            content = request.headers.get("Authorization")
        for name in active & {"reasoning", "reasoning_content", "thinking"}:
            message[name] = "I wonder."
        choice: dict[str, Any] = {"index": number, "finish_reason": options.get("finish", "stop")}
        tokens = [5, 6]
        if "prompt" in body:
            choice["text"] = content
            listed: dict[str, Any] = {"token_logprobs": [logprob(token) for token in tokens]}
            if "prompt_logprobs" in body and "prompt_logprobs" not in active:
                choice["prompt_logprobs"] = [None, *(_likely(t, body["prompt_logprobs"]) for t in body["prompt"][1:])]
        else:
            image = [{"type": "image_url", "image_url": {"url": "x"}}]
            choice["message"] = {**message, "content": image if "image" in active else content}
            listed = {"content": [{"token": str(token), "logprob": logprob(token)} for token in tokens]}
        if body.get("logprobs") and "logprobs" not in active:
            choice["logprobs"] = listed
        if body.get("return_token_ids") and "ids" not in active:
            choice["token_ids"] = tokens
        return choice


def _likely(token: int, k: int) -> dict[str, Any]:
    """The k likeliest tokens of a position, and its own where it is none of them, in no order."""
    return {str(t): {"logprob": logprob(t), "rank": t + 1, "decoded_token": ""} for t in {token, *range(k)}}


async def serve(app: web.Application, port: int = 0, secure: ssl.SSLContext | None = None) -> None:
    """Serve on loopback until the standard input ends; the first line printed is the port."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=secure).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def main(port: int, certificate: str, always: str) -> None:
    """Serve the faults, over TLS if there is a certificate."""
    faults = Faults(always)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_get("/v1/models", faults.models)
    app.router.add_get("/stats", faults.stats)
    app.router.add_post("/v1/chat/completions", faults.complete)
    app.router.add_post("/v1/completions", faults.complete)
    secure = None
    if certificate:
        secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        secure.load_cert_chain(certificate)
    await serve(app, port, secure)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:]))
