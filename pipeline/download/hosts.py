"""Politeness: few connections to one host, pauses when it asks for them, and an end to trying."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

GIVE_UP_AFTER = 8  # URLs of one host that got no answer, one after another


class Host:
    """What is known of one host in one process."""

    def __init__(self, connections: int) -> None:
        self._free = asyncio.Semaphore(connections)
        self._not_before = 0.0
        self._unanswered = 0
        self._reason = ""

    @property
    def given_up(self) -> str:
        """Why no more is asked of it; empty while it is."""
        return self._reason

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The right to one connection, when it is free and no pause is asked for."""
        async with self._free:
            while (pause := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            yield

    def pause(self, seconds: float) -> None:
        """Let everybody wait before the next request."""
        self._not_before = max(self._not_before, time.monotonic() + seconds)

    def note(self, answered: bool) -> None:
        """Count a URL that is done with."""
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered >= GIVE_UP_AFTER:
            self.give_up(f"{self._unanswered} URLs of this host got no answer, one after another")

    def give_up(self, reason: str) -> None:
        """Ask no more of it."""
        self._reason = reason


class Hosts:
    """All hosts by name."""

    def __init__(self, connections: int) -> None:
        self._hosts: dict[str, Host] = defaultdict(lambda: Host(connections))

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]
