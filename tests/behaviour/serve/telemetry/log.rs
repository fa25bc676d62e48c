//! The log on standard error, as text and as JSON.

use std::time::Duration;

use larder_tests::{Client, Kind, Larder, ServeProcess, Server, TEST_TIMEOUT, guest};
use serde_json::Value;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn serve(log: &str, format: &str) -> ServeProcess {
    let larder = Larder::serve().arg(guest("http")).env("LARDER_LOG", log);
    ServeProcess::start_with(larder.arg("--log-format").arg(format))
}

/// The lines on standard error that are not the plugin's.
async fn lines(serving: ServeProcess) -> Vec<Value> {
    let finished = serving.terminate().await;
    let lines = finished.stderr.lines().filter(|line| !line.starts_with("http: "));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn a_json_log_has_one_object_per_line() {
    let serving = serve("larder_host=info", "json");
    let client = Client::connect(serving.address()).await;
    client.get_with("/hello?token=s3cret", &[("traceparent", PARENT)]).await.unwrap();
    client.get("/panic").await.unwrap();
    let lines = lines(serving).await;
    let [answered, failed, refused] = lines.as_slice() else { panic!("{lines:#?}") };

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert_eq!((&answered["method"], &answered["path"]), (&"GET".into(), &"/hello".into()));
    assert_eq!((&answered["status"], &answered["plugin"]), (&200.into(), &"http".into()));
    assert!(answered["milliseconds"].as_f64().is_some_and(|took| took > 0.0), "{answered}");
    assert_eq!((&answered["trace_id"], &answered["target"]), (&trace.into(), &"larder_host::access".into()));
    assert!(answered["timestamp"].is_string() && answered["level"] == "INFO", "{answered}");

    assert!(failed["message"].as_str().unwrap().starts_with("plugin `http` trapped: "), "{failed}");
    // The request that it happened in.
    let span = &failed["spans"][0];
    assert_eq!(
        (&span["name"], &span["url.path"], &span["plugin"]),
        (&"request".into(), &"/panic".into(), &"http".into())
    );
    assert_eq!((&refused["status"], &refused["trace_id"]), (&500.into(), &Value::Null));
    assert!(!format!("{lines:?}").contains("s3cret"));
}

#[tokio::test]
async fn an_error_in_a_text_log_names_its_request() {
    let serving = serve("warn", "text");
    serving.get("/panic").await;
    let finished = serving.terminate().await;
    let errors: Vec<&str> = finished.stderr.lines().filter(|line| line.contains(" ERROR ")).collect();
    let [error] = errors.as_slice() else { panic!("{}", finished.stderr) };
    assert!(error.contains(r#"request{http.request.method=GET url.path="/panic" plugin="http"}: "#), "{error}");
}

#[tokio::test]
async fn the_format_of_the_log_is_read_from_the_environment_too() {
    let serving = ServeProcess::start_with(Larder::serve().arg(guest("http")).env("LARDER_LOG_FORMAT", "json"));
    serving.get("/hello").await;
    assert_eq!(lines(serving).await[0]["path"], "/hello");
    let refused = Larder::new(["check"]).env("LARDER_LOG_FORMAT", "xml").fail(2);
    assert!(refused.stderr.contains("--log-format") && refused.stderr.contains("text, json"), "{}", refused.stderr);
}

/// With the default filter: `LARDER_LOG` is not set.
#[tokio::test]
async fn a_lost_connection_and_its_return_are_logged_by_default() {
    let Some(mut server) = Server::start(Kind::Valkey) else { return };
    let serving = ServeProcess::start_with_metrics(&server.cache("c"));
    server.kill();
    server.restart();
    // The host logs the new connection before `larder_up` is 1 again.
    let reconnected = async {
        loop {
            let export = serving.get_from_metrics_port("/metrics").await.body;
            let metric = |name: &str| {
                let value = export.lines().find_map(|line| line.strip_prefix(&format!("{name}{{cache=\"c\"}} ")));
                value.unwrap_or_else(|| panic!("no `{name}` in {export}")).parse::<f64>().unwrap()
            };
            if metric("larder_reconnects_total") >= 1.0 && metric("larder_up") == 1.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, reconnected).await.expect("the host reconnects");
    let log = serving.terminate().await.stderr;
    let position = |level: &str, message: &str| {
        let message = format!(": {message} Valkey at `127.0.0.1:{}`", server.port());
        let is_message = |line: &str| line.contains(&format!(" {level} larder_cache::")) && line.contains(&message);
        log.lines().position(is_message).unwrap_or_else(|| panic!("no `{message}` at {level} in:\n{log}"))
    };
    assert!(position("WARN", "lost the connection to") < position("INFO", "connected to"), "{log}");
}
