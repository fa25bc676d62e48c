//! Servers that are no real ones: an imitation of a Valkey server, ports on which something else listens, and ports that
//! never answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use redis::io::tcp::socket2::{Domain, Socket, Type};

/// Starts an imitation of a Valkey server on loopback, and returns its port. It runs until the test process ends.
///
/// `reply` gets the number of the connection and the words of a command, and returns the reply. Without one the
/// connection is closed. [`usual_reply`] has the replies of a server without keys.
pub fn imitate(reply: impl Fn(usize, &[String]) -> Option<String> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let reply = std::sync::Arc::new(reply);
    std::thread::spawn(move || {
        for (number, connection) in listener.incoming().enumerate() {
            let (mut replies, reply) = (connection.unwrap(), std::sync::Arc::clone(&reply));
            std::thread::spawn(move || {
                let mut commands = BufReader::new(replies.try_clone().unwrap());
                while let Some(text) = read_command(&mut commands).and_then(|command| reply(number, &command)) {
                    if replies.write_all(text.as_bytes()).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

/// The reply of a Valkey 8.0 without keys, scripts included.
pub fn usual_reply(command: &[String]) -> String {
    let info = "# Server\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nserver_mode:standalone\r\nrole:master\r\n";
    match command.first().map_or("", String::as_str) {
        "PING" => "+PONG\r\n".to_owned(),
        "HELLO" => "%1\r\n$6\r\nserver\r\n$6\r\nvalkey\r\n".to_owned(),
        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
        "GET" => "_\r\n".to_owned(),
        "EVAL" => ":0\r\n".to_owned(),
        "SET" if command.iter().any(|word| word == "IFEQ") => "-ERR syntax error\r\n".to_owned(),
        _ => "+OK\r\n".to_owned(),
    }
}

/// The words of one command: `*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n`.
fn read_command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let words = read_number(input, '*')?;
    let mut command = Vec::new();
    for _ in 0..words {
        let len = read_number(input, '$')?;
        let mut word = vec![0; len + 2];
        input.read_exact(&mut word).ok()?;
        word.truncate(len);
        command.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(command)
}

fn read_number(input: &mut impl BufRead, sign: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

/// What a [`stranger`] does on each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Says its text at once.
    Greets,
    /// Says its text after the first bytes of the client, and closes the connection.
    Answers,
    /// Says its text again and again, without an end.
    Repeats,
}

/// Starts a server of another kind on loopback, and returns its port. It runs until the test process ends.
pub fn stranger(text: impl Into<Vec<u8>>, manner: Manner) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = text.into();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let (mut stream, text) = (connection.unwrap(), text.clone());
            std::thread::spawn(move || {
                let mut first = [0; 4096];
                match manner {
                    Manner::Greets => {
                        let _client_gone = stream.write_all(&text);
                        while stream.read(&mut first).is_ok_and(|len| len > 0) {}
                    }
                    Manner::Answers => {
                        let _client_gone = (stream.read(&mut first), stream.write_all(&text));
                    }
                    Manner::Repeats => while stream.write_all(&text).is_ok() {},
                }
            });
        }
    });
    port
}

/// A port that never answers, as behind a firewall that drops all packets: the queue of its listener is full, and the
/// system drops further attempts to connect.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// Opens a port on this address of loopback.
    pub fn new(ip: IpAddr) -> Self {
        let listener = Socket::new(Domain::for_address((ip, 0).into()), Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::new(ip, 0).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            queued.push(stream);
        }
        Self { address, _listener: listener, _queued: queued }
    }

    /// The address that does not answer.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
