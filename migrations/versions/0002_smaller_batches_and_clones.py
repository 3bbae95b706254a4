"""batch sizes reduced after out of memory; source run of a clone

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("train_batch_size", sa.Integer(), nullable=True))
        batch_op.add_column(sa.Column("eval_batch_size", sa.Integer(), nullable=True))
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.add_column(sa.Column("cloned_from", sa.String(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.drop_column("cloned_from")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_column("eval_batch_size")
        batch_op.drop_column("train_batch_size")
