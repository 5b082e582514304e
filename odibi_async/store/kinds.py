"""How each kind of value becomes bytes, and comes back from them."""

from __future__ import annotations

import contextlib
import hmac
import io
from typing import Any, Final

from odibi_async.errors import Damaged, Unstorable
from odibi_async.secret import Secret
from odibi_async.store import bundle, plain
from odibi_async.store.blobs import digest_of_bytes


def dumped(value: Any) -> tuple[str, list[Any]]:
    """The kind of a value and its bytes, in pieces."""
    if (alone := _with_bytes_of_its_own(value)) is not None:
        return alone
    cls = type(value)
    if cls is bytes:
        return "bytes", [value]
    if cls is str:
        with contextlib.suppress(UnicodeEncodeError):  # lone surrogates: a plain value
            return "text", [value.encode()]
    parts: list[tuple[str, list[Any]]] = []

    def attach(part: Any) -> int | None:
        with_bytes = _with_bytes_of_its_own(part)
        if with_bytes is None:
            return None
        parts.append(with_bytes)
        return len(parts) - 1

    content = b"\n".join(plain.dump(value, attach))
    return ("bundle", bundle.dump(content, parts)) if parts else ("json", [content])


def parsed(kind: str, data: Any) -> Any:
    if kind in ("frame", "series", "index", "table"):
        from odibi_async.store import columns

        return columns.parse_table(data) if kind == "table" else columns.parse(data, kind)
    if kind in _ARRAY.values():
        from odibi_async.store import arrays

        array = arrays.parse(data)
        array.flags.writeable = kind == _ARRAY[True]
        return array
    if kind == "bytes":
        return bytes(data)
    if kind == "text":
        return data.decode()
    if kind == "json":
        return plain.parse(bytes(data).split(b"\n"))
    if kind == "bundle":
        content, parts = bundle.parse(data)
        return plain.parse(content.split(b"\n"), [parsed(*part) for part in parts])
    raise Damaged(f"its kind {kind!r} is unknown here.")


_ARRAY: Final = {True: "npy", False: "read-only npy"}


def _with_bytes_of_its_own(value: Any) -> tuple[str, list[Any]] | None:
    """The kind and the bytes of a frame, a table or an array; `None` for all else."""
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    if library == "pandas":
        from odibi_async.store import columns

        if kind := columns.kind_of(value):
            return kind, columns.dump(value)
    if library == "pyarrow" and cls.__name__ == "Table":
        from odibi_async.store import columns

        return "table", columns.dump_table(value)
    if library == "numpy" and cls.__name__ == "ndarray":
        from odibi_async.store import arrays

        return _ARRAY[value.flags.writeable], arrays.dump(value)
    return None


def pickled(value: Any, digest: str, key: bytes) -> bytes:
    import pickle

    class Pickler(pickle.Pickler):
        def persistent_id(self, each: Any) -> None:
            if isinstance(each, Secret):
                raise Unstorable("it holds a secret, and secrets are never written to disk.")

    file = io.BytesIO()
    try:
        Pickler(file, protocol=5).dump(value)
    except Unstorable:
        raise
    except Exception as error:  # classes decide what their pickling raises
        raise Unstorable(f"it cannot be pickled: {type(error).__name__}: {error}") from error
    pickled = file.getvalue()
    return _signature(pickled, digest, key) + pickled


def unpickled(data: bytes, digest: str, key: bytes) -> Any:
    import pickle

    signature, pickled = data[:32], data[32:]
    if not hmac.compare_digest(signature, _signature(pickled, digest, key)):
        raise Damaged("it was not signed with this secret.")
    return pickle.loads(pickled)


def _signature(pickled: bytes, digest: str, key: bytes) -> bytes:
    """Signs a pickle as the value with this digest, so that it cannot pass for another."""
    message = "\0".join(("odibi_async pickle 1", digest, digest_of_bytes([pickled])))
    return hmac.digest(key, message.encode(), "sha256")


def key_of(secret: Secret | str | bytes) -> bytes:
    text = secret.reveal() if isinstance(secret, Secret) else secret
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
