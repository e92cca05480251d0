"""Settings: where they come from, and `pgretrieve settings`, which shows all of them and no secret."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pydantic_settings import SettingsError

from app.cli import main
from app.inference.references import resolve
from app.settings import Settings, ordered
from app.settings_files import variable

SECRET = "sk-not-to-be-seen"
PASSWORD = "postgresql://me:not-to-be-seen@db/app"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests; and the log stays pytest's."""
    for name, field in ordered():
        monkeypatch.delenv(variable(name, field), raising=False)
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["settings", *arguments], env=environment)


def test_every_setting_is_printed_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    said = run(
        "--json",
        DATABASE_URL=PASSWORD,
        OPENAI_API_KEY_FILE=str(file),
        PGRETRIEVE_POOL_SIZE="7",
        PGRETRIEVE_CHAT_BASE_URL="http://me:not-to-be-seen@llm/v1",
    )
    assert said.exit_code == 0, said.output
    rows = {row["name"]: (row["value"], row["source"]) for row in json.loads(said.stdout)}
    assert list(rows) == [variable(name, field) for name, field in ordered()]
    assert rows["DATABASE_URL"] == ("(hidden)", "environment")
    assert rows["OPENAI_API_KEY"] == ("(hidden)", f"file {file}")
    assert rows["PGRETRIEVE_POOL_SIZE"] == (7, "environment")
    assert rows["PGRETRIEVE_CHAT_BASE_URL"] == ("http://(hidden)@llm/v1", "environment")
    assert rows["PGRETRIEVE_PORT"] == (8000, "default")
    assert rows["PGRETRIEVE_ROOT_KEY"] == (None, "default")
    table = run("--changed", DATABASE_URL=PASSWORD, PGRETRIEVE_WORKER="false").stdout
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["DATABASE_URL", "(hidden)", "environment"],
        ["PGRETRIEVE_WORKER", "false", "environment"],
    ]
    assert "not-to-be-seen" not in said.output + table


def test_a_setting_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def filed(name: str, value: str) -> None:
        path = tmp_path / name
        path.write_bytes(value.encode())
        monkeypatch.setenv(f"{name}_FILE", str(path))

    filed("DATABASE_URL", f"{PASSWORD}\r\n")
    filed("PGRETRIEVE_POOL_SIZE", "12\n")
    filed("PGRETRIEVE_RERANKERS", '{"mine": {"kind": "tei", "base_url": "http://x"}}')
    filed("PGRETRIEVE_SECRET_MINE", f"{SECRET}\n")
    found = Settings()
    assert found.database_url is not None
    assert found.database_url.get_secret_value() == PASSWORD
    assert (found.pool_size, list(found.rerankers)) == (12, ["mine"])
    assert resolve("PGRETRIEVE_SECRET_MINE", found) == SECRET
    assert Settings(pool_size=3).pool_size == 3


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = run(DATABASE_URL_FILE=str(tmp_path / "none"))
    assert absent.exit_code == 1
    assert f"DATABASE_URL_FILE names {tmp_path / 'none'}, which cannot be read: No such file" in absent.output
    both = run(PGRETRIEVE_PORT="1", PGRETRIEVE_PORT_FILE=str(tmp_path))
    assert "PGRETRIEVE_PORT and PGRETRIEVE_PORT_FILE are both set" in both.output
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path))
    with pytest.raises(SettingsError, match="Is a directory"):
        Settings()
