"""docker/: linted and held to the code, since no engine is at hand: settings, commands, mounts and metrics are real."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from compose_spec import PyCompose

from app.cli import main
from app.settings import ordered
from app.settings_files import SUFFIX, variable

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BASE = DOCKER / "compose.yaml"
OVERRIDES = sorted(path for path in DOCKER.glob("compose.*.yaml"))
SETTINGS = {variable(name, field) for name, field in ordered()}
OURS = ("migrate", "serve", "worker")


def loaded(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def merged(base: Any, over: Any) -> Any:
    """As `docker compose -f … -f …` merges two files."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over.get(key)) for key in {**base, **over}}
    if isinstance(base, list) and isinstance(over, list):
        return base + [each for each in over if each not in base]
    return base if over is None else over


def projects() -> list[Any]:
    return [
        pytest.param(loaded(BASE), id="single node"),
        *(pytest.param(merged(loaded(BASE), loaded(path)), id=path.name) for path in OVERRIDES),
    ]


def test_the_dockerfile_passes_hadolint() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    said = subprocess.run([program, str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular_and_has_what_it_copies() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall("^USER (.*)$", text, re.MULTILINE) == ["10001"]
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    let_in = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert copied <= {line.removeprefix("!") for line in let_in if line.startswith("!")}
    named = set(re.findall(r"\b(?:PGRETRIEVE_\w+)", text))
    assert named <= SETTINGS


@pytest.mark.parametrize("project", projects())
def test_a_compose_project_is_valid_and_what_it_names_is_there(project: dict[str, Any]) -> None:
    project = {key: value for key, value in project.items() if not key.startswith("x-")}
    PyCompose.from_json(json.dumps(project)).validate()
    for service in project["services"].values():
        assert set(service.get("secrets", ())) <= set(project["secrets"])
        assert set(service.get("depends_on", ())) <= set(project["services"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).is_file() if source.startswith("./") else source in project["volumes"], volume
    for secret in project["secrets"].values():
        assert secret["file"].startswith("./secrets/")


@pytest.mark.parametrize("project", projects())
def test_our_services_use_our_commands_and_settings(project: dict[str, Any]) -> None:
    for name in OURS:
        service = project["services"][name]
        command, *options = service["command"]
        assert command in main.commands
        known = {opt for p in main.commands[command].params for opt in (*p.opts, *p.secondary_opts)}
        assert set(options) <= known
        environment = set(service["environment"])
        assert {each.removesuffix(SUFFIX) for each in environment} <= SETTINGS
        files = {value for key, value in service["environment"].items() if key.endswith(SUFFIX)}
        assert files <= {f"/run/secrets/{secret}" for secret in service["secrets"]}
        assert not {each for each in environment if each + SUFFIX in environment}, "a value and its file"


def test_no_secret_is_in_the_repository() -> None:
    assert not (DOCKER / "secrets").exists()
    assert "docker/secrets/" in (ROOT / ".gitignore").read_text(encoding="utf-8").split()


def test_what_observes_it_is_read() -> None:
    for path in (DOCKER / "observability").glob("*.yaml"):
        assert loaded(path), path
    scraped = loaded(DOCKER / "observability" / "prometheus.yaml")["scrape_configs"]
    services = merged(loaded(BASE), loaded(DOCKER / "compose.observability.yaml"))["services"]
    for job in scraped:
        (found,) = job["dns_sd_configs"]
        assert set(found["names"]) <= set(services)
    assert services["worker"]["environment"]["PGRETRIEVE_WORKER_METRICS_PORT"] == str(
        next(job["dns_sd_configs"][0]["port"] for job in scraped if job["job_name"] == "worker")
    )


def test_the_scripts_of_the_replica_are_bash() -> None:
    for path in (DOCKER / "replica").glob("*.sh"):
        assert subprocess.run(["bash", "-n", str(path)]).returncode == 0


def test_the_dashboard_has_a_panel_for_each_question() -> None:
    dashboard = json.loads((DOCKER / "observability" / "dashboard.json").read_text(encoding="utf-8"))
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(titles) == len(set(titles)) > 10
    assert all(panel["targets"] for panel in dashboard["panels"])
