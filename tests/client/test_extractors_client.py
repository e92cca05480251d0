"""Feature extractors in the models of the official client, and its parameters taken as it sends them."""

from collections.abc import Callable

import mixpeek
import pytest
from mixpeek import Mixpeek

from app.errors import Problems
from app.extractors import REGISTRY, read
from tests.http import ROOT_KEY


def test_the_generated_client_reads_them(
    client: Mixpeek, generated: Callable[..., mixpeek.ApiClient], namespace: str
) -> None:
    client.namespaces.create(namespace_id=namespace, vector_configs=[{"name": "v", "dimension": 2}])
    connection = generated()
    key = {"Authorization": f"Bearer {ROOT_KEY}"}  # which the client sends with these calls only where it is told to
    extractors = mixpeek.FeatureExtractorsApi(connection)
    listed = extractors.list_feature_extractors(_headers=key)
    assert [each.feature_extractor_id for each in listed] == list(REGISTRY)
    assert listed[2].required_vector_indexes[0].index.actual_instance.dimensions == 384
    one = extractors.get_feature_extractor_by("text_extractor_v1", _headers=key)
    assert one.default_parameters["chunk_size"] == 1_000
    of_namespace = mixpeek.NamespaceExtractorsApi(connection)
    assert of_namespace.list_extractors_namespaces(namespace).total == 3
    assert of_namespace.get_extractor_namespaces(namespace, "image_extractor_v1").source.value == "builtin"
    discovered = mixpeek.DiscoveryApi(connection).list_extractors_discovery(_headers=key)
    assert [each.supported_modalities for each in discovered] == [["image"], [], ["text"]]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("text_extractor", mixpeek.TextExtractorParams(split_by=mixpeek.TextSplitStrategy.WORDS, chunk_overlap=5)),
        ("image_extractor", mixpeek.ImageExtractorParams()),
        (
            "passthrough_extractor",
            mixpeek.PassthroughExtractorParams(
                vector_fields=[mixpeek.VectorFieldSpec.from_dict({"field": "e", "name": "v", "dimensions": 2})]
            ),
        ),
    ],
)
def test_its_typed_parameters_are_taken_as_they_come(name: str, parameters: object) -> None:
    problems = Problems()
    sent = parameters.to_dict()  # type: ignore[attr-defined]
    assert read(name, "v1", sent, problems) is not None, problems.found
