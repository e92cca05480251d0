"""Requests to servers that a caller names: only to public addresses, looked up once and held to.

What a stage asks of an API is led nowhere; content may be redirected, each time to a host that is checked anew.
"""

import asyncio
import ipaddress
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from app.errors import Unavailable
from app.inference.gate import MINUTE
from app.settings import Settings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Carry an IPv4 address that a gateway may unpack: NAT64, 6to4, Teredo, IPv4-compatible.
TUNNELS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))
FRAMING = frozenset(
    {
        "host",
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
MAX_PACED_HOSTS = 1_000
MAX_S = 60.0  # between two parts of an answer; a request's own limit is for the whole
MAX_DOWNLOADS = 8  # of contents at a time in a process, since each is held in memory


class NotFetched(Unavailable):
    """A request was refused or failed. The message says why, and holds neither query nor secret of the URL."""

    code = "not_fetched"


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, read whole; of a redirect that may be followed only its `location`."""

    status: int
    content_type: str
    content: bytes
    location: str | None = None


@dataclass(frozen=True, slots=True)
class Kinds:
    """Types of content, as `image/*` and `*+json`, and what they are called."""

    name: str
    types: tuple[str, ...]

    def __contains__(self, kind: str) -> bool:
        return any(fnmatchcase(kind, taken) for taken in self.types)


READ = Kinds("JSON and plain text", ("application/json", "text/plain", "text/json", "*+json"))
# Stores of files often know no better than the latter two.
IMAGES = Kinds("images", ("image/*", "application/octet-stream", "binary/octet-stream"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is read of an answer: so many bytes of content of these kinds."""

    kinds: Kinds
    most: int
    redirects: bool = False


def host_of(url: str) -> str:
    """The host of an http(s) URL, in lower case. Raises `NotFetched` for any other text."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").rstrip(".")
        # Letters beyond ASCII have more than one spelling: what is checked must be what is asked.
        fits = parts.scheme in ("http", "https") and bool(host) and host.isascii() and parts.port != 0
    except ValueError:
        fits, host = False, ""
    if not fits or not url.isprintable() or " " in url or "\\" in url:
        raise NotFetched("A URL begins with http:// or https:// and a host in ASCII.")
    if parts.username is not None or parts.password is not None:
        raise NotFetched("A URL holds no user and no password.")
    return host.lower()


def is_listed(host: str, patterns: Sequence[str]) -> bool:
    """Whether a host is one of these; `*.example.com` means every host below example.com."""
    return any(
        host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
        for pattern in (pattern.strip().rstrip(".").lower() for pattern in patterns)
    )


class Fetcher:
    """A client that cannot be led to this machine or its network. Proxies of the environment are not used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        named = filter(None, map(str.strip, settings.fetch_networks.split(",")))
        self._allowed: list[Network] = [ipaddress.ip_network(network) for network in named]
        self._client: httpx.AsyncClient | None = None
        self._starts: dict[str, deque[float]] = {}
        self._downloads = asyncio.Semaphore(MAX_DOWNLOADS)

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        limit_s: float,
        max_bytes: int | None = None,
        per_minute: int | None = None,
    ) -> Fetched:
        """One request within so many seconds; `json` is sent as its body. Raises `NotFetched`.

        Any status is an answer. A redirect is not followed. `per_minute` bounds this process's requests to the host.
        """
        host = host_of(url)
        self._pace(host, per_minute)
        wanted = Wanted(READ, min(max_bytes or self._settings.fetch_max_bytes, self._settings.fetch_max_bytes))
        with _told(host, limit_s):
            async with asyncio.timeout(limit_s):
                return await self._request(method, url, host, headers or {}, json, wanted)

    async def content(self, url: str, *, kinds: Kinds, max_bytes: int) -> Fetched:
        """What lies at a URL, through `fetch_redirects` redirects at most, within `fetch_timeout_s` for all of it.
        Raises `NotFetched`, also where the answer is no success."""
        most, limit_s = self._settings.fetch_redirects, self._settings.fetch_timeout_s
        wanted = Wanted(kinds, max_bytes, redirects=True)
        deadline = asyncio.get_running_loop().time() + limit_s
        for _ in range(1 + most):
            host = host_of(url)
            with _told(host, limit_s):
                async with asyncio.timeout_at(deadline), self._downloads:
                    got = await self._request("GET", url, host, {}, None, wanted)
                    if got.location is None:
                        break
                    url = urljoin(url, got.location)
        else:
            raise NotFetched(f"The URL leads on more than {most} times (PGRETRIEVE_FETCH_REDIRECTS).")
        if got.status != 200:
            raise NotFetched(f"{host} answered HTTP {got.status}.", status=got.status)
        return got

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _pace(self, host: str, per_minute: int | None) -> None:
        if per_minute is None:
            return
        now = time.monotonic()
        starts = self._starts.setdefault(host, deque())
        while starts and starts[0] <= now - MINUTE:
            starts.popleft()
        if len(starts) >= per_minute:
            raise NotFetched(f"{host} was asked {per_minute} times within a minute: that is its rate_limit.")
        starts.append(now)
        while len(self._starts) > MAX_PACED_HOSTS:
            self._starts.pop(next(iter(self._starts)))

    async def _address(self, host: str, port: int) -> Address:
        """The address to connect to: the first of a host's, all of which must be allowed."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            raise NotFetched(f"There is no host {host}.") from None
        addresses = [ipaddress.ip_address(info[4][0]) for info in found]
        for address in addresses:
            if not self._may_reach(address):
                message = f"{host} is not on the public Internet. PGRETRIEVE_FETCH_NETWORKS may allow its network."
                raise NotFetched(message, code="address_refused", retryable=False)
        return addresses[0]

    def _may_reach(self, address: Address) -> bool:
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        if any(address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast and not any(address in tunnel for tunnel in TUNNELS)

    async def _request(
        self, method: str, url: str, host: str, headers: Mapping[str, str], json: Any, wanted: Wanted
    ) -> Fetched:
        address = await self._address(host, urlsplit(url).port or 0)
        if self._client is None:
            # No connection is kept: the next request may be for another host at the same address.
            limits = httpx.Limits(max_connections=100, max_keepalive_connections=0)
            self._client = httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=MAX_S, limits=limits)
        parts = httpx.URL(url)
        if parts.host.rstrip(".").lower() != host:
            raise NotFetched("A URL must name its host plainly.")
        request = self._client.build_request(
            method,
            parts.copy_with(host=str(address), fragment=None),
            headers={**_own(headers), "Host": parts.netloc.decode(), "Accept-Encoding": "identity"},
            json=json,
            # The certificate must be the host's, whatever the address is.
            extensions={"sni_hostname": host},
        )
        answer = await self._client.send(request, stream=True)
        try:
            return await _read(answer, host, wanted)
        finally:
            await answer.aclose()


def _own(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a caller may choose."""
    return {name: value for name, value in headers.items() if name.lower() not in FRAMING}


@contextmanager
def _told(host: str, limit_s: float) -> Iterator[None]:
    """Failures in our words: the libraries' own may quote the URL."""
    try:
        yield
    except TimeoutError:
        raise NotFetched(f"{host} did not answer within {limit_s:g} s.") from None
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise NotFetched(f"The request to {host} failed ({type(error).__name__}).") from None


async def _read(answer: httpx.Response, host: str, wanted: Wanted) -> Fetched:
    status, headers = answer.status_code, answer.headers
    if 300 <= status < 400:
        if wanted.redirects and "location" in headers:
            return Fetched(status, "", b"", headers["location"])
        raise NotFetched(f"{host} redirects (HTTP {status}), which is not followed.")
    if headers.get("content-encoding", "identity") != "identity":
        raise NotFetched(f"{host} answered compressed content, which was not asked for.")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if answer.is_success and kind and kind not in wanted.kinds:
        raise NotFetched(f"{host} answered {kind[:100]}; only {wanted.kinds.name} are read.")
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > wanted.most:
            raise NotFetched(f"The answer of {host} is larger than {wanted.most:,} bytes.", code="answer_too_large")
    return Fetched(status, kind, bytes(content))
