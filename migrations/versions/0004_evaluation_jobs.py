"""parameters of jobs other than the training

Revision ID: 0004
Revises: 0003

Only an addition, with a default that the database fills in: workers and servers of the
previous version continue during the roll-out. A worker of that version has no program for an
evaluation job: three tries, and it fails as crashed. Roll workers out before servers.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(
            sa.Column(
                "params",
                sa.JSON().with_variant(JSONB(), "postgresql"),
                server_default="{}",
                nullable=False,
            )
        )


def downgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_column("params")
