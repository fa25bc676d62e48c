/** Uses `wasi:keyvalue` and `wasi:config` as they are, built by componentize-qjs. */

import atomics from "wasi:keyvalue/atomics@0.2.0-draft2";
import batch from "wasi:keyvalue/batch@0.2.0-draft2";
import config from "wasi:config/store@0.2.0-rc.1";
import store from "wasi:keyvalue/store@0.2.0-draft2";

/** The error of a call of the host, as text. */
function name(error) {
    if (error.tag === "store-error") return name(error.val);
    return error.val === undefined ? error.tag : `${error.tag}: ${error.val}`;
}

function orError(call) {
    try {
        return call();
    } catch (error) {
        throw error.payload === undefined ? error : new Error(name(error.payload));
    }
}

// By way of percent-encoding, because QuickJS has no `TextEncoder`.
const bytes = (text) => Uint8Array.from(unescape(encodeURIComponent(text)), (byte) => byte.charCodeAt(0));
const decoded = (bytes) => decodeURIComponent(escape(String.fromCharCode(...bytes)));
const text = (value) => (value === null || value === undefined ? null : decoded(value));

export function keep(identifier, key, value) {
    return orError(() => {
        const bucket = store.open(identifier);
        bucket.set(key, bytes(value));
        return text(bucket.get(key));
    });
}

export function look(key) {
    return orError(() => text(store.open("").get(key)));
}

export function forget(key) {
    return orError(() => {
        const bucket = store.open("");
        bucket.delete(key);
        return bucket.exists(key);
    });
}

export function names() {
    return orError(() => {
        const bucket = store.open("");
        const keys = new Set();
        for (let cursor = null; ; ) {
            const page = bucket.listKeys(cursor);
            page.keys.forEach((key) => keys.add(key));
            cursor = page.cursor ?? null;
            if (cursor === null) return [...keys].sort();
        }
    });
}

export function add(key, delta) {
    return orError(() => atomics.increment(store.open(""), key, delta));
}

export function swap(key, between, value) {
    return orError(() => {
        const bucket = store.open("");
        const cas = atomics.Cas.new(bucket, key);
        cas.current();
        if (between !== null && between !== undefined) bucket.set(key, bytes(between));
        try {
            atomics.swap(cas, bytes(value));
            return true;
        } catch (error) {
            if (error.payload?.tag === "cas-failed") return false;
            throw error;
        }
    });
}

export function numbers(count) {
    return orError(() => {
        const bucket = store.open("");
        const keys = Array.from({ length: count + 1 }, (_, n) => `number:${n}`);
        batch.setMany(
            bucket,
            keys.slice(0, count).map((key, n) => [key, bytes(String(n))]),
        );
        const found = batch.getMany(bucket, keys);
        batch.deleteMany(bucket, keys);
        return found.map((pair) => (pair === null || pair === undefined ? null : text(pair[1])));
    });
}

export function setting(key) {
    return orError(() => config.get(key) ?? null);
}
