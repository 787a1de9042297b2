"""A server that speaks OpenAI's batch API and fails on request, in a process of its own.

Faults of a line stand in its prompt before a `|`, as in `tests/servers.py`: `missing*1 | What?` lacks its line in the
first batch that asks it. Faults of a batch stand in any prompt of it. `hold` makes the server answer no request to one
place any more, which is where a test then kills whoever asked.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.servers import serve

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
        return self._ask("stats")

    def hold(self, place: str) -> None:
        """Answer no request to a place, such as `POST /batches after`: when it is done, or `before` it is."""
        self._ask(f"hold?place={place.replace(' ', '+')}")

    def held(self) -> None:
        """Wait until a request is held."""
        self._ask("held")

    def release(self) -> None:
        self._ask("hold?place=")

    def reset(self) -> None:
        """Forget everything, as a new server."""
        self._ask("reset")

    def _ask(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=60) as answer:
            return json.load(answer)


@contextmanager
def serving() -> Iterator[Server]:
    """A server on loopback, ended with the block; it also ends when this process does."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.batch_server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Server(process, int(process.stdout.readline()))
        finally:
            process.kill()


class Provider:
    """Files and batches, and what was asked about them."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.exchanges: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.fetched: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.place = ""
        self.holding = asyncio.Event()

    @web.middleware
    async def watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if not request.path.startswith("/v1"):
            return await handler(request)
        # `/v1/batches/batch-0` is the place `GET /batches/`.
        parts = request.path.removeprefix("/v1").split("/")
        place = f"{request.method} /{parts[1]}" + ("/" if len(parts) > 2 else "")
        self.exchanges[place] += 1
        if self.place == f"{place} before":
            await self._hold()
        answer = await handler(request)
        if self.place == f"{place} after":
            await self._hold()
        return answer

    async def _hold(self) -> None:
        self.holding.set()
        await asyncio.Event().wait()

    async def hold(self, request: web.Request) -> web.Response:
        self.place = request.query["place"]
        self.holding.clear()
        return web.json_response({})

    async def reset(self, request: web.Request) -> web.Response:
        self.forget()
        return web.json_response({})

    async def held(self, request: web.Request) -> web.Response:
        await self.holding.wait()
        return web.json_response({})

    async def stats(self, request: web.Request) -> web.Response:
        batches = [{**b, "requests": len(self._requests(b))} for b in self.batches.values()]
        return web.json_response(
            {"exchanges": self.exchanges, "files": len(self.files), "batches": batches, "bodies": self.bodies}
        )

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file = form["file"]
        assert form["purpose"] == "batch"
        assert isinstance(file, web.FileField)
        key = f"file-{len(self.files)}"
        self.files[key] = (file.filename, file.file.read())
        if b"unpaid" in self.files[key][1]:
            return web.json_response({"error": {"message": "no money"}}, status=402)
        if b"lost*1" in self.files[key][1] and len(self.files) == 1:
            return web.json_response({"error": {"message": "oops"}}, status=500)
        return web.json_response({"id": key, "filename": file.filename})

    async def list_files(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": k, "filename": name} for k, (name, _) in self.files.items()][::-1]})

    async def create(self, request: web.Request) -> web.Response:
        order = await request.json()
        key = f"batch-{len(self.batches)}"
        self.batches[key] = {"id": key, "status": "validating", "polls": 0, **order}
        self.bodies += [line["body"] for line in self._requests(self.batches[key])]
        return web.json_response(self.batches[key])

    async def list_batches(self, request: web.Request) -> web.Response:
        """One batch a page, newest first."""
        keys = list(self.batches)[::-1]
        after = request.query.get("after")
        left = keys[keys.index(after) + 1 :] if after else keys
        return web.json_response({"data": [self.batches[k] for k in left[:1]], "has_more": len(left) > 1})

    async def batch(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["key"])
        if batch is None:
            return web.json_response({"error": {"message": "no such batch"}}, status=404)
        batch["polls"] += 1
        lines = self._requests(batch)
        if batch["polls"] == 2:
            batch["status"] = "in_progress"
            batch["request_counts"] = {"total": len(lines), "completed": len(lines) // 2, "failed": 0}
        if batch["polls"] == 3:
            self._end(batch, lines)
        return web.json_response(batch)

    async def content(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        name, raw = self.files[key]
        self.fetched[key] += 1
        if b"torn*1" in self.files[name][1] and self.fetched[key] == 1:
            raw = raw[: len(raw) // 2]
        return web.Response(body=raw)

    def _requests(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[batch["input_file_id"]][1].splitlines()]

    def _end(self, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Answer all lines, backwards; requests without a fault are finished even where the batch is not."""
        good, bad, status = [], [], "completed"
        for line in lines[::-1]:
            prompt = line["body"]["messages"][-1]["content"]
            self.lines[prompt] += 1
            active = set()
            for word in prompt.rpartition("|")[0].split():
                name, _, times = word.partition("*")
                if not times or self.lines[prompt] <= int(times):
                    active.add(name)
            if ends := active & {"expired", "failed", "cancelled", "exploded"}:
                [status] = ends
                error = {"code": f"batch_{status}", "message": f"it was {status}"}
                bad.append(json.dumps({"custom_id": line["custom_id"], "response": None, "error": error}))
            elif codes := [word for word in active if word.isdigit()]:
                body = {"error": {"message": f"no ({codes[0]})"}}
                response = {"status_code": int(codes[0]), "body": body}
                bad.append(json.dumps({"custom_id": line["custom_id"], "response": response, "error": None}))
            else:
                good += _answer(line, prompt.rpartition("|")[2].strip(), active)
        batch["status"] = status
        if status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "limit", "message": "too much is enqueued"}]}
            return
        for name, answers in (("output_file_id", good), ("error_file_id", bad)):
            if answers:
                batch[name] = f"{batch['id']}-{name}"
                self.files[batch[name]] = (batch["input_file_id"], "".join(a + "\n" for a in answers).encode())


def _answer(line: dict[str, Any], question: str, active: set[str]) -> list[str]:
    """The lines for one answered request: none, one or more."""
    body = line["body"]
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": "stop",
        "message": {"role": "assistant", "content": f"{question} -> {body['seed']}"},
    }
    if body.get("logprobs") and "logprobs" not in active:
        choice["logprobs"] = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}
    answer: dict[str, Any] = {"model": "other" if "model" in active else body["model"], "choices": [choice]}
    if "usage" not in active:
        answer["usage"] = {"prompt_tokens": 10, "completion_tokens": 2}
    if "choices" in active:
        answer["choices"] = []
    custom = "nobody asked" if "unknown" in active else line["custom_id"]
    status = "fine" if "codeless" in active else 200
    text = json.dumps({"custom_id": custom, "response": {"status_code": status, "body": answer}, "error": None})
    if "missing" in active:
        return []
    if "surrogate" in active:
        return [text.replace(" -> ", " \\ud800 ")]
    if "broken" in active:
        return [text[:-9]]
    if "duplicate" in active:
        return [text, text.replace(" -> ", " -> again ")]
    return [text]


async def main() -> None:
    """Serve a provider that has no batch yet."""
    provider = Provider()
    app = web.Application(client_max_size=1 << 28, middlewares=[provider.watch])
    app.router.add_get("/stats", provider.stats)
    app.router.add_get("/hold", provider.hold)
    app.router.add_get("/held", provider.held)
    app.router.add_get("/reset", provider.reset)
    app.router.add_post("/v1/files", provider.upload)
    app.router.add_get("/v1/files", provider.list_files)
    app.router.add_get("/v1/files/{key}/content", provider.content)
    app.router.add_post("/v1/batches", provider.create)
    app.router.add_get("/v1/batches", provider.list_batches)
    app.router.add_get("/v1/batches/{key}", provider.batch)
    await serve(app)


if __name__ == "__main__":
    asyncio.run(main())
