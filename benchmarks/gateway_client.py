"""One client of gateway.py, in a process of its own: asks for a number of answers, says what it spent on that.

    python benchmarks/gateway_client.py METHOD URL ROWS [BATCH]

Only the standard library is imported here: the methods live in different environments. A method imports what it needs
and returns its work, so that imports are not counted in what it prints; gateway.py counts the whole process.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

# Curator looks up prices and limits by this name.
MODEL = "gpt-4o-mini"
CONTENT = "The answer is 42. #### 42"
IN_FLIGHT = 64
Work = Callable[[], list[str]]


def prompt(number: int) -> str:
    """The question of a row."""
    return f"Problem {number}: what is {number} + {number * 7 % 13}? Explain step by step and give the final answer."


def raw(url: str, rows: int) -> Work:
    """The same bytes over and over, answers only counted: what the server can do at the least."""
    place = urlsplit(url)
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": prompt(0)}]}).encode()
    head = f"POST {place.path}/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body

    def work() -> list[str]:
        waiting, asked = selectors.DefaultSelector(), 0
        contents: list[str] = []
        for _ in range(min(IN_FLIGHT, rows)):
            link = socket.create_connection((place.hostname, place.port))
            waiting.register(link, selectors.EVENT_READ, link)
            link.sendall(request)
            asked += 1
        while len(contents) < rows:
            for key, _ in waiting.select():
                # An answer this short comes in one piece.
                contents.append(
                    json.loads(key.data.recv(4096).partition(b"\r\n\r\n")[2])["choices"][0]["message"]["content"]
                )
                if asked < rows:
                    key.data.sendall(request)
                    asked += 1
        return contents

    return work


async def _in_flight(rows: int, ask: Callable[[str], Awaitable[str]]) -> list[str]:
    """The contents of all rows, so many requests in flight."""
    numbers = iter(range(rows))
    contents: list[str] = []

    async def worker() -> None:
        for number in numbers:
            contents.append(await ask(prompt(number)))

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return contents


def bare(url: str, rows: int) -> Work:
    """aiohttp and orjson and nothing else: no key, no memo, no table."""
    import aiohttp
    import orjson

    async def run() -> list[str]:
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT), headers=headers) as session:

            async def ask(text: str) -> str:
                body = {"model": MODEL, "temperature": 0.7, "messages": [{"role": "user", "content": text}]}
                async with session.post(f"{url}/chat/completions", data=orjson.dumps(body)) as answer:
                    return orjson.loads(await answer.read())["choices"][0]["message"]["content"]

            return await _in_flight(rows, ask)

    return lambda: asyncio.run(run())


def openai(url: str, rows: int) -> Work:
    """AsyncOpenAI, one client, nothing kept."""
    from openai import AsyncOpenAI

    async def run() -> list[str]:
        async with AsyncOpenAI(base_url=url, api_key="none") as client:

            async def ask(text: str) -> str:
                answer = await client.chat.completions.create(
                    model=MODEL, temperature=0.7, messages=[{"role": "user", "content": text}]
                )
                return answer.choices[0].message.content or ""

            return await _in_flight(rows, ask)

    return lambda: asyncio.run(run())


def ours(url: str, rows: int) -> Work:
    """The stage `generate` as the driver runs it, in a workspace that gateway.py has prepared: the current folder."""
    import aiohttp  # noqa: F401  the backend takes it when it first asks
    import pandas  # noqa: F401  pyarrow takes it when it first makes an array, where it is installed
    import pyarrow.parquet as pq

    from pipeline.backends import http  # noqa: F401
    from pipeline.core.driver import run_instance
    from pipeline.plan.resolve import load as plan_load
    from pipeline.plan.resolve import resolve

    resolved = resolve(plan_load(Path("params.yaml")), only="generate@teacher")

    def work() -> list[str]:
        run_instance(resolved.instances["generate@teacher"], resolved.settings, Path("data"), Path())
        files = Path("data/responses/train/teacher").glob("*.parquet")
        return [text for file in files for text in pq.ParquetFile(file).read(["content"])["content"].to_pylist()]

    return work


def distilabel(url: str, rows: int, batch: int) -> Work:
    """distilabel's TextGeneration with its OpenAILLM."""
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    def work() -> list[str]:
        data = [{"instruction": prompt(number)} for number in range(rows)]
        with Pipeline(name="gateway") as pipeline:
            load = LoadDataFromDicts(data=data, batch_size=batch)
            model = OpenAILLM(model=MODEL, base_url=url, api_key="none")
            load >> TextGeneration(llm=model, input_batch_size=batch)
        return list(pipeline.run(use_cache=False)["default"]["train"]["generation"])

    return work


def curator(url: str, rows: int) -> Work:
    """Curator with its cache on, twice our requests in flight, and no limit of its own."""
    os.environ.update(
        OPENAI_API_KEY="none", TELEMETRY_ENABLED="0", CURATOR_DISABLE_RICH_DISPLAY="1", CURATOR_DISABLE_CACHE="0",
        CURATOR_CACHE_DIR=tempfile.mkdtemp(dir="."),
    )  # fmt: skip
    import tiktoken

    # tiktoken fetches its tables from elsewhere; bytes as tokens cost less than they do.
    pieces = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=r"\w+|[^\w\s]+|\s+", mergeable_ranks=pieces, special_tokens={})
    tiktoken.get_encoding = tiktoken.encoding_for_model = lambda name: encoding
    from bespokelabs import curator as bespoke
    from datasets import Dataset

    class Asked(bespoke.LLM):
        def prompt(self, row: dict) -> str:
            return row["instruction"]

        def parse(self, row: dict, response: str) -> dict:
            return {"instruction": row["instruction"], "generation": response}

    parameters = {
        "base_url": f"{url}/chat/completions", "max_requests_per_minute": 10**7, "max_tokens_per_minute": 10**10,
        "max_concurrent_requests": 2 * IN_FLIGHT,
    }  # fmt: skip

    def work() -> list[str]:
        data = Dataset.from_list([{"instruction": prompt(number)} for number in range(rows)])
        found = Asked(model_name=MODEL, backend="openai", backend_params=parameters)(data)
        return list(found.dataset["generation"])

    return work


METHODS = {method.__name__: method for method in (raw, bare, openai, ours, distilabel, curator)}


def _spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main(method: str, url: str, rows: str, *more: str) -> None:
    """Run a method, check that every answer came, print the seconds of the work without the imports."""
    work = METHODS[method](url, int(rows), *map(int, more))
    before, begun = _spent(), time.monotonic()
    contents = work()
    spent = {"cpu_s": _spent() - before, "wall_s": time.monotonic() - begun}
    if len(contents) != int(rows) or set(contents) != {CONTENT}:
        sys.exit(f"{method}: {len(contents)} answers of {rows}, {set(contents) - {CONTENT}} among them")
    print(json.dumps(spent))


if __name__ == "__main__":
    main(*sys.argv[1:])
