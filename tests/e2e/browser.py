"""A page opened in headless Chromium, and everything it did while it was open."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--remote-debugging-port=0")
PATIENCE_S = 60

Evaluate = Callable[[str], Awaitable[Any]]


@dataclass
class Visit:
    """What a page did: the addresses it asked for, what it said on its console, and what the questions gave."""

    requests: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)


class Step(str):
    """An expression that leads to another page, such as a click on a link."""


def visit(page: Path | str, *questions: str) -> Visit:
    """Open a page from disk, or of an address, wait until it has loaded, then evaluate expressions in it."""
    address = page.as_uri() if isinstance(page, Path) else page
    return asyncio.run(asyncio.wait_for(_visit(address, questions), PATIENCE_S))


async def _visit(page: str, questions: tuple[str, ...]) -> Visit:
    assert CHROMIUM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        arguments = (*FLAGS, f"--user-data-dir={profile}", "about:blank")
        process = await asyncio.create_subprocess_exec(
            CHROMIUM, *arguments, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            return await _watch(await _address(process), page, questions)
        finally:
            process.kill()
            await process.communicate()


async def _address(process: asyncio.subprocess.Process) -> str:
    """Chromium says on its standard error where it listens."""
    assert process.stderr is not None
    async for line in process.stderr:
        if b"DevTools listening on " in line:
            return line.decode().split("listening on ")[1].strip().split("/devtools")[0].replace("ws:", "http:")
    raise RuntimeError("Chromium ended before it listened")


async def _watch(address: str, page: str, questions: tuple[str, ...]) -> Visit:
    seen = Visit()
    async with aiohttp.ClientSession() as session:
        async with session.put(f"{address}/json/new?about:blank") as reply:
            target = (await reply.json(content_type=None))["webSocketDebuggerUrl"]
        async with session.ws_connect(target, max_msg_size=0) as socket:
            numbers = itertools.count(1)

            async def until(wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
                while True:
                    message = json.loads((await socket.receive()).data)
                    _note(seen, message)
                    if wanted(message):
                        return message

            async def call(method: str, **params: Any) -> dict[str, Any]:
                number = next(numbers)
                await socket.send_json({"id": number, "method": method, "params": params})
                reply = await until(lambda message: message.get("id") == number)
                assert "error" not in reply, reply
                return reply["result"]

            for domain in ("Page", "Network", "Runtime", "Log"):
                await call(f"{domain}.enable")
            await socket.send_json({"id": next(numbers), "method": "Page.navigate", "params": {"url": page}})
            await until(lambda message: message.get("method") == "Page.loadEventFired")
            for question in questions:
                # A step is taken after it has been answered, so that the page that follows is waited for.
                asked = f"setTimeout(() => {{ {question} }}, 0)" if isinstance(question, Step) else question
                result = await call("Runtime.evaluate", expression=asked, returnByValue=True)
                assert "exceptionDetails" not in result, result
                if isinstance(question, Step):
                    await until(lambda message: message.get("method") == "Page.loadEventFired")
                else:
                    seen.answers.append(result["result"].get("value"))
    return seen


def _note(seen: Visit, message: dict[str, Any]) -> None:
    params = message.get("params", {})
    match message.get("method"):
        case "Network.requestWillBeSent":
            seen.requests.append(params["request"]["url"])
        case "Runtime.consoleAPICalled":
            seen.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        case "Runtime.exceptionThrown":
            seen.console.append(params["exceptionDetails"]["text"])
        case "Log.entryAdded":
            seen.console.append(params["entry"]["text"])
