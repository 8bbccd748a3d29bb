"""Jobs: the engine's schema, keys that defer only once, progress and errors, dead letters.

The engine ships its schema as numbered files that are never edited after a release. This revision
runs those that existed when it was written, read from the installed package, so every installation
gets the same schema whichever later release it has. A release that brings new files needs a new
revision of ours; ``tests/jobs/test_job_schema.py`` fails until there is one.
"""

from importlib.resources import files

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ENGINE_FIRST, ENGINE_LAST = "00.00.00_01_initial.sql", "03.04.00_50_post_add_retry_failed_job_procedure.sql"


def engine_files() -> list[str]:
    """Return the names of the engine's migration files that belong to this revision, in order."""
    folder = files("procrastinate.sql") / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return names[names.index(ENGINE_FIRST) : names.index(ENGINE_LAST) + 1]


def upgrade() -> None:
    connection = op.get_bind()
    folder = files("procrastinate.sql") / "migrations"
    for name in engine_files():
        # Straight to the driver, which takes a bare percent sign for a parameter and leaves colons alone.
        connection.exec_driver_sql((folder / name).read_text(encoding="utf-8").replace("%", "%%"))
    op.execute(
        """
        -- A job that sleeps is sunk far below the ones that are due, see `haat.infra.jobs.SUNK`.
        CREATE INDEX procrastinate_jobs_sunk ON procrastinate_jobs (scheduled_at)
            WHERE status = 'todo' AND priority < -500000;

        CREATE TABLE job_keys (
            key text PRIMARY KEY,
            job_id bigint REFERENCES procrastinate_jobs ON DELETE CASCADE
        );
        CREATE INDEX job_keys_job ON job_keys (job_id);
        CREATE TABLE job_notes (
            job_id bigint PRIMARY KEY REFERENCES procrastinate_jobs ON DELETE CASCADE,
            progress real CHECK (progress BETWEEN 0 AND 1),
            note text NOT NULL DEFAULT '',
            error text NOT NULL DEFAULT '',
            at timestamptz NOT NULL DEFAULT now()
        );
        CREATE TABLE dead_letters (
            id uuid PRIMARY KEY,
            job_id bigint NOT NULL UNIQUE,
            task text NOT NULL,
            queue text NOT NULL,
            priority integer NOT NULL,
            args jsonb NOT NULL,
            event_id uuid,
            handler text,
            attempts integer NOT NULL,
            error text NOT NULL,
            died_at timestamptz NOT NULL DEFAULT now(),
            replayed_at timestamptz,
            replay_job_id bigint
        );
        CREATE INDEX dead_letters_waiting ON dead_letters (died_at) WHERE replayed_at IS NULL;

        -- Said aloud although default privileges give most of it: jobs are deferred inside the
        -- application's own transactions and fetched by its worker.
        GRANT SELECT, INSERT, UPDATE, DELETE ON procrastinate_jobs, procrastinate_events, procrastinate_workers,
            procrastinate_periodic_defers, job_keys, job_notes, dead_letters TO haat_app, haat_service;
        GRANT USAGE, SELECT ON procrastinate_jobs_id_seq, procrastinate_events_id_seq,
            procrastinate_periodic_defers_id_seq, procrastinate_workers_id_seq TO haat_app, haat_service;
        DO $$
        DECLARE routine regprocedure;
        BEGIN
            FOR routine IN SELECT oid FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace AND starts_with(proname, 'procrastinate_')
            LOOP
                EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO haat_app, haat_service', routine);
            END LOOP;
        END $$;
        """
    )


def downgrade() -> None:
    op.execute(
        """
        DROP TABLE dead_letters, job_notes, job_keys;
        DROP TABLE procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs, procrastinate_workers
            CASCADE;
        DO $$
        DECLARE found record;
        BEGIN
            FOR found IN SELECT oid::regprocedure AS name FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace AND starts_with(proname, 'procrastinate_')
            LOOP
                EXECUTE format('DROP FUNCTION %s CASCADE', found.name);
            END LOOP;
            FOR found IN SELECT oid::regtype AS name FROM pg_type
                WHERE typnamespace = 'public'::regnamespace AND starts_with(typname, 'procrastinate_')
            LOOP
                EXECUTE format('DROP TYPE %s CASCADE', found.name);
            END LOOP;
        END $$;
        """
    )
