"""Scopes and limits without a database: what a principal may do, and whom it can give what."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.security import access, keys
from app.domain.security.access import EVERYTHING, SCOPES, Principal
from app.domain.security.keys import Wanted
from app.errors import Forbidden, InvalidRequest

scopes = st.frozensets(st.sampled_from([*SCOPES, EVERYTHING]), min_size=1)
limits = st.none() | st.frozensets(st.sampled_from(["a", "b"]), min_size=1)
NOW = datetime(2030, 1, 1, tzinfo=UTC)
ends = st.none() | st.integers(1, 10).map(lambda days: NOW + timedelta(days=days))


@given(scopes, limits, st.sampled_from([*SCOPES]))
def test_a_principal_may_what_its_scopes_say(
    given_scopes: frozenset[str], limit: frozenset[str] | None, scope: str
) -> None:
    principal = Principal("k", given_scopes, limit)
    expected = (scope in given_scopes or EVERYTHING in given_scopes) and (limit is None or scope != "admin")
    assert principal.may(scope) is expected
    if not expected:
        with pytest.raises(Forbidden):
            principal.require(scope)


@given(scopes, limits, ends, scopes, limits, ends)
def test_no_key_makes_one_that_may_more(
    maker_scopes: frozenset[str],
    maker_limit: frozenset[str] | None,
    maker_end: datetime | None,
    wanted_scopes: frozenset[str],
    limit: frozenset[str] | None,
    end: datetime | None,
) -> None:
    maker = Principal("k", maker_scopes, maker_limit, maker_end)
    wanted = Wanted("new", sorted(wanted_scopes), sorted(limit) if limit else None, end)
    try:
        keys.check(wanted, NOW)
        made = keys.bounded(wanted, maker)
    except (Forbidden, InvalidRequest):
        return
    child = Principal("new", frozenset(made.scopes), limit, made.expires_at)
    assert all(maker.may(scope) for scope in SCOPES if child.may(scope))
    assert maker_limit is None
    assert maker_end is None or (made.expires_at is not None and made.expires_at <= maker_end)


def test_every_problem_of_a_key_is_found_at_once() -> None:
    with pytest.raises(InvalidRequest) as found:
        keys.check(Wanted("", ["nothing", "*"], ["", "b"], NOW), NOW)
    codes = [problem.code for problem in found.value.problems]
    assert codes == ["bad_name", "unknown_scope", "scope_of_whole_server", "bad_name", "bad_expiry"]


async def test_what_a_request_sees_ends_with_it() -> None:
    async def request(limit: frozenset[str] | None) -> tuple[bool, bool, list[str] | None]:
        access.enter(Principal("k", frozenset({"read"}), limit))
        await asyncio.sleep(0)
        return access.sees("a"), access.sees("b"), access.visible()

    tasks = [asyncio.create_task(request(limit)) for limit in (frozenset({"a"}), None, frozenset({"b"}))]
    assert await asyncio.gather(*tasks) == [(True, False, ["a"]), (True, True, None), (False, True, ["b"])]
    assert access.visible() is None
