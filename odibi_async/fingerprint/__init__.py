"""Content digests of values, functions and files."""

from odibi_async.fingerprint.functions import (
    FORMAT,
    Undigestible,
    code_of,
    combined,
    digest_of,
    digest_of_file,
    is_mutable,
)

__all__ = ["FORMAT", "Undigestible", "code_of", "combined", "digest_of", "digest_of_file", "is_mutable"]
