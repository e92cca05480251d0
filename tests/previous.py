"""Runs tests of the code before the newest migration on the schema that this tree's migrations make; `make contract`.

So it is proven that a new version may migrate while instances of the one before it still serve.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = "migrations/versions"
# What every instance does all the time, through the surfaces that it has; a minute or so.
TESTS = [
    "tests/api/test_namespaces.py",
    "tests/api/test_documents.py",
    "tests/api/test_execution.py",
    "tests/api/test_promotion.py",
    "tests/api/test_retrievers.py",
    "tests/api/test_upsert_wait.py",
]
# Loaded into the older tests: their databases are migrated by this tree, whose schema their code does not know.
PLUGIN = """
import os, subprocess, sys
from app.db import migrate

def upgrade(url, revision="head", *, sql=False):
    root = os.environ["PGRETRIEVE_TEST_NEWER"]
    code = "import sys; from app.db import migrate; migrate.upgrade(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, url], cwd=root, env={**os.environ, "PYTHONPATH": root}, check=True)

migrate.upgrade = upgrade
"""


def git(*arguments: str) -> str:
    told = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def before_the_newest_migration() -> str | None:
    """The commit before the last one that changed the migrations, or HEAD where that is not committed yet."""
    if git("status", "--porcelain", "--", VERSIONS):
        return "HEAD"
    changed = git("log", "-1", "--format=%H", "--", VERSIONS)
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "-q", f"{changed}~1"], cwd=ROOT, capture_output=True, text=True
    )
    return found.stdout.strip() or None


def main() -> int:
    previous = sys.argv[1] if len(sys.argv) > 1 else before_the_newest_migration()
    if previous is None:
        print("No earlier commit is here (a shallow clone): nothing to run.")
        return 0
    with tempfile.TemporaryDirectory() as parent:
        tree = Path(parent, "previous")
        git("worktree", "add", "--detach", "-q", str(tree), previous)
        try:
            tree.joinpath("newer_schema.py").write_text(PLUGIN, encoding="utf-8")
            print(f"The code of {git('log', '-1', '--format=%h %s', previous)}, on this tree's schema:", flush=True)
            there = [test for test in TESTS if tree.joinpath(test).exists()]
            command = [sys.executable, "-m", "pytest", "-q", "-p", "newer_schema", *there]
            environment = {**os.environ, "PYTHONPATH": str(tree), "PGRETRIEVE_TEST_NEWER": str(ROOT)}
            return subprocess.run(command, cwd=tree, env=environment).returncode
        finally:
            git("worktree", "remove", "--force", str(tree))


if __name__ == "__main__":
    sys.exit(main())
