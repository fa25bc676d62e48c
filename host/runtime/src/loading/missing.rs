//! What can be done about an import that the host does not provide.

use super::refusal::Refusal;

/// The refusal of a component that cannot be linked. The error names the interface.
pub(crate) fn missing_import(error: &wasmtime::Error) -> Refusal {
    let error = format!("{error:#}");
    let remedy = remedy(&error);
    Refusal::invalid(&format!("it imports something this host does not provide: {error}; {remedy}"))
}

/// The remedy for the first interface that the error names.
fn remedy(error: &str) -> &'static str {
    let name = error.split('`').skip(1).step_by(2).find(|name| name.contains(':')).unwrap_or_default();
    if name.starts_with("larder:cache/") {
        "build the plugin with the SDK or the WIT of this host's version"
    } else if name.starts_with("wasi:") {
        "of WASI this host has cli, clocks, filesystem, http, io, random and sockets in the versions 0.2 and 0.3.0: build the \
         plugin for these"
    } else {
        "compose the component with one that exports it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_is_that_of_the_interface() {
        let of = |name: &str| remedy(&format!("component imports instance `{name}`, but nothing `else:x/y` matches"));
        assert!(of("larder:cache/cache@9.0.0").contains("this host's version"));
        assert!(of("wasi:nn/graph@0.2.0").contains("0.2 and 0.3.0"));
        assert!(of("acme:billing/ledger@1.0.0").contains("compose"));
        assert!(remedy("unknown").contains("compose"));
    }
}
