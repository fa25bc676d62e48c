/** Greets, and keeps each greeting for a minute. */

import { openDefault } from "./larder-cache.js";

/** Made once a minute for all who ask. What is thrown is the call's error. @param {string} name @returns {string} */
export function greet(name) {
    return openDefault().getOrSet(`greeting:${name}`, 60, () => `Hello, ${name}!`);
}
