"""The pages of `stillhouse view` and who may see them.

Only those who have the token that is in the address, under this machine's own name, so that no other page in the same
browser can ask for anything. The pages hold no script and their policy forbids all: what a model wrote is text there,
whatever it says. One request is answered after the other, in one thread: the one that forks the child that asks the
tables.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.core.settings import RunSettings
from pipeline.display import VISIBLE
from pipeline.errors import Refused
from pipeline.report import arms, page
from pipeline.tables.labels import Writer
from pipeline.tables.sql import VIEWS
from pipeline.viewing import answer, browse, compare, lineage
from pipeline.viewing.browse import Wanted
from pipeline.viewing.tables import Tables, literal

TEMPLATES = Path(__file__).parent / "templates"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAFE = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# A label's note, and all of a form.
LONGEST, MOST = 2000, 50_000
SAID = {"good": True, "bad": False, "take back": None}


def app(root: Path, token: str, hosts: frozenset[str], settings: RunSettings) -> FastAPI:
    """The application over the tables in `root/data`; it answers to these hosts, and below `/<token>/`."""
    data, memo = root / "data", root / "data" / ".memo"
    tables, writer = Tables(data, settings.query), Writer(data)
    pages, router = _environment(f"/{token}"), APIRouter(prefix=f"/{token}")

    def drawn(template: str, status: int = 200, **facts: Any) -> Response:
        text = pages.get_template(template).render(**facts)
        return Response(text.translate(VISIBLE), status, media_type="text/html")

    @router.get("/")
    async def rows(view: str = "responses", where: str = "", order: str = "", down: bool = False, page: int = 0) -> Any:
        wanted = Wanted(view, where, order, down, max(0, page))
        found, why = None, ""
        try:
            found = browse.page(tables, wanted)
        except Refused as error:
            why = str(error)
        return drawn("browse.html", 400 if why else 200, wanted=wanted, found=found, why=why, views=VIEWS)

    @router.get("/row/{key}")
    async def row(key: str) -> Any:
        if not lineage.ID.fullmatch(key):
            raise Refused(f"{key!r} is no id: it has 6 to 32 of the characters 0 to 9 and a to f")
        return drawn("row.html", it=answer.shown(tables, arms.read(data), key, memo))

    @router.post("/row/{key}/read")
    async def read(key: str) -> Any:
        answer.read(answer.shown(tables, arms.read(data), key, memo), settings, root)
        return RedirectResponse(f"/{token}/row/{quote(key)}#trained", 303)

    @router.post("/label")
    async def label(request: Request) -> Any:
        given = await _form(request)
        key, said, note = (given.get(name, "") for name in ("response_id", "said", "note"))
        if said not in SAID:
            raise Refused(f"a label says {', '.join(SAID)}; it says {said!r}")
        if len(note) > LONGEST:
            raise Refused(f"a note has at most {LONGEST:,} characters; this one has {len(note):,}")
        found = tables.rows(f"SELECT prompt_id FROM responses WHERE response_id = {literal(key)} LIMIT 1")
        if not found:
            raise Refused(f"there is no response {key!r} to be labelled")
        writer.say(key, found[0]["prompt_id"], SAID[said], note.strip())
        return RedirectResponse(f"/{token}/row/{quote(key)}#label", 303)

    @router.get("/instance/{folder:path}")
    async def instance(folder: str) -> Any:
        known = arms.read(data)
        if folder not in known.plans:
            raise Refused(f"no instance of the plan writes {folder!r}")
        found = lineage.upstream(known, data, folder)
        return drawn("instance.html", plan=known.plans[folder], nodes=found, below=lineage.downstream(known, folder),
                     plans=known.plans)  # fmt: skip

    @router.get("/compare")
    async def side_by_side(task: str = "", first: str = "", second: str = "", outcome: str = "", page: int = 0) -> Any:
        page = max(0, page)
        return drawn("compare.html", it=compare.compared(tables, task, first, second, outcome, page), page=page)

    @router.get("/style.css")
    async def style() -> Any:
        both = (page.TEMPLATES / "report.css", TEMPLATES / "view.css")
        return Response("\n".join(file.read_text("utf-8") for file in both), media_type="text/css")

    async def refused(request: Request, error: Exception) -> Response:
        return drawn("refused.html", 400, why=str(error))

    async def guarded(request: Request, answered: Callable[[Request], Awaitable[Response]]) -> Response:
        reply = _stranger(request, token, hosts) or await answered(request)
        reply.headers.update(SAFE)
        return reply

    made = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, on_shutdown=[tables.end])
    made.include_router(router)
    made.add_exception_handler(Refused, refused)
    made.middleware("http")(guarded)
    return made


def _stranger(request: Request, token: str, hosts: frozenset[str]) -> Response | None:
    """What one is told who has not the token, or comes by another name or from another page."""
    own = request.url.path.split("/")[1]
    if not secrets.compare_digest(own.encode(), token.encode()):
        return PlainTextResponse("Refused: open the address that `stillhouse view` printed.\n", 403)
    origin = request.headers.get("origin")
    if request.headers.get("host") not in hosts or origin not in {None, *(f"http://{host}" for host in hosts)}:
        return PlainTextResponse("Refused: this page answers only to the address that was printed.\n", 403)
    return None


async def _form(request: Request) -> Mapping[str, str]:
    """The fields of a form that was sent."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST:
            raise Refused(f"a form of more than {MOST:,} bytes is not read")
    return {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}


def _environment(root: str) -> Environment:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    made.filters.update(count=page.count, decimals=page.decimals, words=page.words, short=page.short)

    def link(path: str, **query: object) -> str:
        """An address of these pages."""
        return f"{root}/{quote(path)}" + (f"?{urlencode(query)}" if query else "")

    def table(folder: str) -> str:
        """The rows of an instance."""
        view, *of, name = folder.split("/")
        return link("", view=view, where=f"instance = {literal(name)} AND of = {literal('/'.join(of))}")

    made.globals.update(link=link, rows_of=table, views=VIEWS)
    return made
