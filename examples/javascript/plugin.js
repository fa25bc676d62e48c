/** Counts primes once for all plugins, and stores notes that all plugins can read. Call it with `larder run --invoke`. */

import { open, openDefault } from "./larder-cache.js";

/** @param {number} below @returns {string[]} */
export function primes(below) {
    return [1, 2, 3].map((round) => `round ${round}: ${askForPrimes(below)}`);
}

/** An exception, here and below, becomes the error of the exported function. @param {string} key @param {string} json @param {number | null} seconds */
export function note(key, json, seconds) {
    openDefault().set(key, JSON.parse(json), seconds ?? undefined);
}

/** @param {string} key @returns {string} */
export function recall(key) {
    return JSON.stringify(openDefault().get(key) ?? null);
}

/** @param {string} json @param {number | null} seconds */
export function noteMany(json, seconds) {
    openDefault().setMany(JSON.parse(json), seconds ?? undefined);
}

/** @param {string[]} keys @returns {string} */
export function recallMany(keys) {
    return JSON.stringify(openDefault().getMany(keys));
}

/** @param {string} pattern @returns {number} */
export function forget(pattern) {
    return openDefault().clearPattern(pattern);
}

/** @param {string} json @returns {string[]} */
export function refusals(json) {
    const text = JSON.parse(json);
    const cache = openDefault();
    const calls = {
        open: () => open(text),
        get: () => cache.get(text),
        getMany: () => cache.getMany(["k", text]),
        set: () => cache.set(text, 1),
        setMany: () => cache.setMany(new Map([[text, 1]])),
        getOrSet: () => cache.getOrSet(text, 30, () => 1),
        clear: () => cache.clear(text),
        clearPattern: () => cache.clearPattern(text),
        setValue: () => cache.set("k", [text]),
        setValues: () => cache.setMany({ k: { [text]: 1 } }),
        computeValue: () => cache.getOrSet("k", 30, () => text),
    };
    return Object.entries(calls).map(([name, call]) => `${name}: ${errorOf(call)}`);
}

function errorOf(call) {
    try {
        call();
        return "none";
    } catch (error) {
        return `${error.name}: ${error.message}`;
    }
}

function askForPrimes(below) {
    let how = "received";
    try {
        const count = openDefault().getOrSet(`primes-${below}`, 30, () => {
            how = "computed";
            return countPrimes(below);
        });
        return `${count} primes below ${below}, ${how}`;
    } catch (error) {
        return error.message; // Not cached: the next round computes again.
    }
}

function countPrimes(below) {
    if (below > 1_000_000) throw new RangeError("too many to count");
    const sieve = new Uint8Array(below).fill(1, 2);
    for (let n = 2; n * n < below; n += 1) {
        if (sieve[n]) for (let multiple = n * n; multiple < below; multiple += n) sieve[multiple] = 0;
    }
    return sieve.reduce((sum, isPrime) => sum + isPrime, 0);
}
