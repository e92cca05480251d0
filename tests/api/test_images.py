"""Images over HTTP: embedded directly, and searched for by URL, data URI and base64, beside words."""

import base64
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.data.emoji import drawing
from tests.http import Api, document, feature_search, search

# Two drawings of each thing would be needed to search by likeness; these are found by their own.
NAMES = ["red apple", "dog face", "airplane", "snowman", "guitar", "tiger face"]
SERVICE = "emoji_minilm"


def base64_of(name: str) -> str:
    return base64.b64encode(drawing(name)).decode()


def data_uri(name: str) -> str:
    return f"data:image/png;base64,{base64_of(name)}"


@pytest.fixture(scope="module")
def website() -> Iterator[str]:
    """Serves `/NAME.png`, a page, and redirects; answers its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.strip("/").replace("%20", " ")
            if path == "page":
                self.answer(200, b"<html>", "text/html")
            elif path == "metadata":
                self.answer(302, b"", "text/plain", "http://169.254.169.254/latest/meta-data/")
            elif path.startswith("moved/"):
                self.answer(301, b"", "text/plain", f"/{path.removeprefix('moved/')}")
            elif path.removesuffix(".png") in NAMES:
                self.answer(200, drawing(path.removesuffix(".png")), "image/png")
            else:
                self.answer(404, b"", "text/plain")

        def answer(self, status: int, content: bytes, kind: str, location: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def embed(api: Api, inputs: dict[str, Any]) -> list[list[float]]:
    answer = api("POST", "/inference", {"inference_name": SERVICE, "inputs": inputs})
    found: list[list[float]] = answer["data"]["embeddings"]
    return found


@pytest.fixture
def album(api: Api) -> Iterator[Api]:
    """A managed namespace: `image` is mapped to the service, `words` to one of texts alone, `own` to none."""
    api.standalone(("image", 384), ("words", 384), ("own", 384))
    vectors = embed(api, {"images": [base64_of(name) for name in NAMES]})
    documents = [document(name.replace(" ", "_"), {"image": v}) for name, v in zip(NAMES, vectors, strict=True)]
    api.upsert(documents)
    mappings = {"image": SERVICE, "words": "minilm_l6_v2"}
    api.promote(
        {"vector_mappings": [{"existing_index": name, "inference_service": by} for name, by in mappings.items()]}
    )
    yield api
    api("DELETE", f"/namespaces/{api.namespace}")


def by_content(api: Api, index: str = "image") -> None:
    api.retriever("by_content", feature_search(search(index, "{{INPUT.q}}", mode="content"), final_top_k=1))


def test_images_are_embedded_from_every_form(api: Api, website: str) -> None:
    (expected,) = embed(api, {"image_base64": base64_of("guitar")})
    assert len(expected) == 384
    forms = [data_uri("guitar"), f"{website}/guitar.png", f"{website}/moved/guitar.png", base64_of("guitar")]
    assert embed(api, {"images": forms}) == [expected] * 4
    assert embed(api, {"image_url": f"{website}/guitar.png"}) == [expected]
    assert embed(api, {"image_base64": data_uri("guitar")}) == [expected]
    again = api("POST", "/inference", {"inference_name": SERVICE, "inputs": {"image_base64": base64_of("guitar")}})
    assert again["cached"], "the bytes count, whatever form they came in"


def test_every_image_that_cannot_be_embedded_is_named(api: Api, website: str) -> None:
    images = [
        data_uri("guitar"),
        "a guitar",
        f"{website}/page",
        f"{website}/none.png",
        f"{website}/metadata",
        "http://[::ffff:10.0.0.1]/a.png",
        "s3://bucket/a.png",
        "ftp://a.com/b.png",
    ]
    body = {"inference_name": SERVICE, "inputs": {"images": images}}
    at = "body.inputs.images"
    assert api.refused("POST", "/inference", body)[1] == [
        *(f"bad_content@{at}.1", f"not_fetched@{at}.2", f"not_fetched@{at}.3", f"address_refused@{at}.4"),
        *(f"address_refused@{at}.5", f"bad_content@{at}.6", f"bad_content@{at}.7"),
    ]
    body["inputs"] = {"images": [data_uri("guitar"), base64.b64encode(b"no picture").decode()]}
    assert api.refused("POST", "/inference", body) == ("bad_image", [f"bad_image@{at}.1"])
    large = {"inference_name": SERVICE, "inputs": {"image_base64": "A" * 28 * 2**20}}
    assert api.refused("POST", "/inference", large)[1] == ["content_too_large@body.inputs.image_base64"]


def test_an_image_finds_its_like_by_url_data_uri_and_base64(album: Api, website: str) -> None:
    by_content(album)
    for name in NAMES:
        for given in (data_uri(name), base64_of(name), f"{website}/{name.replace(' ', '%20')}.png"):
            assert album.ids("by_content", inputs={"q": given}) == [name.replace(" ", "_")]
    (vector,) = embed(album, {"image_base64": base64_of("snowman")})
    assert album.ids("by_content", inputs={"q": vector}) == ["snowman"], "content may be a vector, too"


def test_words_find_images_in_the_same_index(album: Api) -> None:
    album.retriever("by_text", feature_search(search("image", "{{INPUT.q}}", mode="text"), final_top_k=1))
    for words, found in {"a puppy": "dog_face", "plane": "airplane", "fruit": "red_apple"}.items():
        assert album.ids("by_text", inputs={"q": words}) == [found]


def test_images_and_words_together_are_one_query(album: Api, website: str) -> None:
    values = ["{{INPUT.image}}", data_uri("snowman"), "a guitar"]
    query = {"feature_uri": "image", "query": {"input_mode": "multi_content", "values": values}}
    album.retriever("both", feature_search(query, final_top_k=2))
    assert len(album.ids("both", inputs={"image": "data: not every text that begins so is a URI"})) == 2
    found = album.ids("both", inputs={"image": f"{website}/guitar.png"})
    assert sorted(found) == ["guitar", "snowman"]


def test_literals_and_the_older_form(album: Api, website: str) -> None:
    for query in (
        {"input_mode": "content", "value": data_uri("airplane")},
        {"input_mode": "content", "content": {"url": f"{website}/airplane.png"}},
        {"input_mode": "content", "content": {"base64": base64_of("airplane")}},
    ):
        stages = [feature_search({"feature_uri": "image", "query": query}, final_top_k=1)]
        answer = album("POST", "/retrievers/execute", {"stages": stages})
        assert [found["document_id"] for found in answer["documents"]] == ["airplane"]


def test_the_routes_of_search_take_images(album: Api, website: str) -> None:
    for query in (
        {"input_mode": "image", "image": base64_of("snowman")},
        {"input_mode": "url", "url": f"{website}/snowman.png"},
        {"input_mode": "content", "value": data_uri("snowman")},
    ):
        answer = album("POST", "/features/search", {"query": query, "feature_uri": "image", "top_k": 1})
        assert [found["document_id"] for found in answer["documents"]] == ["snowman"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("a guitar", "bad_content"),
        ("https://user:word@a.com/b.png", "not_fetched"),
        ("http://169.254.169.254/latest/meta-data/", "address_refused"),
        (base64.b64encode(b"no picture").decode(), "bad_image"),
        (5, "bad_input"),
        ("", "bad_input"),
        ([1, 2], "bad_input"),
    ],
)
def test_what_no_image_can_be_made_of_is_refused_at_its_input(album: Api, given: Any, code: str) -> None:
    by_content(album)
    body = {"inputs": {"q": given}}
    assert album.refused("POST", "/retrievers/by_content/execute", body)[1] == [f"{code}@body.inputs.q"]


def test_an_index_without_images_says_what_to_do(album: Api) -> None:
    by_content(album, "words")
    answer = album("POST", "/retrievers/by_content/execute", {"inputs": {"q": data_uri("guitar")}}, status=422)
    assert answer["error"]["code"] == "service_without_images"
    assert SERVICE in answer["error"]["message"]
    by_content(album, "own")
    answer = album("POST", "/retrievers/by_content/execute", {"inputs": {"q": data_uri("guitar")}}, status=422)
    assert "mapped to no inference service" in answer["error"]["message"]
