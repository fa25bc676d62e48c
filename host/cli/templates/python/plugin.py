"""Returns greetings, and caches each of them for a minute."""

import larder_cache
from componentize_py_types import Err


class WitWorld:
    """The exports of the plugin."""

    def greet(self, name: str) -> list[str]:
        try:
            return [_greeting(name), _greeting(name)]
        except larder_cache.CacheError as error:
            # Return the error to the caller: any exception other than `Err` traps.
            raise Err(str(error)) from None


def _greeting(name: str) -> str:
    how = "from the cache"

    def compute() -> str:
        nonlocal how
        how = "computed now"
        return f"Hello, {name}!"

    greeting = larder_cache.open_default().get_or_set(f"greeting:{name}", 60, compute)
    return f"{greeting} ({how})"
