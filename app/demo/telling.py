"""What the parts of the demonstration share: a client that ends the walk on errors, and the console."""

from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

NAMESPACE = "demo_apps"
console = Console(highlight=False)


class Api:
    """The little of HTTP that the walk needs: an error ends it, with the server's own message."""

    def __init__(self, base_url: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}", "X-Namespace": NAMESPACE}
        self._http = httpx.Client(base_url=f"{base_url}/v1", headers=headers, timeout=60)

    def close(self) -> None:
        self._http.close()

    def __call__(self, method: str, path: str, body: Any = None, *, may_miss: bool = False) -> dict[str, Any]:
        answer = self._http.request(method, path, json=body)
        if answer.status_code == 404 and may_miss:
            return {}
        if answer.is_error:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        found: dict[str, Any] = answer.json()
        return found


def progress() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console)


def step(number: int, title: str) -> None:
    console.print(f"\n[bold]{number}. {title}[/]")


def show(answer: dict[str, Any]) -> None:
    for name, value in answer.items():
        if value not in (None, [], {}):
            console.print(f"   {name}: {value}", markup=False)
