"""Runs hosted chat models on the event loop: a few tokens at a time, everybody else's calls between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice

from haat.kernel.errors import EngineFailed, EngineMissing, HaatError, Overloaded
from haat.kernel.ids import new_id
from haat.models.chat import Asked, Chunks, Reply, completion, event, problem
from haat.models.execution import RETRY_AFTER
from haat.models.hosted import HostedChat, Speak

TOKENS_A_TURN = 8
"""So many are made before the loop has its turn: about a millisecond's work of a small model."""
MOST_AT_ONCE = 64
"""Answers that are being made; who comes then is told to come again."""
_LEAST_PIECE = 12
"""Characters that an event of a stream holds at least, unless it is the last: fewer are all frame and no picture."""

log = logging.getLogger(__name__)


class Chats:
    """The chat models of a process; each is loaded once, by the first who needs it."""

    def __init__(self, chats: Mapping[str, HostedChat]) -> None:
        self.chats = chats
        self._open: dict[str, asyncio.Task[Speak]] = {}
        self._turn = asyncio.Lock()
        """However many answers are being made, the loop has its turn after a few tokens of one of them."""
        self._running = 0

    async def warm_up(self) -> None:
        """Load all models; log which can't be."""
        for chat in self.chats.values():
            with contextlib.suppress(HaatError):
                await self._speaker(chat)

    async def answer(self, chat: HostedChat, asked: Asked) -> tuple[dict[str, object], int]:
        """Return a whole answer and the tokens it used; raise EngineMissing, EngineFailed or Overloaded."""
        reply = Reply(chat, asked, await self._tokens(chat, asked))
        with _failing(chat), self._counted():
            async for _ in self._parts(reply):
                pass
        return completion(f"chatcmpl-{new_id()}", int(time.time()), asked.model, reply), reply.usage["total_tokens"]

    async def stream(self, chat: HostedChat, asked: Asked) -> AsyncIterator[bytes]:
        """Return the events of an answer as it is made; raise as `answer` does before the first."""
        return self._events(chat, asked, await self._tokens(chat, asked))

    async def _events(self, chat: HostedChat, asked: Asked, tokens: Iterator[str]) -> AsyncIterator[bytes]:
        chunks = Chunks(f"chatcmpl-{new_id()}", int(time.time()), asked)
        reply, held = Reply(chat, asked, tokens), ""
        yield chunks.first()
        try:
            with _failing(chat), self._counted():
                async for piece in self._parts(reply):
                    held += piece
                    if len(held) >= _LEAST_PIECE:
                        yield chunks.piece(held)
                        held = ""
        except HaatError as error:
            yield event(problem(error))
            return
        if held:
            yield chunks.piece(held)
        yield chunks.last(reply)

    async def _tokens(self, chat: HostedChat, asked: Asked) -> Iterator[str]:
        sentence = chat.missing()
        if sentence is not None:
            raise EngineMissing(sentence)
        if self._running >= MOST_AT_ONCE:
            raise Overloaded(retry_after=RETRY_AFTER)
        speak = await self._speaker(chat)
        with _failing(chat):
            return speak(asked.turn)

    async def _parts(self, reply: Reply) -> AsyncIterator[str]:
        """Yield an answer's text in parts, no two answers being made at the same time."""
        pieces = reply.pieces()
        while True:
            async with self._turn:
                some = list(islice(pieces, TOKENS_A_TURN))
                await asyncio.sleep(0)
            if not some:
                return
            yield "".join(some)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _speaker(self, chat: HostedChat) -> Speak:
        opening = self._open.get(chat.path)
        if opening is None:
            opening = self._open[chat.path] = asyncio.create_task(asyncio.to_thread(chat.open))
        with _failing(chat):
            try:
                return await asyncio.shield(opening)  # who leaves does not take the model from those who wait
            except Exception:
                self._open.pop(chat.path, None)  # the next one may have more luck
                raise


@contextlib.contextmanager
def _failing(chat: HostedChat) -> Iterator[None]:
    try:
        yield
    except HaatError:
        raise
    except Exception:
        log.exception("%s failed", chat.path)
        raise EngineFailed from None
