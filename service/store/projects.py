"""Projects: every row of a user belongs to one."""

from sqlmodel import Session, select

from service.store.tables import DEFAULT_PROJECT, Project


def lock(session: Session) -> None:
    """Serialise changes of the project's API keys and promotions until the commit.

    A new key is compared with the existing ones, and a promotion supersedes another. On SQLite
    every write transaction is serial already. On PostgreSQL rows that refer to the project can
    still be inserted meanwhile.
    """
    statement = select(Project.id).where(Project.id == DEFAULT_PROJECT)
    session.exec(statement.with_for_update(key_share=True)).one()
