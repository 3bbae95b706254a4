"""Recognition of errors that mean a full disk."""

import errno

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_MESSAGES = (
    "No space left on device",
    "Disk quota exceeded",
    *(f"(os error {number})" for number in _ERRNOS),
)


def is_full(error: BaseException) -> bool:
    """Return True if the error means that a disk is full or a quota is used up.

    safetensors raises an exception of its own, without an errno, for I/O errors in its Rust code.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _ERRNOS
    return any(message in str(error) for message in _MESSAGES)
