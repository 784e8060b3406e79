"""Errors of the file system in Earmark's words.

Rules of this file: a full disk, a read-only place and everything else are three different answers; callers raise them `from` the OSError.
"""

from __future__ import annotations

import errno

from earmark.errors import EarmarkError, LedgerFull, LedgerReadOnly, LedgerUnavailable

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
READ_ONLY_ERRNOS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def os_translated(error: OSError, tried: str, path: str) -> EarmarkError:
    """Return an error of the file system as one of Earmark's; `tried` is a verb with its object, as in "back up … to"."""
    words = f"{tried} {path}: {error.strerror}"
    if error.errno in FULL_ERRNOS:
        return LedgerFull(words, path=path)
    if error.errno in READ_ONLY_ERRNOS:
        return LedgerReadOnly(words, path=path)
    return LedgerUnavailable(words, path=path)
