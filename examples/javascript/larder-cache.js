/**
 * The cache of the host, for plugins in JavaScript. Values are stored as JSON, so plugins in other languages can share
 * them.
 *
 *     const cache = openDefault();
 *     const squares = cache.getOrSet("squares", 30, () => [1, 2, 3].map((n) => n * n));
 *
 * A duration is a number of seconds. `undefined` means the cache's `default_expire`, and `Infinity` means no expiry. It is
 * rounded down to whole milliseconds, but to at least one. Zero is a `CacheError`, a negative duration a `RangeError`.
 *
 * Every call throws a `CacheError` if the host returns an error, and for an argument or a value with a lone surrogate, which
 * has no UTF-8. A call that stores a value throws a `TypeError` if JSON cannot represent it. A call that reads a value throws
 * an error if the stored bytes are not valid JSON.
 */

import host from "larder:cache/cache@0.1.0";

/** An error of the host. */
export class CacheError extends Error {
    /** @param {{ tag: string, val?: string | number }} reason One of the errors of `wit/cache.wit`. */
    constructor(reason) {
        super(reason.val === undefined ? reason.tag : `${reason.tag}: ${reason.val}`);
        this.name = "CacheError";
        this.reason = reason;
    }
}

/** An open cache. */
export class Cache {
    #handle;

    /** @param {object} handle The handle of the interface. */
    constructor(handle) {
        this.#handle = handle;
    }

    /**
     * Returns the value of a key, or `undefined` on a miss.
     * @param {string} key
     * @returns {any}
     */
    get(key) {
        return found(ask(() => this.#handle.get(checked("key", key))));
    }

    /**
     * Stores a value for a duration.
     * @param {string} key
     * @param {any} value
     * @param {number} [seconds]
     */
    set(key, value, seconds) {
        const encoded = encode(value);
        ask(() => this.#handle.setWithDuration(checked("key", key), encoded, duration(seconds)));
    }

    /**
     * Returns the values of many keys in one round trip, in the order of the keys, with `undefined` for a miss.
     * @param {Iterable<string>} keys
     * @returns {any[]}
     */
    getMany(keys) {
        const texts = [...keys].map((key) => checked("key", key));
        return ask(() => this.#handle.getMany(texts)).map(found);
    }

    /**
     * Stores the values of many keys for one duration in one round trip.
     *
     * After a timeout some values may be stored and others not.
     * @param {Record<string, any> | Map<string, any>} values
     * @param {number} [seconds]
     */
    setMany(values, seconds) {
        const entries = values instanceof Map ? [...values] : Object.entries(values);
        const encoded = entries.map(([key, value]) => [checked("key", key), encode(value)]);
        ask(() => this.#handle.setMany(encoded, duration(seconds)));
    }

    /**
     * Returns the value of a key. On a miss, calls `compute` and stores its value.
     *
     * One of the callers that miss the same key computes; the others wait for its value. The computed value is returned
     * even if it cannot be stored, or if the key was set or cleared in the meantime. If `compute` throws, the exception is
     * thrown to the caller and nothing is stored; one of the waiters computes next. Stored bytes that are not valid JSON
     * are cleared, and the value is computed again.
     * @template T
     * @param {string} key
     * @param {number | undefined} seconds
     * @param {() => T} compute
     * @returns {T}
     */
    getOrSet(key, seconds, compute) {
        const storedFor = duration(seconds);
        checked("key", key);
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
            entry.val[Symbol.dispose](); // Other callers wait for this vacancy: do not leave it to the garbage collector.
            throw error;
        }
        try {
            host.Vacancy.fill(entry.val, encoded, storedFor);
        } catch {
            // The caller already has the value. The next caller computes it again.
        }
        return value;
    }

    /** Removes one key, and returns whether it had a value. @param {string} key @returns {boolean} */
    clear(key) {
        return ask(() => this.#handle.clear(checked("key", key)));
    }

    /** Removes all keys that match a Redis glob, and returns how many had a value. @param {string} pattern @returns {number} */
    clearPattern(pattern) {
        return ask(() => this.#handle.clearPattern(checked("pattern", pattern)));
    }

    /** Removes all keys of the plugin's key space, and returns how many had a value. @returns {number} */
    clearAll() {
        return ask(() => this.#handle.clearAll());
    }
}

/** Opens the cache of this name, as the operator configured it. @param {string} name @returns {Cache} */
export const open = (name) => new Cache(ask(() => host.open(checked("name", name))));

/** Opens the default cache, which the operator chose. @returns {Cache} */
export const openDefault = () => new Cache(ask(() => host.openDefault()));

function found(value) {
    return value === null || value === undefined ? undefined : decode(value);
}

function ask(call) {
    try {
        return call();
    } catch (error) {
        throw error.payload === undefined ? error : new CacheError(error.payload);
    }
}

/** Returns the text. The bindings trap, which no plugin can catch, if it has a lone surrogate or is no text. */
function checked(argument, text) {
    if (typeof text !== "string") throw new TypeError(`${argument}: must be a string, not ${typeof text}`);
    if (/\p{Surrogate}/u.test(text)) throw refused(argument);
    return text;
}

function refused(argument) {
    return new CacheError({ tag: "invalid-argument", val: `${argument}: must not hold a lone surrogate` });
}

function duration(seconds) {
    if (seconds === undefined) return { tag: "default" };
    if (seconds === Infinity) return { tag: "unlimited" };
    if (!(seconds >= 0)) throw new RangeError(`a duration cannot be ${seconds} s`);
    // Round a positive duration up to one millisecond, because zero is an error.
    const milliseconds = Math.max(Math.floor(seconds * 1000), seconds > 0 ? 1 : 0);
    return { tag: "milliseconds", val: Math.min(milliseconds, Number.MAX_SAFE_INTEGER) };
}

function encode(value) {
    const text = typeof value?.then === "function" ? undefined : JSON.stringify(value);
    if (text === undefined) throw new TypeError("JSON cannot represent this value");
    // `JSON.stringify` escapes a lone surrogate, but other languages do not read it.
    if (text.includes("\\ud") && /(?<!\\)(?:\\\\)*\\ud[89a-f]/.test(text)) throw refused("value");
    return Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));
}

/** Decodes UTF-8 by way of percent-encoding, because QuickJS has no `TextDecoder`. */
function decode(bytes) {
    let text = "";
    for (let n = 0; n < bytes.length; n += 4096) text += String.fromCharCode(...bytes.slice(n, n + 4096));
    return JSON.parse(decodeURIComponent(escape(text)));
}
