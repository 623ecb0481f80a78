"""Who may do what: a callable decides, and whatever goes wrong means no."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

from sojourn.errors import AccessDenied, DeadlineExceeded
from sojourn.scopes.context import SecurityContext, security
from sojourn.scopes.deadline import deadline

__all__ = ["Authorizer", "Decision", "Policy"]

_DEADLINE: Final = "policy"


class Decision(NamedTuple):
    """What a policy says; true when it allows.

    Attributes:
        allowed: Whether it may be done.
        reason: Why, for the log and for the client.
    """

    allowed: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.allowed


#: Decides whether who acts may do an action to a resource.
Policy: TypeAlias = Callable[[SecurityContext, str, str], Awaitable[bool | Decision]]


class Authorizer:
    """Asks a policy, and denies by default: without a context, without an answer in time, without a clear yes.

    Args:
        policy: Decides. For HTTP the action is the method, for WebSockets ``WEBSOCKET``, and the resource the path.
        version: Of the policy; written into the contexts it has allowed.
        timeout: Seconds it may take.

    Attributes:
        failures: How often it has failed.
        failure: How it failed last; "" when it never did.

    Example:
        >>> async def members_only(context, action, resource):
        ...     return action == "GET" or context.has_role("member")
        >>> authorizer = Authorizer(members_only, version="7")
    """

    def __init__(self, policy: Policy, *, version: str = "", timeout: float = 1.0) -> None:
        self.policy = policy
        self.version = version
        self.timeout = timeout
        self.failures = 0
        self.failure = ""

    async def decide(self, context: SecurityContext | None, action: str, resource: str) -> Decision:
        """What the policy says.

        Raises:
            DeadlineExceeded: There was less time left around it than it took.

        Cancel: safe.
        """
        if context is None:
            return Decision(False, "nobody has proved who asks")
        try:
            async with deadline(self.timeout, _DEADLINE):
                answer = await self.policy(context, action, resource)
        except Exception as error:  # whatever it raises does not mean yes
            if isinstance(error, DeadlineExceeded) and error.deadline != _DEADLINE:
                raise
            self.failures += 1
            self.failure = f"{type(error).__name__}: {error}"
            return Decision(False, "the policy could not decide")
        if isinstance(answer, Decision):
            return answer
        # Only True: an object that merely is not false must not open a door.
        return Decision(answer is True, "" if answer is True else "the policy does not allow it")

    async def require(self, action: str, resource: str) -> SecurityContext:
        """Ask for who acts here.

        Raises:
            SecurityContextError: Nobody does.
            AccessDenied: It may not.

        Cancel: safe.
        """
        context = security()
        decision = await self.decide(context, action, resource)
        if not decision:
            raise AccessDenied(context.principal, f"{action} {resource}: {decision.reason}")
        return context
