"""Who is one subject when versions are compared: the SQL that all metrics share, so that they speak of the same."""

from __future__ import annotations

EXECUTED = """
    rollout = %(rollout)s AND id >= %(id_from)s AND id < %(id_to)s AND status <> 429
    AND outcome IN ('completed', 'provider_failed') AND cache NOT IN ('hit', 'replay')
"""
"""Calls that versions executed under ``rollout``, by ids in [``id_from``, ``id_to``)."""

GOOD = "outcome = 'completed' AND executed_by IS NULL"
"""Those of them that the version itself answered well."""

SUBJECT = "arm, org_id, named, who"
"""A subject within one variant: a user within an organisation, or an application that names no user."""


def calls_of_subjects(columns: str, only: str = "true") -> str:
    """Return a query of live calls with their subject, when its ``first`` one was, and further columns."""
    return f"""
        SELECT *, min(at) OVER (PARTITION BY {SUBJECT}) AS first FROM (
            SELECT arm, org_id, end_user <> '' AS named,
                   CASE WHEN end_user <> '' THEN end_user ELSE application_id::text END AS who, at, {columns}
            FROM usage WHERE {EXECUTED} AND mode = 'live' AND {only}
        ) AS live
    """


SETTLED = "first + %(settle)s * interval '1 second' <= %(until)s"
WITHIN = "at < first + %(settle)s * interval '1 second'"
"""Calls whose value counts: those of a subject's first ``settle`` seconds. `SETTLED` says whether these are over."""

SUMS = """
    SELECT arm, count(*) AS seen, count(value) FILTER (WHERE settled) AS subjects,
           coalesce(sum(value) FILTER (WHERE settled), 0) AS total,
           coalesce(sum(value * value) FILTER (WHERE settled), 0) AS squares
    FROM subjects GROUP BY arm
"""
"""What is read of ``subjects`` with their ``arm``, ``value`` (null for none) and whether they are ``settled``."""
