"""The cache of the host, for plugins in Python. Values are stored as JSON, so plugins in other languages can share them.

    cache = larder_cache.open_default()
    squares = cache.get_or_set("squares", 30, lambda: [n * n for n in range(10)])

    @cached(30)
    def square(n: int) -> int:
        return n * n

A duration is a number of seconds or a `timedelta`. `None` means the cache's `default_expire`, and `math.inf` means no
expiry. It is rounded down to whole milliseconds, but to at least one. Zero is a `CacheError`, a negative duration a
`ValueError`.

Every call raises `CacheError` if the host returns an error, and for an argument or a value with a lone surrogate, which has
no UTF-8. A call that stores a value raises `TypeError` or `ValueError` if JSON cannot represent it. A call that reads a value
raises `ValueError` if the stored bytes are not valid JSON.
"""

import functools
import hashlib
import inspect
import json
import math
import string
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, NoReturn, ParamSpec, TypeVar

from componentize_py_types import Err
from wit_world.imports import cache as host

T = TypeVar("T")
P = ParamSpec("P")
Duration = float | timedelta | None

_MISSING: Any = object()


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
        value, vacancy = self._look_up(_checked("key", key))
        return value if vacancy is None else _compute(vacancy, stored_for, None, compute, _MISSING, None)

    def get_or_refresh(
        self,
        key: str,
        duration: Duration,
        stale: Duration,
        compute: Callable[[], T],
        on_error: Callable[[Exception], object] | None = None,
    ) -> T:
        """Returns the value of a key at once, also if it is stale, and refreshes it.

        A value that this call stores is fresh for `duration`, and then stale for `stale`. While it is stale, one caller at
        a time calls `compute` and returns the new value; all others return the stale one at once. If `compute` raises
        then, `on_error` gets the exception and the stale value is returned; no caller tries again for about a second, and the
        value still ends after `duration` and `stale`. Without a value, this does the same as `get_or_set`. All callers of a
        key should use the same `stale`.
        """
        stored_for, stale_for = _duration(duration), _duration(stale)
        value, vacancy = self._look_up(_checked("key", key), stale_for)
        return value if vacancy is None else _compute(vacancy, stored_for, stale_for, compute, value, on_error)

    def get_then_refresh(
        self, key: str, duration: Duration, stale: Duration, compute: Callable[[], T]
    ) -> tuple[T, "Refresh | None"]:
        """Returns the value of a key at once, and a `Refresh` if it is stale and this caller is the one to refresh it.

        A served plugin answers with the value first, and refreshes it then. `compute` is called only if there is no value.
        """
        stored_for, stale_for = _duration(duration), _duration(stale)
        value, vacancy = self._look_up(_checked("key", key), stale_for)
        if vacancy is None:
            return value, None
        if value is not _MISSING:
            return value, Refresh(vacancy, stored_for, stale_for)
        return _compute(vacancy, stored_for, stale_for, compute, _MISSING, None), None

    def _look_up(self, key: str, stale: host.Duration | None = None) -> tuple[Any, host.Vacancy | None]:
        """Returns the value of a key or `_MISSING`, and the vacancy if the caller computes the next value.

        Stored bytes that are not valid JSON are cleared, or replaced by the caller that refreshes them.
        """
        if stale is not None:
            found = _ask(self._handle.get_or_refresh, key, stale)
            if isinstance(found, host.Freshness_Vacant):
                return _MISSING, found.value
            is_fresh = isinstance(found, host.Freshness_Fresh)
            encoded, refresh = (found.value, None) if is_fresh else (found.value.value, found.value.refresh)
            try:
                return _decode(encoded), refresh
            except ValueError:
                if refresh is not None:
                    return _MISSING, refresh
        entry = _ask(self._handle.get_or_set, key)
        if isinstance(entry, host.Entry_Occupied):
            try:
                return _decode(entry.value), None
            except ValueError:
                self.clear(key)
                entry = _ask(self._handle.get_or_set, key)
        if isinstance(entry, host.Entry_Occupied):
            return _decode(entry.value), None
        return _MISSING, entry.value

    def clear(self, key: str) -> bool:
        """Removes one key, and returns whether it had a value."""
        return _ask(self._handle.clear, _checked("key", key))

    def clear_pattern(self, pattern: str) -> int:
        """Removes all keys that match a Redis glob, and returns how many had a value."""
        return _ask(self._handle.clear_pattern, _checked("pattern", pattern))

    def clear_all(self) -> int:
        """Removes all keys of the plugin's key space, and returns how many had a value."""
        return _ask(self._handle.clear_all)


class Refresh:
    """The right to refresh a stale value. Other callers get the stale value until it is stored or given back.

    Use it in a `with` statement, which gives it back also if an exception is raised.
    """

    def __init__(self, vacancy: host.Vacancy, duration: host.Duration, stale: host.Duration) -> None:
        self._vacancy: host.Vacancy | None = vacancy
        self._durations = duration, stale

    def store(self, value: Any) -> bool:
        """Stores the next value, and returns whether it was stored: not if the stale value is gone by now.

        Raises `ValueError` if the refresh was stored or given back before.
        """
        try:
            encoded = _encode(value)
            if self._vacancy is None:
                raise ValueError("the refresh has ended")
            # The call consumes the vacancy.
            vacancy, self._vacancy = self._vacancy, None
            return _ask(host.Vacancy.fill_stale, vacancy, encoded, *self._durations)
        finally:
            self.drop()

    def drop(self) -> None:
        """Gives the refresh back. Another caller gets it after about a second."""
        vacancy, self._vacancy = self._vacancy, None
        if vacancy is not None:
            vacancy.__exit__(None, None, None)

    def __enter__(self) -> "Refresh":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.drop()


def open(name: str) -> Cache:
    """Opens the cache of this name, as the operator configured it."""
    return Cache(_ask(host.open, _checked("name", name)))


def open_default() -> Cache:
    """Opens the default cache, which the operator chose."""
    return Cache(_ask(host.open_default))


def cached(
    duration: Duration,
    *,
    stale: Duration = None,
    cache: str | None = None,
    key: str | None = None,
    skip: Collection[str] = (),
    on_error: Callable[[Exception], object] | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Caches what a function returns, by its arguments.

        @cached(60, stale=3600, key="user:{id}")
        def user(id: int) -> dict: ...

    Calls `get_or_set`, or with `stale` `get_or_refresh`, in the default cache or in that named `cache`. If the function
    raises, nothing is stored. `key` is a format string over the arguments. Without it, the key is the module and the name of
    the function, a colon, and the arguments as a JSON array, except for those in `skip`; if that is longer than 1,024 bytes or
    has characters that no key may have, the array is replaced by `sha256:` and its SHA-256.

    A failure of the cache is none of the function: without the cache, with a key that is refused, or during an outage it runs
    and its value is not stored.

    Raises `ValueError` for a name in `key` or `skip` that is no argument, and `TypeError` for an async function and for a
    method without `key`. A call raises `TypeError` if JSON cannot represent an argument of the key.
    """
    stored_for, stale_for = _duration(duration), None if stale is None else _duration(stale)

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        key_of = _key_of(function, key, skip)

        @functools.wraps(function)
        def call(*arguments: P.args, **named: P.kwargs) -> T:
            name = key_of(*arguments, **named)
            try:
                opened = open_default() if cache is None else open(cache)
                value, vacancy = opened._look_up(_checked("key", name), stale_for)
            except (CacheError, ValueError):
                return function(*arguments, **named)
            if vacancy is None:
                return value
            return _compute(vacancy, stored_for, stale_for, lambda: function(*arguments, **named), value, on_error)

        return call

    return decorate


def _key_of(function: Callable[..., Any], key: str | None, skip: Collection[str]) -> Callable[..., str]:
    """Returns the function that makes the key of a call."""
    path = f"{function.__module__}.{function.__qualname__}"
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{path}: an async function cannot be cached")
    signature = inspect.signature(function)
    parameters = list(signature.parameters)
    if key is None and parameters[:1] in (["self"], ["cls"]):
        raise TypeError(f"{path}: a method needs a `key`")
    named = [] if key is None else [field for _, field, _, _ in string.Formatter().parse(key) if field is not None]
    for option, name in [("key", name.partition(".")[0].partition("[")[0]) for name in named] + [("skip", n) for n in skip]:
        if name not in parameters:
            raise ValueError(f"{path}: `{name}` in `{option}` is not an argument")

    def key_of(*arguments: Any, **named: Any) -> str:
        bound = signature.bind(*arguments, **named)
        bound.apply_defaults()
        if key is not None:
            return key.format(**bound.arguments)
        encoded = [value for name, value in bound.arguments.items() if name not in skip]
        text = json.dumps(encoded, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        raw = text.encode(errors="surrogatepass")
        is_key = "\x7f" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
        if is_key and len(path.encode()) + 1 + len(raw) <= 1024:
            return f"{path}:{text}"
        return f"{path}:sha256:{hashlib.sha256(raw).hexdigest()}"

    return key_of


def _compute(
    vacancy: host.Vacancy,
    duration: host.Duration,
    stale: host.Duration | None,
    compute: Callable[[], T],
    old: T,
    on_error: Callable[[Exception], object] | None,
) -> T:
    """Computes the value of a vacancy and stores it. If that fails, returns the old value, unless it is `_MISSING`."""
    try:
        value = compute()
        encoded = _encode(value)
    except BaseException as error:
        # Drop the vacancy now: the exception keeps the frame alive, and other callers wait for the vacancy.
        vacancy.__exit__(None, None, None)
        if old is _MISSING or not isinstance(error, Exception):
            raise
        if on_error is not None:
            on_error(error)
        return old
    try:
        if stale is None:
            host.Vacancy.fill(vacancy, encoded, duration)
        else:
            host.Vacancy.fill_stale(vacancy, encoded, duration, stale)
    except Err:
        pass  # The caller already has the value. The next caller computes it again.
    return value


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
