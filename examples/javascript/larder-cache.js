/**
 * The cache of the host, for plugins in JavaScript. Values are stored as JSON, so plugins in other languages can share
 * them.
 *
 *     const cache = openDefault();
 *     const squares = cache.getOrSet("squares", 30, () => [1, 2, 3].map((n) => n * n));
 *     const square = cached((n) => n * n, { seconds: 30, name: "square" });
 *
 * A duration is a number of seconds. `undefined` means the cache's `default_expire`, and `Infinity` means no expiry. It is
 * rounded down to whole milliseconds, but to at least one. Zero is a `CacheError`, a negative duration a `RangeError`.
 *
 * Every call throws a `CacheError` if the host returns an error, and for an argument or a value with a lone surrogate, which
 * has no UTF-8. A call that stores a value throws a `TypeError` if JSON cannot represent it. A call that reads a value throws
 * an error if the stored bytes are not valid JSON.
 */

import host from "larder:cache/cache@0.1.1";

/** An error of the host. */
export class CacheError extends Error {
    /** @param {{ tag: string, val?: string | number }} reason One of the errors of `wit/cache.wit`. */
    constructor(reason) {
        super(reason.val === undefined ? reason.tag : `${reason.tag}: ${reason.val}`);
        this.name = "CacheError";
        this.reason = reason;
    }
}

/** Instead of a value that the cache does not have. */
const MISSING = Symbol("missing");

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
        const [value, vacancy] = this._lookUp(checked("key", key));
        return vacancy === undefined ? value : computeFor(vacancy, [storedFor], compute, MISSING);
    }

    /**
     * Returns the value of a key at once, also if it is stale, and refreshes it.
     *
     * A value that this call stores is fresh for `seconds`, and then stale for `stale` seconds. While it is stale, one caller
     * at a time calls `compute` and returns the new value; all others return the stale one at once. If `compute` throws then,
     * `onError` gets the exception and the stale value is returned; no caller tries again for about a second, and the value
     * still ends after `seconds` and `stale`. Without a value, this does the same as `getOrSet`. All callers of a key should
     * use the same `stale`.
     * @template T
     * @param {string} key
     * @param {number | undefined} seconds
     * @param {number | undefined} stale
     * @param {() => T} compute
     * @param {(error: any) => void} [onError]
     * @returns {T}
     */
    getOrRefresh(key, seconds, stale, compute, onError) {
        const durations = [duration(seconds), duration(stale)];
        const [value, vacancy] = this._lookUp(checked("key", key), durations[1]);
        return vacancy === undefined ? value : computeFor(vacancy, durations, compute, value, onError);
    }

    /**
     * Returns the value of a key at once, and a `Refresh` if it is stale and this caller is the one to refresh it.
     *
     * A served plugin answers with the value first, and refreshes it then. `compute` is called only if there is no value.
     * @template T
     * @param {string} key
     * @param {number | undefined} seconds
     * @param {number | undefined} stale
     * @param {() => T} compute
     * @returns {[T, Refresh | undefined]}
     */
    getThenRefresh(key, seconds, stale, compute) {
        const durations = [duration(seconds), duration(stale)];
        const [value, vacancy] = this._lookUp(checked("key", key), durations[1]);
        if (vacancy === undefined) return [value, undefined];
        if (value !== MISSING) return [value, new Refresh(vacancy, durations)];
        return [computeFor(vacancy, durations, compute, MISSING), undefined];
    }

    /**
     * For this module. Returns the value of a key or `MISSING`, and the vacancy if the caller computes the next value. Stored
     * bytes that are not valid JSON are cleared, or replaced by the caller that refreshes them.
     */
    _lookUp(key, stale) {
        if (stale !== undefined) {
            const { tag, val } = ask(() => this.#handle.getOrRefresh(key, stale));
            if (tag === "vacant") return [MISSING, val];
            const refresh = tag === "stale" ? (val.refresh ?? undefined) : undefined;
            try {
                return [decode(tag === "stale" ? val.value : val), refresh];
            } catch {
                if (refresh !== undefined) return [MISSING, refresh];
            }
        }
        let entry = ask(() => this.#handle.getOrSet(key));
        if (entry.tag === "occupied") {
            try {
                return [decode(entry.val), undefined];
            } catch {
                this.clear(key);
                entry = ask(() => this.#handle.getOrSet(key));
            }
        }
        return entry.tag === "occupied" ? [decode(entry.val), undefined] : [MISSING, entry.val];
    }

    /** For this module. Gives the handle back: the garbage collector does not, and an instance has 1,024 of them. */
    _close() {
        this.#handle[Symbol.dispose]();
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

/**
 * The right to refresh a stale value. Other callers get the stale value until it is stored or given back: call `drop` in a
 * `finally`, and do not leave it to the garbage collector.
 */
export class Refresh {
    #vacancy;
    #durations;

    /** @param {object} vacancy The vacancy of the interface. @param {object[]} durations */
    constructor(vacancy, durations) {
        this.#vacancy = vacancy;
        this.#durations = durations;
    }

    /**
     * Stores the next value, and returns whether it was stored: not if the stale value is gone by now.
     *
     * Throws an `Error` if the refresh was stored or given back before.
     * @param {any} value
     * @returns {boolean}
     */
    store(value) {
        try {
            const encoded = encode(value);
            const vacancy = this.#vacancy;
            if (vacancy === undefined) throw new Error("the refresh has ended");
            this.#vacancy = undefined; // The call consumes it.
            return ask(() => host.Vacancy.fillStale(vacancy, encoded, ...this.#durations));
        } finally {
            this.drop();
        }
    }

    /** Gives the refresh back, unless it was stored. Another caller gets it after about a second. */
    drop() {
        const vacancy = this.#vacancy;
        this.#vacancy = undefined;
        vacancy?.[Symbol.dispose]();
    }
}

/**
 * Returns a function that caches what `fn` returns, by its arguments.
 *
 *     const user = cached((id) => fetchUser(id), { seconds: 60, stale: 3600, key: (id) => `user:${id}` });
 *
 * It calls `getOrSet`, or with `stale` `getOrRefresh`, in the default cache or in that named `cache`. If `fn` throws, nothing is
 * stored. `key` makes the key from the arguments. Without it, the key is `name` or the name of `fn`, a colon, and the arguments
 * as a JSON array; if that is longer than 1,024 bytes or has characters that no key may have, the array is replaced by `sha256:`
 * and its SHA-256. Arguments with the same JSON share a value, as a `Map` and `{}` do.
 *
 * A failure of the cache is none of `fn`: without the cache, with a key that is refused, or during an outage it runs and its
 * value is not stored.
 *
 * Throws a `TypeError` if there is neither `key` nor a name, and a `RangeError` for a negative duration.
 * @template {(...args: any[]) => any} F
 * @param {F} fn
 * @param {{ seconds?: number, stale?: number, cache?: string, key?: (...args: any[]) => string, name?: string,
 *     onError?: (error: any) => void }} [options]
 * @returns {F}
 */
export function cached(fn, { seconds, stale, cache, key, name = fn.name, onError } = {}) {
    if (key === undefined && !name) throw new TypeError("a cached function without a name needs a `key` or a `name`");
    const durations = stale === undefined ? [duration(seconds)] : [duration(seconds), duration(stale)];
    const keyOf = key ?? ((...args) => keyFrom(name, JSON.stringify(args)));
    return function (...args) {
        const text = keyOf(...args);
        let opened, value, vacancy;
        try {
            opened = cache === undefined ? openDefault() : open(cache);
            [value, vacancy] = opened._lookUp(checked("key", text), durations[1]);
        } catch (error) {
            if (error instanceof TypeError) throw error; // The key is no text.
            return fn.apply(this, args);
        } finally {
            opened?._close();
        }
        return vacancy === undefined ? value : computeFor(vacancy, durations, () => fn.apply(this, args), value, onError);
    };
}

/** Opens the cache of this name, as the operator configured it. @param {string} name @returns {Cache} */
export const open = (name) => new Cache(ask(() => host.open(checked("name", name))));

/** Opens the default cache, which the operator chose. @returns {Cache} */
export const openDefault = () => new Cache(ask(() => host.openDefault()));

/** Computes the value of a vacancy and stores it. If that fails, returns the old value, unless it is `MISSING`. */
function computeFor(vacancy, durations, compute, old, onError) {
    let value, encoded;
    try {
        value = compute();
        encoded = encode(value);
    } catch (error) {
        vacancy[Symbol.dispose](); // Other callers wait for this vacancy: do not leave it to the garbage collector.
        if (old === MISSING) throw error;
        onError?.(error);
        return old;
    }
    try {
        if (durations.length === 1) host.Vacancy.fill(vacancy, encoded, ...durations);
        else host.Vacancy.fillStale(vacancy, encoded, ...durations);
    } catch {
        // The caller already has the value. The next caller computes it again.
    }
    return value;
}

function keyFrom(name, json) {
    const key = `${name}:${json}`;
    if (utf8(key).length <= 1024 && !key.includes("\x7f")) return key;
    return `${name}:sha256:${sha256(utf8(json))}`;
}

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
    return utf8(text);
}

/** Encodes by way of percent-encoding, because QuickJS has no `TextEncoder`. */
function utf8(text) {
    return Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));
}

/** Decodes UTF-8 by way of percent-encoding, because QuickJS has no `TextDecoder`. */
function decode(bytes) {
    let text = "";
    for (let n = 0; n < bytes.length; n += 4096) text += String.fromCharCode(...bytes.slice(n, n + 4096));
    return JSON.parse(decodeURIComponent(escape(text)));
}

/** The SHA-256 in hexadecimal, because QuickJS has no `crypto`. FIPS 180-4 has the names. */
function sha256(bytes) {
    // The constants are the first 32 bits of the fractions of roots of the first primes.
    const primes = [];
    for (let n = 2; primes.length < 64; n += 1) if (primes.every((prime) => n % prime)) primes.push(n);
    const fraction = (root) => ((root - Math.floor(root)) * 2 ** 32) | 0;
    const k = primes.map((prime) => fraction(Math.cbrt(prime)));
    let hash = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));

    const length = (bytes.length + 72) & ~63;
    const view = new DataView(new ArrayBuffer(length));
    bytes.forEach((byte, n) => view.setUint8(n, byte));
    view.setUint8(bytes.length, 0x80);
    view.setUint32(length - 8, Math.floor(bytes.length / 2 ** 29));
    view.setUint32(length - 4, bytes.length << 3);

    const rotate = (word, by) => (word >>> by) | (word << (32 - by));
    for (let block = 0; block < length; block += 64) {
        const w = Array.from({ length: 16 }, (_, n) => view.getInt32(block + 4 * n));
        for (let n = 16; n < 64; n += 1) {
            const s0 = rotate(w[n - 15], 7) ^ rotate(w[n - 15], 18) ^ (w[n - 15] >>> 3);
            const s1 = rotate(w[n - 2], 17) ^ rotate(w[n - 2], 19) ^ (w[n - 2] >>> 10);
            w[n] = (w[n - 16] + s0 + w[n - 7] + s1) | 0;
        }
        let [a, b, c, d, e, f, g, h] = hash;
        for (let n = 0; n < 64; n += 1) {
            const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
            const t1 = (h + s1 + ((e & f) ^ (~e & g)) + k[n] + w[n]) | 0;
            const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
            const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
            [a, b, c, d, e, f, g, h] = [(t1 + t2) | 0, a, b, c, (d + t1) | 0, e, f, g];
        }
        hash = [a, b, c, d, e, f, g, h].map((word, n) => (word + hash[n]) | 0);
    }
    return hash.map((word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
}
