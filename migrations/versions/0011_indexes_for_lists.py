"""tags in a table of their own; indexes for lists, queue positions and metrics

Revision ID: 0011
Revises: 0010

Only an addition. A trigger fills the tags, and a cascade deletes them, so that processes of the
previous version, which do not know the table, continue to create and delete runs.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_POSTGRESQL = (
    """
    CREATE FUNCTION fairtune_add_run_tags() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO run_tag (tag, run_id)
        SELECT DISTINCT value, NEW.id FROM jsonb_array_elements_text(NEW.tags);
        RETURN NULL;
    END
    $$
    """,
    """
    CREATE TRIGGER run_tags AFTER INSERT ON run
    FOR EACH ROW EXECUTE FUNCTION fairtune_add_run_tags()
    """,
    """
    INSERT INTO run_tag (tag, run_id)
    SELECT DISTINCT value, run.id FROM run, jsonb_array_elements_text(run.tags)
    """,
)
_SQLITE = (
    """
    CREATE TRIGGER run_tags AFTER INSERT ON run
    BEGIN
        INSERT INTO run_tag (tag, run_id) SELECT DISTINCT value, NEW.id FROM json_each(NEW.tags);
    END
    """,
    "INSERT INTO run_tag (tag, run_id) SELECT DISTINCT value, run.id FROM run, json_each(run.tags)",
)


def upgrade() -> None:
    op.create_table(
        "run_tag",
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name="fk_run_tag_run_id_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("tag", "run_id", name="pk_run_tag"),
    )
    op.create_index("ix_run_tag_run_id", "run_tag", ["run_id"])
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRESQL:
        op.execute(statement)
    op.create_index("ix_run_dataset_id_id", "run", ["dataset_id", "id"])
    op.create_index("ix_run_name_id", "run", ["name", "id"])
    op.create_index("ix_job_kind_status_run_id", "job", ["kind", "status", "run_id"])
    op.create_index("ix_job_status_queued_at_id", "job", ["status", "queued_at", "id"])
    taken_over = sa.text("takeovers > 0")
    op.create_index(
        "ix_job_takeovers",
        "job",
        ["takeovers"],
        sqlite_where=taken_over,
        postgresql_where=taken_over,
    )


def downgrade() -> None:
    op.drop_index("ix_job_takeovers", "job")
    op.drop_index("ix_job_status_queued_at_id", "job")
    op.drop_index("ix_job_kind_status_run_id", "job")
    op.drop_index("ix_run_name_id", "run")
    op.drop_index("ix_run_dataset_id_id", "run")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER run_tags")
    else:
        op.execute("DROP TRIGGER run_tags ON run")
        op.execute("DROP FUNCTION fairtune_add_run_tags()")
    op.drop_table("run_tag")
