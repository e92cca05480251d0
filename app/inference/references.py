"""Secrets are references: a definition holds the name of an environment variable (or of one whose file is named by
`NAME_FILE`), never a value.

A prefix keeps definitions from reading any other variable of the process, such as the database's password.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass

from pydantic_settings import SettingsError

from app.settings import Settings
from app.settings_files import from_file

OPENAI = "OPENAI_API_KEY"  # the reference of the services that the installation brings; not for stored ones


def bad_reference(name: str, settings: Settings) -> str | None:
    """Why a definition may not refer to this name; the name is not repeated, since it may be a key itself."""
    prefix = settings.secret_prefix
    if re.fullmatch(f"{prefix}[A-Z0-9_]{{1,100}}", name):
        return None
    return (
        f"A secret is the name of an environment variable of the server that begins with {prefix} (capitals, digits, "
        "underscores); never the secret itself."
    )


def resolve(name: str, settings: Settings) -> str:
    """The secret of that name, or an empty text when there is none."""
    if name == OPENAI:
        key = settings.openai_api_key
        return key.get_secret_value().strip() if key else ""
    if bad_reference(name, settings):
        return ""
    with suppress(SettingsError):  # a file that cannot be read is a secret that is not there
        return (os.environ.get(name) or from_file(name) or "").strip()
    return ""


@dataclass(frozen=True, slots=True)
class Secrets:
    """What templates see as SECRET: `SECRET.stripe_key` is the variable `PGRETRIEVE_SECRET_STRIPE_KEY`."""

    settings: Settings

    def __getitem__(self, name: str) -> str:
        """Raises `KeyError` where there is no such secret."""
        prefix = self.settings.secret_prefix
        found = resolve(name if name.startswith(prefix) else f"{prefix}{name.upper()}", self.settings)
        if not found:
            raise KeyError(name)
        return found
