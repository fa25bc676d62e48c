//! The names in the format string of a key.

/// Returns the arguments that a format string names, or the reason why it may not be a key.
pub(crate) fn names(format: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = format;
    while let Some(start) = rest.find(['{', '}']) {
        let (brace, after) = rest.split_at(start).1.split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            rest = after;
            continue;
        }
        let (field, after) = match after.split_once('}') {
            Some(parts) if brace == "{" => parts,
            _ => return Err("a single brace: write it twice, or name an argument as in `{id}`".to_owned()),
        };
        let name = field.split(':').next().unwrap_or_default().trim();
        if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
            return Err("`{}` names no argument: write its name, as in `{id}`".to_owned());
        }
        if syn::parse_str::<syn::Ident>(name).is_err() {
            return Err(format!(
                "`{name}` is not the name of an argument; for anything else, write an expression: `key = format!(…)`"
            ));
        }
        names.push(name.to_owned());
        rest = after;
    }
    Ok(names)
}
