"""Answers each HTTP request with how many requests this instance has answered, and how many all instances have."""

import larder_cache
from componentize_py_types import Ok
from wit_world import exports
from wit_world.imports.types import Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam

_answered = 0


class IncomingHandler(exports.IncomingHandler):
    """The export `wasi:http/incoming-handler`."""

    def handle(self, request: IncomingRequest, response_out: ResponseOutparam) -> None:
        global _answered
        _answered += 1
        cache = larder_cache.open_default()
        total = (cache.get("answered") or 0) + 1
        cache.set("answered", total)
        _respond(response_out, f"{request.path_with_query()}: {_answered} of {total}\n")


def _respond(response_out: ResponseOutparam, text: str) -> None:
    response = OutgoingResponse(Fields())
    body = response.body()
    ResponseOutparam.set(response_out, Ok(response))
    with body.write() as stream:
        stream.blocking_write_and_flush(text.encode())
    OutgoingBody.finish(body, None)
