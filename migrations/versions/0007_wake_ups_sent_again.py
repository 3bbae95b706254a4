"""number of queue messages sent again for a waiting job

Revision ID: 0007
Revises: 0006

Only an addition, with a default that the database fills in: workers and servers of the
previous version continue during the roll-out, and send theirs as often as ever.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("resent", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    # In place, on SQLite, too: a table that others refer to cannot be recreated with rows in it.
    op.drop_column("job", "resent")
