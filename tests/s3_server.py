"""A local server that speaks S3 (moto), with one bucket."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from moto.server import ThreadedMotoServer

BUCKET = "blobs"


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield endpoint
    finally:
        server.stop()


def s3_settings(endpoint: str, prefix: str = "of/tests") -> dict[str, Any]:
    return {
        "blob_store": f"s3://{BUCKET}/{prefix}",
        "blob_store_endpoint": endpoint,
        "blob_store_region": "us-east-1",
        "blob_store_access_key_id": "tests",
        "blob_store_secret_access_key": "a secret of tests",
        "blob_store_retries": 0,
    }
