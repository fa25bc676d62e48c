//! Frames of HTTP/2, for clients that do what no library does.

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The kind of a frame with bytes of a body.
pub const DATA: u8 = 0;
/// The kind of a frame with a head.
pub const HEADERS: u8 = 1;
/// The kind of a frame that breaks off a stream.
pub const RESET: u8 = 3;
/// The kind of a frame with settings.
pub const SETTINGS: u8 = 4;
/// The kind of a frame that asks for an answer.
pub const PING: u8 = 6;
/// The kind of a frame that ends the connection.
pub const GO_AWAY: u8 = 7;
/// The kind of a frame that allows more bytes.
pub const WINDOW_UPDATE: u8 = 8;
/// The kind of a frame with the next part of a head.
pub const CONTINUATION: u8 = 9;
/// The flags of a frame with all of a head, and of a request without a body.
pub const END: u8 = 5;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers as HPACK literals.
pub fn literals(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A GET request.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let head = literals(&[(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "h")]);
    frame(HEADERS, END, stream, &head)
}

/// What a client sends first that takes no more than `window` bytes of each answer.
pub fn preface_with_window(window: u32) -> Vec<u8> {
    let [a, b, c, d] = window.to_be_bytes();
    [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, a, b, c, d])].concat()
}
