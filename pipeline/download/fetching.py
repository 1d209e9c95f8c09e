"""URLs to bytes over HTTP: in parallel, politely, within limits, and no further than allowed.

Redirects are followed one by one, so that each address, scheme and opt-out on the way is judged.
Proxies of the environment are not used: behind one, nobody could say whom we talk to.
"""

import asyncio
import hashlib
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from fourmill.pipeline.config import DownloadConfig
from fourmill.pipeline.download.addresses import REFUSAL, ForbiddenAddressError, guarded_sockets
from fourmill.pipeline.download.answers import UNANSWERED, Fetched
from fourmill.pipeline.download.hosts import Host, Hosts
from fourmill.pipeline.download.optouts import opt_out

MAX_REDIRECTS = 5
CONNECT_SECONDS = 10.0
_CHUNK_BYTES = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({429, 503})  # the host asks for a pause


def fetch_all(urls: Sequence[str], config: DownloadConfig) -> list[Fetched]:
    """What came of each URL, in their order; never fails because of one of them.

    Raises:
        ConfigError: `config.allow` holds something else than networks.
    """
    return asyncio.run(_fetch_all(urls, config))


async def _fetch_all(urls: Sequence[str], config: DownloadConfig) -> list[Fetched]:
    connector = aiohttp.TCPConnector(
        limit=config.connections, socket_factory=guarded_sockets(config.allow)
    )
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,  # so that a small answer cannot become a large one
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            "User-Agent": config.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"
        },
        timeout=aiohttp.ClientTimeout(
            total=config.timeout_seconds, sock_connect=min(CONNECT_SECONDS, config.timeout_seconds)
        ),
    ) as session:  # fmt: skip
        fetcher = _Fetcher(session, config)
        return list(await asyncio.gather(*map(fetcher.fetch, urls)))


class _Fetcher:
    def __init__(self, session: aiohttp.ClientSession, config: DownloadConfig) -> None:
        self._session = session
        self._config = config
        self._hosts = Hosts(config.per_host)
        self._free = asyncio.Semaphore(config.connections)
        self._agent = config.user_agent.partition("/")[0].strip()

    async def fetch(self, url: str) -> Fetched:
        """One URL, tried again where that may help."""
        started = time.monotonic()
        for attempt in range(self._config.retries + 1):
            result = await self._follow(url)
            pause = self._pause(result, attempt)
            if attempt == self._config.retries or pause is None:
                break
            if result.status in _BUSY:
                self._host(result.final_url or url).pause(pause)
            else:
                await asyncio.sleep(pause)
        self._note(result)
        return replace(
            result,
            attempts=attempt + 1,
            seconds=time.monotonic() - started,
            fetched=datetime.now(UTC),
        )

    def _pause(self, result: Fetched, attempt: int) -> float | None:
        """Seconds before another attempt; `None` if there is to be none."""
        if not result.may_pass:
            return None
        asked = result.pause_seconds
        pause = self._config.backoff_seconds * 2**attempt if asked is None else asked
        return pause if pause <= self._config.max_wait_seconds else None

    def _note(self, result: Fetched) -> None:
        if result.outcome in ("refused", "protocol", "given_up"):
            return
        host = self._host(result.final_url or result.url)
        host.note(answered=result.outcome not in UNANSWERED)
        if (result.pause_seconds or 0) > self._config.max_wait_seconds:
            host.give_up(f"the host asks to wait {result.pause_seconds:,.0f} s")

    def _host(self, url: str) -> Host:
        return self._hosts[URL(url).host or ""]

    async def _follow(self, url: str) -> Fetched:
        """One attempt: the answer at the end of the redirects."""
        current = url
        for _ in range(MAX_REDIRECTS + 1):
            try:
                target = URL(current)
            except ValueError as error:
                return Fetched(url, "protocol", reason=f"not a URL: {error}", final_url=url)
            if target.scheme not in ("http", "https") or not target.host:
                reason = f"{current!r} is neither http nor https"
                return Fetched(url, "refused", reason=reason, final_url=url)
            host = self._hosts[target.host]
            async with host.turn(), self._free:
                if host.given_up:  # while we waited for our turn
                    return Fetched(url, "given_up", reason=host.given_up, final_url=current)
                found = await self._ask(url, target)
            if isinstance(found, Fetched):
                return found
            current = found
        return Fetched(url, "redirects", reason=f"more than {MAX_REDIRECTS} redirects")

    async def _ask(self, url: str, target: URL) -> Fetched | str:
        """The answer of one address, or where it sends us."""
        place = str(target)
        try:
            async with self._session.get(target, allow_redirects=False) as response:
                location = response.headers.get("Location")
                if response.status in _REDIRECTS and location:
                    return str(target.join(URL(location)))
                result = await self._read(response)
                return replace(result, url=url, final_url=place, status=response.status)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            outcome, reason = _explain(error)
            return Fetched(url, outcome, reason=reason, final_url=place)

    async def _read(self, response: aiohttp.ClientResponse) -> Fetched:
        headers = {
            name.lower(): response.headers.getall(name) for name in dict.fromkeys(response.headers)
        }
        if self._config.obey_opt_outs and (forbidden := opt_out(headers, self._agent)):
            return Fetched("", "opted_out", reason=f"the server opts out: {forbidden}")
        if response.status != 200:
            reason = f"HTTP status {response.status}"
            asked = _retry_after(response.headers.get("Retry-After", ""))
            return Fetched("", "status", reason=reason, pause_seconds=asked)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            return Fetched("", "protocol", reason=f"sent as {encoding}, which was not asked for")
        return await self._body(response)

    async def _body(self, response: aiohttp.ClientResponse) -> Fetched:
        most = self._config.max_bytes
        too_large = Fetched("", "too_large", reason=f"more than {most:,} bytes")
        if (response.content_length or 0) > most:
            return too_large
        body = bytearray()
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            body += chunk
            if len(body) > most:
                return too_large
        return Fetched(
            "", "ok", content_type=response.headers.get("Content-Type", ""), body=bytes(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )  # fmt: skip


def _explain(error: Exception) -> tuple[str, str]:
    """Outcome and reason of what the HTTP library raised."""
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, aiohttp.ClientConnectorError):
        inner = error.os_error
        if isinstance(inner, ForbiddenAddressError) or REFUSAL in str(inner):  # of several
            return "refused", str(inner)
        if isinstance(inner, socket.gaierror) and inner.errno != socket.EAI_AGAIN:
            return "name", f"no such host: {error.host}"
        if isinstance(error, (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError)):
            return "protocol", reason
        return "connection", reason
    if isinstance(error, TimeoutError):
        return "timeout", "no complete answer in time"
    if isinstance(error, (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        return "cut", "the connection ended before the answer did"
    if isinstance(error, aiohttp.ClientOSError):
        return "cut", reason
    return "protocol", reason


def _retry_after(text: str) -> float | None:
    """Seconds that a host asks to wait, from a number or a date; `None` if it says nothing."""
    if text.strip().isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds())
