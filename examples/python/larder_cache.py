"""The cache of the host, for plugins in Python. Values are stored as JSON, so plugins in other languages can share them.

    cache = larder_cache.open_default()
    squares = cache.get_or_set("squares", 30, lambda: [n * n for n in range(10)])

A duration is a number of seconds or a `timedelta`. `None` means the cache's `default_expire`, and `math.inf` means no
expiry. It is rounded down to whole milliseconds, but to at least one. Zero is a `CacheError`, a negative duration a
`ValueError`.

Every call raises `CacheError` if the host returns an error, and for an argument or a value with a lone surrogate, which has
no UTF-8. A call that stores a value raises `TypeError` or `ValueError` if JSON cannot represent it. A call that reads a value
raises `ValueError` if the stored bytes are not valid JSON.
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
    """An error of the host. `reason` is one of the errors of `wit/cache.wit`, such as `host.Error_Timeout`."""

    def __init__(self, reason: host.Error) -> None:
        name = type(reason).__name__.removeprefix("Error_")
        super().__init__(f"{name}: {reason.value}" if hasattr(reason, "value") else name)
        self.reason = reason


class Cache:
    """An open cache."""

    def __init__(self, handle: host.Cache) -> None:
        self._handle = handle

    def get(self, key: str) -> Any:
        """Returns the value of a key, or `None` on a miss. A JSON `null` is also `None`."""
        found = _ask(self._handle.get, _checked("key", key))
        return None if found is None else _decode(found)

    def set(self, key: str, value: Any, duration: Duration = None) -> None:
        """Stores a value for a duration."""
        _ask(self._handle.set_with_duration, _checked("key", key), _encode(value), _duration(duration))

    def get_many(self, keys: Iterable[str]) -> list[Any]:
        """Returns the values of many keys in one round trip, in the order of the keys, with `None` as in `get`."""
        found = _ask(self._handle.get_many, [_checked("key", key) for key in keys])
        return [None if value is None else _decode(value) for value in found]

    def set_many(self, values: Mapping[str, Any], duration: Duration = None) -> None:
        """Stores the values of many keys for one duration in one round trip.

        After a timeout some values may be stored and others not.
        """
        encoded = [(_checked("key", key), _encode(value)) for key, value in values.items()]
        _ask(self._handle.set_many, encoded, _duration(duration))

    def get_or_set(self, key: str, duration: Duration, compute: Callable[[], T]) -> T:
        """Returns the value of a key. On a miss, calls `compute` and stores its value.

        One of the callers that miss the same key computes; the others wait for its value. The computed value is
        returned even if it cannot be stored, or if the key was set or cleared in the meantime. If `compute` raises, the
        exception is raised to the caller and nothing is stored; one of the waiters computes next. Stored bytes that are
        not valid JSON are cleared, and the value is computed again.
        """
        stored_for = _duration(duration)
        entry = _ask(self._handle.get_or_set, _checked("key", key))
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
            # Drop the vacancy now: the exception keeps the frame alive, and other callers wait for the vacancy.
            entry.value.__exit__(None, None, None)
            raise
        try:
            host.Vacancy.fill(entry.value, encoded, stored_for)
        except Err:
            pass  # The caller already has the value. The next caller computes it again.
        return value

    def clear(self, key: str) -> bool:
        """Removes one key, and returns whether it had a value."""
        return _ask(self._handle.clear, _checked("key", key))

    def clear_pattern(self, pattern: str) -> int:
        """Removes all keys that match a Redis glob, and returns how many had a value."""
        return _ask(self._handle.clear_pattern, _checked("pattern", pattern))

    def clear_all(self) -> int:
        """Removes all keys of the plugin's key space, and returns how many had a value."""
        return _ask(self._handle.clear_all)


def open(name: str) -> Cache:
    """Opens the cache of this name, as the operator configured it."""
    return Cache(_ask(host.open, _checked("name", name)))


def open_default() -> Cache:
    """Opens the default cache, which the operator chose."""
    return Cache(_ask(host.open_default))


def _ask(call: Callable[..., T], *arguments: Any) -> T:
    try:
        return call(*arguments)
    except Err as error:
        raise CacheError(error.value) from None


def _checked(argument: str, text: str) -> str:
    """Returns the text. The bindings trap, which no plugin can catch, if it has a lone surrogate or is no text."""
    if not isinstance(text, str):
        raise TypeError(f"{argument}: must be a string, not {type(text).__name__}")
    _utf8(argument, text)
    return text


def _utf8(argument: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CacheError(host.Error_InvalidArgument(f"{argument}: must not hold a lone surrogate")) from None


def _duration(duration: Duration) -> host.Duration:
    if duration is None:
        return host.Duration_Default()
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds == math.inf:
        return host.Duration_Unlimited()
    if not seconds >= 0:
        raise ValueError(f"a duration cannot be {seconds} s")
    # Round a positive duration up to one millisecond, because zero is an error.
    return host.Duration_Milliseconds(min(max(int(seconds * 1000), int(seconds > 0)), 2**64 - 1))


def _encode(value: Any) -> bytes:
    return _utf8("value", json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")))


def _decode(value: bytes) -> Any:
    return json.loads(value.decode(), parse_constant=_reject)


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not valid JSON")
