"""The study on the web: pages for readers, one image at a time, and a page of progress for the organiser."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from fundusgan_jax.errors import UserError
from fundusgan_jax.reader_study.limits import BodyLimit, Limiter, SecureHeaders, same_origin
from fundusgan_jax.reader_study.storage import (
    Answer,
    Writer,
    add_answer,
    add_consent,
    add_design,
    add_view,
    answered,
    connect,
)
from fundusgan_jax.reader_study.study import (
    ADMIN,
    DATABASE,
    IMAGES,
    LINK,
    LINKS,
    SESSION,
    Study,
    image_key,
    number_of,
    token,
)
from fundusgan_jax.reader_study.submitted import milliseconds, numbers, valid_answer

HERE = Path(__file__).parent
COOKIE, ADMIN_COOKIE = "reader", "organiser"


class Server:
    """The pages of one study. clock: Unix time, an argument so that tests can be at its end."""

    def __init__(self, study: Study, clock: Callable[[], float] = time.time) -> None:
        self.study, self.clock = study, clock
        self.writer = Writer(study.folder / DATABASE)
        self.reads = connect(study.folder / DATABASE)
        self.templates = Jinja2Templates(HERE / "pages")
        self.limiter, self.guesses = Limiter(rate=20, burst=80), Limiter(rate=0.2, burst=12)
        self.keys: dict[int, dict[str, str]] = {}
        self.consent_sha256 = hashlib.sha256(json.dumps(study.text, sort_keys=True).encode()).hexdigest()
        settings = {name: value for name, value in study.settings.items() if name != "sha256"}
        self.writer.submit(partial(add_design, sha256=study.fixed(), settings=settings, now=clock())).result()

    def app(self) -> Starlette:
        """The application."""
        routes = [
            Route("/", self.home),
            Route("/s/{token}", self.enter),
            Route("/consent", self.consent, methods=["GET", "POST"]),
            Route("/instructions", self.instructions),
            Route("/read", self.read),
            Route("/end", self.end),
            Route("/api/state", self.state),
            Route("/api/view", self.view, methods=["POST"]),
            Route("/api/answer", self.answer, methods=["POST"]),
            Route("/image/{key}.png", self.image),
            Route("/admin/{token}", self.enter_admin),
            Route("/admin", self.admin),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
        host = urlsplit(self.study.settings["address"]).hostname or "127.0.0.1"
        middleware = [
            Middleware(
                TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost"], www_redirect=False
            ),
            Middleware(SecureHeaders),
            Middleware(BodyLimit),
        ]
        handlers: dict[Any, Any] = {HTTPException: self.refused}
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    # Who asks, and how far they are.

    def reader(self, request: Request) -> int:
        """The reader's number of a valid session; 403 without one, 429 where too much is asked."""
        if self.clock() >= self.study.until():
            raise HTTPException(403, "closed")
        number = number_of(self.study.secret, SESSION, request.cookies.get(COOKIE, ""), self.clock())
        if number not in self.study.readers:
            raise HTTPException(403, "no_session")
        if not self.limiter.allows(number, self.clock()):
            raise HTTPException(429, "too_many")
        assert number is not None
        return number

    def keys_of(self, reader: int) -> dict[str, str]:
        """Key in addresses -> image, in the study's order."""
        if reader not in self.keys:
            self.keys[reader] = {
                image_key(self.study.secret, reader, name): name for name in self.study.order
            }
        return self.keys[reader]

    def open_images(self, reader: int) -> list[str]:
        """Keys of what the reader has not answered, in order."""
        done = answered(self.reads, reader)
        return [key for key, image in self.keys_of(reader).items() if image not in done]

    def progress(self, reader: int) -> dict[str, Any]:
        """What the page needs to show the first open image, and to load the one after it."""
        practice, total = len(self.study.settings["practice"]), len(self.study.settings["images"])
        remaining = self.open_images(reader)
        done = practice + total - len(remaining)
        in_practice = done < practice
        return {
            "phase": "end" if not remaining else "practice" if in_practice else "study",
            "position": done if in_practice else done - practice,
            "total": practice if in_practice else total,
            "image": remaining[0] if remaining else None,
            "next": remaining[1] if len(remaining) > 1 else None,
        }

    def consented(self, reader: int) -> bool:
        return bool(self.reads.execute("SELECT 1 FROM consents WHERE reader = ?", (reader,)).fetchone())

    def begun(self, reader: int) -> bool:
        return bool(self.reads.execute("SELECT 1 FROM views WHERE reader = ? LIMIT 1", (reader,)).fetchone())

    # Pages.

    def page(self, request: Request, name: str, status: int = 200, **values: Any) -> Response:
        context = {"t": self.study.text, "study": self.study.settings, **values}
        return self.templates.TemplateResponse(request, f"{name}.html", context, status_code=status)

    async def refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": error.detail}, error.status_code)
        known = f"error_{error.detail}"
        message = self.study.text.get(known, self.study.text["error_not_here"])
        return self.page(request, "message", error.status_code, message=message)

    async def enter(self, request: Request) -> Response:
        """Exchanges the link's token for a cookie, and leaves the address bar without it."""
        reader = self._token(request, LINK)
        if reader not in self.study.readers:
            raise HTTPException(403, "link")
        return self._with_cookie(
            request, "/", COOKIE, token(self.study.secret, SESSION, reader, self.study.until())
        )

    def _token(self, request: Request, kind: str) -> int:
        address = request.client.host if request.client else ""
        number = number_of(self.study.secret, kind, request.path_params["token"], self.clock())
        if number is None and self.clock() >= self.study.until():
            raise HTTPException(403, "closed")
        if number is None:
            if not self.guesses.allows(address, self.clock()):
                raise HTTPException(429, "too_many")
            raise HTTPException(403, "link")
        return number

    def _with_cookie(self, request: Request, target: str, name: str, value: str) -> Response:
        response = RedirectResponse(target, 303)
        secure = request.url.scheme == "https"
        left = int(self.study.until() - self.clock())
        response.set_cookie(name, value, max_age=left, httponly=True, samesite="lax", secure=secure, path="/")
        return response

    async def home(self, request: Request) -> Response:
        reader = self.reader(request)
        if not self.open_images(reader):
            return RedirectResponse("/end", 303)
        if not self.consented(reader):
            return RedirectResponse("/consent", 303)
        return RedirectResponse("/read" if self.begun(reader) else "/instructions", 303)

    def questions(self, reader: int) -> list[dict[str, Any]]:
        """Those whose answer is not known from readers.csv."""
        known = self.study.readers[reader].columns
        return [question for question in self.study.settings["questions"] if not known.get(question["name"])]

    async def consent(self, request: Request) -> Response:
        reader = self.reader(request)
        if self.consented(reader):
            return RedirectResponse("/", 303)
        questions = self.questions(reader)
        if request.method == "GET":
            return self.page(request, "consent", questions=questions, values={}, errors={})
        if not same_origin(request):
            raise HTTPException(403, "origin")
        form = {
            name: values[0].strip()
            for name, values in parse_qs((await request.body()).decode(errors="replace")).items()
        }
        errors = {
            q["name"]: self.study.text["error_answer"]
            for q in questions
            if not valid_answer(q, form.get(q["name"], ""))
        }
        if form.get("agree") != "yes":
            errors["agree"] = self.study.text["error_agree"]
        if errors:
            return self.page(request, "consent", 422, questions=questions, values=form, errors=errors)
        answers = {q["name"]: form[q["name"]] for q in questions}
        job = partial(
            add_consent, reader=reader, text_sha256=self.consent_sha256, answers=answers, now=self.clock()
        )
        await self.write(job)
        return RedirectResponse("/", 303)

    async def instructions(self, request: Request) -> Response:
        reader = self.reader(request)
        if not self.consented(reader) or self.begun(reader):
            return RedirectResponse("/", 303)
        return self.page(request, "instructions", practice=len(self.study.settings["practice"]))

    async def read(self, request: Request) -> Response:
        reader = self.reader(request)
        if not self.consented(reader) or not self.open_images(reader):
            return RedirectResponse("/", 303)
        return self.page(request, "read")

    async def end(self, request: Request) -> Response:
        reader = self.reader(request)
        if self.open_images(reader):
            return RedirectResponse("/", 303)
        return self.page(request, "end")

    # What the reading page asks.

    async def write(self, job: Callable[..., Any]) -> Any:
        """The job's result once it is on the disk; 503 where the disk refuses, and the page tries again."""
        try:
            return await asyncio.wrap_future(self.writer.submit(job))
        except Exception as error:
            print(f"error: the answers' file refuses: {error}", flush=True)
            raise HTTPException(503, "storage") from error

    async def state(self, request: Request) -> Response:
        reader = self.reader(request)
        if not self.consented(reader):
            raise HTTPException(409, "consent")
        return JSONResponse(self.progress(reader))

    async def _json(self, request: Request, reader: int) -> tuple[dict[str, Any], str]:
        """The body and the image that it is about; refuses what is no reader's of this study."""
        if not same_origin(request):
            raise HTTPException(403, "origin")
        try:
            body = json.loads(await request.body())
            image = self.keys_of(reader)[body["image"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise HTTPException(400, "body") from error
        if not self.consented(reader):
            raise HTTPException(409, "consent")
        return body, image

    async def view(self, request: Request) -> Response:
        """The page says that it has painted the open image."""
        reader = self.reader(request)
        body, image = await self._json(request, reader)
        if self.open_images(reader)[:1] != [body["image"]]:
            raise HTTPException(409, "not_open")
        detail = numbers(body, ("width", "height", "dpr", "image_px"))
        detail |= {"browser": request.headers.get("user-agent", "")[:200]}
        await self.write(partial(add_view, reader=reader, image=image, detail=detail, now=self.clock()))
        return Response(status_code=204)

    async def answer(self, request: Request) -> Response:
        """Takes the answer to the open image; a repeated one changes nothing and says so."""
        reader = self.reader(request)
        body, image = await self._json(request, reader)
        choice, client_ms, hidden_ms = (
            body.get("answer"),
            milliseconds(body, "ms"),
            milliseconds(body, "hidden_ms"),
        )
        if choice not in ("real", "synthetic") or client_ms is None or hidden_ms is None:
            raise HTTPException(400, "body")
        remaining = self.open_images(reader)
        recorded = False
        if body["image"] in remaining:
            if remaining[0] != body["image"]:
                raise HTTPException(409, "not_open")
            detail = numbers(
                body, ("width", "height", "dpr", "image_px", "hidden_count", "blurs", "zoom", "key")
            )
            position = self.study.order.index(image) - len(self.study.settings["practice"])
            answer = Answer(reader, image, position, choice, client_ms, hidden_ms, detail)
            recorded = await self.write(partial(add_answer, answer=answer, now=self.clock()))
        return JSONResponse({"recorded": recorded, **self.progress(reader)})

    async def image(self, request: Request) -> Response:
        """The open picture or the one after it: nothing earlier, nothing later, nobody else's."""
        reader = self.reader(request)
        key = request.path_params["key"]
        if not self.consented(reader) or key not in self.open_images(reader)[:2]:
            raise HTTPException(404, "not_here")
        path = self.study.folder / IMAGES / f"{self.keys_of(reader)[key]}.png"
        content = await asyncio.to_thread(path.read_bytes)
        return Response(content, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})

    # The organiser.

    async def enter_admin(self, request: Request) -> Response:
        self._token(request, ADMIN)
        return self._with_cookie(
            request, "/admin", ADMIN_COOKIE, token(self.study.secret, "organiser", 0, self.study.until())
        )

    async def admin(self, request: Request) -> Response:
        """How far each reader is; never what they answered."""
        if (
            number_of(self.study.secret, "organiser", request.cookies.get(ADMIN_COOKIE, ""), self.clock())
            is None
        ):
            raise HTTPException(403, "no_session")
        if not self.limiter.allows("organiser", self.clock()):
            raise HTTPException(429, "too_many")
        done = {
            number: (count, last)
            for number, count, last in self.reads.execute(
                "SELECT reader, COUNT(*), MAX(time) FROM answers WHERE position >= 0 GROUP BY reader"
            )
        }
        consents = {number for (number,) in self.reads.execute("SELECT reader FROM consents")}
        total = len(self.study.settings["images"])
        lines = []
        for number, reader in self.study.readers.items():
            count, last = done.get(number, (0, None))
            stage = (
                "finished"
                if count == total
                else "reading"
                if count
                else "consented"
                if number in consents
                else "invited"
            )
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(last)) if last else ""
            lines.append(
                {
                    "number": number,
                    "group": reader.columns.get("group", ""),
                    "count": count,
                    "stage": stage,
                    "last": when,
                }
            )
        finished = sum(line["stage"] == "finished" for line in lines)
        return self.page(request, "admin", lines=lines, total=total, finished=finished)


def serve(study: Study, host: str, port: int) -> None:
    """Serves until it is stopped. Nothing is logged about requests: addresses hold tokens.

    Raises:
        UserError: the port is taken or the address is not this machine's.
    """
    import uvicorn

    try:
        listener = socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}:{port} ({error.strerror}); give another --port or --host"
        ) from error
    server = Server(study)
    config = uvicorn.Config(server.app(), access_log=False, log_level="warning", server_header=False)
    print(
        f"{len(study.readers)} readers, {len(study.settings['images'])} images, until {study.settings['until']}; listening at "
        f"http://{host}:{port} for {study.settings['address']}; links in {study.folder / LINKS}; Ctrl-C stops",
        flush=True,
    )
    uvicorn.Server(config).run(sockets=[listener])
    server.writer.close()
