"""The store: datasets on disk that come back exactly, or not at all."""

from odibi_async.store.kept import Kept
from odibi_async.store.store import Store

__all__ = ["Kept", "Store"]
