"""The demonstration, walked as its users walk it; what it shows of its managed part is what it promises."""

import pytest

from app.demo import telling, walkthrough
from app.settings import Settings
from tests.http import ROOT_KEY


@pytest.mark.timeout(400)
def test_the_whole_walk(
    base_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(telling.console, "_width", 160)
    walkthrough.run(base_url, ROOT_KEY, settings)
    told = capsys.readouterr().out
    assert "Same documents and scores as with the vector: yes" in told
    assert "6 objects of guides" in told
    assert "17 objects of pictures" in told
    assert told.count("100%") == told.count("COMPLETED: ") == 2
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in told.splitlines() if line.startswith("│")]
    best = {row[0]: row[1:] for row in rows if row[0]}
    assert best["water my plants"][1] == "the file houseplants"
    assert best["see the planets tonight"][1] == "the applications"
    assert best["“a boat on the sea”"][0].startswith("sailboat")
    assert best["the picture tiger-face.png"][0] == "tiger face (1.00)"
