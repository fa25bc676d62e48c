"""The host's cache, for plugins in Python. Values are kept as JSON, as plugins in other languages keep and read them.

    cache = larder_cache.open_default()
    squares = cache.get_or_set("squares", 30, lambda: [n * n for n in range(10)])

A duration is a number of seconds or a `timedelta`; `None` is the cache's own `default_expire`, `math.inf` no end. What
the host refuses is a `CacheError`; what JSON has no form for is a `TypeError` or `ValueError`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

from componentize_py_types import Err
from wit_world.imports import cache as host

T = TypeVar("T")
Duration = float | timedelta | None


class CacheError(Exception):
    """Why the host refused a call. `reason` is one of the errors of `wit/cache.wit`, such as `host.Error_Timeout`."""

    def __init__(self, reason: host.Error) -> None:
        name = type(reason).__name__.removeprefix("Error_")
        super().__init__(f"{name}: {reason.value}" if hasattr(reason, "value") else name)
        self.reason = reason


class Cache:
    """An open cache."""

    def __init__(self, handle: host.Cache) -> None:
        self._handle = handle

    def get(self, key: str) -> Any:
        """The key's value; `None` on a miss, and for a JSON `null`."""
        found = _ask(self._handle.get, key)
        return None if found is None else _decode(found)

    def set(self, key: str, value: Any, duration: Duration = None) -> None:
        """Stores a value."""
        _ask(self._handle.set_with_duration, key, _encode(value), _duration(duration))

    def get_many(self, keys: Iterable[str]) -> list[Any]:
        """The values of many keys, in their order, in one round trip; `None` as in `get`."""
        found = _ask(self._handle.get_many, list(keys))
        return [None if value is None else _decode(value) for value in found]

    def set_many(self, values: Mapping[str, Any], duration: Duration = None) -> None:
        """Stores the values of many keys for one duration, in one round trip."""
        encoded = [(key, _encode(value)) for key, value in values.items()]
        _ask(self._handle.set_many, encoded, _duration(duration))

    def get_or_set(self, key: str, duration: Duration, compute: Callable[[], T]) -> T:
        """The key's value; on a miss `compute` makes it, once for all who wait, and it is stored.

        It comes back even when it cannot be stored, or was superseded by a clear. What `compute` raises is passed on
        and nothing is stored: one of those who wait computes next. What is stored but is no JSON is computed anew.
        """
        stored_for = _duration(duration)
        entry = _ask(self._handle.get_or_set, key)
        if isinstance(entry, host.Entry_Occupied):
            try:
                return _decode(entry.value)
            except ValueError:
                self.clear(key)
                entry = _ask(self._handle.get_or_set, key)
        if isinstance(entry, host.Entry_Occupied):
            return _decode(entry.value)
        try:
            value = compute()
            encoded = _encode(value)
        except BaseException:
            # At once: an exception keeps what its frames hold, and others wait for this vacancy.
            entry.value.__exit__(None, None, None)
            raise
        try:
            host.Vacancy.fill(entry.value, encoded, stored_for)
        except Err:
            pass  # The caller has the value in hand; the next one computes.
        return value

    def clear(self, key: str) -> bool:
        """Removes one key and says whether it held a value."""
        return _ask(self._handle.clear, key)

    def clear_pattern(self, pattern: str) -> int:
        """Removes every key that matches a Redis glob and says how many."""
        return _ask(self._handle.clear_pattern, pattern)

    def clear_all(self) -> int:
        """Removes every key of this plugin's key space and says how many."""
        return _ask(self._handle.clear_all)


def open(name: str) -> Cache:
    """Opens a cache by the name the operator gave it."""
    return Cache(_ask(host.open, name))


def open_default() -> Cache:
    """Opens the cache that the operator made the default."""
    return Cache(_ask(host.open_default))


def _ask(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    except Err as refused:
        raise CacheError(refused.value) from None


def _duration(duration: Duration) -> host.Duration:
    if duration is None:
        return host.Duration_Default()
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds == math.inf:
        return host.Duration_Unlimited()
    if not seconds >= 0:
        raise ValueError(f"a duration cannot be {seconds} s")
    # Less than a millisecond, but more than none, is one: it is not the mistake that zero is.
    return host.Duration_Milliseconds(min(max(int(seconds * 1000), int(seconds > 0)), 2**64 - 1))


def _encode(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _decode(value: bytes) -> Any:
    return json.loads(value.decode(), parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
