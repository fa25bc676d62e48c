//! alarms.yaml.

use std::process::Command;

use larder_tests::skip;

use super::*;

/// `alarms.yaml` beside this file says when each alarm fires, and when it does not.
#[test]
fn each_alarm_fires_when_it_should_and_ends_with_its_cause() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return skip("`promtool` is not installed");
    }
    let tests = "tests/project/deploy/alarms.yaml";
    for arguments in [["check", "rules", "deploy/alarms.yaml"], ["test", "rules", tests]] {
        let output = Command::new("promtool").args(arguments).current_dir(root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    // Each alarm has a test in which it fires.
    let [alarms] = <[Value; 1]>::try_from(yaml("deploy/alarms.yaml")).unwrap();
    let [tests] = <[Value; 1]>::try_from(yaml(tests)).unwrap();
    let fires = |alarm: &Value| {
        let cases = list(&tests["tests"]).iter().flat_map(|test| list(&test["alert_rule_test"]));
        cases.into_iter().any(|case| case["alertname"] == *alarm && case["exp_alerts"].is_array())
    };
    for rule in list(&alarms["groups"][0]["rules"]) {
        assert!(fires(&rule["alert"]), "no test lets {} fire", rule["alert"]);
    }
}
