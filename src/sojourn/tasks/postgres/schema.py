"""The tables: what they are, and making them once, whoever comes first."""

from __future__ import annotations

import re
from typing import Any, Final

from sojourn.errors import ConfigError
from sojourn.tasks.postgres.failures import driver

__all__ = ["DDL", "VERSION", "ddl", "prepare"]

#: Of the tables that this code reads and writes.
VERSION: Final = 1
#: Nodes that start together make the tables one after the other: any number that nobody else takes.
_LOCK: Final = 0x736F_6A6F_7572_6E
#: A name that needs no quotes, and leaves room for those of a channel.
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,39}")

# Moments are seconds since 1970: numbers travel and compare faster than dates. Text is compared as bytes.
# Rows of the three partial indexes: what waits, what runs, what has ended; a task is in one of them.
_DDL: Final = """\
CREATE SCHEMA IF NOT EXISTS {schema};

CREATE TABLE IF NOT EXISTS {schema}.task_version (version integer PRIMARY KEY);

CREATE TABLE IF NOT EXISTS {schema}.tasks (
    run_at float8 NOT NULL,
    lease_until float8 NOT NULL DEFAULT 0,
    created float8 NOT NULL,
    begun float8 NOT NULL DEFAULT 0,
    claimed float8 NOT NULL DEFAULT 0,
    updated float8 NOT NULL,
    ended float8 NOT NULL DEFAULT 0,
    gone float8 NOT NULL DEFAULT 0,
    keep float8 NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    settled bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    priority integer NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    interruptions integer NOT NULL DEFAULT 0,
    crashes integer NOT NULL DEFAULT 0,
    cancelling boolean NOT NULL DEFAULT false,
    id text COLLATE "C" PRIMARY KEY,
    state text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint text COLLATE "C" NOT NULL,
    node text COLLATE "C" NOT NULL DEFAULT '',
    outcome text COLLATE "C" NOT NULL DEFAULT '',
    payload bytea NOT NULL,
    spec bytea NOT NULL,
    checkpoint bytea NOT NULL DEFAULT '',
    result bytea NOT NULL DEFAULT '',
    error bytea NOT NULL DEFAULT ''
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

CREATE UNIQUE INDEX IF NOT EXISTS tasks_key ON {schema}.tasks (owner, key) WHERE key <> '';
CREATE INDEX IF NOT EXISTS tasks_pending ON {schema}.tasks (kind, priority, run_at) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS tasks_running ON {schema}.tasks (kind, lease_until) WHERE state = 'running';
CREATE INDEX IF NOT EXISTS tasks_ended ON {schema}.tasks (gone) INCLUDE (kind, state) WHERE gone > 0;

CREATE TABLE IF NOT EXISTS {schema}.task_events (
    seq bigint NOT NULL,
    at float8 NOT NULL,
    task text COLLATE "C" NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (task, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

INSERT INTO {schema}.task_version (version) VALUES ({version}) ON CONFLICT DO NOTHING;
"""


def ddl(schema: str = "sojourn") -> str:
    """The statements that make the tables, for a role that may; whoever uses them needs no more than their rows.

    Args:
        schema: Where they are to be.

    Raises:
        ConfigError: It is no plain name.

    Example:
        >>> print(ddl("shop").splitlines()[0])
        CREATE SCHEMA IF NOT EXISTS shop;
    """
    if not _NAME.fullmatch(schema):
        raise ConfigError(f"no name of a schema for durable tasks: {schema!r} (a-z, 0-9 and _, at most 40)")
    return _DDL.format(schema=schema, version=VERSION)


#: The statements of the schema that is taken without a word.
DDL: Final = ddl()


async def prepare(connection: Any, schema: str) -> None:
    """Make the tables, unless they are there.

    Args:
        connection: Of asyncpg; in no transaction.
        schema: Where they are.

    Raises:
        ConfigError: They are of a newer version, or are missing and may not be made by this role.

    Cancel: the connection is of no further use; nothing is left half made.
    """
    asyncpg = driver()
    statements = ddl(schema)
    ask = f"SELECT max(version) FROM {schema}.task_version"
    try:
        found = await connection.fetchval(ask)
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
        found = None
    if found is None:
        try:
            async with connection.transaction():
                await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
                await connection.execute(statements)
                found = await connection.fetchval(ask)
        except asyncpg.InsufficientPrivilegeError as error:
            raise ConfigError(
                f"the tables of durable tasks are missing in PostgreSQL, and this role may not make them ({error}): "
                f"have them made with what sojourn.tasks.postgres.schema.ddl({schema!r}) returns"
            ) from error
    if found > VERSION:
        raise ConfigError(
            f"the tables of durable tasks in {schema} are of version {found}, and this Sojourn knows {VERSION}: "
            "update it"
        )
