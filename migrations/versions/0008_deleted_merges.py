"""start time of a merge's deletion

Revision ID: 0008
Revises: 0007

Only an addition: servers of the previous version continue during the roll-out, and show
such a merge until its files are gone, and then as superseded.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    # In place, on SQLite, too: a table that others refer to cannot be recreated with rows in it.
    op.drop_column("job", "deleted_at")
