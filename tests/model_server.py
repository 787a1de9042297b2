"""An OpenAI-compatible server around a model folder, in a process of its own: small, and true to its parameters.

It draws every choice with a seed of its own, so equal requests have equal answers, and counts what it was asked.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from pipeline.core.run import How
from pipeline.core.settings import RunSettings
from pipeline.kinds.backend import Answer, Backend, GenerateRequest, Sampling, open_model
from pipeline.model.folder import finish
from pipeline.tables import ids
from tests.servers import serve


@dataclass(frozen=True)
class ModelServer:
    """A running server; `choices` tells how many answers it gave to each model name."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def choices(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/choices") as answer:
            return json.load(answer)


@contextmanager
def serving(folder: Path) -> Iterator[ModelServer]:
    """A server on loopback, ended with the block; it also ends when this process does."""
    command = [sys.executable, "-m", "tests.model_server", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield ModelServer(int(process.stdout.readline()))
        finally:
            process.kill()


class Handlers:
    """What the server does with an opened model; requests that wait are answered in one batch."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.given: dict[str, int] = {}
        self.waiting: list[tuple[dict[str, Any], asyncio.Future[list[Answer]]]] = []

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": []})

    async def choices(self, request: web.Request) -> web.Response:
        return web.json_response(self.given)

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[list[Answer]] = loop.create_future()
        self.waiting.append((body, answered))
        if len(self.waiting) == 1:
            loop.call_later(0.005, self._answer)
        answers = await answered
        self.given[body["model"]] = self.given.get(body["model"], 0) + len(answers)
        choices = [self._choice(i, answer, body) for i, answer in enumerate(answers)]
        tokens = sum(answer.completion_tokens or 0 for answer in answers)
        usage = {"prompt_tokens": answers[0].prompt_tokens, "completion_tokens": tokens}
        return web.json_response({"model": body["model"], "choices": choices, "usage": usage})

    def _answer(self) -> None:
        """Answer all that waits."""
        batches: dict[Sampling, list[GenerateRequest]] = defaultdict(list)
        for place, (body, _) in enumerate(self.waiting):
            sampling = Sampling(
                body.get("temperature", 1.0),
                body.get("top_p", 1.0),
                body.get("max_tokens", 64),
                tuple(body.get("stop", ())),
            )
            messages, prompt = body["messages"], ids.prompt_id(body["messages"])
            for i in range(body.get("n", 1)):
                seed = ids.seed_of(body.get("seed", 0), "choice", i)
                batches[sampling].append(GenerateRequest(f"{place}/{i}", prompt, messages, i, seed))
        found = {a.request_id: a for s, asked in batches.items() for a in self.backend.generate(asked, s)}
        for place, (body, answered) in enumerate(self.waiting):
            answered.set_result([found[f"{place}/{i}"] for i in range(body.get("n", 1))])
        self.waiting.clear()

    def _choice(self, index: int, answer: Answer, body: dict[str, Any]) -> dict[str, Any]:
        message = {"role": "assistant", "content": answer.content}
        choice: dict[str, Any] = {"index": index, "message": message, "finish_reason": answer.finish_reason}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [{"token": "", "logprob": value} for value in answer.logprobs or []]}
        if body.get("return_token_ids"):
            choice["token_ids"] = answer.token_ids
        return choice


async def main(folder: Path) -> None:
    """Serve the model of a transformers folder."""
    (folder / "model.json").write_text(json.dumps(finish(folder, "float32")), "utf-8")
    with open_model(folder, How(RunSettings(device="cpu"), folder, "server")) as backend:
        handlers = Handlers(backend)
        app = web.Application()
        app.router.add_get("/v1/models", handlers.models)
        app.router.add_get("/choices", handlers.choices)
        app.router.add_post("/v1/chat/completions", handlers.chat)
        await serve(app)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
