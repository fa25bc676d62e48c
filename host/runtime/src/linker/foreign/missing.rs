//! What a plugin's author can do about an import that this host does not provide.

use wasmtime::component::Component;

use super::{UnboundLabels, interfaces};

/// The reason for which a component cannot be linked, from the error: the import, and what can be done about it.
pub(crate) fn missing_import(component: &Component, error: &wasmtime::Error) -> String {
    if let Some(unbound) = error.downcast_ref::<UnboundLabels>() {
        return unbound.reason();
    }
    let text = error.to_string();
    let name = import_of(&text);
    let interface = name.and_then(|name| interface_of(component, name));
    missing(&format!("{error:#}"), name, name.zip(interface.as_deref()))
}

/// The reason from the text of the error, the name of the import, and the label and the interface, if that is a label.
fn missing(text: &str, name: Option<&str>, label: Option<(&str, &str)>) -> String {
    let reason = format!("it imports something this host does not provide: {text}");
    let advice = match label {
        Some((label, interface)) => advice(interface).map(|advice| format!("`{label}` is `{interface}`: {advice}")),
        None => name.filter(|name| name.contains(':')).and_then(advice),
    };
    match advice {
        Some(advice) => format!("{reason}; {advice}"),
        None => reason,
    }
}

/// The name of the import, from the text of wasmtime's error.
pub(crate) fn import_of(text: &str) -> Option<&str> {
    text.strip_prefix("component imports ")?.split('`').nth(1)
}

/// The interface that a component imports under this label. `None` if it is no label.
fn interface_of(component: &Component, label: &str) -> Option<String> {
    let ty = component.component_type();
    let interface = ty.imports(component.engine()).find(|(name, _)| *name == label)?.1.implements;
    interface.map(str::to_owned)
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
    let is_version = |start| version.is_some_and(|version| version.starts_with(start));
    let advice = match package {
        "wasi:sockets" => "plugins have no sockets: send HTTP requests, to the `outgoing_hosts` of the plugin",
        "wasi:http" if interface == "wasi:http/handler" => {
            "plugins export this interface, and cannot import it: compose the component with the handler (`wac plug`)"
        }
        "wasi:http" if is_version("0.2.") => "this host provides `wasi:http` to plugins of `larder serve`",
        _ if package.starts_with("wasi:") && is_version("0.2.") => {
            "of WASI 0.2 this host has cli, clocks, filesystem, http, io, random and sockets"
        }
        _ if package.starts_with("wasi:") && is_version("0.3.") => {
            "of WASI 0.3.0 this host has cli, clocks, filesystem, random, sockets, and types and client of http"
        }
        _ if package.starts_with("wasi:") => "this host has interfaces of WASI 0.2 and 0.3.0",
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

    fn text(name: &str) -> String {
        format!("component imports instance `{name}`, but a matching implementation was not found in the linker")
    }

    fn of(name: &str) -> String {
        missing(&text(name), import_of(&text(name)), None)
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
        assert!(of("acme:db/query@1.0.0").ends_with("(`wac plug`)"));
        assert!(of("f").ends_with("in the linker"));
        assert_eq!(
            missing("something else", None, None),
            "it imports something this host does not provide: something else"
        );
    }

    #[test]
    fn what_there_is_of_wasi_is_said_for_the_version_that_is_imported() {
        assert!(
            of("wasi:nn/graph@0.2.0")
                .ends_with("; of WASI 0.2 this host has cli, clocks, filesystem, http, io, random and sockets")
        );
        let concurrent =
            "; of WASI 0.3.0 this host has cli, clocks, filesystem, random, sockets, and types and client of http";
        for name in ["wasi:io/streams@0.3.0", "wasi:http/nothing@0.3.0", "wasi:tls/client@0.3.0-draft"] {
            assert!(of(name).ends_with(concurrent), "{name}");
        }
        assert!(of("wasi:nn/graph@1.0.0").ends_with("; this host has interfaces of WASI 0.2 and 0.3.0"));
        let middleware = "; plugins export this interface, and cannot import it: compose the component with the handler (`wac plug`)";
        assert!(of("wasi:http/handler@0.3.0").ends_with(middleware));
    }

    #[test]
    fn the_advice_for_a_label_is_that_for_its_interface() {
        let reason = missing(&text("team-a"), Some("team-a"), Some(("team-a", "acme:db/query@1.0.0")));
        let advice = "; `team-a` is `acme:db/query@1.0.0`: remove the import, or compose the component with one that exports the interface (`wac plug`)";
        assert_eq!(reason, format!("it imports something this host does not provide: {}{advice}", text("team-a")));
    }
}
