//! Several plugins in one server, each with its path and grant; and errors at the start.

use larder_tests::{HttpResponse, Larder, ServeProcess, guest};

#[tokio::test]
async fn each_plugin_answers_under_its_route_with_its_own_grant() {
    let path = guest("http").display().to_string();
    let table = |name: &str, route: &str| format!("[plugins.{name}]\npath = \"{path}\"\nroute = \"{route}\"\n");
    let config = [
        table("shop", "/shop") + "namespace = \"shop\"\n",
        table("news", "/shop/news"),
        table("rest", "/"),
        "[plugins.other]\nnamespace = \"other\"\n".to_owned(),
    ]
    .concat();
    let serving = ServeProcess::start_with(Larder::serve().config(&config));
    assert_eq!(serving.get("/shop/do/visit/k").await, HttpResponse::ok("1"));
    assert_eq!(serving.get("/shop/do/visit/k").await, HttpResponse::ok("2"));
    // Of the shared key space.
    assert_eq!(serving.get("/shop/news/do/visit/k").await, HttpResponse::ok("1"));
    assert_eq!(serving.get("/shopping/do/visit/k").await, HttpResponse::ok("2"));
    assert_eq!(serving.get("/do/visit/k").await, HttpResponse::ok("3"));
    assert_eq!(serving.get("/shop").await.status, 404);
    let finished = serving.terminate().await;
    let named = |name: &str| finished.stderr.lines().filter(|line| line.ends_with(&format!(" plugin={name}"))).count();
    assert_eq!((named("shop"), named("news"), named("rest")), (3, 1, 2), "{}", finished.stderr);
}

#[tokio::test]
async fn each_plugin_receives_the_variables_of_its_own_table() {
    let path = guest("http").display().to_string();
    let plugin =
        |name: &str, env: &str| format!("[plugins.{name}]\npath = {path:?}\nroute = \"/{name}\"\nenv = {env}\n");
    let config = plugin("shop", "{ KEY = \"${API_KEY}\", A = \"1\" }") + &plugin("news", "{ A = \"2\" }");
    let serving = ServeProcess::start_with(Larder::serve().config(&config).env("API_KEY", "s3cret"));
    for (asked, given) in
        [("shop/do/env/KEY", "s3cret"), ("shop/do/env/A", "1"), ("news/do/env/A", "2"), ("news/do/env/KEY", "")]
    {
        assert_eq!(serving.get(&format!("/{asked}")).await, HttpResponse::ok(given), "{asked}");
    }
    // Of the host's own it has none.
    assert_eq!(serving.get("/shop/do/env/PATH").await, HttpResponse::ok(""));
}

#[tokio::test]
async fn a_table_that_no_plugin_uses_is_a_warning_at_start() {
    let path = guest("http").display().to_string();
    let config = format!("[plugins.shop]\npath = \"{path}\"\nroute = \"/\"\n[plugins.stock]\nnamespace = \"s\"\n");
    let finished = ServeProcess::start_with(Larder::serve().config(&config)).terminate().await;
    let warning = "no plugin uses the table `[plugins.stock]`: the plugins that run are `shop`";
    assert_eq!(finished.stderr.matches(warning).count(), 1, "{}", finished.stderr);
    // A plugin of the command line uses the table of its name.
    let finished = ServeProcess::start("[plugins.http]\n[plugins.stock]\n").terminate().await;
    let warning = "no plugin uses the table `[plugins.stock]`: the plugins that run are `http`";
    assert_eq!(finished.stderr.matches("no plugin uses the table").count(), 1, "{}", finished.stderr);
    assert!(finished.stderr.contains(warning), "{}", finished.stderr);
}

#[tokio::test]
async fn a_port_alone_is_one_of_this_machine() {
    for prefix in ["", ":", "localhost:"] {
        let larder = Larder::new(["serve", "--addr"]).arg(format!("{prefix}0"));
        let serving = ServeProcess::start_with(larder.arg(guest("http")));
        assert!(serving.address().ip().is_loopback() && serving.address().port() != 0, "{}", serving.address());
        assert_eq!(serving.get("/hello").await, HttpResponse::ok("hello\n"));
    }
}

#[tokio::test]
async fn a_path_without_a_route_is_404() {
    let config = format!("[plugins.shop]\npath = \"{}\"\nroute = \"/shop\"\n", guest("http").display());
    let serving = ServeProcess::start_with(Larder::serve().config(&config));
    let answer = serving.get("/hello").await;
    assert_eq!((answer.status, answer.body.as_str()), (404, "no plugin serves this path\n"));
}

#[test]
fn a_plugin_that_cannot_be_served_is_one_clear_line() {
    let run = Larder::serve().config("").fail(2);
    assert!(run.error_line().starts_with("larder: nothing to serve: "), "{}", run.stderr);
    let run = Larder::serve().config("").arg(guest("script")).fail(1);
    assert!(run.error_line().contains("it exports neither `wasi:http/incoming-handler`"), "{}", run.stderr);
    let run = Larder::serve().config("[plugins.a]\npath = \"none.wasm\"\nroute = \"/\"\n").fail(1);
    assert!(run.error_line().contains("cannot load plugin `none.wasm`: No such file"), "{}", run.stderr);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = Larder::new(["serve", "--addr", &address]).config("").arg(guest("http")).fail(1);
    assert!(run.error_line().starts_with(&format!("larder: cannot listen on {address}: ")), "{}", run.stderr);
}
