"""The tables of the store as SQLAlchemy sees them; `orbweave.migrations` makes them.

Their names carry a prefix, so that a PostgreSQL database may hold other things too.
Times are seconds since 1970 by the clock of whoever wrote them.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
)

__all__ = ["VERSION_TABLE", "events", "jobs", "metadata"]

VERSION_TABLE = "orbweave_version"
"""Holds the revision of the migrations that were applied."""

metadata = MetaData()

jobs = Table(
    "orbweave_jobs",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("parent", Integer, ForeignKey("orbweave_jobs.id", ondelete="CASCADE")),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("label", Text, nullable=False),
    # Absolute path of what the job makes: one job per result.
    Column("key", Text, unique=True),
    # What decides how long a job takes, in words; equal ones are compared.
    Column("profile", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    # Order among equal priorities, the smallest first.
    Column("position", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    # What the worker was asked to do with a running job: pause or cancel.
    Column("asked", Text),
    Column("worker", Text),
    Column("lease_until", Float),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("seconds", Float),
    Column("parameters", JSON, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("error", Text, nullable=False),
    Index("orbweave_jobs_next", "state", "parent", "priority", "position"),
    Index("orbweave_jobs_of", "parent", "state"),
    Index("orbweave_jobs_like", "profile", "finished"),
)

events = Table(
    "orbweave_events",
    metadata,
    Column("id", Integer, Identity(), primary_key=True),
    Column("job", Integer, ForeignKey("orbweave_jobs.id", ondelete="CASCADE"), nullable=False),
    Column("at", Float, nullable=False),
    Column("done", Integer, nullable=False),
    # 0 where nobody knows.
    Column("total", Integer, nullable=False),
    # Seconds left by the pace so far; empty where nobody knows.
    Column("eta_s", Float),
    Column("note", Text, nullable=False),
    Index("orbweave_events_of", "job", "id"),
)
