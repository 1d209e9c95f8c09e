"""A downloader that goes no further than allowed, gives up in time, and asks politely."""

import hashlib
import socket
from collections.abc import Iterator

import pytest
from tests.pipeline.picture_server import PictureServer, picture_server

from fourmill.manifests.errors import ConfigError, SourceError
from fourmill.pipeline.config import DownloadConfig
from fourmill.pipeline.download.addresses import is_public
from fourmill.pipeline.download.answers import Fetched
from fourmill.pipeline.download.archive import Archive
from fourmill.pipeline.download.fetching import fetch_all
from fourmill.pipeline.download.optouts import opt_out

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 40
QUICK = DownloadConfig(
    allow=("127.0.0.1/32",), timeout_seconds=1, retries=1, backoff_seconds=0.01,
    max_wait_seconds=1, max_bytes=100_000, user_agent="fourmill/tests (+mailto:a@example.org)",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[PictureServer]:
    with picture_server({"a": PICTURE}) as running:
        yield running


def _fetch(server: PictureServer, *paths: str, config: DownloadConfig = QUICK) -> list[Fetched]:
    server.requests.clear()
    return fetch_all([f"{server.url}/{each}" for each in paths], config)


def test_what_came_is_kept_with_its_hash_status_and_time(server):
    (found,) = _fetch(server, "file/a")
    assert (found.outcome, found.status, found.body) == ("ok", 200, PICTURE)
    assert found.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert found.content_type == "image/jpeg"
    assert found.fetched.year > 2000
    assert QUICK.user_agent in server.agents


@pytest.mark.parametrize(
    ("path", "outcome", "reason", "requests"),
    [
        ("gone/x", "status", "HTTP status 404", 1),
        ("slow/x", "timeout", "no complete answer in time", 2),
        ("drip/x", "timeout", "no complete answer in time", 2),
        ("cut/x", "cut", "ended before the answer did", 2),
        ("huge/x", "too_large", "more than 100,000 bytes", 1),
        ("endless/x", "too_large", "more than 100,000 bytes", 1),
        ("busy/x", "status", "HTTP status 429", 1),
        ("zipped/x", "protocol", "sent as gzip", 1),
        ("robots/noai", "opted_out", "X-Robots-Tag: noai", 1),
        ("robots/fourmill:+noimageai", "opted_out", "X-Robots-Tag: noimageai", 1),
        ("reserved/x", "opted_out", "TDM-Reservation: 1", 1),
        ("redirect/file:///etc/passwd", "refused", "neither http nor https", 1),
        ("redirect/ftp://127.0.0.1/a.jpg", "refused", "neither http nor https", 1),
        ("redirect/http://10.0.0.1/a.jpg", "refused", "10.0.0.1 is not", 1),
        ("redirect/http://169.254.169.254/latest/meta-data", "refused", "169.254.169.254", 1),
        ("redirect/http://[::1]/a.jpg", "refused", "::1 is not an address of the public", 1),
        ("redirect/http://[::ffff:10.0.0.1]/", "refused", "is not an address of the public", 1),
        ("redirect/http://2130706434/a.jpg", "protocol", "not a canonical IPv4 address", 1),
        ("redirect/redirect/x", "redirects", "more than 5 redirects", 6),
        ("redirect/http://[bad", "protocol", "", 1),
    ],
)  # fmt: skip
def test_what_is_no_picture_gives_a_reason_and_no_bytes(server, path, outcome, reason, requests):
    (found,) = _fetch(server, path)
    assert (found.outcome, found.body) == (outcome, b"")
    assert reason in found.reason
    assert server.requests.total() == requests


@pytest.mark.parametrize("path", ["busy-once/x", "broken-once/y", "cut-once/z"])
def test_what_fails_once_is_tried_again(server, path):
    (found,) = _fetch(server, path)
    assert (found.outcome, found.attempts) == ("ok", 2)


@pytest.mark.parametrize("path", ["redirect//file/a", "robots/otherbot:+noai", "robots/all"])
def test_redirects_are_followed_and_opt_outs_of_others_are_not_ours(server, path):
    (found,) = _fetch(server, path)
    assert (found.outcome, found.body) == ("ok", PICTURE)


def test_opt_outs_may_be_passed_over_on_demand(server):
    config = QUICK.model_copy(update={"obey_opt_outs": False})
    (found,) = _fetch(server, "robots/noai", config=config)
    assert found.outcome == "ok"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0"])
def test_this_machine_is_not_asked_unless_allowed(server, host):
    server.requests.clear()
    config = QUICK.model_copy(update={"allow": ()})
    (found,) = fetch_all([f"http://{host}:{server.server_port}/file/a"], config)
    assert found.outcome == ("protocol" if host == "0" else "refused")
    assert server.requests.total() == 0


def test_a_name_is_judged_by_the_address_that_is_connected_to(server, monkeypatch):
    resolve = socket.getaddrinfo
    answers = iter(["127.0.0.1", "127.0.0.2"])  # the second time it is another one

    def rebinding(host, port, *rest, **options):
        if host == "pictures.example":
            host = next(answers)
        return resolve(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    server.requests.clear()
    url = f"http://pictures.example:{server.server_port}/file/a"
    assert [fetch_all([url], QUICK)[0].outcome for _ in range(2)] == ["ok", "refused"]
    assert server.requests.total() == 1


def test_a_host_gets_few_requests_at_once_and_a_pause_when_it_asks(server):
    _fetch(server, *(f"counted/{number}" for number in range(40)))
    assert server.most_at_once == QUICK.per_host
    later = _fetch(server, *(f"busy/{number}" for number in range(30)))
    assert server.requests.total() <= QUICK.per_host  # it asked for an hour: nobody else tries
    assert {each.outcome for each in later} == {"status", "given_up"}
    assert "asks to wait 3,600 s" in later[-1].reason


def test_a_host_that_never_answers_is_given_up(server):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = fetch_all([f"http://127.0.0.1:{port}/{number}" for number in range(30)], QUICK)
    assert found[0].outcome == "connection"
    assert found[-1].outcome == "given_up"


def test_answers_are_kept_and_nothing_is_fetched_twice(server, tmp_path):
    urls = [f"{server.url}/{path}" for path in ("file/a", "gone/x", "html/x", "empty/x")]
    server.requests.clear()
    archive = Archive(str(tmp_path), QUICK)
    part = archive.answers(urls, urls[:2])
    assert set(part) == set(urls[:2])
    whole = Archive(str(tmp_path), QUICK).answers(urls, urls)
    assert [whole[each].outcome for each in urls] == ["ok", "status", "ok", "ok"]
    assert whole[urls[0]] == part[urls[0]]
    assert set(server.requests.values()) == {1}
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


def test_a_dead_network_is_told_and_not_taken_for_dead_links(tmp_path):
    urls = [f"http://host-{number}.invalid/a.jpg" for number in range(12)]
    with pytest.raises(SourceError, match="is there a network"):
        Archive(str(tmp_path), QUICK).answers(urls, urls)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_networks_that_are_none_are_refused_by_name():
    with pytest.raises(ConfigError, match=r"download\.allow: .*'here'"):
        fetch_all(["http://example.org/"], QUICK.model_copy(update={"allow": ("here",)}))


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1",
     "192.168.1.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "::", "::1", "fe80::1%eth0",
     "fc00::1", "ff02::1", "::ffff:192.168.0.1", "64:ff9b::a00:1", "2002:a00:1::"],
)  # fmt: skip
def test_only_the_public_internet_is_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    ("header", "forbids"),
    [
        ("noai", True), ("NOIMAGEAI, noarchive", True), ("none", True), ("all", False),
        ("otherbot: none", False), ("fourmill: noindex", True), ("*: noai", True),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", False), ("max-snippet: 0, noai", True),
    ],
)  # fmt: skip
def test_robots_headers_count_where_they_are_for_us(header, forbids):
    assert (opt_out({"x-robots-tag": [header]}, "fourmill") is not None) == forbids
