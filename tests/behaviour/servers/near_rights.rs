//! The near tier of a user with few rights, and of one that loses some.

use std::time::Instant;

use larder_tests::documents::rights_after;
use larder_tests::{Kind, Larder, Server};

use super::near::{Setup, near_cache};
use crate::backends::{over_every_kind, view, within};

over_every_kind! {
    without_the_right_to_tracking_the_cache_works_without_near,
    the_start_says_that_nothing_is_kept_near,
    rights_that_are_taken_away_end_the_near_tier_only,
    a_user_that_may_only_read_has_hits_near,
}

/// A server with a user that lacks a right, and a cache of that user.
async fn restricted(kind: Kind, missing: &str) -> Option<Setup> {
    let server = Server::start(kind)?;
    let user = ["SETUSER", "u", "on", ">p", "~*", "&*", "+@all", missing];
    ::redis::cmd("ACL").arg(&user).exec(&mut server.client()).unwrap();
    let login = "username = \"u\"\npassword = \"p\"\ntimeout = \"20s\"";
    let cache = view(&near_cache(&server.cache("c"), login).await);
    Some(Setup { server, cache })
}

/// A user with the rights of the guide for hosts whose plugins only read.
async fn a_user_that_may_only_read_has_hits_near(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let rights = rights_after("Where plugins only read (`access = \"read-only\"`), ");
    let user = ["SETUSER", "u", "on", ">p", "%R~cache:*", "resetchannels", "-@all"];
    ::redis::cmd("ACL").arg(&user).arg(&rights).exec(&mut server.client()).unwrap();
    let login = "username = \"u\"\npassword = \"p\"\ntimeout = \"20s\"";
    let cache = view(&near_cache(&server.cache("c"), login).await);
    let setup = Setup { server, cache };
    setup.run(&["SET", "cache:k", "v"]);
    setup.bring_near("k").await;
    setup.run(&["SET", "cache:k", "w"]);
    setup.assert_seen("k", Some("w"), Instant::now()).await;
}

/// Asserts that every read sees the last write of another program.
async fn assert_far(setup: &Setup) {
    for n in 0..20 {
        let value = n.to_string();
        setup.run(&["SET", "cache:k", &value]);
        assert_eq!(setup.get("k").await, Some(value));
    }
}

async fn without_the_right_to_tracking_the_cache_works_without_near(kind: Kind) {
    for missing in ["-client|tracking", "-client|caching"] {
        let Some(setup) = restricted(kind, missing).await else { return };
        assert_far(&setup).await;
        assert!(setup.cache.clear("k").await.unwrap());
        assert_eq!(setup.get("k").await, None);
    }
}

async fn the_start_says_that_nothing_is_kept_near(kind: Kind) {
    let Some(server) = Server::start(kind) else { return };
    let user = ["SETUSER", "u", "on", ">p", "~*", "&*", "+@all", "-client|tracking"];
    ::redis::cmd("ACL").arg(&user).exec(&mut server.client()).unwrap();
    let config = format!("{}username = \"u\"\npassword = \"p\"\nnear = {{}}\n", server.cache("c"));
    let mut session = Larder::run("session").config(&config).start();
    session.write_line("set k v");
    assert_eq!(session.read_line(), "ok");
    session.write_line("get k");
    assert_eq!(session.read_line(), "hit v");
    let stderr = session.succeed().stderr;
    let warning =
        format!("no values are kept near: the server at `127.0.0.1:{}` does not announce changes", server.port());
    assert_eq!(stderr.matches(&warning).count(), 1, "{stderr}");
}

async fn rights_that_are_taken_away_end_the_near_tier_only(kind: Kind) {
    for lost in ["-client|caching", "-pttl"] {
        let Some(setup) = restricted(kind, "+@all").await else { return };
        setup.run(&["SET", "cache:k", "v"]);
        setup.bring_near("k").await;
        setup.run(&["ACL", "SETUSER", "u", lost]);
        setup.run(&["SET", "cache:k", "w"]);
        within(async { while setup.get("k").await.as_deref() != Some("w") {} }).await;
        assert_far(&setup).await;
    }
}
