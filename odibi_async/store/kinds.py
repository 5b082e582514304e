"""How each kind of value becomes bytes, and comes back from them."""

from __future__ import annotations

import contextlib
import hmac
import io
from typing import Any

from odibi_async.errors import Damaged, Unstorable
from odibi_async.secret import Secret
from odibi_async.store import plain
from odibi_async.store.blobs import digest_of_bytes


def dumped(value: Any) -> tuple[str, list[Any]]:
    """The kind of a value and its bytes, in pieces."""
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
        return "npy", _dumped_array(value)
    if cls is bytes:
        return "bytes", [value]
    if cls is str:
        with contextlib.suppress(UnicodeEncodeError):  # lone surrogates: a plain value
            return "text", [value.encode()]
    return "json", [b"\n".join(plain.dump(value))]


def parsed(kind: str, data: Any) -> Any:
    if kind in ("frame", "series", "index", "table"):
        from odibi_async.store import columns

        return columns.parse_table(data) if kind == "table" else columns.parse(data, kind)
    if kind == "npy":
        return _parsed_array(data)
    if kind == "bytes":
        return bytes(data)
    if kind == "text":
        return data.decode()
    if kind == "json":
        return plain.parse(bytes(data).split(b"\n"))
    raise Damaged(f"its kind {kind!r} is unknown here.")


def _dumped_array(array: Any) -> list[Any]:
    """A NumPy array in its own format; what has to be pickled for it, or changes by it, is refused."""
    import numpy as np

    dtype = array.dtype
    if dtype.kind not in "biufcmMSUV" or dtype.hasobject or dtype.char in "gG" or dtype.metadata or not dtype.itemsize:
        raise Unstorable(f"arrays of type {dtype} would not come back as they are.")
    again = np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype))
    if again != dtype or again.isalignedstruct != dtype.isalignedstruct:
        raise Unstorable(f"arrays of type {dtype} would not come back as they are.")
    header = io.BytesIO()
    members = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_2_0(header, members)
    flat = np.ascontiguousarray(array.T if members["fortran_order"] else array).reshape(-1)
    return [header.getvalue(), flat.view("u1")]


def _parsed_array(data: Any) -> Any:
    import numpy as np

    length = int.from_bytes(data[8:12].tobytes(), "little")
    header = io.BytesIO(data[: 12 + length].tobytes())
    np.lib.format.read_magic(header)
    shape, fortran, dtype = np.lib.format.read_array_header_2_0(header, max_header_size=length)
    return data[12 + length :].view(dtype).reshape(shape, order="F" if fortran else "C")


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
        raise Damaged("its signature is not by this secret.")
    return pickle.loads(pickled)


def _signature(pickled: bytes, digest: str, key: bytes) -> bytes:
    """Signs a pickle as the value with this digest, so that it stands for no other."""
    message = "\0".join(("odibi_async pickle 1", digest, digest_of_bytes([pickled])))
    return hmac.digest(key, message.encode(), "sha256")


def key_of(secret: Secret | str | bytes) -> bytes:
    text = secret.reveal() if isinstance(secret, Secret) else secret
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
