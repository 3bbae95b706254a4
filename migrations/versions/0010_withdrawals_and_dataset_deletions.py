"""withdrawn promotions, start time of a dataset's deletion, share of a job's phase

Revision ID: 0010
Revises: 0009

Only additions: servers of the previous version continue during the roll-out. They show a withdrawn
promotion as superseded, and a dataset that is being deleted until its row is gone.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # In place, on SQLite, too: a table that others refer to cannot be recreated with rows in it.
    op.add_column("promotion", sa.Column("withdrawn_at", _TIME, nullable=True))
    op.add_column("promotion", sa.Column("withdrawn_by", sa.String(), nullable=True))
    op.add_column("dataset", sa.Column("deleted_at", _TIME, nullable=True))
    op.add_column("job", sa.Column("phase_share", sa.Float(), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "phase_share")
    op.drop_column("dataset", "deleted_at")
    op.drop_column("promotion", "withdrawn_by")
    op.drop_column("promotion", "withdrawn_at")
