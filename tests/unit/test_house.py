"""The rules of the house that no linter knows."""

import ast
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

from app.db.statements import NAME

ROOT = Path(__file__).parents[2]
MODULES = [path for folder in ("app", "migrations", "tests", "bench") for path in (ROOT / folder).rglob("*.py")]
LONGEST_MODULE = 400
LONGEST_DOCSTRING = 120


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > LONGEST_MODULE} == {}


def test_no_statement_is_put_together_from_text() -> None:
    """SQL is composed with SQLAlchemy Core or stands in sql/; `text(f"…")` is how injection begins."""
    found = []
    for path in (ROOT / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.JoinedStr):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in ("text", "execute", "exec_driver_sql", "literal_column"):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


# Statements that give a namespace a new version, and change nothing that functions of its retrievers are made of.
# A namespace that is being restored has no functions yet.
TOLD_ALONE = {"end_task", "end_counted_tasks", "cancel_task", "set_model_migration_state", "restore_namespace"}
# Their callers follow, since functions are made of what these modules know.
FOLLOWED_BY = {"lexical": ["index_repair", "namespace_changes"], "payload_indexes": ["payload_builds", "index_repair"]}


def test_whoever_changes_a_namespace_makes_its_functions_anew() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "sql" / "queries").glob("*.sql")]
    parts = [NAME.split(text) for text in texts]
    named = {name: text for found in parts for name, text in zip(found[1::2], found[2::2], strict=True)}
    changing = {name for name, text in named.items() if re.search(r"pgretrieve.namespaces\b.*\n?.*version \+ 1", text)}
    assert len(changing) > 10
    forgotten = []
    domain = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "app" / "domain").rglob("*.py")}
    for module, text in domain.items():
        uses = {name for name in changing - TOLD_ALONE if f'statement("{name}")' in text}
        by = FOLLOWED_BY.get(module, [module])
        if uses and not all("functions.follow(" in domain[one] for one in by):
            forgotten.append((module, uses))
    assert forgotten == []


def test_every_data_file_travels_in_the_wheel() -> None:
    project = tomllib.loads(ROOT.joinpath("pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    files = [
        path
        for folder in ("app", "migrations", "sql")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert len(files) > 10
    assert [str(path) for path in files if not any(fnmatch(path.name, pattern) for pattern in patterns)] == []
