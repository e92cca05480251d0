"""Promotion while the whole service or the whole server dies at one of its statements: all of it, or nothing."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app import service
from app.db.embedded import EmbeddedServer
from app.settings import Settings
from tests.faults.clients import LOCAL, PROMOTION, is_gone, some_documents, steady
from tests.faults.sabotage import Sabotage, shut_down
from tests.http import ROOT_KEY, Api
from tests.state import rows, state

HEADERS = {"Authorization": f"Bearer {ROOT_KEY}"}
# The first statement that is the promotion's alone; before it there is nothing to lose.
BEGINNING = "SELECT pg_backend_pid()"
# Where something could be left half done: a test of each in the suite, `make campaign` takes every statement.
TURNS = (
    ("after", "FOR UPDATE OF n"),
    ("after", "UPDATE pgretrieve.namespaces"),
    ("after", "ALTER TABLE"),
    ("before", "COMMIT"),
    ("after", "COMMIT"),
)
Turns = tuple[tuple[str, str], ...]
EVERY = pytest.param((), marks=pytest.mark.campaign, id="every statement")


def chosen(steps: list[str], turns: Turns) -> list[int]:
    """The first step of each turn; all steps where there are no turns."""
    if not turns:
        return list(range(len(steps)))
    return [next(n for n, step in enumerate(steps) if step.startswith(when) and what in step) for when, what in turns]


def prepared(client: httpx.Client) -> Api:
    api = Api(client, f"test_{uuid4().hex[:12]}")
    api.standalone(LOCAL)
    api.upsert(some_documents(3))
    return api


def promoted(client: httpx.Client, namespace: str) -> httpx.Response:
    return client.post(f"/namespaces/{namespace}/promote", json=PROMOTION, headers=HEADERS)


@contextmanager
def sabotaged(sabotage: Sabotage, settings: Settings, url: str) -> Iterator[httpx.Client]:
    """A client of a service in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.create_engine", sabotage.create_engine)
        with (
            service.in_background(steady(settings), url, ROOT_KEY) as base,
            httpx.Client(base_url=f"{base}/v1", timeout=60) as client,
        ):
            yield client


def undisturbed(client: httpx.Client, sabotage: Sabotage, url: str) -> tuple[list[str], tuple[Any, ...]]:
    """The steps of a promotion that nothing happens to, and the state after it."""
    api = prepared(client)
    steps = sabotage.arm(beginning=BEGINNING)
    assert promoted(client, api.namespace).status_code == 200
    sabotage.steps = None
    return steps, state(url, api.namespace)


# The service


def serve_and_die(listening: socket.socket, settings: Settings, url: str, at: int) -> None:
    """A service that ends without a word (SIGKILL) at that step of the first promotion that it is asked for."""
    sabotage = Sabotage(url, deed=lambda _: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.main.create_engine", sabotage.create_engine)
        server = service.server(steady(settings), url, ROOT_KEY)
    sabotage.arm(at, beginning=BEGINNING)
    server.run([listening])


@pytest.mark.parametrize("turns", [pytest.param(TURNS, id="turning points"), EVERY])
def test_a_service_that_is_killed_leaves_all_or_nothing(settings: Settings, conninfo: str, turns: Turns) -> None:
    # Forked from a process that has everything imported and no threads: a service is there in a third of a second.
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["tests.faults.test_crashes"])
    sabotage = Sabotage(conninfo)
    with sabotaged(sabotage, settings, conninfo) as other:
        steps, after = undisturbed(other, sabotage, conninfo)
        for at in chosen(steps, turns):
            api = prepared(other)
            before, documents = state(conninfo, api.namespace), rows(conninfo, api.namespace)
            with socket.create_server(("127.0.0.1", 0)) as listening:
                process = forking.Process(target=serve_and_die, args=(listening, settings, conninfo, at))
                process.start()
                base = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
            with httpx.Client(base_url=base, timeout=60) as dying, pytest.raises(httpx.TransportError):
                promoted(dying, api.namespace)
            process.join(30)
            assert process.exitcode == -signal.SIGKILL, steps[at]
            committed = steps[at] == "after COMMIT"
            assert state(conninfo, api.namespace) == (after if committed else before), steps[at]
            # Another service goes on at once: the dead one's transaction is gone with it.
            assert promoted(other, api.namespace).status_code == (409 if committed else 200), steps[at]
            assert state(conninfo, api.namespace) == after, steps[at]
            assert rows(conninfo, api.namespace) == documents


# The server


@pytest.mark.parametrize("turns", [pytest.param(TURNS, id="turning points"), EVERY])
def test_a_server_that_is_shut_down_at_once_leaves_all_or_nothing(
    settings: Settings, own_server: EmbeddedServer, turns: Turns
) -> None:
    url = own_server.url
    sabotage = Sabotage(url, deed=lambda _pid: shut_down(own_server))
    with sabotaged(sabotage, settings, url) as client:
        steps, after = undisturbed(client, sabotage, url)
        for at in chosen(steps, turns):
            sabotage.steps = None
            api = prepared(client)
            before, documents = state(url, api.namespace), rows(url, api.namespace)
            sabotage.arm(at, beginning=BEGINNING)
            answer = promoted(client, api.namespace)
            sabotage.steps = None
            own_server.stop()
            assert own_server.start() == url
            committed = steps[at] == "after COMMIT"
            assert answer.status_code == 200 if committed else is_gone(answer), f"{steps[at]}: {answer.text}"
            assert state(url, api.namespace) == (after if committed else before), steps[at]
            # The very next request works: the service has noticed, and the server has recovered.
            assert promoted(client, api.namespace).status_code == (409 if committed else 200), steps[at]
            assert state(url, api.namespace) == after
            assert rows(url, api.namespace) == documents
