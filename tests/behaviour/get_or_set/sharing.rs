//! Processes share the values of a server.

use larder_tests::{Kind, Larder, Server};

#[test]
fn a_second_process_reads_what_the_first_stored() {
    for kind in Kind::ALL {
        let Some(server) = Server::start(kind) else { continue };
        let config = server.cache("shared");
        Larder::run("script").config(&config).arg("set shared:data 42").succeed();
        let second = Larder::run("script").config(&config).arg("get shared:data").succeed();
        assert_eq!(second.stdout, "hit 42\n");
    }
}
