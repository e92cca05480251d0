"""Settings and secrets from files: `NAME_FILE` holds the path of a file with the value of `NAME`, as Docker's and
Kubernetes' secrets come."""

import os
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsError

SUFFIX = "_FILE"


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    return str(field.validation_alias or f"PGRETRIEVE_{name.upper()}")


def from_file(name: str) -> str | None:
    """What the file says that `NAME_FILE` names, without its last line end; None where none is named."""
    path = os.environ.get(name + SUFFIX)
    if not path:
        return None
    if name in os.environ:
        raise SettingsError(f"{name} and {name}{SUFFIX} are both set; give one.")
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"{name}{SUFFIX} names {path}, which cannot be read: {reason}.") from None


class Files(EnvSettingsSource):
    """The environment, as if each variable whose file is named held what the file says."""

    def __init__(self, settings: type[BaseSettings]) -> None:
        super().__init__(settings)
        names = [variable(name, field) for name, field in settings.model_fields.items()]
        found = {name.lower(): from_file(name) for name in names}
        self.env_vars = {name: value for name, value in found.items() if value is not None}
