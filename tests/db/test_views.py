"""What analysts read: the views tell what is so, every statement of their pages runs, everything has a comment."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from app import service
from app.settings import Settings
from tests.conftest import database
from tests.http import ROOT_KEY, Api, document, feature_search, search
from tests.roles import RoleDatabase, made_in

ROOT = Path(__file__).parents[2]
PAGES = ("sql/README.md", "docs/analysts.md")


@pytest.fixture(scope="module")
def db(server_url: str, template_db: str) -> Iterator[RoleDatabase]:
    with database(server_url, template_db) as url, made_in(url) as made:
        yield made


@pytest.fixture(scope="module")
def shop(db: RoleDatabase, settings: Settings) -> Iterator[Api]:
    """The namespace `products` of the pages: standalone, written to, promoted, its indexes built."""
    with (
        service.in_background(settings, db.as_("api"), ROOT_KEY) as url,
        httpx.Client(base_url=f"{url}/v1", timeout=30) as http,
    ):
        api = Api(http, "products")
        configs = [{"name": "image", "dimension": 3}, {"name": "parts", "dimension": 3, "kind": "multi"}]
        configs.append({"name": "rare", "dimension": 1000, "kind": "sparse", "metric": "dot"})
        api("POST", "/namespaces/standalone", {"namespace_id": "products", "vector_configs": configs})
        things = [
            ("p1", "audio", "Headphones", 79),
            ("p2", "audio", "Amplifier", 249),
            ("p3", "video", "Projector", 399),
        ]
        vectors = {"image": [1, 0.5, 0], "parts": [[1, 0, 0], [0, 1, 0]], "rare": {"indices": [1], "values": [2.0]}}
        api.upsert([document(i, vectors, category=c, title=t, price=p) for i, c, t, p in things])
        api("PATCH", "/namespaces/products", {"payload_indexes": [{"field_name": "title", "type": "text"}]})
        api.retriever("near", feature_search(search("image", "{{INPUT.v}}")), input_schema={"v": {"type": "array"}})
        api.promote({"add_vectors": [{"name": "text", "dimension": 384, "inference_service": "minilm_l6_v2"}]})
        db.work(settings)
        yield api


def statements(page: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"```sql\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_statement_of_the_page_runs_as_an_analyst(db: RoleDatabase, shop: Api, page: str) -> None:
    assert shop
    found = statements(page)
    assert len(found) >= 5
    with psycopg.connect(db.as_("analyst"), autocommit=True) as conn:
        for text in found:
            conn.execute(text.encode())


def test_the_contract_names_every_view_and_nothing_that_is_not_there(db: RoleDatabase) -> None:
    told = set(re.findall(r"^\| `pgretrieve\.(\w+)` \|", (ROOT / PAGES[0]).read_text(encoding="utf-8"), re.MULTILINE))
    views = db.query(
        "analyst", "SELECT viewname FROM pg_views WHERE schemaname = 'pgretrieve' AND viewname !~ '^admin_'"
    )
    assert told == {name for (name,) in views}


def test_the_views_tell_what_is_so(db: RoleDatabase, shop: Api) -> None:
    with psycopg.connect(db.as_("analyst"), row_factory=dict_row) as conn:

        def read(view: str) -> list[dict[str, object]]:
            text = f"SELECT * FROM pgretrieve.{view} WHERE namespace_id = 'products'"
            return conn.execute(text.encode()).fetchall()

        (namespace,) = read("all_namespaces")
        assert (namespace["mode"], namespace["schema_name"], namespace["vector_configs"]) == ("managed", "products", 4)
        (promotion,) = read("all_promotions")
        assert promotion["vector_configs_before"] == ["image", "parts", "rare"]
        assert promotion["vector_configs_after"] == ["image", "parts", "rare", "text"]
        assert promotion["mappings"] == {"text": "minilm_l6_v2"}
        assert namespace["promoted_at"] == promotion["promoted_at"]
        (mapping,) = read("all_mappings")
        assert (mapping["vector_config"], mapping["inference_service"]) == ("text", "minilm_l6_v2")
        (retriever,) = read("all_retrievers")
        assert (retriever["stages"], retriever["inputs"]) == (["feature_search"], ["v"])
        assert {t["status"] for t in read("all_tasks")} <= {"COMPLETED"}
        configs = {str(c["vector_config"]): c for c in read("all_vector_configs")}
        for name, config in configs.items():
            where = f'SELECT count("{config["column_name"]}") FROM products."{config["table_name"]}"'
            counted = conn.execute(where.encode()).fetchone()
            assert counted == {"count": {"image": 3, "parts": 6, "rare": 3, "text": 0}[name]}
            bytes_ = conn.execute(
                "SELECT pg_relation_size(to_regclass(%s))", [f"products.{config['index_name']}"]
            ).fetchone()
            assert bytes_ == {"pg_relation_size": config["index_bytes"]}
            assert config["index_is_valid"] is (config["index_method"] != "exact")
        whole = conn.execute(
            "SELECT sum(pg_total_relation_size(oid)) AS bytes FROM pg_class "
            "WHERE relnamespace = 'products'::regnamespace AND relkind = 'r'"
        ).fetchone()
        told = conn.execute("SELECT sum(bytes) AS bytes FROM pgretrieve.all_sizes WHERE namespace_id = 'products'")
        assert told.fetchone() == whole


def test_open_work_and_dead_letters_are_told_without_what_they_hold(db: RoleDatabase, shop: Api) -> None:
    assert shop
    with psycopg.connect(db.url) as conn:
        conn.execute("""
            INSERT INTO pgretrieve.work (namespace_id, kind, target, subject, attempts, failed_at, error)
            VALUES ('products', 'embed', 'text', 'p1', 1, NULL, NULL),
                ('products', 'embed', 'text', 'p2', 3, NULL, NULL),
                ('products', 'embed', 'text', 'p3', 20, now(), '{"code": "refused", "message": "no"}')
        """)
        conn.execute("SET LOCAL ROLE pgretrieve_analyst")
        waiting = "SELECT made_for, waiting, being_made, tried_again FROM pgretrieve.all_open_work"
        assert conn.execute(waiting).fetchall() == [("text", 2, 0, 1)]
        dead = "SELECT made_for, made_from, attempts, error_code, error FROM pgretrieve.all_dead_letters"
        assert conn.execute(dead).fetchall() == [("text", "p3", 20, "refused", "no")]
        conn.rollback()


BARE = """
    SELECT concat_ws('.', c.relname, a.attname) FROM pg_class c
    CROSS JOIN LATERAL (
        SELECT NULL AS attname, obj_description(c.oid, 'pg_class') AS told
        UNION ALL SELECT attname, col_description(c.oid, attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a
    WHERE c.relnamespace = 'products'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
        AND coalesce(a.told, '') = ''
"""


def test_everything_in_a_namespaces_schema_has_a_comment(db: RoleDatabase, shop: Api) -> None:
    assert shop
    with psycopg.connect(db.url) as conn:
        tables = conn.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'products'::regnamespace AND relkind = 'r'"
        )
        assert tables.fetchone() == (6,)  # documents, a multi-vector's, four of words
        assert conn.execute(BARE).fetchall() == []
        conn.execute("COMMENT ON COLUMN products.documents.payload IS NULL")
        assert conn.execute(BARE).fetchall() == [("documents.payload",)]
        conn.rollback()


def test_no_comment_of_a_view_is_forgotten(db: RoleDatabase) -> None:
    with psycopg.connect(db.url) as conn:
        assert (
            conn.execute(BARE.replace("'products'", "'pgretrieve'") + " AND relname <> 'alembic_version'").fetchall()
            == []
        )
