"""Providers make services from definitions: one module each, with `Options`, `check` and `build`.

A module imports its heavy packages only when a service is used, so that the command line stays quick and a missing
extra breaks nothing.
"""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, Protocol, cast

from app.errors import InferenceUnavailable, Problems
from app.inference.base import Answer, Service, ServiceInfo, Task
from app.inference.definition import Definition, Options, read_options
from app.inference.providers import onnx, open_clip, openai
from app.settings import Settings

SETTINGS = ("body", "settings")


class Provider(Protocol):
    """What a module of this package has."""

    Options: type[Options]

    def check(self, options: Any, settings: Settings) -> Iterable[tuple[str, str]]:
        """Pairs of a setting's name and what is wrong with it, beyond its type. No message repeats a value."""
        ...

    def build(self, definition: Definition, options: Any, settings: Settings) -> Service:
        """The service; does no I/O."""
        ...


def _provider(module: ModuleType) -> Provider:
    return cast(Provider, module)


PROVIDERS: dict[str, Provider] = {
    "onnx": _provider(onnx),
    "open_clip": _provider(open_clip),
    "openai": _provider(openai),
}


def check(definition: Definition, settings: Settings, problems: Problems) -> None:
    """Add every problem of a definition's provider and settings."""
    provider = PROVIDERS.get(definition.provider)
    if provider is None:
        message = f"No provider of that name; the providers are {', '.join(PROVIDERS)}."
        problems.add(("body", "provider"), "bad_setting", message)
        return
    options = read_options(provider.Options, definition.settings, SETTINGS, problems)
    if options is not None:
        for name, message in provider.check(options, settings):
            problems.add((*SETTINGS, name), "bad_setting", message)


def build(definition: Definition, settings: Settings) -> Service:
    """The service of a definition that was checked when it was stored, perhaps by another version of this program."""
    problems = Problems()
    provider = PROVIDERS.get(definition.provider)
    options = read_options(provider.Options, definition.settings, SETTINGS, problems) if provider else None
    if provider is None or options is None:
        return Unbuilt(definition)
    return provider.build(definition, options, settings)


class Unbuilt:
    """Stands where this version of the program cannot make the service."""

    def __init__(self, definition: Definition) -> None:
        self.info = ServiceInfo(
            name=definition.name,
            provider=definition.provider,
            model=definition.model,
            dimension=definition.dimension,
            modalities=("text",),
            normalized=False,
            description=definition.description,
            licence="",
            stored=True,
        )

    def unavailable(self) -> str | None:
        return "Its definition was stored by another version of pgretrieve: delete the service and make it anew."

    async def embed_texts(self, texts: Sequence[str], task: Task) -> Answer:  # noqa: ARG002 - nothing to embed with
        raise InferenceUnavailable(str(self.unavailable()), service=self.info.name)

    async def close(self) -> None:
        """Nothing was opened."""
