"""What a caller gives as content: URLs are fetched, data URIs and base64 decoded, the rest is refused."""

import base64
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inference.contents import Unread, read
from app.inference.fetching import IMAGES, Fetcher
from tests.fakes import settings_of


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    made = Fetcher(settings_of())
    yield made
    await made.close()


async def bytes_of(content: str, fetcher: Fetcher) -> bytes:
    return await read(content, fetcher, kinds=IMAGES, max_bytes=1_000)


@pytest.mark.parametrize(
    "content",
    [
        "data:image/png;base64,/+4=",
        "DATA:;BASE64,/+4=",
        "data:image/png;name=a;base64,%2F%2B4%3D",
        "data:image/png;base64,/+\n4=",
        "data:,%FF%EE",
        "/+4=",
        " /+4=\n",
    ],
)
async def test_data_uris_and_base64(fetcher: Fetcher, content: str) -> None:
    assert await bytes_of(content, fetcher) == b"\xff\xee"


@pytest.mark.parametrize("content", ["data:image/png;base64", "data:;base64,a", "a cat", "/etc/passwd!", "é" * 8])
async def test_what_is_none_of_them(fetcher: Fetcher, content: str) -> None:
    with pytest.raises(Unread) as refused:
        await bytes_of(content, fetcher)
    assert refused.value.code == "bad_content"


async def test_s3_is_refused_with_what_to_do_and_too_much_before_it_is_decoded(fetcher: Fetcher) -> None:
    with pytest.raises(Unread, match="presigned https URL"):
        await bytes_of("s3://bucket/a.png", fetcher)
    with pytest.raises(Unread, match="larger than 1,000 bytes") as refused:
        await bytes_of("A" * 2_000, fetcher)
    assert refused.value.code == "content_too_large"


@given(st.binary(max_size=700))
async def test_whatever_the_bytes_are(content: bytes) -> None:
    fetcher = Fetcher(settings_of())
    encoded = base64.b64encode(content).decode()
    for form in (encoded, f"data:image/png;base64,{encoded}"):
        assert await bytes_of(form, fetcher) == content
