//! The address of a server: a URL, single keys, a cluster or sentinels.

use super::{new_directory, parse, parse_with, server, server_refusal};
use crate::cache::valkey::{Deployment, Endpoint, PasswordSource, Sentinels};
use crate::config::Config;

mod url {
    use super::*;

    #[test]
    fn a_url_is_equivalent_to_single_keys() {
        let keys = "host = \"h.example.com\"\nport = 6380\ndb = 3\nusername = \"u ser\"\npassword = \"p@:/\"";
        let single = format!("[caches.c]\ntype = \"redis\"\n{keys}\n");
        let url = "[caches.c]\ntype = \"redis\"\nurl = \"redis://u%20ser:p%40%3A%2F@h.example.com:6380/3\"\n";
        assert_eq!(parse(url), parse(&single));
        let with_tls = url.replace("redis:", "rediss:");
        assert_eq!(parse(&with_tls), parse(&format!("{single}tls = true")));
        assert_eq!(parse(&with_tls.replace("rediss:", "valkeys:")), parse(&with_tls));
        assert_eq!(parse(&url.replace("redis:", "valkey:")), parse(url));
    }

    #[test]
    fn a_url_does_not_read_the_environment() {
        let text = "[caches.c]\ntype = \"valkey\"\nurl = \"valkey://[::1]\"\n";
        let config = parse_with(text, &[("VALKEY_HOST", "wrong"), ("VALKEY_PORT", "wrong")]).unwrap();
        let server = server(&config, "c");
        assert_eq!((server.deployment.to_string().as_str(), server.db), ("[::1]:6379", 0));
        assert_eq!((&server.username, &server.password, &server.tls), (&None, &None, &None));
    }

    #[test]
    fn a_url_cannot_be_combined_with_the_keys_that_it_replaces() {
        for key in ["host = \"h\"", "port = 1", "db = 0", "username = \"u\"", "password = \"p\"", "tls = false"] {
            let refused = server_refusal(&format!("url = \"redis://h\"\n{key}"));
            let name = key.split(' ').next().unwrap();
            assert!(refused.starts_with("larder.toml:4:"), "{refused}");
            assert!(refused.contains(&format!("`caches.c.{name}`: cannot be combined with `url`")), "{refused}");
        }
    }

    #[test]
    fn the_password_of_a_url_can_come_from_a_file_instead() {
        let directory = new_directory();
        std::fs::write(directory.join("password"), "s3cret\n").unwrap();
        let parse = |url: &str| {
            let text = format!("[caches.c]\ntype = \"redis\"\nurl = \"{url}\"\npassword_file = \"password\"");
            Config::parse(&text, "larder.toml", &directory, &|_| None)
        };
        let (from_file, both) = (parse("redis://u@h"), parse("redis://u:x@h"));
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(server(&from_file.unwrap(), "c").password, Some(PasswordSource::File(directory.join("password"))));
        assert!(both.unwrap_err().to_string().contains("`caches.c.url`: the password is also set by `password_file`"));
    }

    #[test]
    fn an_invalid_url_is_refused_and_not_shown() {
        for (url, rule) in [
            ("s3cret", "is not a URL"),
            ("http://:s3cret@h", "must begin with `redis:`"),
            ("redis:s3cret", "must name a host"),
            ("redis:///0", "must name a host"),
            ("redis://:s3cret@h/x", "the database must be a number"),
            ("redis://:s3cret@h/70000", "the database must be from 0 to 65535"),
            ("redis://:s3cret@h:0", "the port must be from 1 to 65535"),
            ("redis://:s3cret@h/0?protocol=resp3", "must end after the database"),
            ("rediss://:s3cret@h/0#insecure", "must end after the database"),
            ("redis://:s3cret%ff@h", "the password is not UTF-8"),
            ("redis://s3cret@h", "a user name needs a `password`"),
        ] {
            let refused = server_refusal(&format!("url = \"{url}\""));
            assert!(refused.starts_with("larder.toml:3:7: `caches.c.url`: "), "{url}: {refused}");
            assert!(refused.contains(rule) && !refused.contains("s3cret"), "{url}: {refused}");
        }
        assert!(server_refusal("url = 12345").contains("`caches.c.url`: must be a string"));
    }

    #[test]
    fn tls_files_need_tls_and_each_other() {
        for key in ["ca_file", "cert_file", "key_file"] {
            let refused = server_refusal(&format!("{key} = \"x\""));
            assert!(refused.contains(&format!("`caches.c.{key}`: needs `tls = true`")), "{refused}");
        }
        assert!(server_refusal("tls = true\ncert_file = \"x\"").contains("`caches.c.cert_file`: needs its `key_file`"));
        assert!(server_refusal("tls = true\nkey_file = \"x\"").contains("`caches.c.key_file`: needs its `cert_file`"));
        let text = "[caches.c]\ntype = \"valkey\"\nurl = \"valkeys://h\"\nca_file = \"x\"";
        assert!(server(&parse(text), "c").tls.is_some());
    }
}

mod deployments {
    use super::*;

    fn addresses(nodes: &[(&str, u16)]) -> Vec<Endpoint> {
        nodes.iter().map(|(host, port)| Endpoint { host: (*host).to_owned(), port: *port }).collect()
    }

    #[test]
    fn a_cluster_is_named_by_some_of_its_nodes_and_the_environment_is_not_read() {
        let text = "[caches.c]\ntype = \"valkey\"\ncluster = [\"a.example.com:7001\", \"[::1]:7002\"]\n";
        let config = parse_with(text, &[("VALKEY_HOST", "wrong"), ("VALKEY_PORT", "wrong")]).unwrap();
        let nodes = addresses(&[("a.example.com", 7001), ("::1", 7002)]);
        assert_eq!(server(&config, "c").deployment, Deployment::Cluster(nodes));
        assert_eq!(server(&config, "c").deployment.to_string(), "cluster a.example.com:7001,[::1]:7002");
    }

    #[test]
    fn a_primary_is_named_by_its_sentinels() {
        let keys = "master = \"main\", nodes = [\"s:26379\"], username = \"u\", password = \"s3cret\"";
        let config = parse(&format!("[caches.c]\ntype = \"redis\"\nsentinel = {{ {keys} }}\n"));
        let Deployment::Sentinel(Sentinels { master, nodes, username, password, .. }) =
            &server(&config, "c").deployment
        else {
            panic!("{config:?}")
        };
        assert_eq!((master.as_str(), nodes, username.as_deref()), ("main", &addresses(&[("s", 26379)]), Some("u")));
        assert!(password.is_some() && !format!("{config:?}").contains("s3cret"));
        assert_eq!(server(&config, "c").deployment.to_string(), "main of sentinel s:26379");
    }

    #[test]
    fn the_password_of_the_sentinels_can_be_in_a_file() {
        let directory = new_directory();
        std::fs::write(directory.join("password"), "s3cret\n").unwrap();
        let parse = |keys: &str| {
            let sentinel = format!("sentinel = {{ master = \"main\", nodes = [\"s:26379\"], {keys} }}");
            let text = format!("[caches.c]\ntype = \"redis\"\n{sentinel}\n");
            Config::parse(&text, "larder.toml", &directory, &|_| None)
        };
        let from_file = parse("password_file = \"password\"");
        let both = parse("password = \"x\", password_file = \"password\"").unwrap_err().to_string();
        let missing = parse("password_file = \"none\"").unwrap_err().to_string();
        std::fs::remove_dir_all(&directory).unwrap();
        let config = from_file.unwrap();
        let Deployment::Sentinel(Sentinels { password, .. }) = &server(&config, "c").deployment else {
            panic!("{config:?}")
        };
        assert_eq!(password, &Some(PasswordSource::File(directory.join("password"))));
        assert!(both.contains("`caches.c.sentinel`: the password is also set by"), "{both}");
        assert!(missing.contains("`caches.c.sentinel`: cannot read `"), "{missing}");
    }

    #[test]
    fn two_deployments_cannot_be_combined() {
        let (cluster, sentinel) = ("cluster = [\"a:1\"]", "sentinel = { master = \"m\", nodes = [\"a:1\"] }");
        for (first, second, key) in [
            (cluster, "host = \"h\"", "`caches.c.host`: cannot be combined with `cluster`"),
            (cluster, "port = 1", "`caches.c.port`: cannot be combined with `cluster`"),
            (cluster, sentinel, "`caches.c.sentinel`: cannot be combined with `cluster`"),
            (sentinel, "port = 1", "`caches.c.port`: cannot be combined with `sentinel`"),
            ("url = \"redis://h\"", cluster, "`caches.c.cluster`: cannot be combined with `url`"),
            ("url = \"redis://h\"", sentinel, "`caches.c.sentinel`: cannot be combined with `url`"),
            (cluster, "db = 1", "`caches.c.db`: must be 0"),
        ] {
            let refused = server_refusal(&format!("{first}\n{second}"));
            assert!(refused.starts_with("larder.toml:4:") && refused.contains(key), "{refused}");
        }
    }

    #[test]
    fn a_node_is_a_host_and_a_port() {
        for bad in ["nonsense", "h:", ":1", "h:0", "h:70000", "::1", "::1:7000", "redis://h:1", "h:1/0", ""] {
            let refused = server_refusal(&format!("cluster = [\"{bad}\"]"));
            assert!(refused.contains("`caches.c.cluster[0]`: must be `host:port`, but is"), "{bad}: {refused}");
        }
        assert!(server_refusal("cluster = []").contains("`caches.c.cluster`: must name at least one node"));
        let sentinel = |keys: &str| server_refusal(&format!("sentinel = {{ {keys} }}"));
        assert!(sentinel("master = \"m\", nodes = []").contains("`caches.c.sentinel`: must name at least one node"));
        assert!(sentinel("master = \"\", nodes = [\"a:1\"]").contains("`caches.c.sentinel`: `master` must be"));
        assert!(sentinel("nodes = [\"a:1\"]").contains("missing field `master`"));
        assert!(sentinel("master = \"m\", nodes = [\"a\"]").contains("`caches.c.sentinel.nodes[0]`: must be"));
        assert!(sentinel("master = \"m\", node = 1").contains("`caches.c.sentinel.node`: unknown key `node`"));
    }
}
