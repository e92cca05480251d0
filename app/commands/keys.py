"""pgretrieve keys: API keys made, rotated and revoked on the database itself. Who may open it has every right."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.ext.asyncio import AsyncConnection

from app import service
from app.commands.options import data_dir_option, json_option, print_json, print_table, settings_of
from app.db.engine import create_engine, transaction
from app.domain.security import audit
from app.domain.security import keys as domain
from app.domain.security.access import EVERYTHING, SCOPES
from app.domain.security.audit import Circumstances
from app.domain.security.keys import Key, Wanted
from app.settings import Settings

T = TypeVar("T")
MADE_BY = "pgretrieve keys"
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class End(click.ParamType[datetime]):
    """When a key ends: `30d`, `12h`, or a date or time in ISO 8601 (UTC unless it says otherwise)."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            if found := re.fullmatch(r"(\d+)([mhdw])", value):
                return datetime.now(UTC) + timedelta(**{UNITS[found[2]]: int(found[1])})
            end = datetime.fromisoformat(value)
            return end if end.tzinfo else end.replace(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; say 30d, 12h, 45m, 2w, or 2030-01-31.", param, ctx)


@click.group()
def keys() -> None:
    """Make, list, rotate and revoke API keys, directly on the database."""


@keys.command()
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice([*SCOPES, EVERYTHING]), help="What it may do."
)
@click.option("--namespace", "namespaces", multiple=True, help="Id or name of one that it sees; without: all of them.")
@click.option("--principal", help="Whose key it is: it reads only documents whose access list lets that principal.")
@click.option("--expires", type=End(), help="When it ends: 30d, 12h, 45m, 2w, or a date. Without: never.")
@click.option(
    "--rate-limit", type=click.IntRange(1, 1_000_000), help="Requests in a minute. Without: what the settings say."
)
@json_option
@data_dir_option
def create(
    name: str,
    scopes: tuple[str, ...],
    namespaces: tuple[str, ...],
    principal: str | None,
    expires: datetime | None,
    rate_limit: int | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Make a key and print it, this once."""
    wanted = Wanted(name, scopes, namespaces or None, expires, rate_limit, principal)
    domain.check(wanted, datetime.now(UTC))
    key, made, absent = _on_database(settings_of(data_dir=data_dir), lambda conn: domain.create(conn, wanted, MADE_BY))
    for missing in absent:
        click.echo(f"There is no namespace {missing!r} yet; the key will see it once it is created.", err=True)
    if as_json:
        print_json({**_shown(made), "key": key})
        return
    click.echo(f"{key}\n", nl=False)
    click.echo(f"That is the key {made.key_id} ({made.name}). Keep it: it cannot be shown again.", err=True)


@keys.command("list")
@json_option
@data_dir_option
def list_keys(as_json: bool, data_dir: Path | None) -> None:
    """List the keys, those that have ended too."""

    async def every(conn: AsyncConnection) -> list[Key]:
        found: list[Key] = []
        while page := (await domain.list_page(conn, after=found[-1].key_id if found else None, limit=1000))[0]:
            found += page
        return found

    found = _on_database(settings_of(data_dir=data_dir), every)
    if as_json:
        print_json([_shown(key) for key in found])
        return
    columns = ("id", "name", "scopes", "namespaces", "status", "made by", "ends", "last used")
    print_table(columns, [_row(key) for key in found])


def _row(key: Key) -> list[str]:
    where = "all" if key.namespaces is None else ", ".join(key.namespaces)
    ends, used = (f"{at:%Y-%m-%d %H:%M}" if at else "never" for at in (key.expires_at, key.last_used_at))
    return [key.key_id, key.name, " ".join(key.scopes), where, key.status, key.created_by or "", ends, used]


@keys.command()
@click.argument("key_id")
@json_option
@data_dir_option
def revoke(key_id: str, as_json: bool, data_dir: Path | None) -> None:
    """End a key. Services that have just checked it trust it for PGRETRIEVE_KEY_CACHE_S more."""
    settings = settings_of(data_dir=data_dir)
    revoked = _on_database(settings, lambda conn: domain.revoke(conn, key_id))
    if as_json:
        print_json(_shown(revoked))
    else:
        click.echo(
            f"{revoked.key_id} ({revoked.name}) is revoked; services refuse it within {settings.key_cache_s:g} s."
        )


@keys.command()
@click.argument("key_id")
@click.option("--grace", default="24h", help="How long the key before works on: 24h, 45m, 7d; 0m ends it at once.")
@json_option
@data_dir_option
def rotate(key_id: str, grace: str, as_json: bool, data_dir: Path | None) -> None:
    """Give a key another secret and print it, this once; the one before works on for a while."""
    if not (found := re.fullmatch(r"(\d{1,6})([mhdw])", grace)):
        raise click.BadParameter(f"{grace!r} is no time; say 24h, 45m, or 7d.", param_hint="--grace")
    lasting = timedelta(**{UNITS[found[2]]: int(found[1])})
    key, stored = _on_database(settings_of(data_dir=data_dir), lambda conn: domain.rotate(conn, key_id, lasting))
    if as_json:
        print_json({**_shown(stored), "key": key})
        return
    click.echo(f"{key}\n", nl=False)
    until = f"until {stored.previous_until:%Y-%m-%d %H:%M}" if stored.previous_until else "no longer"
    click.echo(f"That is {stored.key_id} ({stored.name}) from now on; the key before works {until}.", err=True)


def _shown(key: Key) -> dict[str, Any]:
    return {name: getattr(key, name) for name in Key.__slots__}


def _on_database(settings: Settings, act: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run it in a transaction of its own on the database of these settings."""

    audit.enter(Circumstances(operation_id=click.get_current_context().command_path))

    async def run(url: str) -> T:
        engine = create_engine(url, settings, application_name="pgretrieve-keys")
        try:
            async with transaction(engine, settings) as conn:
                return await act(conn)
        finally:
            await engine.dispose()

    with service.existing_database(settings) as url:
        return asyncio.run(run(url))
