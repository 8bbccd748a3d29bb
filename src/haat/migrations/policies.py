"""The SQL that keeps tenants apart, for migrations to apply to every table with an organisation."""


def tenant_policy(table: str, column: str = "org_id") -> str:
    """Let a transaction see and write only its own organisation's rows, or all as the platform.

    For migrations before 0029, which says anew what they made; `org_policy` is for those after it.
    """
    return f"""
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON {table}
        USING (current_setting('haat.scope', true) = 'platform'
               OR {column} = nullif(current_setting('haat.org', true), '')::uuid);
    """


def org_policy(table: str, column: str = "org_id") -> str:
    """As `tenant_policy`; the settings are read by subqueries, once a query and not once a row."""
    return f"""
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON {table}
        USING ((SELECT current_setting('haat.scope', true)) = 'platform'
               OR {column} = (SELECT nullif(current_setting('haat.org', true), '')::uuid));
    """
