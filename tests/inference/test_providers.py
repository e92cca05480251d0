"""Providers: what they refuse in a definition, all of it and without repeating it; folders of ONNX models for real."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.errors import InferenceUnavailable, InvalidRequest, Problems
from app.inference import providers
from app.inference.base import Service
from app.inference.definition import Definition
from app.inference.registry import Inference
from app.inference.services import minilm
from app.settings import Settings
from tests.fakes import FakeService, settings_of

SECRET = "sk-very-secret-0123456789"


def found(provider: str, settings: Settings | None = None, **options: Any) -> list[str]:
    """The settings that a definition is refused for. No message holds what was sent."""
    problems = Problems()
    providers.check(Definition("s", provider, "m", 8, options), settings or settings_of(), problems)
    assert not [problem for problem in problems.found if SECRET in problem.message]
    assert {problem.code for problem in problems.found} <= {"bad_setting"}
    return [str(problem.location[-1]) for problem in problems.found]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM's files."""
    folder = tmp_path_factory.mktemp("files")
    spec = find_spec(minilm.PACKAGE)
    assert spec and spec.origin
    shutil.copy(Path(spec.origin).with_name("model.onnx"), folder)
    shutil.copy(minilm.TOKENIZER, folder / "tokenizer.json")
    return folder


@pytest.fixture
def folder(files: Path, tmp_path: Path) -> Path:
    """A folder of models with MiniLM's files in `minilm/`: hard links, which look like any file."""
    shutil.copytree(files, tmp_path / "models" / "minilm", copy_function=os.link)
    return tmp_path / "models"


@pytest.fixture
async def inference(folder: Path) -> AsyncIterator[Inference]:
    built_in: dict[str, Service] = {minilm.NAME: minilm.minilm(2), "fake": FakeService()}
    inference = Inference(built_in, settings_of(model_dir=folder))
    yield inference
    await inference.close()


def onnx(name: str = "mine", dimension: int = 384, **options: Any) -> Definition:
    return Definition(name, "onnx", "all-MiniLM-L6-v2", dimension, {"path": "minilm", **options})


def test_every_problem_is_told_and_no_value() -> None:
    options: dict[str, Any] = {"base_url": 3, "api_key": SECRET, "api_key_ref": [SECRET], "send_dimensions": "yes"}
    assert sorted(found("openai", **options)) == ["api_key", "api_key_ref", "base_url", "send_dimensions"]
    assert sorted(found("openai", base_url=f"ftp://{SECRET}@h", api_key_ref=SECRET)) == ["api_key_ref", "base_url"]
    assert found("onnx", path="a", pooling="max", max_tokens=1, normalize=0) == ["pooling", "normalize", "max_tokens"]
    assert found("onnx") == ["path"]
    assert found("open_clip") == ["checkpoint"]
    assert found("telepathy") == ["provider"]


@pytest.mark.parametrize(
    "name", [SECRET, "DATABASE_URL", "PGRETRIEVE_ROOT_KEY", "PGRETRIEVE_SECRET_", "OPENAI_API_KEY"]
)
def test_a_secret_is_the_name_of_a_variable_with_the_prefix(name: str) -> None:
    assert found("openai", api_key_ref=name) == ["api_key_ref"]
    assert found("openai", api_key_ref="PGRETRIEVE_SECRET_VOYAGE") == []
    assert found("openai", settings_of(secret_prefix="KEY_"), api_key_ref="KEY_1") == []


@pytest.mark.parametrize(
    ("url", "fits"),
    [
        ("http://localhost:8080/v1", True),
        ("https://api.example.org", True),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("http://user:word@host/v1", False),
        ("https://host/v1?api-key=1", False),
        ("https://host/v1#x", False),
        ("http://host:99999/v1", False),
        ("http://ho st/v1", False),
        ("http://host/\nv1", False),
        ("http://[::1/v1", False),
    ],
)
def test_a_base_url_is_http_and_holds_no_secret(url: str, fits: bool) -> None:
    assert found("openai", base_url=url) == ([] if fits else ["base_url"])


@pytest.mark.parametrize(
    "path", ["", "/etc", "..", "../models", "a/../../b", "~/x", "a\\..\\b", "a\0b", "out", "out/x"]
)
def test_no_path_leads_out_of_the_folder_of_models(path: str, folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "minilm")
    settings = settings_of(model_dir=folder)
    assert found("onnx", settings, path=path) == ["path"]
    assert found("open_clip", settings, checkpoint=path) == ["checkpoint"]
    assert found("onnx", settings, path="in") == []


async def test_a_link_that_is_made_later_is_not_followed_either(folder: Path, tmp_path: Path) -> None:
    """The check at the time of use is the one that counts."""
    outside = tmp_path / "outside"
    shutil.move(folder / "minilm", outside)
    service = providers.build(onnx(), settings_of(model_dir=folder))
    assert "There is no file minilm/model.onnx" in str(service.unavailable())
    (folder / "minilm").symlink_to(outside)
    assert "leads out of PGRETRIEVE_MODEL_DIR" in str(service.unavailable())
    with pytest.raises(InferenceUnavailable, match="leads out"):
        await service.embed_texts(["a"], "query")
    await service.close()


async def test_a_folder_is_a_service_with_pooling_and_prefixes(inference: Inference) -> None:
    prefixes: dict[str, Any] = {"query_prefix": "query: ", "document_prefix": "passage: "}
    inference.keep_stored([onnx(), onnx("prefixed", **prefixes), onnx("first", pooling="cls")])
    text = "wireless headphones with noise cancelling"
    (plain,) = await inference.embed(minilm.NAME, [text])
    (query,) = await inference.embed(minilm.NAME, [f"query: {text}"])
    (passage,) = await inference.embed(minilm.NAME, [f"passage: {text}"])
    assert np.array_equal(await inference.embed("mine", [text]), [plain])
    assert np.array_equal(await inference.embed("prefixed", [text]), [query])
    assert np.array_equal(await inference.embed("prefixed", [text], "document"), [passage])
    (first,) = await inference.embed("first", [text])
    assert abs(np.linalg.norm(first) - 1) < 1e-5
    assert not np.allclose(first, plain)


async def test_pooling_without_normalizing_and_a_shorter_window(inference: Inference) -> None:
    lasts = [onnx(f"last{n}", pooling="last", normalize=False, max_tokens=n) for n in (4, 64)]
    inference.keep_stored([onnx("mean", normalize=False), *lasts])
    (mean,) = await inference.embed("mean", ["one two three four five"])
    (unit,) = await inference.embed(minilm.NAME, ["one two three four five"])
    assert np.linalg.norm(mean) > 1.5
    np.testing.assert_allclose(mean / np.linalg.norm(mean), unit, atol=1e-6)
    short, long = [
        (await inference.embed(name, ["one two three four five", "one two"]))[0] for name in ("last4", "last64")
    ]
    assert not np.allclose(short, long)


async def test_a_network_of_another_dimension_is_found_out(inference: Inference) -> None:
    inference.keep_stored([onnx(dimension=512)])
    with pytest.raises(InferenceUnavailable, match=r"expected one vector of 512 numbers") as failed:
        await inference.embed("mine", ["a"])
    assert failed.value.error_code == "inference_bad_answer"


async def test_files_that_are_no_model_can_be_put_right_without_a_restart(inference: Inference, folder: Path) -> None:
    inference.keep_stored([onnx(path="other")])
    with pytest.raises(InferenceUnavailable, match=r"There is no file other/model.onnx in PGRETRIEVE_MODEL_DIR"):
        await inference.embed("mine", ["a"])
    (folder / "other").mkdir()
    for name in ("model.onnx", "tokenizer.json"):
        (folder / "other" / name).write_text("nothing")
    with pytest.raises(InferenceUnavailable, match="not a tokenizer and a network that can be loaded"):
        await inference.embed("mine", ["a"])
    for name in ("model.onnx", "tokenizer.json"):
        (folder / "other" / name).unlink()
        (folder / "other" / name).symlink_to(folder / "minilm" / name)
    assert (await inference.embed("mine", ["a"])).shape == (1, 384)


def test_without_a_folder_of_models_it_says_what_to_set() -> None:
    for definition in (onnx(), Definition("c", "open_clip", "ViT-B-32", 512, {"checkpoint": "a.pt"})):
        service = providers.build(definition, settings_of())
        assert "PGRETRIEVE_MODEL_DIR is not set" in str(service.unavailable())


async def test_services_that_stay_the_same_are_kept_and_others_end_after_their_calls(inference: Inference) -> None:
    inference.keep_stored([onnx("a"), onnx("b")])
    a, b = inference.get("a"), inference.get("b")
    await inference.embed("b", ["load it"])
    running = inference.embed("b", ["x " * 200] * 8)
    task = asyncio.create_task(running)
    await asyncio.sleep(0)
    inference.keep_stored([onnx("a"), onnx("b", pooling="cls")])
    assert inference.get("a") is a
    assert inference.get("b") is not b
    assert (await task).shape == (8, 384)
    inference.keep_stored([])
    assert inference.names() == ["fake", minilm.NAME]


async def test_a_stored_service_keeps_its_name_though_a_newer_version_brings_one(inference: Inference) -> None:
    assert inference.is_built_in("fake")
    inference.keep_stored([onnx("fake")])
    assert not inference.is_built_in("fake")
    assert (await inference.embed("fake", ["a"])).shape == (1, 384)


async def test_a_definition_of_another_version_says_so(inference: Inference) -> None:
    inference.keep_stored([onnx("later", precision="int4"), Definition("odd", "telepathy", "m", 8)])
    for name in ("later", "odd"):
        with pytest.raises(InferenceUnavailable, match="another version of pgretrieve"):
            await inference.embed(name, ["a"])
    with pytest.raises(InvalidRequest):
        inference.sizes(["\ud800"])
