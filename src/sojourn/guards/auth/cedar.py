"""A policy written in Cedar, evaluated in this process (package ``cedarpy``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sojourn.errors import ConfigError
from sojourn.guards.auth.policy import Decision
from sojourn.scopes.context import SecurityContext

__all__ = ["CedarPolicy"]


class CedarPolicy:
    """Decides by Cedar policies: who is a ``User`` in its ``Role`` entities, does an ``Action`` to a ``Resource``.

    Policies are parsed once. Tenant and way of authentication are in ``context``; claims are not.

    Args:
        policies: In Cedar's language.
        entities: Further entities, in Cedar's JSON.
        schema: A schema that the policies must fit, in Cedar's language or JSON; None checks nothing.
        types: Names of the entity types: ``user``, ``role``, ``action``, ``resource``.

    Raises:
        ConfigError: The policies can't be parsed or do not fit the schema, or cedarpy is not installed.

    Example:
        >>> policy = CedarPolicy('permit(principal in Role::"editor", action, resource);')
    """

    def __init__(
        self,
        policies: str,
        *,
        entities: Sequence[Mapping[str, Any]] = (),
        schema: str | Mapping[str, Any] | None = None,
        types: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import cedarpy
        except ImportError as error:
            raise ConfigError("Cedar policies need cedarpy: pip install 'sojourn[cedar]'") from error
        self._is_authorized = cedarpy.is_authorized
        self._types = {"user": "User", "role": "Role", "action": "Action", "resource": "Resource", **(types or {})}
        try:
            self._policies = cedarpy.PolicySet.from_str(policies)
            self._entities = cedarpy.Entities.from_json_str(json.dumps(list(entities)))
        except ValueError as error:
            raise ConfigError(f"the Cedar policies can't be used: {error}") from error
        if schema is not None:
            found = cedarpy.validate_policies(policies, schema if isinstance(schema, str) else dict(schema))
            if not found:
                raise ConfigError("the Cedar policies do not fit: " + "; ".join(map(str, found.errors)))

    async def __call__(self, context: SecurityContext, action: str, resource: str) -> Decision:
        """Whether the policies permit it; an error in one of them means no."""
        types = self._types
        user = {"type": types["user"], "id": context.principal}
        entity = {
            "uid": user,
            "attrs": {} if context.tenant is None else {"tenant": context.tenant},
            "parents": [{"type": types["role"], "id": role} for role in sorted(context.roles)],
        }
        result = self._is_authorized(
            {
                "principal": user,
                # As types and ids, never as text: nothing that a client chose is read as Cedar.
                "action": {"type": types["action"], "id": action},
                "resource": {"type": types["resource"], "id": resource},
                "context": {"authn": context.authn, "tenant": context.tenant or ""},
            },
            self._policies,
            self._entities.with_added_json_str(json.dumps([entity])),
        )
        errors = result.diagnostics.errors
        if errors:
            return Decision(False, "a policy could not be evaluated")
        return Decision(result.allowed, "" if result.allowed else "no policy permits it")
