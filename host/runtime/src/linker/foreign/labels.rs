//! The labels under which a component imports interfaces that open caches.

use std::collections::BTreeMap;
use std::fmt;

use wasmtime::component::Component;

use super::OPENING;

/// Labels of a component that have no cache. The operator names one for each in the plugin's table.
#[derive(Debug)]
pub(crate) struct UnboundLabels {
    /// The labels without a cache, with the interface of each.
    unbound: Vec<(String, &'static str)>,
    /// The line that names a cache for each label of the component.
    line: String,
}

impl UnboundLabels {
    /// The labels of a component for which the map has no cache. `None` if there are none.
    pub(crate) fn of(component: &Component, caches: &BTreeMap<String, String>) -> Option<Self> {
        let mut labels = Vec::new();
        for (name, import) in component.component_type().imports(component.engine()) {
            let opening = OPENING.into_iter().find(|known| import.implements == Some(*known));
            labels.extend(opening.map(|interface| (name.to_owned(), interface)));
        }
        let entry = |(label, _): &(String, _)| {
            let cache = caches.get(label).map_or("CACHE", String::as_str);
            format!("{label} = \"{cache}\"")
        };
        let line = format!("imports = {{ {} }}", labels.iter().map(entry).collect::<Vec<_>>().join(", "));
        labels.retain(|(label, _)| !caches.contains_key(label));
        (!labels.is_empty()).then_some(Self { unbound: labels, line })
    }

    /// The labels, each with the reason why the component cannot be linked.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, String)> {
        self.unbound.iter().map(|label| (label.0.as_str(), self.reason_for(std::slice::from_ref(label))))
    }

    /// The reason why the component cannot be linked.
    pub(crate) fn reason(&self) -> String {
        self.reason_for(&self.unbound)
    }

    fn reason_for(&self, labels: &[(String, &str)]) -> String {
        let import = |(label, interface): &(String, &str)| format!("`{interface}` under the label `{label}`");
        let imports = labels.iter().map(import).collect::<Vec<_>>().join(", and ");
        format!("it imports {imports}: name a cache for each label in the plugin's table, as in `{}`", self.line)
    }
}

impl fmt::Display for UnboundLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the component cannot be linked: {}", self.reason())
    }
}

impl std::error::Error for UnboundLabels {}
