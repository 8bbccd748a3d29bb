"""The SQL that keeps tenants apart, for migrations to apply to every table with an organisation."""


def tenant_policy(table: str, column: str = "org_id") -> str:
    """Let a transaction see and write only its own organisation's rows, or all as the platform."""
    return f"""
    ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON {table}
        USING (current_setting('haat.scope', true) = 'platform'
               OR {column} = nullif(current_setting('haat.org', true), '')::uuid);
    """
