"""The documentation is complete and current: settings, stages, commands, error codes, the README's commands."""

import ast
import re
from pathlib import Path

import pytest

from app.api.problems import STATUS
from app.errors import PgretrieveError
from app.reference import PAGES
from app.retrieval.stages import REGISTRY
from app.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CODE = re.compile(r"[a-z]+(_[a-z0-9]+)+")


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert DOCS.joinpath(name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_every_setting_and_every_stage_is_described() -> None:
    assert all(field.description for field in Settings.model_fields.values())
    assert all(stage.__doc__ for stage in REGISTRY.values())


def codes_in(path: Path) -> set[str]:
    """The codes that a module gives to errors: `code="…"`, `Problem(…, "…", …)`, `add(…, "…", …)`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given: list[ast.expr] = [k.value for k in node.keywords if k.arg == "code"]
            of = node.func.value if isinstance(node.func, ast.Attribute) else None
            on_binds = "binds" in (getattr(of, "attr", ""), getattr(of, "id", ""))
            given += node.args[:2] if name in ("Problem", "add") and not on_binds else []
            given += node.args[-1:] if name == "refuse" else []
            found |= {str(a.value) for a in given if isinstance(a, ast.Constant)}
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "code":
            found |= {str(node.value.value)} if isinstance(node.value, ast.Constant) else set()
    return {code for code in found if CODE.fullmatch(code) or code in ("conflict", "forbidden", "locked", "changed")}


def test_every_error_code_has_a_line() -> None:
    used = set().union(*(codes_in(path) for path in (ROOT / "app").rglob("*.py")))
    page = DOCS.joinpath("errors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `([a-z0-9_]+)`", page, flags=re.MULTILINE))
    assert used - told == set(), "describe these in docs/errors.md"
    assert len(used) > 40


def test_every_error_class_has_a_status() -> None:
    def below(cls: type[PgretrieveError]) -> set[type[PgretrieveError]]:
        return {cls}.union(*(below(child) for child in cls.__subclasses__()))

    for cls in below(PgretrieveError) - {PgretrieveError}:
        assert any(base in STATUS for base in cls.__mro__), cls


def test_the_readme_names_the_commands_of_the_makefile() -> None:
    readme = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):.*## ", ROOT.joinpath("Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    for command in ("demo", "test", "check", "serve", "bench"):
        assert command in targets
        assert f"make {command}" in readme


LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
WRITTEN = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((ROOT / "sql").glob("*.md"))]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_is_there(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not page.parent.joinpath(link).exists()] == []


def test_every_page_is_on_somebodys_path() -> None:
    named = {DOCS.joinpath(link).resolve() for link in LINK.findall(DOCS.joinpath("README.md").read_text("utf-8"))}
    assert set(WRITTEN) - named == {DOCS / "README.md"}
