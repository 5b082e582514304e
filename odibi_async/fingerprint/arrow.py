"""
The content of Arrow arrays and tables: what the values are, not how they are cut into chunks.

What lies under a null, before an offset or after the end is noise and not looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
from blake3 import blake3

from odibi_async.fingerprint.encoding import Digesting, Undigestible, feed, header, leaf, sealed, text

PIECE: Final = 131_072
"""Rows that are looked at in one go; the digest does not depend on it."""


def digesting(value: Any) -> Digesting | None:
    """What encodes a value of Arrow's, or nothing for those that have no content."""
    if isinstance(value, pa.Table | pa.RecordBatch):
        return _table(value)
    if isinstance(value, pa.ChunkedArray | pa.Array):
        return _array(value)
    if isinstance(value, pa.Schema | pa.Field | pa.DataType):
        return _schema(value)
    return None


def digest_of_chunks(chunked: Any) -> bytes:
    """The digest of the values of an array, whatever its chunks; its type is for the caller to add."""
    try:
        return _digest_of_chunks(chunked)
    except pa.ArrowException as error:
        raise Undigestible("", f"cannot be read by Arrow: {error}") from error


def _digest_of_chunks(chunked: Any) -> bytes:
    if pa.types.is_dictionary(chunked.type):
        chunked = chunked.unify_dictionaries()
        categories = chunked.chunk(0).dictionary if chunked.num_chunks else pa.array([], chunked.type.value_type)
        indices = pa.chunked_array([chunk.indices for chunk in chunked.chunks], chunked.type.index_type)
        return blake3(digest_of_chunks(pa.chunked_array([categories])) + digest_of_chunks(indices)).digest()
    stream = _Stream(chunked.type)
    for chunk in chunked.chunks:
        for start in range(0, len(chunk), PIECE):
            stream.feed(chunk.slice(start, PIECE))
    return stream.digest()


def _table(table: Any) -> Digesting:
    """Always a generator, as all of them are; a table has no parts that others encode."""
    columns = [table.column(place) for place in range(table.num_columns)]
    parts = [table.schema.serialize().to_pybytes(), struct.pack("<Q", table.num_rows)]
    for name, column in zip(table.schema.names, columns, strict=True):
        parts.append(_placed(column, f", column {name!r}"))
    yield from ()
    return sealed(header(type(table)), blake3(b"".join(parts)).digest())


def _placed(column: Any, place: str) -> bytes:
    try:
        return digest_of_chunks(_chunked(column))
    except Undigestible as fault:
        raise Undigestible(place, fault.why) from None


def _array(array: Any) -> Digesting:
    yield from ()
    return sealed(header(type(array)), blake3(type_bytes(array.type) + digest_of_chunks(_chunked(array))).digest())


def _schema(value: Any) -> Digesting:
    yield from ()
    if isinstance(value, pa.DataType):
        return leaf(header(type(value)), type_bytes(value))
    schema = pa.schema([value]) if isinstance(value, pa.Field) else value
    return leaf(header(type(value)), schema.serialize().to_pybytes())


def type_bytes(data_type: Any) -> bytes:
    """All that a type says: units, time zones, names of fields, what may be null."""
    return text(str(data_type)) + bytes(pa.schema([pa.field("", data_type)]).serialize().to_pybytes())


def _chunked(array: Any) -> Any:
    return array if isinstance(array, pa.ChunkedArray) else pa.chunked_array([array])


class _Stream:
    """Digests the values of arrays of one type, one array after the other, as though they were one array."""

    def __init__(self, data_type: Any) -> None:
        self.type = _storage(data_type)
        self.rows = 0
        self.nulls, self.lengths, self.data = blake3(), blake3(), blake3()
        self.children = [_Stream(child) for child in _children(self.type)]

    def feed(self, array: Any) -> None:
        """Adds the values of an array; what is null is only counted, at its place."""
        array = getattr(array, "storage", array)
        if "_view" in str(self.type):
            array = array.cast(pa.large_string() if pa.types.is_string_view(self.type) else pa.large_binary())
        if array.null_count:
            places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)) + self.rows
            feed(self.nulls, places.astype("<i8", copy=False))
        self.rows += len(array)
        present = array.drop_null() if array.null_count else array
        if len(present):
            self._feed_present(present)

    def _feed_present(self, array: Any) -> None:
        kind = self.type
        if pa.types.is_boolean(kind):
            feed(self.data, array.to_numpy(zero_copy_only=False))
        elif pa.types.is_struct(kind):
            for stream, child in zip(self.children, array.flatten(), strict=True):
                stream.feed(child)
        elif pa.types.is_fixed_size_list(kind):
            self.children[0].feed(array.flatten())
        elif self.children:
            ends = array.offsets.to_numpy()
            feed(self.lengths, np.diff(ends).astype("<i8", copy=False))
            self.children[0].feed(array.values[ends[0] : ends[-1]])
        elif _is_text(kind):
            self._feed_texts(array)
        else:
            width = kind.bit_width // 8
            feed(self.data, memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width])

    def _feed_texts(self, array: Any) -> None:
        wide = pa.types.is_large_string(array.type) or pa.types.is_large_binary(array.type)
        _, offsets, data = array.buffers()
        size = 8 if wide else 4
        ends = np.frombuffer(offsets, f"<i{size}", len(array) + 1, array.offset * size)
        feed(self.lengths, np.diff(ends).astype("<i8", copy=False))
        if ends[-1] > ends[0]:
            feed(self.data, memoryview(data)[ends[0] : ends[-1]])

    def digest(self) -> bytes:
        parts = [struct.pack("<QQ", self.rows, len(self.children))]
        parts += [hasher.digest() for hasher in (self.nulls, self.lengths, self.data)]
        return blake3(b"".join(parts + [child.digest() for child in self.children])).digest()


def _storage(data_type: Any) -> Any:
    return data_type.storage_type if isinstance(data_type, pa.BaseExtensionType) else data_type


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "binary", "large_binary", "string_view", "binary_view")


def _children(kind: Any) -> Iterator[Any]:
    """The types of the arrays inside an array of this type."""
    if pa.types.is_struct(kind):
        return (kind.field(place).type for place in range(kind.num_fields))
    if pa.types.is_map(kind):
        return iter([pa.struct([kind.key_field, kind.item_field])])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return iter([kind.value_type])
    if not (pa.types.is_primitive(kind) or pa.types.is_null(kind) or _is_text(kind) or _is_fixed(kind)):
        raise Undigestible("", f"has the Arrow type {kind}, which has no digest")
    return iter(())


def _is_fixed(kind: Any) -> bool:
    return pa.types.is_decimal(kind) or pa.types.is_fixed_size_binary(kind)
