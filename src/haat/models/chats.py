"""Runs hosted chat models on the event loop: a few tokens at a time, everybody else's calls between them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping

from haat.kernel.errors import EngineFailed, EngineMissing, HaatError
from haat.kernel.ids import new_id
from haat.models.chat import Asked, Chunks, Reply, completion, event, problem
from haat.models.hosted import HostedChat, Speak

TOKENS_A_TURN = 8
"""So many are made before the loop has its turn: about a millisecond's work of a small model."""
_LEAST_PIECE = 12
"""Characters that an event of a stream holds at least, unless it is the last: fewer are all frame and no picture."""

log = logging.getLogger(__name__)


class Chats:
    """The chat models of a process; each is loaded once, by the first who needs it."""

    def __init__(self, chats: Mapping[str, HostedChat]) -> None:
        self.chats = chats
        self._open: dict[str, asyncio.Task[Speak]] = {}

    async def warm_up(self) -> None:
        """Load all models; log which can't be."""
        for chat in self.chats.values():
            with contextlib.suppress(HaatError):
                await self._speaker(chat)

    async def answer(self, chat: HostedChat, asked: Asked) -> tuple[dict[str, object], int]:
        """Return a whole answer and the tokens it used; raise EngineMissing or EngineFailed."""
        reply = Reply(chat, asked, await self._tokens(chat, asked))
        with _failing(chat):
            async for _ in _in_turns(reply):
                pass
        return completion(f"chatcmpl-{new_id()}", int(time.time()), asked.model, reply), reply.usage["total_tokens"]

    async def stream(self, chat: HostedChat, asked: Asked) -> AsyncIterator[bytes]:
        """Return the events of an answer as it is made; raise EngineMissing or EngineFailed before the first."""
        return self._events(chat, asked, await self._tokens(chat, asked))

    async def _events(self, chat: HostedChat, asked: Asked, tokens: Iterator[str]) -> AsyncIterator[bytes]:
        chunks = Chunks(f"chatcmpl-{new_id()}", int(time.time()), asked)
        reply, held = Reply(chat, asked, tokens), ""
        yield chunks.first()
        try:
            with _failing(chat):
                async for piece in _in_turns(reply):
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
        speak = await self._speaker(chat)
        with _failing(chat):
            return speak(asked.turn)

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


async def _in_turns(reply: Reply) -> AsyncIterator[str]:
    for number, piece in enumerate(reply.pieces()):
        yield piece
        if number % TOKENS_A_TURN == TOKENS_A_TURN - 1:
            await asyncio.sleep(0)


@contextlib.contextmanager
def _failing(chat: HostedChat) -> Iterator[None]:
    try:
        yield
    except HaatError:
        raise
    except Exception:
        log.exception("%s failed", chat.path)
        raise EngineFailed from None
