"""Greets, and keeps each greeting for a minute."""

import larder_cache
from componentize_py_types import Err


class WitWorld:
    """What the plugin exports."""

    def greet(self, name: str) -> str:
        try:
            return larder_cache.open_default().get_or_set(f"greeting:{name}", 60, lambda: f"Hello, {name}!")
        except larder_cache.CacheError as error:
            # The call's error; an exception that is no `Err` would end the plugin as a trap.
            raise Err(str(error)) from None
