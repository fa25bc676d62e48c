//! Tries to access its environment, as its first argument says: `args`, `env`, `list DIR`, `read FILE`, `write FILE TEXT`,
//! `connect ADDRESS`, `listen`, `send ADDRESS`, `resolve NAME`.

use std::io::{Error, ErrorKind};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["args", rest @ ..] => rest.iter().for_each(|argument| println!("{argument}")),
        ["env"] => std::env::vars().for_each(|(name, value)| println!("{name}={value}")),
        ["list", folder] => show(list(folder)),
        ["read", file] => show(std::fs::read_to_string(file)),
        ["write", file, text] => show(std::fs::write(file, text).map(|()| "ok".to_owned())),
        ["connect", address] => show(TcpStream::connect(address).map(|_| "connected".to_owned())),
        ["listen"] => show(TcpListener::bind("127.0.0.1:0").map(|_| "listening".to_owned())),
        ["send", address] => {
            let send = || UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", address);
            show(send().map(|_| "sent".to_owned()));
        }
        ["resolve", name] => show((*name, 80).to_socket_addrs().map(|_| "resolved".to_owned())),
        other => panic!("unknown operation: {other:?}"),
    }
}

fn list(folder: &str) -> Result<String, Error> {
    let mut names: Vec<String> = std::fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_, Error>>()?;
    names.sort();
    Ok(names.join(" "))
}

fn show(outcome: Result<String, Error>) {
    match outcome {
        Ok(text) => println!("{text}"),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => println!("denied"),
        Err(error) => println!("error {error}"),
    }
}
