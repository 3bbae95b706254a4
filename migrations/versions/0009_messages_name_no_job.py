"""drop the time and number of a job's queue messages

Revision ID: 0009
Revises: 0008

API and worker processes of the previous version use these columns: stop them first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # In place, on SQLite, too: a table that others refer to cannot be recreated with rows in it.
    op.drop_column("job", "resent")
    op.drop_column("job", "enqueued_at")


def downgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("resent", sa.Integer(), server_default="0", nullable=False))
