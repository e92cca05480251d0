"""Sparse vectors and multi-vectors over HTTP: stored and answered to the bit, and what does not fit is refused."""

from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from tests.http import Api, document, feature_search, search

KINDS = [
    {"name": "dense", "dimension": 2},
    {"name": "splade", "dimension": 30_000, "kind": "sparse"},
    {"name": "colbert", "dimension": 3, "kind": "multi", "metric": "euclidean"},
]


@pytest.fixture
def kinds(api: Api) -> Api:
    made = api("POST", "/namespaces/standalone", {"namespace_id": api.namespace, "vector_configs": KINDS})
    assert made["vector_configs"] == [
        {"name": "dense", "dimension": 2, "metric": "cosine"},
        {"name": "splade", "dimension": 30_000, "metric": "dot", "kind": "sparse"},
        {"name": "colbert", "dimension": 3, "metric": "euclidean", "kind": "multi"},
    ]
    assert api("GET", f"/namespaces/{api.namespace}")["vector_configs"] == made["vector_configs"]
    return api


def vectors(api: Api, document_id: str = "d") -> Any:
    return api("GET", f"/documents/{document_id}?return_vectors=true")["vectors"]


def float32(values: Any) -> list[int]:
    return np.asarray(values, dtype=np.float32).ravel().view(np.uint32).tolist()


def test_they_come_back_to_the_bit(kinds: Api) -> None:
    values = [0.1, -1e-45, 3.4028234e38, 1.17549435e-38]
    sparse = {"indices": [29_999, 0, 7, 3], "values": values}
    multi = [[0.1, -0.0, 1e-45], [3.4028234e38, -2.5e-7, 0.0]]
    kinds.upsert([document("d", {"dense": [1, 0], "splade": sparse, "colbert": multi})])
    ways: list[Any] = [
        vectors(kinds),
        kinds("POST", "/documents/list", {"return_vectors": True})["results"][0]["vectors"],
        kinds("POST", "/documents/batch-get", {"document_ids": ["d"], "return_vectors": True})["documents"][0][
            "vectors"
        ],
    ]
    kinds.retriever("r", feature_search(search("dense", [1, 0])))
    ways.append(kinds.execute("r", return_vectors=True)["documents"][0]["vectors"])
    for found in ways:
        assert found["splade"]["indices"] == [0, 3, 7, 29_999]
        assert float32(found["splade"]["values"]) == float32([values[1], values[3], values[2], values[0]])
        assert [float32(row) for row in found["colbert"]] == [float32(row) for row in multi]
    assert kinds("POST", "/documents/list", {"return_vector_names": True})["results"][0]["_vectors"] == [
        "dense",
        "splade",
        "colbert",
    ]


def test_random_ones_come_back_to_the_bit(kinds: Api) -> None:
    random = np.random.default_rng(7)
    stored = {}
    for n in range(20):
        bits = random.integers(1, 2**31, size=303, dtype=np.uint64).astype(np.uint32).view(np.float32)
        bits[~np.isfinite(bits)] = 0.5
        indices = random.permutation(30_000)[: 300 - n].tolist()
        stored[f"d{n:02}"] = {
            "splade": {"indices": indices, "values": bits[: 300 - n].tolist()},
            "colbert": bits[:303].reshape(-1, 3)[: n + 1].tolist(),
        }
    kinds.upsert([document(name, given) for name, given in stored.items()])
    for found in kinds("POST", "/documents/list", {"return_vectors": True, "limit": 20})["results"]:
        given = stored[found["document_id"]]
        pairs = sorted(zip(given["splade"]["indices"], given["splade"]["values"], strict=True))
        assert found["vectors"]["splade"]["indices"] == [index for index, _ in pairs]
        assert float32(found["vectors"]["splade"]["values"]) == float32([value for _, value in pairs])
        assert float32(found["vectors"]["colbert"]) == float32(given["colbert"])


def test_an_upsert_replaces_and_a_deletion_removes_them(kinds: Api, conninfo: str) -> None:
    kinds.upsert([document("d", {"colbert": [[1, 2, 3]] * 5, "splade": {"indices": [1], "values": [2]}})])
    kinds.upsert([document("d", {"colbert": [[4, 5, 6]]}), document("e", {"colbert": [[7, 8, 9]]})])
    assert vectors(kinds) == {"colbert": [[4, 5, 6]]}
    kinds("PATCH", "/documents/d", {"a": 1})
    assert vectors(kinds) == {"colbert": [[4, 5, 6]]}
    kinds.upsert([document("d", {"splade": {"indices": [], "values": []}})])
    assert vectors(kinds) == {"splade": {"indices": [], "values": []}}
    kinds("DELETE", "/documents/e")
    with psycopg.connect(conninfo) as connection:
        count = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(kinds.namespace, "documents_colbert"))
        assert connection.execute(count).fetchone() == (0,)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("splade", [1, 2], "is sparse"),
        ("splade", {"indices": [1]}, "is sparse"),
        ("splade", {"indices": [1, 2], "values": [1]}, "same length"),
        ("splade", {"indices": [1, 1], "values": [1, 2]}, "more than once"),
        ("splade", {"indices": [30_000], "values": [1]}, "from 0 to 29999"),
        ("splade", {"indices": [-1], "values": [1]}, "from 0 to 29999"),
        ("splade", {"indices": [1.5], "values": [1]}, "whole numbers"),
        ("splade", {"indices": [True], "values": [1]}, "whole numbers"),
        ("splade", {"indices": [1], "values": [0]}, "left out"),
        ("splade", {"indices": [1], "values": [1e-46]}, "left out"),
        ("splade", {"indices": [1], "values": [1e39]}, "float32"),
        ("splade", {"indices": [1], "values": ["x"]}, "must be a number"),
        ("splade", {"indices": list(range(16_001)), "values": [1] * 16_001}, "at most 16000"),
        ("colbert", [1, 2, 3], "multi-vectors"),
        ("colbert", [], "multi-vectors"),
        ("colbert", {"indices": [1], "values": [1]}, "multi-vectors"),
        ("colbert", [[1, 2, 3], [1, 2]], "vector 1: it has 2 dimensions"),
        ("colbert", [[1, 2, 3], 4], "multi-vectors"),
        ("colbert", [[1, 2, 3]] * 1025, "at most 1024"),
        ("dense", [[1, 2]], "is dense"),
        ("dense", {"indices": [1], "values": [1]}, "a list of 2 numbers"),
    ],
)
def test_what_does_not_fit_is_refused(kinds: Api, name: str, given: Any, says: str) -> None:
    path = f"/namespaces/{kinds.namespace}/documents/upsert"
    answer = kinds("POST", path, {"documents": [document("d", {name: given})]}, status=422)
    assert answer["error"]["code"] == "bad_vector"
    assert says in answer["error"]["message"]


def test_a_sparse_index_is_searched_by_inner_product(kinds: Api) -> None:
    kinds.upsert(
        [
            document("a", {"splade": {"indices": [1, 5], "values": [1, 2]}}),
            document("b", {"splade": {"indices": [5, 9], "values": [3, 1]}}),
            document("c", {"dense": [1, 0]}),
        ]
    )
    kinds.retriever("sparse", feature_search(search("splade", "{{INPUT.q}}")))
    found = kinds.execute("sparse", inputs={"q": {"values": [1, 0.5], "indices": [5, 1]}})["documents"]
    assert [(hit["document_id"], hit["score"]) for hit in found] == [("b", 3.0), ("a", 2.5)]
    parts = search("splade", {"indices": "{{INPUT.i}}", "values": "{{INPUT.v}}"})
    kinds.retriever("parts", feature_search(parts))
    assert kinds.ids("parts", inputs={"i": [1], "v": [1.0]})[0] == "a"
    dense = {"retriever_name": "r", "stages": [feature_search(search("splade", [1, 2]))]}
    answer = kinds("POST", "/retrievers", dense, status=422)
    assert "is sparse" in answer["error"]["message"]
    refused = kinds("POST", "/retrievers/sparse/execute", {"inputs": {"q": [1, 2]}}, status=422)
    assert "is sparse" in refused["error"]["message"]
    multi = {"retriever_name": "r", "stages": [feature_search(search("colbert", [[1, 2]]))]}
    assert "has 2 dimensions" in kinds("POST", "/retrievers", multi, status=422)["error"]["message"]


def test_kinds_of_new_indexes(api: Api) -> None:
    def refused(**config: Any) -> tuple[str, list[str]]:
        body = {"namespace_id": api.namespace, "vector_configs": [{"name": "v", "dimension": 3, **config}]}
        return api.refused("POST", "/namespaces/standalone", body)

    assert refused(kind="other") == ("unknown_kind", ["unknown_kind@body.vector_configs.0.kind"])
    assert refused(kind="sparse", dimension=1_000_000_001)[0] == "bad_dimension"
    assert refused(kind="multi", dimension=16_001)[0] == "bad_dimension"


def test_promotion_maps_only_dense_indexes_and_adds_any(kinds: Api) -> None:
    mapping = {"vector_mappings": [{"existing_index": "splade", "inference_service": "minilm_l6_v2"}]}
    answer = kinds("POST", f"/namespaces/{kinds.namespace}/promote", mapping, status=422)
    assert answer["error"]["code"] == "not_dense"
    kinds.promote(
        {
            "add_vectors": [
                {"name": "late", "dimension": 2, "kind": "multi"},
                {"name": "s", "dimension": 9, "kind": "sparse"},
            ]
        }
    )
    given = {"late": [[1, 2], [3, 4]], "s": {"indices": [8], "values": [1]}}
    kinds.upsert([document("d", given)])
    assert vectors(kinds) == given


def test_new_names_make_indexes_of_their_kind(api: Api) -> None:
    api("POST", "/namespaces/standalone", {"namespace_id": api.namespace})
    given = {"s": {"indices": [8], "values": [1.5]}, "m" * 70: [[1, 2], [3, 4]], "v": [1, 2]}
    api.upsert([document("d", given)])
    assert vectors(api) == given
