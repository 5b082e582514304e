"""NumPy arrays as bytes: in NumPy's own format or, when they are cells of something larger, as plain values."""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any

import numpy as np

from odibi_async.errors import Unstorable

Array = np.ndarray[Any, Any]


def dump(array: Array) -> list[Any]:
    """
    An array in NumPy's format.

    Raises:
        Unstorable: It would have to be pickled for it, or would change by it.
    """
    _check(array.dtype)
    header = io.BytesIO()
    members = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_2_0(header, members)
    flat = np.ascontiguousarray(array.T if members["fortran_order"] else array).reshape(-1)
    return [header.getvalue(), flat.view("u1")]


def parse(data: Any) -> Array:
    """The array whose bytes `data` holds; it uses this memory."""
    made: Array
    length = int.from_bytes(data[8:12].tobytes(), "little")
    header = io.BytesIO(data[: 12 + length].tobytes())
    np.lib.format.read_magic(header)
    shape, fortran, dtype = np.lib.format.read_array_header_2_0(header, max_header_size=length)
    made = data[12 + length :].view(dtype).reshape(shape, order="F" if fortran else "C")
    return made


def cell(array: Array) -> tuple[Any, ...]:
    """
    An array as plain values: whether it may be written to, its shape, its type and its bytes or, of objects, these.

    Raises:
        Unstorable: It would not come back unchanged.
    """
    if array.dtype == object:
        return array.flags.writeable, *array.shape, "O", list(array.reshape(-1))
    _check(array.dtype)
    if array.dtype.names is not None:
        raise Unstorable(f"arrays of type {array.dtype} would not come back unchanged.")
    return array.flags.writeable, *array.shape, array.dtype.str, b64encode(array.tobytes()).decode("ascii")


def of_cell(parts: Any) -> Array:
    """The array that `cell` gave the parts of."""
    writeable, *shape, dtype, content = parts
    if dtype == "O":
        made = np.empty(len(content), object)
        for place, item in enumerate(content):
            made[place] = item
    else:
        made = np.frombuffer(bytearray(b64decode(content)), dtype)
    made = made.reshape(shape)
    made.flags.writeable = writeable
    return made


def span(array: Array) -> tuple[int, int]:
    """The first and the last address of an array in memory."""
    return np.lib.array_utils.byte_bounds(array)


def _check(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biufcmMSUV" or dtype.hasobject or dtype.char in "gG" or dtype.metadata or not dtype.itemsize:
        raise Unstorable(f"arrays of type {dtype} would not come back unchanged.")
    made: Callable[[Any], Any] = np.lib.format.descr_to_dtype
    again = made(np.lib.format.dtype_to_descr(dtype))
    if again != dtype or again.isalignedstruct != dtype.isalignedstruct:
        raise Unstorable(f"arrays of type {dtype} would not come back unchanged.")
