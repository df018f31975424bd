"""An OpenAI-compatible server: bounded concurrency, retries with jitter, deadlines, and errors that
say in one line what is wrong with it.

What concerns one request (its context window, its time, a filter that withholds it) is `Unanswered`
and the others go on. What concerns the server (down, another model, a key it refuses, a rate limit
that lasts) ends the run, which resumes from what is saved.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count, islice
from typing import Any, TypeVar

import aiohttp

from sirl.errors import ServiceError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

CONNECT_SECONDS = 10.0
BACKOFF_SECONDS = 0.5
MAX_BACKOFF_SECONDS = 30.0

MAX_BYTES = 64 * 2**20
"""Of a reply; log-probabilities of a long prompt are a few million."""

_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_CONTEXT = re.compile(r"context[_ ](?:length|window|size)", re.I)
"""What servers say of a chat that is too long; the status is 400 for all of them."""
_FILTER = re.compile(
    r"content[_ -]?(?:filter|policy|management|safety|moderation|exists risk)|moderat|guardrail"
    r"|flagged|invalid[_ ]prompt|responsible ?ai|safety[_ ](?:check|filter|reason|setting|system)"
    r"|usage (?:guideline|polic)|data_inspection|inappropriate content|sensitive content|high risk",
    re.I,
)
"""What the filters of hosted models say in the code, the type or the message of a refusal."""
_FILTERING = frozenset({400, 403, 422, 451})

_DATED = re.compile(r"[-@:](?:(?:\d{4}-)?\d{2}-\d{2}|\d{8}|\d{6}|\d{4}|00\d)")
"""How a server tells which snapshot a name stands for: `-2024-08-06`, `@20240806`, `-2508`."""


WITHHELD = "withheld by the server's content filter"


class Unanswered(Exception):
    """The server is well and does not answer this request; the text says why."""


@dataclass(frozen=True)
class _Busy:
    """A failure that may pass. `after` is how many seconds the server asks to wait."""

    what: str
    after: float = 0.0


@dataclass(frozen=True)
class Server:
    """One model on one server.

    Attributes:
        url: Up to and with `/v1`.
        model: The name it must serve, and say that it served.
        key: Sent as a bearer token.
        timeout: Seconds an answer may take, its retries included.
        concurrency: Requests under way at a time.
    """

    url: str
    model: str
    key: str | None = field(repr=False)
    timeout: float
    concurrency: int

    def models(self) -> list[str]:
        """Names of the models it serves, asked for once.

        Raises:
            ServiceError: It does not answer, or refuses the key.
        """

        async def ask() -> list[str]:
            async with await self._session() as session, asyncio.timeout(CONNECT_SECONDS):
                reply = await self._send(session, "GET", "/models", None)
            if isinstance(reply, _Busy):
                raise self._down(reply.what)
            return [str(model.get("id")) for model in reply.get("data", [])]

        try:
            with self._readable():
                return asyncio.run(ask())
        except TimeoutError:
            raise self._down(f"says nothing within {CONNECT_SECONDS:g} s") from None

    def map(
        self, ask: Callable[[Post, Item], Coroutine[Any, Any, Answer]], items: Iterable[Item]
    ) -> Iterator[Answer]:
        """Streams what `ask` makes of each item, in the order of the answers. Items are drawn as
        places come free, so that memory is flat in their number."""
        stream = iter(items)
        under_way: set[asyncio.Task[Answer]] = set()
        done: set[asyncio.Task[Answer]] = set()
        with asyncio.Runner() as runner:
            session = runner.run(self._session())
            post = Post(self, session)
            try:
                while True:
                    for item in islice(stream, self.concurrency - len(under_way)):
                        under_way.add(runner.get_loop().create_task(ask(post, item)))
                    if not under_way:
                        return
                    first = asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    done, under_way = runner.run(first)
                    for task in done:
                        with self._readable():
                            answer = task.result()
                        yield answer
            finally:
                for task in under_way:
                    task.cancel()
                for task in done:  # of several that failed together the first is raised
                    task.exception()
                runner.run(session.close())

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """A reply in which something has another place or type than agreed is the server's error.

        Raises:
            ServiceError: There is one.
        """
        try:
            yield
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise ServiceError(
                f"{self.url} sent a reply of another form than OpenAI's: {error!r}",
                "Check the URL",
            ) from error

    async def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        )

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, body: Any
    ) -> dict[str, Any] | _Busy:
        """One attempt."""
        try:
            async with session.request(method, self.url + path, json=body) as reply:
                text = await _text(reply)
        except aiohttp.ClientError as error:
            return _Busy(f"does not answer: {error or type(error).__name__}")
        if reply.status in _BUSY:
            what = "its rate limit is reached" if reply.status == 429 else _message(text)
            return _Busy(f"answers {reply.status}: {what}", _seconds(reply.headers))
        if reply.status != 200:
            raise self._refused(reply.status, text)
        value = _parsed(text)
        if not isinstance(value, dict):
            raise ServiceError(
                f"{self.url}{path} answers with what is no JSON object", "Check the URL"
            )
        if value.get("error") and not value.get("choices"):  # some gateways say 200 all the same
            raise self._refused(400, text)
        return value

    def _refused(self, status: int, text: str) -> Exception:
        """What a status that no retry mends means."""
        message = _message(text)
        if status == 400 and _CONTEXT.search(message):
            return Unanswered(f"context window exceeded: {message}")
        if status in _FILTERING and _FILTER.search(f"{_codes(text)} {message}"):
            return Unanswered(f"{WITHHELD}: {message}")
        if status in (401, 403):
            return ServiceError(
                f"{self.url} refuses {'the key' if self.key else 'a request without a key'} "
                f"({status}: {message})",
                "Set api_key_env to the name of the environment variable that holds its key",
            )
        return ServiceError(f"{self.url} refuses a request to {self.model} ({status}: {message})")

    def _down(self, what: str) -> ServiceError:
        return ServiceError(
            f"{self.url} {what}", "Start or mend that server and run again; finished work is kept"
        )


@dataclass(frozen=True)
class Post:
    """Posts bodies to a server within a session."""

    server: Server
    session: aiohttp.ClientSession

    async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to `body`, the model's name added to it.

        Raises:
            Unanswered: This request cannot be answered; the server is well.
            ServiceError: The server is not well, or another model answered.
        """
        server, busy = self.server, None
        try:
            async with asyncio.timeout(server.timeout):
                for attempt in count():
                    reply = await server._send(
                        self.session, "POST", path, {"model": server.model, **body}
                    )
                    if not isinstance(reply, _Busy):
                        return _of(server, reply)
                    busy = reply
                    pause = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2**attempt)
                    await asyncio.sleep(busy.after + random.uniform(0, pause))
        except TimeoutError:
            if busy:
                raise server._down(f"{busy.what}, for {server.timeout:g} s") from None
        await self._alive()
        raise Unanswered(f"no answer within {server.timeout:g} s")

    async def _alive(self) -> None:
        """Tells a request that is slow from a server that hangs."""
        what = f"says nothing within {CONNECT_SECONDS:g} s"
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reply = await self.server._send(self.session, "GET", "/models", None)
        except TimeoutError:
            raise self.server._down(what) from None
        if isinstance(reply, _Busy):
            raise self.server._down(reply.what)


def _of(server: Server, reply: dict[str, Any]) -> dict[str, Any]:
    """The reply, if it is that of the model that was asked and holds an answer."""
    if "choices" not in reply:
        raise ServiceError(f"{server.url} sent a reply without choices", "Check the URL")
    if not reply["choices"]:  # of a prompt that its filter stopped; no model is named then
        raise Unanswered(f"{WITHHELD}: no choices")
    answered = reply.get("model")
    if answered == server.model:
        return reply
    alias = server.model.removesuffix("-latest")
    if str(answered).startswith(alias) and _DATED.fullmatch(str(answered).removeprefix(alias)):
        _say_once(f"{server.url}: {server.model} is {answered}")
        return reply
    raise ServiceError(
        f"{server.url} was asked for {server.model} and answered as {answered}",
        "Name the model as the server does, or start the right one",
    )


@cache
def _say_once(line: str) -> None:
    log.info("%s", line)


async def _text(reply: aiohttp.ClientResponse) -> str:
    """The text of a reply, cut where none of ours can be so long."""
    chunks, size = [], 0
    async for chunk in reply.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BYTES:
            break
    return b"".join(chunks)[:MAX_BYTES].decode("utf-8", errors="replace")


def _parsed(text: str) -> Any:
    """The value of a JSON text; None for what is none, or is nested without end."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(text: str) -> str:
    """What an error reply says, in one short line. Servers agree on no one form."""
    error = _error(text)
    said = error.get("message") or text if isinstance(error, dict) else error
    return " ".join(str(said).split())[:200] or "no reason given"


def _codes(text: str) -> str:
    """The machine-readable kinds of an error reply, which no prompt is quoted in."""
    error = _error(text)
    inner = error.get("innererror") if isinstance(error, dict) else None
    parts = [part for part in (error, inner) if isinstance(part, dict)]
    return " ".join(str(part[key]) for part in parts for key in ("code", "type") if key in part)


def _error(text: str) -> Any:
    """The error object or text of an error reply; the reply where it has none."""
    value = _parsed(text)
    if value is None:
        return text
    if isinstance(value, list) and value:  # Google wraps it
        value = value[0]
    return value.get("error") or value if isinstance(value, dict) else text


def _seconds(headers: Any) -> float:
    """`Retry-After` where it is a number of seconds."""
    value = headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 0.0
