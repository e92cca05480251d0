"""Sources that are images: what stands in a document's source field as a blob's reference, a data URI or a URL."""

import re

from app.domain.content import loading
from app.domain.content.made_documents import BLOB
from app.domain.runtime import Runtime
from app.errors import ExtractionFailed
from app.inference.contents import Unread, read
from app.inference.fetching import IMAGES, NotFetched

# A page of prose may begin with a URL, but does not end with it.
CONTENT = re.compile(r"blob:sha256:[0-9a-f]{64}|data:[^,\s]*,\S*|https?://\S+", re.IGNORECASE)


def is_content(text: str) -> bool:
    """Whether a source is an image by reference, for a service that embeds images; else it is a text."""
    return CONTENT.fullmatch(text.strip()) is not None


async def read_image(runtime: Runtime, namespace_id: str, given: str) -> bytes:
    """Its bytes, which nobody has decoded yet. Raises `ExtractionFailed` where no later try will be better, else
    `NotFound` or `Unavailable`."""
    given = given.strip()
    if given.startswith(BLOB):
        return await loading.read_blob_of(runtime, namespace_id, given.removeprefix(BLOB))
    most = runtime.settings.max_image_bytes
    try:
        return await read(given, runtime.inference.fetcher, kinds=IMAGES, max_bytes=most)
    except Unread as error:
        raise ExtractionFailed(str(error), code=error.code) from error
    except NotFetched as error:
        raise loading.lasting(error) from error
