//! What a plugin's author can do about an import that this host does not provide.

use super::interfaces;

/// The reason for which a component cannot be linked, from wasmtime's error: the import, and what can be done about it.
pub(crate) fn missing_import(error: &wasmtime::Error) -> String {
    let reason = format!("it imports something this host does not provide: {error:#}");
    match import_of(&error.to_string()).and_then(advice) {
        Some(advice) => format!("{reason}; {advice}"),
        None => reason,
    }
}

/// The name of the import in wasmtime's words, which has them between backticks.
pub(crate) fn import_of(text: &str) -> Option<&str> {
    text.split('`').nth(1).filter(|name| name.contains(':'))
}

/// What can be done about a missing interface.
fn advice(name: &str) -> Option<String> {
    let (interface, version) = split(name);
    let package = package_of(interface);
    let known: Vec<&str> =
        interfaces::<()>().into_iter().map(|(known, _)| known).filter(|known| split(known).0 == interface).collect();
    if known.contains(&name) {
        return Some(
            "its types are of another version of the interface: build it with the WIT files of this one".to_owned(),
        );
    }
    if package == "larder:cache" {
        return Some(format!(
            "this host provides `{}`: use the SDK of its release",
            super::super::interface::INTERFACE
        ));
    }
    if !known.is_empty() {
        return Some(format!("this host provides {}: build it for one of them", list(&known)));
    }
    let advice = match package {
        "wasi:sockets" => "plugins have no sockets: send HTTP requests, to the `outgoing_hosts` of the plugin",
        "wasi:http" if version.is_some_and(|version| version.starts_with("0.2")) => {
            "this host provides `wasi:http` to plugins of `larder serve`"
        }
        _ if package.starts_with("wasi:") => {
            "of WASI this host has cli, clocks, filesystem, http, io, random and sockets in the versions 0.2 and 0.3.0"
        }
        _ => "remove the import, or compose the component with one that exports the interface (`wac plug`)",
    };
    Some(advice.to_owned())
}

/// The name without the version, and the version.
fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)))
}

fn package_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(package, _)| package)
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> String {
        let text = format!("component imports instance `{name}`, but a matching implementation was not found");
        missing_import(&wasmtime::Error::msg(text))
    }

    #[test]
    fn another_version_of_a_known_interface_names_those_that_there_are() {
        let reason = of("wasi:keyvalue/store@0.1.0");
        assert!(reason.starts_with("it imports something this host does not provide: "), "{reason}");
        assert!(reason.contains("`wasi:keyvalue/store@0.2.0-draft`, "), "{reason}");
        assert!(reason.contains("`wasi:keyvalue/store@0.2.0-draft2`"), "{reason}");
        assert!(reason.ends_with(": build it for one of them"), "{reason}");
        assert!(of("wasi:config/store@0.3.0").contains("`wasi:config/store@0.2.0-rc.1`"));
    }

    #[test]
    fn another_version_of_our_interface_names_ours() {
        assert!(of("larder:cache/cache@9.0.0").contains("`larder:cache/cache@0.1.1`"));
    }

    #[test]
    fn the_types_of_another_version_are_named_as_such() {
        assert!(of("wasi:keyvalue/batch@0.2.0-draft2").contains("its types are of another version"));
    }

    #[test]
    fn an_unknown_interface_can_be_composed() {
        assert!(of("wasi:sockets/tcp@0.2.3").contains("plugins have no sockets"));
        assert!(of("wasi:nn/graph@0.2.0").ends_with("in the versions 0.2 and 0.3.0"));
        assert!(of("acme:db/query@1.0.0").ends_with("(`wac plug`)"));
        assert_eq!(
            missing_import(&wasmtime::Error::msg("something else")),
            "it imports something this host does not provide: something else"
        );
    }
}
