"""An OpenAI-compatible server that fails on request, in a process of its own.

The fault stands in the prompt, before a `|`: `429*2 retry=0.2 | What?` is refused twice and answered the third time;
without a number the fault stays. So each request of a test chooses its own, and the server needs no other control.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

MODEL = "tiny"


@dataclass
class Server:
    """A running server; `stats` tells what it was asked."""

    process: subprocess.Popen[str]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats") as answer:
            return json.load(answer)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    """A server on loopback, ended with the block; it also ends when this process does."""
    command = [sys.executable, __file__, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.kill()


class Faults:
    """The handlers, and what they count."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self.times: dict[str, list[float]] = defaultdict(list)
        self.bodies: list[dict[str, Any]] = []
        self.now = self.most = 0

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": MODEL}, {"id": "denied"}]})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"attempts": self.attempts, "times": self.times, "bodies": self.bodies, "most_at_once": self.most}
        )

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await self._chat(request, await request.json())
        finally:
            self.now -= 1

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        prompt = body["messages"][-1]["content"]
        faults, _, question = prompt.rpartition("|")
        self.attempts[prompt] += 1
        self.times[prompt].append(time.monotonic())
        self.bodies.append(body)
        options = dict(word.split("=", 1) for word in faults.split() if "=" in word)
        active = set()
        for word in (w for w in faults.split() if "=" not in w):
            name, _, times = word.partition("*")
            if not times or self.attempts[prompt] <= int(times):
                active.add(name)
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
        return web.Response(body=raw, content_type="application/json")

    def _answer(
        self, body: dict[str, Any], question: str, active: set[str], options: dict[str, str], request: web.Request
    ) -> dict[str, Any]:
        content: str | None = f"{question.strip()} -> {body['seed']}"
        message: dict[str, Any] = {"role": "assistant"}
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
        choice: dict[str, Any] = {"index": 0, "message": {**message, "content": content}}
        choice["finish_reason"] = options.get("finish", "stop")
        if body.get("logprobs") and "logprobs" not in active:
            choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}
        if body.get("return_token_ids") and "ids" not in active:
            choice["token_ids"] = [5, 6]
        return {
            "model": "other" if "model" in active else body["model"],
            "choices": [] if "choices" in active else [choice],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2},
        }


async def main(port: int) -> None:
    """Serve until the standard input ends; the first line printed is the port."""
    faults = Faults()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_get("/v1/models", faults.models)
    app.router.add_get("/stats", faults.stats)
    app.router.add_post("/v1/chat/completions", faults.chat)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
