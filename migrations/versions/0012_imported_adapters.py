"""imported adapters, which are runs

Revision ID: 0012
Revises: 0011

Only an addition. Processes of the previous version show an imported adapter as a succeeded run.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    json = sa.JSON().with_variant(JSONB(), "postgresql")
    op.add_column("run", sa.Column("imported", json, nullable=True))
    is_imported = sa.text("imported IS NOT NULL")
    op.create_index(
        "ix_run_imported",
        "run",
        ["id"],
        sqlite_where=is_imported,
        postgresql_where=is_imported,
    )


def downgrade() -> None:
    op.drop_index("ix_run_imported", "run")
    op.drop_column("run", "imported")
