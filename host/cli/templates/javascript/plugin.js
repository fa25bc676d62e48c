/** Returns greetings, and caches each of them for a minute. */

import { openDefault } from "./larder-cache.js";

/**
 * Computes each greeting at most once a minute, for all callers. An exception becomes the error of the exported function.
 * @param {string} name
 * @returns {string}
 */
export function greet(name) {
    return openDefault().getOrSet(`greeting:${name}`, 60, () => `Hello, ${name}!`);
}
