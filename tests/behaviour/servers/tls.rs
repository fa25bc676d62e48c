//! TLS to the server: which certificates are accepted, and the messages for those that are not.

use larder_tests::{Authority, Certificate, Kind, Larder, LarderOutput, Server};

/// A server that speaks TLS with this certificate; it asks its clients for one where `asks` says so.
fn start(kind: Kind, authority: &Authority, certificate: &Certificate, asks: bool) -> Option<Server> {
    let options = authority.server_options(certificate, asks);
    Server::start_with(kind, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A cache's table with TLS, that trusts this authority.
fn cache(server: &Server, authority: &Authority) -> String {
    format!("{}tls = true\nca_file = \"{}\"\n", server.cache("c"), authority.ca_file().display())
}

/// The two keys for a certificate of our own.
fn client(certificate: &Certificate) -> String {
    let Certificate { cert_file, key_file } = certificate;
    format!("cert_file = \"{}\"\nkey_file = \"{}\"\n", cert_file.display(), key_file.display())
}

/// The reason in the one line with which a host ends that cannot reach its server.
fn reason(run: &LarderOutput) -> &str {
    let (_, reason) = run.error_line().split_once(": cannot reach ").unwrap_or_else(|| panic!("{run:#?}"));
    reason
}

#[test]
fn plugins_share_values_over_tls() {
    let authority = Authority::new();
    let certificate = authority.issue("127.0.0.1");
    for kind in Kind::ALL {
        let Some(server) = start(kind, &authority, &certificate, false) else { continue };
        let keys = cache(&server, &authority);
        let (scheme, port, ca) = (kind.type_name(), server.port(), authority.ca_file());
        let url = format!("[caches.c]\ntype = \"{scheme}\"\nurl = \"{scheme}s://127.0.0.1:{port}\"\n");
        let url = format!("{url}ca_file = \"{}\"\n", ca.display());
        let first = Larder::run("script").config(&keys).arg("set k v").arg("set-large large 1000000").succeed();
        assert_eq!(first.stdout, "ok\nok\n");
        let second = Larder::run("script").config(&url);
        let second = second.arg("get k").arg("get-or-set new w").arg("clear-pattern *").succeed();
        assert_eq!(second.stdout, "hit v\nfilled true\n3\n");
    }
}

#[test]
fn check_says_that_a_cache_has_tls() {
    let authority = Authority::new();
    let Some(server) = start(Kind::Valkey, &authority, &authority.issue("127.0.0.1"), false) else { return };
    let check = Larder::new(["check"]).config(&cache(&server, &authority)).succeed();
    assert!(check.stdout.contains(&format!("127.0.0.1:{}/0 cache: (TLS)", server.port())), "{}", check.stdout);
}

#[test]
fn a_server_of_an_authority_that_is_not_trusted_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let certificate = other.issue("127.0.0.1");
    for kind in Kind::ALL {
        let Some(server) = start(kind, &other, &certificate, false) else { continue };
        let run = Larder::run("script").config(&cache(&server, &ours)).fail(1);
        assert!(reason(&run).contains("invalid peer certificate"), "{}", run.stderr);
    }
    // The system's authorities have never heard of it.
    let Some(server) = start(Kind::Valkey, &other, &certificate, false) else { return };
    let run = Larder::run("script").config(&(server.cache("c") + "tls = true\n")).fail(1);
    assert!(
        reason(&run).contains(": invalid peer certificate") || reason(&run).contains("`ca_file`"),
        "{}",
        run.stderr
    );
}

#[test]
fn a_certificate_for_another_name_or_of_another_time_is_refused() {
    let authority = Authority::new();
    for certificate in [authority.issue("elsewhere.example.com"), authority.issue_until("127.0.0.1", 2001)] {
        let Some(server) = start(Kind::Valkey, &authority, &certificate, false) else { return };
        let run = Larder::run("script").config(&cache(&server, &authority)).fail(1);
        assert!(reason(&run).contains("invalid peer certificate"), "{}", run.stderr);
    }
}

#[test]
fn a_server_that_asks_for_a_certificate_is_shown_one() {
    let (authority, other) = (Authority::new(), Authority::new());
    let certificate = authority.issue("127.0.0.1");
    for kind in Kind::ALL {
        let Some(server) = start(kind, &authority, &certificate, true) else { continue };
        let cache = cache(&server, &authority);
        let known = cache.clone() + &client(&authority.issue("larder.example.com"));
        assert_eq!(Larder::run("script").config(&known).arg("set k v").succeed().stdout, "ok\n");
        reason(&Larder::run("script").config(&cache).fail(1));
        let unknown = cache + &client(&other.issue("larder.example.com"));
        reason(&Larder::run("script").config(&unknown).fail(1));
    }
}

#[test]
fn tls_and_plain_tcp_are_refused_without_a_long_wait() {
    let authority = Authority::new();
    let certificate = authority.issue("127.0.0.1");
    for kind in Kind::ALL {
        let (Some(plain), Some(tls)) = (Server::start(kind), start(kind, &authority, &certificate, false)) else {
            continue;
        };
        reason(&Larder::run("script").config(&cache(&plain, &authority)).fail(1));
        reason(&Larder::run("script").config(&tls.cache("c")).fail(1));
    }
}

#[test]
fn an_unusable_file_is_named_and_its_content_is_not_shown() {
    let authority = Authority::new();
    let certificate = authority.issue("127.0.0.1");
    let Some(server) = start(Kind::Valkey, &authority, &certificate, false) else { return };
    let folder = authority.folder();
    std::fs::write(folder.join("notes"), "s3cret").unwrap();
    std::fs::write(folder.join("broken"), "-----BEGIN CERTIFICATE-----\ns3cret%%\n-----END CERTIFICATE-----\n")
        .unwrap();
    std::fs::write(folder.join("empty"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    for (file, why) in [("missing", "No such file"), ("notes", "no certificate"), ("broken", "PEM"), ("empty", "")] {
        let config = format!("{}tls = true\nca_file = \"{}\"\n", server.cache("c"), folder.join(file).display());
        let run = Larder::run("script").config(&config).fail(1);
        let named = format!("`ca_file` = `{}`: ", folder.join(file).display());
        assert!(reason(&run).contains(&named) && reason(&run).contains(why), "{}", run.stderr);
        assert!(!run.stderr.contains("s3cret"), "{}", run.stderr);
    }
    // Certificate and key of two pairs; and a key that is none.
    let (one, two) = (authority.issue("one.example.com"), authority.issue("two.example.com"));
    let mixed = Certificate { cert_file: one.cert_file, key_file: two.key_file.clone() };
    let run = Larder::run("script").config(&(cache(&server, &authority) + &client(&mixed))).fail(1);
    assert!(reason(&run).contains("`cert_file` = "), "{}", run.stderr);
    let none = Certificate { cert_file: two.cert_file, key_file: folder.join("notes") };
    let run = Larder::run("script").config(&(cache(&server, &authority) + &client(&none))).fail(1);
    assert!(reason(&run).contains("`key_file` = ") && !run.stderr.contains("s3cret"), "{}", run.stderr);
}

#[test]
fn a_password_in_a_url_is_not_in_the_most_detailed_log() {
    let authority = Authority::new();
    let Some(server) = start(Kind::Valkey, &authority, &authority.issue("127.0.0.1"), false) else { return };
    let url = format!("url = \"rediss://worker:s3cret-guess@127.0.0.1:{}/0\"\n", server.port());
    let config = format!("[caches.c]\ntype = \"redis\"\n{url}ca_file = \"{}\"\n", authority.ca_file().display());
    for arguments in [&["check"][..], &["cache", "get", "k"]] {
        let run = Larder::new(arguments).config(&config).env("LARDER_LOG", "trace").fail(1);
        assert!(run.stderr.contains("it was reached, but refused the user name or password"), "{}", run.stderr);
        assert!(!run.stderr.contains("s3cret-guess") && !run.stdout.contains("s3cret-guess"), "{run:#?}");
    }
}

#[test]
fn renewed_certificates_are_read_at_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let certificate = old.issue("127.0.0.1");
    let Some(mut server) = start(Kind::Valkey, &old, &certificate, false) else { return };
    let mut run = Larder::run("session").config(&cache(&server, &old)).start();
    run.write_line("set k v");
    assert_eq!(run.read_line(), "ok");
    server.kill();
    // The operator replaces what both sides have, in place.
    let renewed = new.issue("127.0.0.1");
    std::fs::copy(renewed.cert_file, certificate.cert_file).unwrap();
    std::fs::copy(renewed.key_file, certificate.key_file).unwrap();
    std::fs::copy(new.ca_file(), old.ca_file()).unwrap();
    server.restart();
    larder_tests::wait_for("the host to reach the server again", || {
        run.write_line("set k v");
        (run.read_line() == "ok").then_some(())
    });
    run.succeed();
}
