/** Answers each request with a greeting of the name in its path, and caches each greeting for a minute. */

import { Fields, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.0";

import { openDefault } from "./larder-cache.js";

/** The export `wasi:http/incoming-handler`. The answer is the header `greeting`: `--sync` builds cannot write a body. */
export const incomingHandler = {
    handle(request, responseOut) {
        const name = (request.pathWithQuery() ?? "").split("?")[0].replaceAll("/", "") || "world";
        const headers = new Fields();
        headers.append("greeting", bytes(greeting(name)));
        ResponseOutparam.set(responseOut, { tag: "ok", val: new OutgoingResponse(headers) });
    },
};

/** Computes each greeting at most once a minute, for all requests. @param {string} name @returns {string} */
function greeting(name) {
    let how = "from the cache";
    const greeting = openDefault().getOrSet(`greeting:${name}`, 60, () => {
        how = "computed now";
        return `Hello, ${name}!`;
    });
    return `${greeting} (${how})`;
}

/** QuickJS has no TextEncoder. A path is ASCII. @param {string} text @returns {Uint8Array} */
function bytes(text) {
    return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
