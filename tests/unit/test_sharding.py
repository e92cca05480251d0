"""The way to several machines stays open: a namespace is a schema that nothing ties to another one (docs/citus.md)."""

import ast
import re
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.db import ddl
from app.db.statements import NAME
from app.retrieval.catalog import VectorConfig
from app.settings import Settings

ROOT = Path(__file__).parents[2]
SCHEMA = (ROOT / "sql" / "schema.sql").read_text(encoding="utf-8")
OURS = {"pgretrieve", "pgretrieve_queue", "pg_catalog", "information_schema"}
TABLE = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|TABLE|USING)\s+(?:ONLY\s+)?\"?(\w+)\"?\.\"?\w+", re.IGNORECASE)
FORMAT = re.compile(r"\bformat\(\s*(?:\$(\w*)\$(.*?)\$\1\$|'((?:[^']|'')*)')", re.DOTALL)
# The only ones that read one namespace and write or compare another; what each needs is in docs/citus.md.
CROSSING = {"app/domain/operation/clone.py:_copy_statement"}


def statements() -> list[tuple[str, str]]:
    found = []
    for path in sorted((ROOT / "sql" / "queries").glob("*.sql")):
        parts = NAME.split(path.read_text(encoding="utf-8"))
        found += list(zip(parts[1::2], parts[2::2], strict=True))
    return found


def schemas_named(text: str) -> set[str]:
    return set(TABLE.findall(text)) - OURS


@pytest.mark.parametrize(("name", "text"), statements())
def test_a_named_statement_names_no_namespace_and_takes_one_at_most(name: str, text: str) -> None:
    assert schemas_named(text) == set(), name
    assert len(set(re.findall(r":(schema(?!_revision)\w*|\w+_schema_name)\b", text))) <= 1, name


def placeholders(text: str) -> list[str]:
    """The arguments of `format` that stand for a schema; two without a number are two."""
    numbered = set(re.findall(r"%(\d+)\$I\.", text))
    return [*sorted(numbered), *re.findall(r"%I\.", text)]


def test_what_functions_put_together_is_of_one_schema() -> None:
    texts = [(found[2] or found[3] or "") for found in FORMAT.finditer(SCHEMA)]
    assert len(texts) > 30
    for text in texts:
        assert len(placeholders(text)) <= 1, text
        assert schemas_named(text) == set(), text
    assert placeholders("INSERT INTO %I.a SELECT * FROM %I.b") == ["%I.", "%I."]
    assert placeholders("INSERT INTO %1$I.a SELECT * FROM %2$I.b") == ["1", "2"]


def test_foreign_keys_of_the_catalogue_stay_in_it_and_no_migration_makes_another() -> None:
    keys = re.findall(r"FOREIGN KEY .*? REFERENCES (\w+)\.", SCHEMA)
    assert len(keys) > 30
    assert set(keys) == {"pgretrieve"}
    for path in (ROOT / "migrations").rglob("*.sql"):
        code = re.sub(r"--.*", "", path.read_text(encoding="utf-8"))
        if not path.name.startswith("0002"):  # procrastinate's own, unqualified in its schema
            assert set(re.findall(r"\bREFERENCES\s+(\S+?)\.", code)) <= {"pgretrieve"}, path


def test_the_catalogues_tables_could_be_reference_or_local_tables() -> None:
    tables = re.findall(r"^CREATE TABLE pgretrieve\.(\w+)", SCHEMA, re.MULTILINE)
    keyed = re.findall(
        r"^ALTER TABLE ONLY pgretrieve\.(\w+)\n    ADD CONSTRAINT \w+ (?:PRIMARY KEY|UNIQUE)", SCHEMA, re.M
    )
    assert set(tables) - set(keyed) == set(), "rows of a reference table are told apart by a key"
    assert not re.search(r"\b(INHERITS|PARTITION OF|UNLOGGED)\b", SCHEMA)
    assert " REFERENCES pgretrieve." not in "".join(str(sa.schema.CreateTable(table)) for table in namespace_tables())


def namespace_tables() -> list[sa.Table]:
    configs = [
        VectorConfig("a", "a", 3, "cosine", "a_hnsw", "hnsw_vector", "ready"),
        VectorConfig("s", "s", 100, "cosine", "s_hnsw", "exact", "ready", "sparse"),
        VectorConfig("m", "m", 3, "cosine", "m_hnsw", "hnsw_vector", "ready", "multi"),
    ]
    made = [ddl.documents_table("place", configs), *(ddl.side_table("place", c) for c in configs if c.kind == "multi")]
    assert all(ddl.vector_index("place", c, Settings()) is not None for c in configs if c.index_method != "exact")
    return made


def test_a_namespaces_tables_refer_to_their_own_schema_only() -> None:
    tables = namespace_tables()
    assert [table.schema for table in tables] == ["place", "place"]
    targets = {key.column.table.schema for table in tables for key in table.foreign_keys}
    assert targets == {"place"}


def test_what_retrievers_compile_to_reads_one_namespace() -> None:
    files = sorted((ROOT / "tests" / "golden" / "cases").rglob("*.sql"))
    assert len(files) > 50
    for path in files:
        assert schemas_named(path.read_text(encoding="utf-8")) <= {"golden"}, path


def test_only_what_is_written_down_composes_a_statement_over_two_namespaces() -> None:
    """A statement that is composed needs the catalogs of those it reads: which functions take two, and make one?"""
    found = set()
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [
                    a for a in node.args.args if a.annotation is not None and ast.unparse(a.annotation) == "Catalog"
                ]
                answers = ast.unparse(node.returns) if node.returns else ""
                if len(taken) > 1 and "sa." in answers:
                    found.add(f"{path.relative_to(ROOT)}:{node.name}")
    assert found == CROSSING
