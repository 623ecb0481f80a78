"""Policies: only a clear yes is one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sojourn.errors import AccessDenied, ConfigError, DeadlineExceeded, SecurityContextError
from sojourn.guards.auth.cedar import CedarPolicy
from sojourn.guards.auth.policy import Authorizer, Decision
from sojourn.scopes.context import SecurityContext, acting_as
from sojourn.scopes.deadline import deadline

ALICE = SecurityContext("alice", roles=frozenset({"editor"}), tenant="acme", authn="jwt")


def decide(answer: Any, context: SecurityContext | None = ALICE, **more: Any) -> tuple[Decision, Authorizer]:
    async def policy(context: SecurityContext, action: str, resource: str) -> Any:
        if callable(answer):
            return await answer()
        return answer

    authorizer = Authorizer(policy, **more)
    return asyncio.run(authorizer.decide(context, "GET", "/")), authorizer


@pytest.mark.parametrize("answer", [False, None, 1, "yes", [True], Decision(False, "no"), object()])
def test_anything_but_a_clear_yes_is_a_no(answer: Any) -> None:
    assert not decide(answer)[0]


@pytest.mark.parametrize("answer", [True, Decision(True)])
def test_a_clear_yes_is_one(answer: Any) -> None:
    assert decide(answer)[0]


def test_nobody_is_not_allowed_even_by_a_policy_that_allows_all() -> None:
    assert not decide(True, None)[0]


def test_a_policy_that_fails_is_a_no_and_is_counted() -> None:
    async def fail() -> bool:
        raise RuntimeError("no database")

    decision, authorizer = decide(fail)
    assert decision == Decision(False, "the policy could not decide")
    assert (authorizer.failures, authorizer.failure) == (1, "RuntimeError: no database")


def test_a_policy_that_does_not_answer_is_a_no_at_its_deadline() -> None:
    began = time.monotonic()
    assert not decide(asyncio.Event().wait, timeout=0.05)[0]
    assert time.monotonic() - began < 2.0


def test_the_deadline_around_a_policy_is_not_taken_for_its_own() -> None:
    async def policy(*asked: Any) -> bool:
        return await asyncio.Event().wait()

    async def main() -> None:
        async with deadline(0.05, "request"):
            await Authorizer(policy).decide(ALICE, "GET", "/")

    with pytest.raises(DeadlineExceeded, match="request"):
        asyncio.run(main())


def test_code_can_ask_for_who_acts() -> None:
    async def policy(context: SecurityContext, action: str, resource: str) -> bool:
        return (action, resource) == ("read", "report")

    async def main() -> None:
        authorizer = Authorizer(policy)
        with pytest.raises(SecurityContextError):
            await authorizer.require("read", "report")
        with acting_as(ALICE):
            assert (await authorizer.require("read", "report")).principal == "alice"
            with pytest.raises(AccessDenied, match="alice"):
                await authorizer.require("write", "report")

    asyncio.run(main())


CEDAR = """
permit(principal in Role::"editor", action == Action::"GET", resource);
forbid(principal, action, resource == Resource::"/secret");
permit(principal, action == Action::"PUT", resource) when { principal.tenant == "acme" };
permit(principal, action == Action::"DELETE", resource) when { principal.nothing == 1 };
"""


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("GET", "/a", True),
        ("GET", "/secret", False),
        ("PUT", "/a", True),
        ("POST", "/a", False),
        ("DELETE", "/a", False),  # its policy can't be evaluated
        ("GET", '/"a\n\\', True),
        ('GET" ) || Action::"GET', "/a", False),
    ],
)
def test_cedar_decides(action: str, resource: str, allowed: bool) -> None:
    policy = CedarPolicy(CEDAR)
    assert bool(asyncio.run(policy(ALICE, action, resource))) is allowed


def test_a_name_can_not_break_out_of_its_entity() -> None:
    policy = CedarPolicy('permit(principal == User::"admin", action, resource);')
    for name in ('admin"', 'x"; permit(principal,action,resource);//', "admin\n", 'User::"admin"'):
        assert not asyncio.run(policy(SecurityContext(name), "GET", "/"))
    assert asyncio.run(policy(SecurityContext("admin"), "GET", "/"))


def test_cedar_policies_that_can_not_be_used_are_found_at_start() -> None:
    with pytest.raises(ConfigError):
        CedarPolicy("permit(")
    schema = (
        "entity User in [Role]; entity Role; entity Resource;"
        "action GET appliesTo { principal: User, resource: Resource };"
    )
    CedarPolicy('permit(principal, action == Action::"GET", resource);', schema=schema)
    with pytest.raises(ConfigError, match="do not fit"):
        CedarPolicy('permit(principal, action == Action::"GTE", resource);', schema=schema)
