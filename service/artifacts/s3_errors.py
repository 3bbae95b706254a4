"""What boto3 and the connections below it raise, as the store's own errors."""

import contextlib
from collections.abc import Iterator

from service.artifacts.files import StoreAway
from service.domain.errors import NotFound

_GONE = frozenset({"404", "NoSuchKey", "NoSuchUpload"})


@contextlib.contextmanager
def translated(key: str = "") -> Iterator[None]:
    """Raise NotFound where there is no file `key`, and StoreAway for all else that S3 refuses."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _GONE:
            raise NotFound(f"the file {key!r} is not in the store") from error
        raise StoreAway(error) from error
    except Exception as error:
        found = away(error)
        if found is None:
            raise
        raise found from error


def away(error: Exception) -> StoreAway | None:
    """`error` as StoreAway, where it says that S3 or the way there failed; None where it does not.

    botocore lets urllib3's errors through while a body is read.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    if isinstance(error, StoreAway):
        return error
    if isinstance(error, BotoCoreError | ClientError | HTTPError | ConnectionError | TimeoutError):
        return StoreAway(error)
    return None
