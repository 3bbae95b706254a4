"""Translation of errors of boto3 and its connections into the store's own."""

import contextlib
from collections.abc import Iterator

from service.artifacts.files import MissingFile, StoreUnavailable

_GONE = frozenset({"404", "NoSuchKey", "NoSuchUpload"})


@contextlib.contextmanager
def translate_errors(key: str = "") -> Iterator[None]:
    """Raise MissingFile if there is no file `key`, StoreUnavailable for every other error of S3."""
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _GONE:
            raise MissingFile(key) from error
        raise StoreUnavailable(error) from error
    except Exception as error:
        translation = as_unavailable(error)
        if translation is None:
            raise
        raise translation from error


def as_unavailable(error: Exception) -> StoreUnavailable | None:
    """Return StoreUnavailable if S3 or the connection to it failed; None for another error.

    botocore lets urllib3's errors through while a body is read.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from urllib3.exceptions import HTTPError

    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, BotoCoreError | ClientError | HTTPError | ConnectionError | TimeoutError):
        return StoreUnavailable(error)
    return None
