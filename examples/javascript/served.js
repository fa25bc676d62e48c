/** Answers each HTTP request with how many requests this instance has answered, and how many all instances have. */

import { Fields, OutgoingResponse, ResponseOutparam } from "wasi:http/types@0.2.0";

import { openDefault } from "./larder-cache.js";

let answered = 0;

/** The export `wasi:http/incoming-handler`. The answer is a header: this plugin writes no body. */
export const incomingHandler = {
    handle(request, responseOut) {
        answered += 1;
        const cache = openDefault();
        const total = (cache.get("answered") ?? 0) + 1;
        cache.set("answered", total);
        const headers = new Fields();
        headers.append("answered", bytes(`${request.pathWithQuery()}: ${answered} of ${total}`));
        ResponseOutparam.set(responseOut, { tag: "ok", val: new OutgoingResponse(headers) });
    },
};

/** QuickJS has no TextEncoder. The text is ASCII. @param {string} text @returns {Uint8Array} */
function bytes(text) {
    return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
