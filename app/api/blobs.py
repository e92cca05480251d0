"""/v1/namespaces/…/blobs: the bytes that payloads refer to as `blob:sha256:…`, such as thumbnails."""

import re

from litestar import Router, get
from litestar.params import FromPath
from litestar.response import Stream

from app.api.objects import BYTES
from app.api.wire import RuntimeDep
from app.db.engine import transaction
from app.domain.catalog.namespaces import load_catalog
from app.domain.content import loading
from app.errors import NotFound

SHA256 = re.compile("[0-9a-f]{64}")


@get("/{sha256:str}", scope="read", operation_id="download_content", media_type=BYTES)
async def download_content(namespace_id: FromPath[str], sha256: FromPath[str], runtime: RuntimeDep) -> Stream:
    """The bytes of a content that an object or a document of the namespace refers to, by their SHA-256: of
    `blob:sha256:…` in a payload what stands behind the last colon."""
    async with transaction(runtime.engine, runtime.settings) as conn:
        catalog = await load_catalog(conn, namespace_id)
        if not SHA256.fullmatch(sha256):
            raise NotFound("blob", sha256)
        stored = await loading.find_blob_of(conn, catalog.namespace_id, sha256)
    headers = {
        # Whatever it is, no browser shall run it under our address.
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
        "Content-Length": str(stored.size_bytes),
        "ETag": f'"{stored.sha256}"',
    }
    return Stream(runtime.blobs.read(stored), media_type=BYTES, headers=headers)


router = Router("/namespaces/{namespace_id:str}/blobs", route_handlers=[download_content], tags=["Objects"])
