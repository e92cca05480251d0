"""The settings of those who run it: logs, metrics, traces; and where all settings are read from."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from app.settings_files import Files


class Operation(BaseSettings):
    """What `app.settings.Settings` has beside its own."""

    model_config = SettingsConfigDict(env_prefix="PGRETRIEVE_", frozen=True, extra="ignore", populate_by_name=True)

    @field_validator("audit_retention_days")
    @classmethod
    def _a_month_or_for_ever(cls, days: int) -> int:
        if 0 < days < 30:
            raise ValueError("the database keeps audit events for 30 days at least; 0 keeps them for ever")
        return days

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
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people, or a JSON object each. Both have the id of the request or job."
    )
    access_log: bool = Field(False, description="Whether each request is a line of the log.")
    slow_statement_ms: int = Field(
        1_000,
        ge=0,
        description="A retriever's statement that takes longer is logged with its plan, without values; 0 logs none.",
    )
    metrics: bool = Field(True, description="Whether `serve` answers `/metrics`, for Prometheus.")
    metrics_token: SecretStr | None = Field(
        None, min_length=16, description="What `/metrics` asks for as `Authorization: Bearer …`. Default: nothing."
    )
    worker_metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port on which `pgretrieve worker` answers `/metrics`. Default: none."
    )
    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="Where traces are sent by OpenTelemetry's protocol over HTTP, as `http://collector:4318`. Needs "
        "`pgretrieve[otel]`. Default: nowhere.",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="Share of the requests without a trace of their own that are traced."
    )
    health_timeout_s: float = Field(2.0, gt=0, description="How long `/health/ready` waits for the database.")
    health_worker: bool = Field(
        False, description="Whether `/health/ready` also asks that some worker has shown a sign of life for a minute."
    )
    audit_retention_days: int = Field(
        365, ge=0, description="How many days audit events are kept, 30 or more; 0 keeps them for ever."
    )
    audit_addresses: bool = Field(True, description="Whether audit events have the address that the request came from.")
    rate_limit_per_minute: int = Field(
        0,
        ge=0,
        description="Requests that each key may send in a minute, but for keys with a limit of their own and the root "
        "key ([keys](keys.md)). Each process counts by itself. 0: as many as it likes.",
    )
    key_cache_s: float = Field(
        5.0,
        ge=0,
        description="How long a process trusts an API key it has checked; revoking takes that long.",
    )
