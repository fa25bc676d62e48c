//! The relay of these tests: what happens to one end reaches the other as what it is, and a fault ends when it is over.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use larder_tests::{Fault, Relay, Side, TEST_TIMEOUT};

/// Both ends of a connection through a relay.
fn connected() -> (Relay, TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = Relay::to(listener.local_addr().unwrap().port());
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
    }
    (relay, client, server)
}

/// What arrives, and how it ends.
fn rest(end: &mut TcpStream) -> (Vec<u8>, Result<usize, ErrorKind>) {
    let mut arrived = Vec::new();
    let ended = end.read_to_end(&mut arrived).map_err(|error| error.kind());
    (arrived, ended)
}

#[test]
fn an_end_that_closes_is_closed_to_the_other() {
    let (_relay, mut client, mut server) = connected();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut server), (b"question".to_vec(), Ok(8)));
    server.write_all(b"answer").unwrap();
    drop(server);
    assert_eq!(rest(&mut client), (b"answer".to_vec(), Ok(6)));
}

#[test]
fn an_end_that_is_reset_is_reset_to_the_other() {
    for is_answer in [true, false] {
        let (_relay, client, server) = connected();
        let (mut from, to) = if is_answer { (server, client) } else { (client, server) };
        from.write_all(b"never read").unwrap();
        assert_eq!(to.peek(&mut [0]).unwrap(), 1);
        // The system resets what is closed before it was read.
        drop(to);
        assert_eq!(rest(&mut from), (Vec::new(), Err(ErrorKind::ConnectionReset)));
    }
}

#[test]
fn a_reset_after_some_bytes_lets_them_through_and_resets_both_ends() {
    let (relay, mut client, mut server) = connected();
    relay.set_fault(Fault::ResetAfter(3));
    server.write_all(b"answer").unwrap();
    assert_eq!(rest(&mut client), (b"ans".to_vec(), Err(ErrorKind::ConnectionReset)));
    assert_eq!(rest(&mut server), (Vec::new(), Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_reset_resets_both_ends_also_of_a_silent_line() {
    for fault in [Fault::None, Fault::Blackhole] {
        let (relay, mut client, mut server) = connected();
        client.write_all(b"question").unwrap();
        server.read_exact(&mut [0; 8]).unwrap();
        relay.set_fault(fault);
        server.write_all(b"answer").unwrap();
        relay.reset();
        assert_eq!(rest(&mut client).1, Err(ErrorKind::ConnectionReset), "{fault:?}");
        assert_eq!(rest(&mut server).1, Err(ErrorKind::ConnectionReset), "{fault:?}");
    }
}

#[test]
fn delayed_bytes_arrive_when_the_fault_ends() {
    // The last two would take longer than the test waits for them.
    for fault in [Fault::Blackhole, Fault::Delay(TEST_TIMEOUT * 10), Fault::Throttle(1)] {
        let (relay, mut client, mut server) = connected();
        relay.set_fault(fault);
        client.write_all(&[7; 3000]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        server.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        let mut early = [0; 3000];
        let early = server.read(&mut early).unwrap_or_default();
        assert!(early < 100, "{fault:?}: {early}");
        relay.set_fault(Fault::None);
        let over = Instant::now();
        server.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
        assert_eq!(rest(&mut server).1, Ok(3000 - early), "{fault:?}");
        assert!(over.elapsed() < TEST_TIMEOUT, "{fault:?}");
    }
}

/// Asserts that nothing arrives at an end. It waits a moment for it.
fn assert_silent(end: &mut TcpStream) {
    end.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(end.read(&mut [0]).is_err());
    end.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
}

#[test]
fn a_mute_end_hears_the_other_one() {
    for side in [Side::Client, Side::Server] {
        let (relay, client, server) = connected();
        relay.set_fault(Fault::Mute(side));
        let (mut mute, mut other) = if side == Side::Client { (client, server) } else { (server, client) };
        other.write_all(b"heard").unwrap();
        mute.read_exact(&mut [0; 5]).unwrap();
        mute.write_all(b"held").unwrap();
        assert_silent(&mut other);
        relay.set_fault(Fault::None);
        other.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn a_server_that_is_mute_from_some_bytes_is_heard_until_they_come() {
    let (relay, mut client, mut server) = connected();
    relay.set_fault(Fault::MuteFrom(b"news"));
    server.write_all(b"answer, news, answer").unwrap();
    client.read_exact(&mut [0; 8]).unwrap();
    server.write_all(b"answer").unwrap();
    assert_silent(&mut client);
    client.write_all(b"question").unwrap();
    server.read_exact(&mut [0; 8]).unwrap();
    relay.set_fault(Fault::None);
    let mut held = [0; 18];
    client.read_exact(&mut held).unwrap();
    assert_eq!(&held, b"news, answeranswer");
}

#[test]
fn a_fault_of_one_connection_leaves_the_others_alone() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = Relay::to(listener.local_addr().unwrap().port());
    let mut ends: Vec<(TcpStream, TcpStream)> = (0..2)
        .map(|_| {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port())).unwrap();
            client.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            (client, listener.accept().unwrap().0)
        })
        .collect();
    for (nth, silent) in [(0, 0), (1, 1), (2, 0)] {
        relay.set_fault_of_one(Fault::Blackhole, nth);
        ends.iter_mut().for_each(|(_, server)| server.write_all(b"a").unwrap());
        ends[1 - silent].0.read_exact(&mut [0]).unwrap();
        assert_silent(&mut ends[silent].0);
        relay.set_fault(Fault::None);
        ends[silent].0.read_exact(&mut [0]).unwrap();
    }
}
