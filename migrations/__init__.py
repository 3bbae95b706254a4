"""Alembic's migrations; they travel in the wheel, so that `fairtune migrate` works anywhere."""
