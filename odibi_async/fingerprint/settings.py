"""What a process has set that results depend on without their code showing it: options, decimals, the locale."""

from __future__ import annotations

import decimal
import functools
import locale
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from odibi_async.fingerprint.functions import digest_of

_ERRORS: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_PRINTED: Final[Mapping[str, Any]] = {
    "edgeitems": 3,
    "threshold": 1000,
    "floatmode": "maxprec",
    "precision": 8,
    "suppress": False,
    "linewidth": 75,
    "nanstr": "nan",
    "infstr": "inf",
    "sign": "-",
    "formatter": None,
    "legacy": False,
    "override_repr": None,
}
"""How NumPy is set from the start."""
_VARIABLES: Final = ("PANDAS_COPY_ON_WRITE", "PANDAS_FUTURE_INFER_STRING")
_CATEGORIES: Final = tuple(
    getattr(locale, name) for name in ("LC_NUMERIC", "LC_TIME", "LC_COLLATE", "LC_MONETARY") if hasattr(locale, name)
)


def settings() -> dict[str, str]:
    """
    What is not set as it is from the start, in the context of the caller: in words -> digest.

    Raises:
        Undigestible: Something is set to what has no content to identify it by.
    """
    calculating = _decimal(decimal.getcontext())
    local = {category: locale.setlocale(category) for category in _CATEGORIES}
    found: dict[str, Any] = {
        "what is set in pandas": _pandas(),
        "what is set in NumPy": _numpy(),
        "the decimal context": calculating if calculating != _FIRST else (),
        "the locale": local if set(local.values()) != {"C"} else (),
    }
    return {name: digest_of(value, name=name, ordered=True) for name, value in found.items() if value}


def _decimal(context: decimal.Context) -> tuple[Any, ...]:
    traps = [signal.__name__ for signal, is_on in context.traps.items() if is_on]
    return context.prec, context.rounding, context.Emin, context.Emax, context.capitals, context.clamp, traps


_FIRST: Final = _decimal(
    decimal.Context(
        prec=28,
        rounding=decimal.ROUND_HALF_EVEN,
        Emin=-999_999,
        Emax=999_999,
        capitals=1,
        clamp=0,
        traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
    )
)


def _pandas() -> dict[str, Any]:
    """The options that were set, and the variables that are looked at when pandas is loaded."""
    found: dict[str, Any] = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if "pandas" in sys.modules:
        options = _options(len(_registered()))
        found |= {name: held[last] for name, held, last, first in options if _differ(held[last], first)}
    return found


def _registered() -> Mapping[str, Any]:
    from pandas._config import config

    return vars(config)["_registered_options"]  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1)
def _options(_count: int) -> list[tuple[str, Mapping[str, Any], str, Any]]:
    """Each option of pandas: what holds it, under which name, and what it is from the start."""
    from pandas._config import config

    found = []
    for name, option in sorted(_registered().items()):
        held: Any = vars(config)["_global_config"]
        *path, last = name.split(".")
        for part in path:
            held = held[part]
        found.append((name, held, last, option.defval))
    return found


def _differ(held: Any, first: Any) -> bool:
    return held is not first and (type(held) is not type(first) or held != first)


def _numpy() -> dict[str, Any]:
    if "numpy" not in sys.modules:  # then it is set as it is from the start
        return {}
    import numpy as np

    first = {**_ERRORS, **_PRINTED}
    return {name: value for name, value in {**np.geterr(), **np.get_printoptions()}.items() if value != first.get(name)}
