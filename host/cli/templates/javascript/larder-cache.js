/**
 * The host's cache, for plugins in JavaScript. Values are kept as JSON, as plugins in other languages keep and read them.
 *
 *     const cache = openDefault();
 *     const squares = cache.getOrSet("squares", 30, () => [1, 2, 3].map((n) => n * n));
 *
 * A duration is a number of seconds; `undefined` is the cache's own `default_expire`, `Infinity` no end. What the host
 * refuses is a `CacheError`; what JSON has no form for is a `TypeError`.
 */

import host from "larder:cache/cache@0.1.0";

/** Why the host refused a call. */
export class CacheError extends Error {
    /** @param {{ tag: string, val?: string | number }} reason one of the errors of `wit/cache.wit` */
    constructor(reason) {
        super(reason.val === undefined ? reason.tag : `${reason.tag}: ${reason.val}`);
        this.name = "CacheError";
        this.reason = reason;
    }
}

/** An open cache. */
export class Cache {
    #handle;

    /** @param {object} handle of the interface */
    constructor(handle) {
        this.#handle = handle;
    }

    /**
     * The key's value, or `undefined` on a miss.
     * @param {string} key
     * @returns {any}
     */
    get(key) {
        return found(ask(() => this.#handle.get(key)));
    }

    /**
     * Stores a value.
     * @param {string} key
     * @param {any} value
     * @param {number} [seconds]
     */
    set(key, value, seconds) {
        const encoded = encode(value);
        ask(() => this.#handle.setWithDuration(key, encoded, duration(seconds)));
    }

    /**
     * The values of many keys, in their order, in one round trip; `undefined` for a miss.
     * @param {Iterable<string>} keys
     * @returns {any[]}
     */
    getMany(keys) {
        return ask(() => this.#handle.getMany([...keys])).map(found);
    }

    /**
     * Stores the values of many keys for one duration, in one round trip.
     * @param {Record<string, any> | Map<string, any>} values
     * @param {number} [seconds]
     */
    setMany(values, seconds) {
        const entries = values instanceof Map ? [...values] : Object.entries(values);
        const encoded = entries.map(([key, value]) => [key, encode(value)]);
        ask(() => this.#handle.setMany(encoded, duration(seconds)));
    }

    /**
     * The key's value; on a miss `compute` makes it, once for all who wait, and it is stored.
     *
     * It comes back even when it cannot be stored, or was superseded by a clear. What `compute` throws is passed on and
     * nothing is stored: one of those who wait computes next. What is stored but is no JSON is computed anew.
     * @template T
     * @param {string} key
     * @param {number | undefined} seconds
     * @param {() => T} compute
     * @returns {T}
     */
    getOrSet(key, seconds, compute) {
        const storedFor = duration(seconds);
        let entry = ask(() => this.#handle.getOrSet(key));
        if (entry.tag === "occupied") {
            try {
                return decode(entry.val);
            } catch {
                this.clear(key);
                entry = ask(() => this.#handle.getOrSet(key));
            }
        }
        if (entry.tag === "occupied") return decode(entry.val);
        let value, encoded;
        try {
            value = compute();
            encoded = encode(value);
        } catch (error) {
            entry.val[Symbol.dispose](); // At once: others wait for this vacancy.
            throw error;
        }
        try {
            host.Vacancy.fill(entry.val, encoded, storedFor);
        } catch {
            // The caller has the value in hand; the next one computes.
        }
        return value;
    }

    /** Removes one key and says whether it held a value. @param {string} key @returns {boolean} */
    clear(key) {
        return ask(() => this.#handle.clear(key));
    }

    /** Removes every key that matches a Redis glob and says how many. @param {string} pattern @returns {number} */
    clearPattern(pattern) {
        return ask(() => this.#handle.clearPattern(pattern));
    }

    /** Removes every key of this plugin's key space and says how many. @returns {number} */
    clearAll() {
        return ask(() => this.#handle.clearAll());
    }
}

/** Opens a cache by the name the operator gave it. @param {string} name @returns {Cache} */
export const open = (name) => new Cache(ask(() => host.open(name)));

/** Opens the cache that the operator made the default. @returns {Cache} */
export const openDefault = () => new Cache(ask(() => host.openDefault()));

function found(value) {
    return value === null || value === undefined ? undefined : decode(value);
}

function ask(call) {
    try {
        return call();
    } catch (refused) {
        throw refused.payload === undefined ? refused : new CacheError(refused.payload);
    }
}

function duration(seconds) {
    if (seconds === undefined) return { tag: "default" };
    if (seconds === Infinity) return { tag: "unlimited" };
    if (!(seconds >= 0)) throw new RangeError(`a duration cannot be ${seconds} s`);
    // Less than a millisecond, but more than none, is one: it is not the mistake that zero is.
    const milliseconds = Math.max(Math.floor(seconds * 1000), seconds > 0 ? 1 : 0);
    return { tag: "milliseconds", val: Math.min(milliseconds, Number.MAX_SAFE_INTEGER) };
}

function encode(value) {
    const text = typeof value?.then === "function" ? undefined : JSON.stringify(value);
    if (text === undefined) throw new TypeError("JSON has no form for this value");
    return Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));
}

/** QuickJS has no `TextDecoder` and no `TextEncoder`; percent-encoding, of which `escape` is a form, is UTF-8 too. */
function decode(bytes) {
    let text = "";
    for (let n = 0; n < bytes.length; n += 4096) text += String.fromCharCode(...bytes.slice(n, n + 4096));
    return JSON.parse(decodeURIComponent(escape(text)));
}
