"""What all tests of moving need."""

import pytest


@pytest.fixture(autouse=True)
def keep_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run within this process, whose log is pytest's."""
    monkeypatch.setattr("app.commands.options.configure_logging", lambda *_: None)
