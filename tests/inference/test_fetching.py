"""Requests to servers that a caller names: where they may go, and servers that mean ill."""

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Unavailable
from app.inference.fetching import IMAGES, Fetched, Fetcher, NotFetched, host_of, is_listed
from tests.fakes import settings_of

Serve = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A function that starts a server answering these bytes to any request, and answers its URL."""
    servers: list[asyncio.Server] = []

    async def start(
        answer: bytes,
        *,
        forever: bytes = b"",
        drip: bytes = b"",
        silent: bool = False,
        seen: list[bytes] | None = None,
    ) -> str:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                if seen is not None:
                    seen.append(head)
                writer.write(answer)
                while forever and not writer.is_closing():
                    writer.write(forever)
                    await writer.drain()
                while drip and not writer.is_closing():
                    writer.write(drip)
                    await writer.drain()
                    await asyncio.sleep(0.02)
                if silent:
                    await reader.read()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(handle, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/a?key=secret"

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher(settings_of(fetch_networks="127.0.0.0/8, fd00::/8", fetch_max_bytes=2_000))
    yield made
    await made.close()


def answer_of(body: bytes, kind: str = "application/json", *, status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_an_answer(serve: Serve, fetcher: Fetcher) -> None:
    seen: list[bytes] = []
    url = await serve(answer_of(b'{"a": 1}'), seen=seen)
    got = await fetcher.fetch("POST", url, headers={"X-A": "b", "Host": "evil"}, json={"q": 1}, limit_s=5)
    assert (got.status, got.content_type, got.content) == (200, "application/json", b'{"a": 1}')
    head = seen[0].decode().lower()
    assert head.startswith("post /a?key=secret http/1.1")
    assert "x-a: b" in head
    assert "accept-encoding: identity" in head
    assert head.count("host:") == 1
    assert "host: 127.0.0.1:" in head
    missing = await fetcher.fetch("GET", await serve(answer_of(b"{}", status="404 Not Found")), limit_s=5)
    assert missing.status == 404


@pytest.mark.parametrize(
    ("answer", "more", "message"),
    [
        (answer_of(b"", status="302 Found", more="Location: http://169.254.169.254/\r\n"), {}, "redirects"),
        (answer_of(b"<html>", "text/html"), {}, "text/html; only JSON"),
        (answer_of(b"x" * 3_000), {}, "larger than 2,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", {"forever": b"x" * 10_000}, "larger than 2,000"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            {"forever": b"3e8\r\n" + b"x" * 1_000 + b"\r\n"},
            "larger than 2,000",
        ),
        (b"HTTP/1.1 200 OK\r\n", {"forever": b"X-A: " + b"x" * 1_000 + b"\r\n"}, "failed"),
        (answer_of(b"\x1f\x8b", more="Content-Encoding: gzip\r\n"), {}, "compressed"),
        (b"SSH-2.0-x\r\n", {}, r"failed \(RemoteProtocolError\)"),
        (b"", {}, "failed"),
        (b"", {"silent": True}, r"did not answer within 0\.3 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", {"silent": True}, r"did not answer within 0\.3 s"),
    ],
)
async def test_servers_that_mean_ill(
    serve: Serve, fetcher: Fetcher, answer: bytes, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotFetched, match=message) as failed:
        await fetcher.fetch("GET", await serve(answer, **more), limit_s=0.3 if more.get("silent") else 5)
    assert "secret" not in failed.value.message


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "localhost",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
        ),
        *("[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "224.0.0.1"),
        *("[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::127.0.0.1]", "2130706433", "0x7f.1", "0177.0.0.1", "127.1"),
        *("0.0.0.0", "255.255.255.255", "[ff02::1]", "198.18.0.1", "192.0.2.1", "[2001:db8::1]"),
    ],
)
async def test_addresses_that_are_not_public(host: str) -> None:
    fetcher = Fetcher(settings_of())
    with pytest.raises(NotFetched, match="not on the public Internet"):
        await fetcher.fetch("GET", f"http://{host}:1/", limit_s=5)
    assert fetcher._client is None, "nothing was sent"


@given(st.ip_addresses())
def test_no_address_is_reached_that_is_not_global(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    fetcher = Fetcher(settings_of())
    if not address.is_global or address.is_multicast:
        assert not fetcher._may_reach(address)
    if isinstance(address, ipaddress.IPv4Address):
        assert fetcher._may_reach(ipaddress.IPv6Address(f"::ffff:{address}")) == fetcher._may_reach(address)


async def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    serve: Serve, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []
    url = await serve(answer_of(b"{}"), seen=seen)
    port = int(url.split(":")[2].split("/")[0])
    asked: list[str] = []

    async def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "203.0.113.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding, raising=False)
    assert (await fetcher.fetch("GET", f"http://api.example.com:{port}/x", limit_s=5)).status == 200
    assert asked == ["api.example.com"]
    assert f"host: api.example.com:{port}" in seen[0].decode().lower()


async def test_one_address_of_a_host_that_is_not_public_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    async def both(host: str, port: int, **_: Any) -> list[Any]:
        return [(2, 1, 6, "", (address, port)) for address in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", both, raising=False)
    with pytest.raises(NotFetched, match="not on the public Internet"):
        await Fetcher(settings_of()).fetch("GET", "http://api.example.com/", limit_s=5)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://a.com", "file:///etc/passwd", "http://", "http:///x", "//a.com", "a.com", "", "http://a b.com"),
        *("http://user:pass@a.com", "http://user@a.com", "http://a.com\\@b.com", "http://a.com\r\nX: y", "http://[::1"),
        *("http://a.com:99999", "http://a.com:0", "javascript:alert(1)", "http://\u0000.com", "http://faß.de"),
    ],
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(NotFetched):
        host_of(url)


@given(st.text())
def test_any_text_is_a_host_or_refused(text: str) -> None:
    for url in (text, f"http://{text}"):
        with suppress(Unavailable):
            assert host_of(url)


def test_lists_of_hosts() -> None:
    assert host_of("https://API.Example.com.:443/x") == "api.example.com"
    assert is_listed("api.example.com", ["API.example.com"])
    assert is_listed("a.b.example.com", ["*.example.com"])
    assert not is_listed("example.com", ["*.example.com"])
    assert not is_listed("evilexample.com", ["*.example.com", "example.com"])
    assert not is_listed("api.example.com.evil.com", ["api.example.com", "*.example.com"])


# Content, which may be redirected


async def content(fetcher: Fetcher, url: str) -> Fetched:
    return await fetcher.content(url, kinds=IMAGES, max_bytes=2_000)


def redirect(to: str, status: str = "302 Found") -> bytes:
    return answer_of(b"", status=status, more=f"Location: {to}\r\n")


@pytest.fixture
async def quick() -> AsyncIterator[Fetcher]:
    made = Fetcher(settings_of(fetch_networks="127.0.0.1/32", fetch_timeout_s=0.3))
    yield made
    await made.close()


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_content_is_read_through_redirects(serve: Serve, fetcher: Fetcher, status: str) -> None:
    image = await serve(answer_of(b"pixels", "image/png; charset=x"))
    seen: list[bytes] = []
    first = await serve(redirect(image, status), seen=seen)
    got = await content(fetcher, first)
    assert (got.status, got.content_type, got.content) == (200, "image/png", b"pixels")
    assert b"accept-encoding: identity" in seen[0].lower()


async def test_a_relative_redirect_stays_with_its_host_and_a_circle_ends(serve: Serve, fetcher: Fetcher) -> None:
    seen: list[bytes] = []
    url = await serve(redirect("/elsewhere"), seen=seen)
    with pytest.raises(NotFetched, match="leads on more than 3 times"):
        await content(fetcher, url)
    assert [head.split(b" ")[1] for head in seen] == [b"/a?key=secret", *[b"/elsewhere"] * 3]


@pytest.mark.parametrize(
    "to",
    [
        *("http://127.0.0.2:1/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/"),
        *("http://[::1]/", "http://[::ffff:127.0.0.2]/", "http://[::ffff:a9fe:a9fe]/", "http://[64:ff9b::7f00:2]/"),
        *("http://2130706434/", "//192.168.0.1/a", "https://100.64.0.1/", "http://0.0.0.0:1/"),
    ],
)
async def test_each_redirect_is_checked_as_the_first_url_was(serve: Serve, to: str) -> None:
    fetcher = Fetcher(settings_of(fetch_networks="127.0.0.1/32"))
    with pytest.raises(NotFetched) as refused:
        await content(fetcher, await serve(redirect(to)))
    assert refused.value.error_code == "address_refused"
    await fetcher.close()


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://a.com/", "gopher://a", "http://u:p@a.com/", "http://a b"])
async def test_a_redirect_to_what_is_no_url_of_the_web(serve: Serve, fetcher: Fetcher, to: str) -> None:
    with pytest.raises(NotFetched, match="A URL"):
        await content(fetcher, await serve(redirect(to)))


async def test_a_host_that_is_bound_anew_between_two_redirects_is_refused(
    serve: Serve, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await serve(redirect("/again"))
    port = int(url.split(":")[2].split("/")[0])
    answers = iter(["127.0.0.1", "169.254.169.254"])

    async def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding, raising=False)
    with pytest.raises(NotFetched) as refused:
        await content(fetcher, f"http://images.example.com:{port}/a")
    assert refused.value.error_code == "address_refused"


@pytest.mark.parametrize(
    ("answer", "more", "message"),
    [
        (answer_of(b"<html>", "text/html"), {}, "text/html; only images are read"),
        (answer_of(b"", "image/png", status="404 Not Found"), {}, "HTTP 404"),
        (answer_of(b"", "image/png", status="204 No Content"), {}, "HTTP 204"),
        (answer_of(b"", status="304 Not Modified"), {}, "redirects"),
        (answer_of(b"x" * 2_001, "image/png"), {}, "larger than 2,000 bytes"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n", {"forever": b"x" * 10_000}, "larger than 2,000"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n", {"drip": b"x"}, r"within 0\.3 s"),
        (b"HTTP/1.1 200 OK\r\n", {"drip": b"X-A: b\r\n"}, r"within 0\.3 s"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", {}, "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx", {}, "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", {}, "failed"),
        (answer_of(gzip.compress(bytes(10**6)), "image/png", more="Content-Encoding: gzip\r\n"), {}, "compressed"),
        (answer_of(gzip.compress(bytes(10**6)), "image/png", more="Content-Encoding: br, gzip\r\n"), {}, "compressed"),
    ],
)
async def test_servers_of_content_that_mean_ill(
    serve: Serve, fetcher: Fetcher, quick: Fetcher, answer: bytes, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotFetched, match=message) as failed:
        await content(quick if "within" in message else fetcher, await serve(answer, **more))
    assert "secret" not in failed.value.message


async def test_redirects_share_one_time_limit(serve: Serve, quick: Fetcher) -> None:
    slow = await serve(b"", silent=True)
    with pytest.raises(NotFetched, match=r"within 0\.3 s"):
        await content(quick, await serve(redirect(slow)))
