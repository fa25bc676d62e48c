/** Counts primes once for all plugins, and stores notes that all plugins can read. Call it with `larder run --invoke`. */

import { cached, open, openDefault } from "./larder-cache.js";

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

/** @param {string} key @param {string[]} json @returns {string[]} */
export function refresh(key, json) {
    return json.map((text) => {
        let how = "received";
        const compute = () => {
            how = "computed";
            return JSON.parse(text);
        };
        const onError = () => {
            how = "failed, received";
        };
        try {
            const value = openDefault().getOrRefresh(key, 3600, 3600, compute, onError);
            return `${how} ${JSON.stringify(value)}`;
        } catch {
            return "raised";
        }
    });
}

/** @param {string} key @param {string} next @returns {string[]} */
export function answerFirst(key, next) {
    const answers = [];
    const [value, refresh] = openDefault().getThenRefresh(key, 3600, 3600, () => JSON.parse(next));
    answers.push(JSON.stringify(value));
    if (refresh === undefined) return answers;
    try {
        answers.push(`stored: ${refresh.store(JSON.parse(next))}`);
    } finally {
        refresh.drop();
    }
    answers.push(errorOf(() => refresh.store(1)));
    return answers;
}

let selected = 0;

const lastPosts = cached(selectPosts, { seconds: 30, stale: 300, name: "last_posts" });

/** @param {number} page @returns {string[]} */
function selectPosts(page) {
    selected += 1;
    if (page === 0) throw new RangeError("no such page");
    return [`a post of page ${page}`];
}

/** @param {number[]} pages @returns {string[]} */
export function posts(pages) {
    // They come as an array of 32-bit numbers, whose `map` returns no text.
    return Array.from(pages, (page) => {
        const before = selected;
        let posts;
        try {
            posts = lastPosts(page);
        } catch (error) {
            posts = [error.message];
        }
        return `${posts[0]}, ${selected === before ? "received" : "computed"}`;
    });
}

const textLength = cached((text) => [...text].length, { seconds: 30, name: "measure" });

/** @param {string} text @returns {number} */
export function measure(text) {
    return textLength(text);
}

/** @returns {string[]} */
export function misuses() {
    const wrong = (page) => `${page}`;
    const calls = {
        name: () => cached(() => 1, { seconds: 30, name: "" }),
        duration: () => cached(wrong, { seconds: -1 }),
        argument: () => cached(wrong, { seconds: 30 })(1n),
        key: () => cached(wrong, { seconds: 30, key: (page) => page })(1),
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
