"""What a caller gives as content: a URL, a data URI or base64, read into bytes."""

import asyncio
import base64
import binascii
from urllib.parse import unquote_to_bytes

from app.inference.fetching import Fetcher, Kinds

URLS = ("http://", "https://")


class Unread(ValueError):
    """Why content cannot be read."""

    def __init__(self, message: str, code: str = "bad_content") -> None:
        super().__init__(message)
        self.code = code


async def read(content: str, fetcher: Fetcher, *, kinds: Kinds, max_bytes: int) -> bytes:
    """The bytes. Raises `Unread`, and `NotFetched` where it is a URL."""
    head = content[:8].lower()
    if head.startswith(URLS):
        return (await fetcher.content(content, kinds=kinds, max_bytes=max_bytes)).content
    if head.startswith("s3://"):
        raise Unread("s3:// URLs are not read: give a presigned https URL, a data URI or base64.")
    if len(content) * 3 // 4 > max_bytes + 100:
        raise Unread(f"The content is larger than {max_bytes:,} bytes.", "content_too_large")
    # 30 ms for the largest: not in the event loop.
    return await asyncio.to_thread(_decoded, content)


def _decoded(content: str) -> bytes:
    encoded = content
    if content[:5].lower() == "data:":
        about, comma, encoded = content[5:].partition(",")
        if not comma:
            raise Unread("A data URI has a comma before its data: data:image/png;base64,iVBORw0…")
        if not about.lower().endswith(";base64"):
            return unquote_to_bytes(encoded)
        encoded = unquote_to_bytes(encoded).decode("latin-1")
    try:
        return base64.b64decode("".join(encoded.strip().splitlines()), validate=True)
    except (binascii.Error, ValueError):
        raise Unread(
            "Content is a URL (https://…), a data URI (data:image/png;base64,…) or base64; this is none of them."
        ) from None
