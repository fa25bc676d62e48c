"""Counts primes once for all plugins, and stores notes that all plugins can read. Call it with `larder run --invoke`."""

import json
from collections.abc import Callable
from typing import TypeVar

import larder_cache
from componentize_py_types import Err

T = TypeVar("T")


class WitWorld:
    """The exports of the plugin."""

    def primes(self, below: int) -> list[str]:
        return [f"round {n}: {_ask_for_primes(below)}" for n in (1, 2, 3)]

    def note(self, key: str, json_text: str, seconds: float | None) -> None:
        _or_err(lambda: larder_cache.open_default().set(key, json.loads(json_text), seconds))

    def recall(self, key: str) -> str:
        return _or_err(lambda: json.dumps(larder_cache.open_default().get(key), ensure_ascii=False))

    def note_many(self, json_text: str, seconds: float | None) -> None:
        _or_err(lambda: larder_cache.open_default().set_many(json.loads(json_text), seconds))

    def recall_many(self, keys: list[str]) -> str:
        return _or_err(lambda: json.dumps(larder_cache.open_default().get_many(keys), ensure_ascii=False))

    def forget(self, pattern: str) -> int:
        return _or_err(lambda: larder_cache.open_default().clear_pattern(pattern))

    def refusals(self, json_text: str) -> list[str]:
        text = json.loads(json_text)
        cache = larder_cache.open_default()
        calls = {
            "open": lambda: larder_cache.open(text),
            "get": lambda: cache.get(text),
            "get_many": lambda: cache.get_many(["k", text]),
            "set": lambda: cache.set(text, 1),
            "set_many": lambda: cache.set_many({text: 1}),
            "get_or_set": lambda: cache.get_or_set(text, 30, lambda: 1),
            "clear": lambda: cache.clear(text),
            "clear_pattern": lambda: cache.clear_pattern(text),
            "set_value": lambda: cache.set("k", [text]),
            "set_values": lambda: cache.set_many({"k": {text: 1}}),
            "compute_value": lambda: cache.get_or_set("k", 30, lambda: text),
        }
        return [f"{name}: {_error_of(call)}" for name, call in calls.items()]

    def refresh(self, key: str, json_texts: list[str]) -> list[str]:
        return [_refresh(key, text) for text in json_texts]

    def answer_first(self, key: str, next: str) -> list[str]:
        answers = []
        _or_err(lambda: _answer_then_refresh(key, next, answers.append))
        return answers

    def posts(self, pages: list[int]) -> list[str]:
        return [_ask_for_posts(page) for page in pages]

    def measure(self, text: str) -> int:
        return _measure(text)

    def misuses(self) -> list[str]:
        async def fetch(page: int) -> str:
            return ""

        def method(self: object) -> str:
            return ""

        def wrong(page: int) -> str:
            return ""

        cached = larder_cache.cached
        calls = {
            "key": lambda: cached(30, key="posts:{pages}")(wrong),
            "place": lambda: cached(30, key="posts:{}")(wrong),
            "skip": lambda: cached(30, skip=["pages"])(wrong),
            "method": lambda: cached(30)(method),
            "async": lambda: cached(30)(fetch),
            "duration": lambda: cached(-1)(wrong),
            "argument": lambda: cached(30)(wrong)(object()),
        }
        return [f"{name}: {_error_of(call)}" for name, call in calls.items()]


def _error_of(call: Callable[[], object]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def _or_err(call: Callable[[], T]) -> T:
    """Returns exceptions as errors of the exported function. Any exception other than `Err` traps."""
    try:
        return call()
    except (larder_cache.CacheError, TypeError, ValueError) as error:
        raise Err(str(error)) from None


def _ask_for_primes(below: int) -> str:
    how = "received"

    def compute() -> int:
        nonlocal how
        how = "computed"
        return _count_primes(below)

    try:
        count = larder_cache.open_default().get_or_set(f"primes-{below}", 30, compute)
    except (larder_cache.CacheError, ValueError) as error:
        return str(error)  # Not cached: the next round computes again.
    return f"{count} primes below {below}, {how}"


def _count_primes(below: int) -> int:
    if below > 1_000_000:
        raise ValueError("too many to count")
    sieve = bytearray([1]) * below
    for n in range(2, int(below**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, below, n)))
    return sum(sieve[2:])


_selected = 0


@larder_cache.cached(30, stale=300)
def last_posts(page: int) -> list[str]:
    return _select_posts(page)


def _select_posts(page: int) -> list[str]:
    global _selected
    _selected += 1
    if page == 0:
        raise ValueError("no such page")
    return [f"a post of page {page}"]


def _ask_for_posts(page: int) -> str:
    before = _selected
    try:
        posts = last_posts(page)
    except ValueError as error:
        posts = [str(error)]
    return f"{posts[0]}, {'received' if _selected == before else 'computed'}"


@larder_cache.cached(30)
def _measure(text: str) -> int:
    return len(text)


def _refresh(key: str, json_text: str) -> str:
    how = "received"

    def compute() -> object:
        nonlocal how
        how = "computed"
        return json.loads(json_text)

    def on_error(_error: Exception) -> None:
        nonlocal how
        how = "failed, received"

    try:
        value = larder_cache.open_default().get_or_refresh(key, 3600, 3600, compute, on_error)
    except ValueError:
        return "raised"
    return f"{how} {json.dumps(value)}"


def _answer_then_refresh(key: str, next: str, respond: Callable[[str], object]) -> None:
    cache = larder_cache.open_default()
    value, refresh = cache.get_then_refresh(key, 3600, 3600, lambda: json.loads(next))
    respond(json.dumps(value))
    if refresh is None:
        return
    with refresh:
        respond(f"stored: {refresh.store(json.loads(next))}".lower())
    respond(_error_of(lambda: refresh.store(1)))
