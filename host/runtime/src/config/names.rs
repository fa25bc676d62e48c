//! Tables of plugins that no plugin uses, and the names that may have been meant.

use crate::config::document::quoted_list;
use crate::config::{Config, UnlistedPlugins};
use crate::nearest::nearest;

impl Config {
    /// A warning for each plugin in `running` that has no table where one with a similar name is not used. `are_all` says
    /// that no other plugins will run: then there is a warning also for each other table that is not used. Otherwise there is
    /// one for each plugin without a table, if there are tables: they may be for other plugins, or meant for it.
    pub fn warnings_about(&self, running: &[String], are_all: bool) -> Vec<String> {
        let is_unused = |table: &&String| !running.contains(table);
        let mut unused: Vec<&String> = self.plugins.keys().filter(is_unused).collect();
        let mut warnings = Vec::new();
        for plugin in running.iter().filter(|plugin| !self.plugins.contains_key(*plugin)) {
            let meant = nearest(plugin, unused.iter().map(|table| table.as_str())).map(str::to_owned);
            let hint = match &meant {
                Some(meant) => format!("is `[plugins.{meant}]` meant for it?"),
                None if are_all || unused.is_empty() => continue,
                None => format!("there are tables for {}", quoted_list(self.plugins.keys())),
            };
            let consequence = match self.unlisted_plugins {
                UnlistedPlugins::Allow => "it may use every cache",
                UnlistedPlugins::Deny => "it gets no cache",
            };
            warnings.push(format!("plugin `{plugin}` has no table `[plugins.{plugin}]`, so {consequence}; {hint}"));
            unused.retain(|table| Some(*table) != meant.as_ref());
        }
        if are_all {
            let names = quoted_list(running.iter());
            warnings.extend(unused.into_iter().map(|table| {
                format!("no plugin uses the table `[plugins.{table}]`: the plugins that run are {names}")
            }));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(tables: &[&str], running: &[&str], are_all: bool) -> Vec<String> {
        let tables: String = tables.iter().map(|name| format!("[plugins.{name}]\n")).collect();
        let config = Config::from_toml(&tables).unwrap();
        let running: Vec<String> = running.iter().map(|&name| name.to_owned()).collect();
        config.warnings_about(&running, are_all)
    }

    #[test]
    fn a_misspelt_table_is_named_beside_the_plugin_that_it_was_meant_for() {
        let expected = "plugin `hello` has no table `[plugins.hello]`, so it may use every cache; is `[plugins.helo]` meant for it?";
        assert_eq!(warnings(&["helo"], &["hello"], false), [expected]);
        assert_eq!(warnings(&["helo"], &["hello"], true), [expected]);
    }

    #[test]
    fn a_plugin_without_a_table_is_told_which_there_are() {
        let expected = "plugin `hello` has no table `[plugins.hello]`, so it may use every cache; there are tables for `cart`, `shop`";
        assert_eq!(warnings(&["shop", "cart"], &["hello"], false), [expected]);
        assert_eq!(
            warnings(&["shop", "hello"], &["hello"], false),
            [""; 0],
            "the other table may be for another plugin"
        );
        assert_eq!(warnings(&[], &["hello"], false), [""; 0]);
    }

    #[test]
    fn a_table_of_another_plugin_is_a_warning_only_where_no_other_plugin_runs() {
        let expected = "no plugin uses the table `[plugins.shop]`: the plugins that run are `hello`";
        assert_eq!(warnings(&["shop"], &["hello"], true), [expected]);
        assert_eq!(warnings(&["shop", "hello"], &["hello", "shop"], true), [""; 0]);
    }
}
