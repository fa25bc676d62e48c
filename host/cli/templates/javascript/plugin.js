/** Returns greetings, and caches each of them for a minute. */

import { openDefault } from "./larder-cache.js";

/**
 * Greets twice. An exception becomes the error of the exported function.
 * @param {string} name
 * @returns {string[]}
 */
export function greet(name) {
    return [greeting(name), greeting(name)];
}

/** Computes each greeting at most once a minute, for all callers. @param {string} name @returns {string} */
function greeting(name) {
    let how = "from the cache";
    const greeting = openDefault().getOrSet(`greeting:${name}`, 60, () => {
        how = "computed now";
        return `Hello, ${name}!`;
    });
    return `${greeting} (${how})`;
}
