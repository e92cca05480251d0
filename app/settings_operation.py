"""The settings of those who run it: logs, metrics, traces; and where all settings are read from."""

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.settings_files import Files


class Operation(BaseSettings):
    """What `app.settings.Settings` has beside its own."""

    model_config = SettingsConfigDict(env_prefix="PGRETRIEVE_", frozen=True, extra="ignore", populate_by_name=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic gives all four
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which is read with the files that it names."""
        return (init_settings, env_settings, Files(settings_cls))

    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log line.")
    key_cache_s: float = Field(
        5.0,
        ge=0,
        description="How long a process trusts an API key it has checked; revoking takes that long.",
    )
