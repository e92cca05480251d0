"""Pictures: of objects and of documents, embedded by each image service, found by words and by pictures."""

import base64
import io
from typing import Any

import pytest
from PIL import ExifTags, Image

from app.inference import emoji
from tests.content.managed import Website, bucket, collection, documents, extractor, quiet, searched
from tests.data.emoji import drawing
from tests.http import Api, document, feature_search, search

PICTURES: dict[str, Any] = {"properties": {"name": {"type": "string"}, "picture": {"type": "image", "required": True}}}
NAMES = ("red apple", "dog face", "airplane", "snowman", "guitar", "umbrella", "rocket", "sailboat")
EMOJI = "emoji_minilm"


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def data_uri(name: str) -> str:
    return f"data:image/png;base64,{encoded(drawing(name))}"


def put(api: Api, name: str, content: bytes | None = None) -> Any:
    blob = {"property": "picture", "type": "image", "data": encoded(drawing(name) if content is None else content)}
    return api("POST", "/buckets/pictures/objects", {"name": name, "blobs": [blob]})


def seen(api: Api, **parameters: Any) -> Any:
    """A collection of the pictures, which pass on their names."""
    passed = [{"source_path": "name"}]
    feature = extractor("image_extractor", parameters=parameters, field_passthrough=passed)
    return collection(api, "seen", buckets=("pictures",), feature_extractor=feature)


def by_words(api: Api, words: str, index: str) -> list[str]:
    """The best three of eight: the models are small, and never saw this style of drawing."""
    return [hit["name"] for hit in searched(api, words, index)[:3]]


def alike(api: Api, index: str, content: str) -> list[str]:
    stages = [feature_search(search(index, content, mode="content"))]
    return [hit["name"] for hit in api("POST", "/retrievers/execute", {"stages": stages})["documents"]]


@pytest.mark.parametrize("service", [EMOJI, "clip_micro"])
def test_pictures_are_found_by_words_and_by_pictures(api: Api, service: str) -> None:
    api.standalone()
    api.promote()
    bucket(api, "pictures", PICTURES)
    made = seen(api, embedding_model=service)
    uri = made["vector_indexes"][0]["feature_uri"]
    assert uri == f"mixpeek://image_extractor@v1/{service}"
    for name in NAMES:
        put(api, name)
    assert quiet(api, "seen", 60)["document_count"] == len(NAMES)
    for name in ("airplane", "umbrella"):
        assert name in by_words(api, name, uri)
        assert alike(api, uri, data_uri(name))[0] == name


def test_one_retriever_finds_what_was_upserted_and_pictures_of_objects(api: Api) -> None:
    inputs = {"images": [encoded(drawing(name)) for name in NAMES[:3]]}
    vectors = api("POST", "/inference", {"inference_name": EMOJI, "inputs": inputs})["data"]["embeddings"]
    api.standalone(("image", 384))
    api.upsert([document(name, {"image": v}, name=name) for name, v in zip(NAMES[:3], vectors, strict=True)])
    api.promote({"vector_mappings": [{"existing_index": "image", "inference_service": EMOJI}]})
    api.retriever("r", feature_search(search("image", "{{INPUT.q}}", mode="content"), final_top_k=1))
    bucket(api, "pictures", PICTURES)
    assert seen(api, vector_index="image")["vector_indexes"][0]["name"] == "image"
    for name in NAMES[3:]:
        put(api, name)
    quiet(api, "seen")
    for name in NAMES:
        (hit,) = api("POST", "/retrievers/r/execute", {"inputs": {"q": data_uri(name)}})["documents"]
        assert hit["name"] == name
        assert ("source_object_id" in hit) is (name in NAMES[3:])
    for name in ("airplane", "guitar"):  # one of each
        assert name in by_words(api, name, "image")


def test_documents_embed_pictures_that_they_name(api: Api, website: Website) -> None:
    root, pages = website
    pages["/snowman.png"] = (200, drawing("snowman"))
    api.standalone(("image", 384))
    mapped = {"existing_index": "image", "inference_service": EMOJI, "source_field": "look.at"}
    api.promote({"vector_mappings": [mapped]})
    given = {
        "snowman": f"{root}/snowman.png",
        "guitar": data_uri("guitar"),
        "words": "a guitar",
        "broken": "data:image/png;base64,AAAA",
        "gone": f"{root}/gone.png",
        "private": "http://10.0.0.1/a.png",
    }
    body = [document(name, {}, name=name, look={"at": value}) for name, value in given.items()]
    answer = api.upsert(body, wait=True)
    assert set(answer["unsearchable_document_ids"]) == {"broken", "gone", "private"}
    dead = api("GET", f"/namespaces/{api.namespace}/work/dead")["results"]
    assert {each["subject"] for each in dead} == {"broken", "gone", "private"}
    assert all(each["attempts"] == 1 for each in dead)
    assert alike(api, "image", data_uri("snowman"))[0] == "snowman"
    assert alike(api, "image", data_uri("guitar"))[0] == "guitar"
    assert {hit["name"] for hit in searched(api, "guitar", "image")[:2]} == {"guitar", "words"}


def test_a_thumbnail_is_read_by_its_reference_within_its_namespace(api: Api) -> None:
    api.standalone()
    api.promote()
    bucket(api, "pictures", PICTURES)
    seen(api, embedding_model=EMOJI)
    large = Image.open(io.BytesIO(drawing("dog face"))).convert("RGB").resize((900, 600))
    upright = Image.Exif()
    upright[ExifTags.Base.Orientation] = 6
    written = io.BytesIO()
    large.save(written, "JPEG", exif=upright)
    stored = put(api, "dog face", written.getvalue())
    quiet(api, "seen")
    (found,) = documents(api, "seen")
    assert (found["width"], found["height"], found["format"]) == (600, 900, "jpeg")
    sha256 = found["thumbnail"].removeprefix("blob:sha256:")
    path = f"/namespaces/{api.namespace}/blobs/{sha256}"
    answer = api.http.get(path, headers={"Authorization": api.authorization})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    small = Image.open(io.BytesIO(answer.content))
    assert small.height > small.width
    assert max(small.size) < 600
    other = Api(api.http, f"{api.namespace}_other")
    other.standalone()
    for place in (f"/namespaces/{other.namespace}/blobs/{sha256}", f"/namespaces/{api.namespace}/blobs/no%00hash"):
        assert api("GET", place, status=404)["error"]["code"] == "not_found"
    api("DELETE", f"/buckets/pictures/objects/{stored['object_id']}")
    api("GET", path, status=404)


def test_a_bomb_fails_with_its_reason_and_the_others_are_made(api: Api) -> None:
    api.standalone()
    api.promote()
    bucket(api, "pictures", PICTURES)
    seen(api, embedding_model=EMOJI)
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    bad = [put(api, "bomb", bomb.getvalue()), put(api, "text", b"no picture")]
    put(api, "rocket")
    assert quiet(api, "seen")["document_count"] == 1
    for stored, reason in zip(bad, ("pixels", "no image"), strict=True):
        found = api("GET", f"/buckets/pictures/objects/{stored['object_id']}")
        assert found["status"] == "FAILED"
        assert reason in found["error"]


def test_a_service_without_its_checkpoint_is_told_and_its_pictures_wait(api: Api) -> None:
    api.standalone()
    api.promote()
    bucket(api, "pictures", PICTURES)
    made = seen(api)
    assert made["vector_indexes"][0]["name"] == "clip_vit_b32"
    assert any("PGRETRIEVE_CLIP_CHECKPOINT" in warning for warning in made["warnings"])


def test_a_checkpoint_in_the_folder_of_models_serves_collections(api: Api) -> None:
    options = {"checkpoint": f"{emoji.CLIP.name}/"}
    wanted = {"name": "own_clip", "provider": "open_clip", "model": "clip_micro", "dimension": 128, "settings": options}
    api("POST", "/inference/services", wanted)
    api.standalone()
    api.promote()
    bucket(api, "pictures", PICTURES)
    uri = seen(api, embedding_model="own_clip")["vector_indexes"][0]["feature_uri"]
    for name in NAMES:
        put(api, name)
    quiet(api, "seen", 60)
    assert "airplane" in by_words(api, "airplane", uri)
    assert alike(api, uri, data_uri("rocket"))[0] == "rocket"
