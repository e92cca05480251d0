"""The list of feature extractors: what the registry has, by every route."""

import inspect

from app.extractors import REGISTRY
from tests.http import Api

IDS = ["image_extractor_v1", "passthrough_extractor_v1", "text_extractor_v1"]


def test_the_list_is_the_registry(api: Api) -> None:
    api.standalone(("v", 2))
    listed = api("GET", "/collections/features/extractors")
    assert [each["feature_extractor_id"] for each in listed] == IDS == list(REGISTRY)
    for each in listed:
        kind = REGISTRY[each["feature_extractor_id"]]
        assert each["description"] == inspect.getdoc(kind)
        assert set(each["parameter_schema"]["properties"]) == set(kind.__struct_fields__)
        assert set(each["default_parameters"]) == set(kind.__struct_fields__)
        assert api("GET", f"/collections/features/extractors/{each['feature_extractor_id']}") == each
        assert api("GET", f"/namespaces/{api.namespace}/extractors/{each['feature_extractor_id']}") == each
    assert api("GET", f"/namespaces/{api.namespace}/extractors") == {
        "success": True,
        "extractors": listed,
        "total": 3,
        "namespace_id": api.namespace,
        "builtin_count": 3,
        "custom_count": 0,
    }
    assert api("GET", f"/namespaces/{api.namespace}/extractors?source=custom")["extractors"] == []
    discovered = api("GET", "/discovery/extractors")
    assert [each["name"] for each in discovered] == [each["feature_extractor_name"] for each in listed]
    shared = set(listed[0]) & set(discovered[0])
    assert len(shared) > 10
    assert [{name: each[name] for name in shared} for each in discovered] == [
        {name: each[name] for name in shared} for each in listed
    ]


def test_an_extractor_tells_where_its_vectors_go_and_whether_they_can_be_made(api: Api) -> None:
    api.standalone(("v", 2))
    text = api("GET", "/collections/features/extractors/text_extractor_v1")
    [index] = text["required_vector_indexes"]
    assert index["feature_uri"] == text["feature_uri"] == "mixpeek://text_extractor@v1/embedding"
    assert (index["index"]["inference_name"], index["index"]["dimensions"]) == ("minilm_l6_v2", 384)
    assert text["realtime_available"] is True
    image = api("GET", "/collections/features/extractors/image_extractor_v1")
    assert image["required_vector_indexes"][0]["index"]["inference_name"] == "clip_vit_b32"
    assert image["realtime_available"] is False
    assert (image["type_mode"], image["expected_input_types"]) == ("type_specific", {"image": "image"})
    passthrough = api("GET", "/collections/features/extractors/passthrough_extractor_v1")
    assert passthrough["required_vector_indexes"] == []
    assert passthrough["realtime_available"] is None


def test_what_is_not_there(api: Api) -> None:
    api.standalone(("v", 2))
    for path in ("/collections/features/extractors/video_extractor_v1", f"/namespaces/{api.namespace}/extractors/x"):
        code, _ = api.refused("GET", path, status=404)
        assert code == "not_found"
    api("GET", "/namespaces/none/extractors", status=404)
    api("GET", f"/namespaces/{api.namespace}/extractors?source=mine", status=400)
    api("GET", "/collections/features", status=501)
