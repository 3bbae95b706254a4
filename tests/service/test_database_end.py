"""A database that is let go while a thread still uses a connection."""

import pytest

from service.store.database import Database

pytestmark = pytest.mark.both_databases


@pytest.mark.parametrize("taken", ["before", "after"])
def test_a_connection_given_back_after_the_end_is_closed(database_url, taken):
    database = Database(database_url)
    if taken == "after":
        database.dispose()
    held = database.engine.raw_connection()
    database.dispose()
    driver = held.driver_connection
    driver.execute("SELECT 1")
    held.close()
    with pytest.raises(Exception, match="closed"):
        driver.execute("SELECT 1")
