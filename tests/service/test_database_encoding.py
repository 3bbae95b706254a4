"""A PostgreSQL server that was set up without a locale, as in a container without LANG."""

import pytest
from sqlalchemy import text

from service.store import migrate
from service.store.database import Database

pytestmark = pytest.mark.both_databases


def test_text_is_text_in_a_database_without_an_encoding(postgres):
    postgres.psql(
        "CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C';"
    )
    database = Database(postgres.get_uri("plain", driver="psycopg"))
    migrate.upgrade(database)
    with database.write() as session:
        encoding = session.scalar(text("SHOW server_encoding"))
        told = session.scalar(text("SELECT 'größer 🏳️‍🌈'"))
    database.dispose()
    assert encoding == "SQL_ASCII"
    assert told == "größer 🏳️‍🌈"
