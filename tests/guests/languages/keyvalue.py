"""Uses `wasi:keyvalue` and `wasi:config` as they are, built by componentize-py."""

from collections.abc import Callable
from typing import TypeVar

from componentize_py_types import Err
from wit_world.imports import atomics, batch, wasi_config_store
from wit_world.imports import wasi_keyvalue_store as store

T = TypeVar("T")


def _name(error: object) -> str:
    match error:
        case store.Error_NoSuchStore():
            return "no-such-store"
        case store.Error_AccessDenied():
            return "access-denied"
        case store.Error_Other(text):
            return f"other: {text}"
        case atomics.CasError_StoreError(error):
            return _name(error)
    return repr(error)


def _or_err(call: Callable[[], T]) -> T:
    try:
        return call()
    except Err as failed:
        raise Err(_name(failed.value)) from failed


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


class WitWorld:
    """The exports of the plugin."""

    def keep(self, identifier: str, key: str, text: str) -> str:
        def keep() -> str:
            bucket = store.open(identifier)
            bucket.set(key, text.encode())
            return _text(bucket.get(key)) or ""

        return _or_err(keep)

    def look(self, key: str) -> str | None:
        return _or_err(lambda: _text(store.open("").get(key)))

    def forget(self, key: str) -> bool:
        def forget() -> bool:
            bucket = store.open("")
            bucket.delete(key)
            return bucket.exists(key)

        return _or_err(forget)

    def names(self) -> list[str]:
        def names() -> list[str]:
            bucket, keys, cursor = store.open(""), set(), None
            while True:
                page = bucket.list_keys(cursor)
                keys.update(page.keys)
                cursor = page.cursor
                if cursor is None:
                    return sorted(keys)

        return _or_err(names)

    def add(self, key: str, delta: int) -> int:
        return _or_err(lambda: atomics.increment(store.open(""), key, delta))

    def swap(self, key: str, between: str | None, text: str) -> bool:
        def swap() -> bool:
            bucket = store.open("")
            cas = atomics.Cas.new(bucket, key)
            cas.current()
            if between is not None:
                bucket.set(key, between.encode())
            try:
                atomics.swap(cas, text.encode())
            except Err as failed:
                if isinstance(failed.value, atomics.CasError_CasFailed):
                    return False
                raise
            return True

        return _or_err(swap)

    def numbers(self, count: int) -> list[str | None]:
        def numbers() -> list[str | None]:
            bucket, keys = store.open(""), [f"number:{n}" for n in range(count + 1)]
            batch.set_many(bucket, [(key, str(n).encode()) for n, key in enumerate(keys[:count])])
            found = batch.get_many(bucket, keys)
            batch.delete_many(bucket, keys)
            return [None if pair is None else _text(pair[1]) for pair in found]

        return _or_err(numbers)

    def setting(self, key: str) -> str | None:
        return _or_err(lambda: wasi_config_store.get(key))
