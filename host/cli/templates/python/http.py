"""Answers each request with a greeting of the name in its path, and caches each greeting for a minute."""

import larder_cache
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam


class IncomingHandler(exports.IncomingHandler):
    """The export `wasi:http/incoming-handler`."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        name = (request.path_with_query() or "").split("?")[0].strip("/") or "world"
        _respond(response_out, _greeting(name) + "\n")


def _greeting(name: str) -> str:
    how = "from the cache"

    def compute() -> str:
        nonlocal how
        how = "computed now"
        return f"Hello, {name}!"

    try:
        greeting = larder_cache.open_default().get_or_set(f"greeting:{name}", 60, compute)
    except larder_cache.CacheError as error:
        return f"no greeting: {error}"
    return f"{greeting} ({how})"


def _respond(response_out: ResponseOutparam, text: str) -> None:
    response = OutgoingResponse(Fields())
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        stream.blocking_write_and_flush(text.encode())
    OutgoingBody.finish(body, None)
