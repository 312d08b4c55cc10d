//! Compares a configuration tree with the schema and finds every mistake at once.
//!
//! The schema is the one that is published for editors, derived from the [file
//! form](super::file); so what an editor underlines and what the hub refuses are the same. Only
//! the part of JSON Schema that the derivation emits is understood. What passes is handed on as
//! JSON; what does not is left out, so that the next step can go on and find more.

use std::sync::OnceLock;

use serde_json::{Map, Value as Json};

use super::file::FileConfig;
use super::problem::{Problems, hide_user_info, sounds_secret};
use super::tree::{Entry, Node, Path, Value};

/// The schema of `cloud.yaml`.
pub(crate) fn schema() -> &'static Json {
    static SCHEMA: OnceLock<Json> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(FileConfig).to_value())
}

/// Checks the document. What is right in it comes back as JSON.
pub(crate) fn check(root: &Node, problems: &mut Problems<'_>) -> Json {
    Checker { schema: schema() }
        .value(root, schema(), &Path::default(), problems)
        .unwrap_or_else(|| Json::Object(Map::new()))
}

struct Checker {
    schema: &'static Json,
}

impl Checker {
    fn value(
        &self,
        node: &Node,
        schema: &'static Json,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Json> {
        let schema = self.resolve(schema);
        if let Some(options) = options(schema) {
            return choice(node, &options, path, problems);
        }
        if let Some(any_of) = schema.get("anyOf").and_then(Json::as_array) {
            if matches!(node.value, Value::Null) {
                return Some(Json::Null);
            }
            let present = any_of
                .iter()
                .find(|option| option.get("type") != Some(&Json::from("null")))?;
            return self.value(node, present, path, problems);
        }
        let types = types(schema);
        if matches!(node.value, Value::Null) {
            return self.null(node, &types, path, problems);
        }
        if let Value::Map(entries) = &node.value
            && types.contains(&"object")
        {
            self.map(node, entries, schema, path, problems)
        } else if let Value::List(items) = &node.value
            && types.contains(&"array")
        {
            self.list(items, schema, path, problems)
        } else if types.is_empty() {
            Some(plain(node))
        } else {
            scalar(node, schema, &types, path, problems)
        }
    }

    /// A key with nothing behind it: fine where the schema says so, and for a section whose keys
    /// are all commented out.
    fn null(
        &self,
        node: &Node,
        types: &[&str],
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Json> {
        if types.is_empty() || types.contains(&"null") {
            return Some(Json::Null);
        }
        if types.contains(&"object") {
            return None;
        }
        if types.contains(&"array") {
            return Some(Json::Array(Vec::new()));
        }
        let expected = describe_types(types);
        problems.add_at(
            path,
            node.at,
            format!("`{path}` must be {expected}, found nothing"),
            Some("write a value, or remove the key to get its default".to_owned()),
        );
        None
    }

    fn map(
        &self,
        node: &Node,
        entries: &[Entry],
        schema: &'static Json,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Json> {
        let properties = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties");
        let mut checked = Map::new();
        for entry in entries {
            let at = path.key(&entry.key);
            let known = properties.and_then(|properties| properties.get(&entry.key));
            match (known, others) {
                (Some(schema), _) => {
                    if let Some(value) = self.value(&entry.value, schema, &at, problems) {
                        checked.insert(entry.key.clone(), value);
                    }
                }
                (None, Some(Json::Object(_))) => {
                    let schema = others.unwrap_or(&Json::Null);
                    if let Some(value) = self.value(&entry.value, schema, &at, problems) {
                        checked.insert(entry.key.clone(), value);
                    }
                }
                (None, Some(Json::Bool(false))) => {
                    let known: Vec<&str> = properties
                        .map(|properties| properties.keys().map(String::as_str).collect())
                        .unwrap_or_default();
                    let help = self.help_for_unknown(&entry.key, &known);
                    problems.add_at(
                        path,
                        entry.key_at,
                        format!("unknown key `{}` in {}", entry.key, shown_section(path)),
                        Some(help),
                    );
                }
                (None, _) => {
                    checked.insert(entry.key.clone(), plain(&entry.value));
                }
            }
        }
        self.required(node, entries, &checked, schema, path, problems)
            .then_some(Json::Object(checked))
    }

    /// Whether every required key is there and right; notes those that are missing.
    fn required(
        &self,
        node: &Node,
        entries: &[Entry],
        checked: &Map<String, Json>,
        schema: &'static Json,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> bool {
        let mut complete = true;
        let required = schema.get("required").and_then(Json::as_array);
        for key in required.into_iter().flatten().filter_map(Json::as_str) {
            if !entries.iter().any(|entry| entry.key == key) {
                let message = format!("{} needs the key `{key}`", shown_section(path));
                problems.add_at(path, node.at, message, None);
            }
            complete &= checked.contains_key(key);
        }
        complete
    }

    /// A list with one wrong item is left out whole: later checks name items by their number.
    fn list(
        &self,
        items: &[Node],
        schema: &'static Json,
        path: &Path,
        problems: &mut Problems<'_>,
    ) -> Option<Json> {
        let item_schema = schema.get("items").unwrap_or(&Json::Null);
        if let Some(most) = schema.get("maxItems").and_then(Json::as_u64)
            && items.len() as u64 > most
        {
            problems.add(
                path,
                format!(
                    "`{path}` has {} items, at most {most} are allowed",
                    items.len()
                ),
            );
            return None;
        }
        if let Some(least) = schema.get("minItems").and_then(Json::as_u64)
            && (items.len() as u64) < least
        {
            problems.add(path, format!("`{path}` needs at least {least} item"));
            return None;
        }
        let checked: Vec<Option<Json>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.value(item, item_schema, &path.index(index), problems))
            .collect();
        checked
            .into_iter()
            .collect::<Option<Vec<Json>>>()
            .map(Json::Array)
    }

    fn resolve(&self, schema: &'static Json) -> &'static Json {
        let reference = schema.get("$ref").and_then(Json::as_str);
        reference
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| self.schema.pointer(pointer))
            .unwrap_or(schema)
    }

    fn help_for_unknown(&self, key: &str, known: &[&str]) -> String {
        if let Some(near) = nearest(key, known) {
            return format!("did you mean `{near}`?");
        }
        let mut homes = Vec::new();
        self.homes(key, schema(), &Path::default(), &mut homes);
        if let Some(home) = homes.first() {
            return format!("`{key}` belongs in {}", shown_section(home));
        }
        format!("known keys here: {}", known.join(", "))
    }

    /// The sections in which a key would be known.
    fn homes(&self, key: &str, schema: &'static Json, path: &Path, homes: &mut Vec<Path>) {
        let schema = self.resolve(schema);
        let Some(properties) = schema.get("properties").and_then(Json::as_object) else {
            return;
        };
        if properties.contains_key(key) {
            homes.push(path.clone());
        }
        for (name, property) in properties {
            self.homes(key, property, &path.key(name), homes);
        }
    }
}

fn shown_section(path: &Path) -> String {
    if *path == Path::default() {
        "the top level".to_owned()
    } else {
        format!("`{path}`")
    }
}

/// The texts that are allowed, if the schema lists them.
fn options(schema: &'static Json) -> Option<Vec<&'static str>> {
    if let Some(list) = schema.get("enum").and_then(Json::as_array) {
        return Some(list.iter().filter_map(Json::as_str).collect());
    }
    let mut texts = Vec::new();
    for option in schema.get("oneOf")?.as_array()? {
        match option.get("const").and_then(Json::as_str) {
            Some(text) => texts.push(text),
            None => texts.extend(options(option)?),
        }
    }
    Some(texts)
}

fn choice(node: &Node, options: &[&str], path: &Path, problems: &mut Problems<'_>) -> Option<Json> {
    let text = match &node.value {
        Value::Text(text) => text.as_str(),
        // `off` and the like are plain words here, whatever older YAML made of them.
        Value::Bool(false) if options.contains(&"off") => "off",
        Value::Null
        | Value::Bool(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::List(_)
        | Value::Map(_) => "",
    };
    if options.contains(&text) {
        return Some(Json::from(text));
    }
    let all = options.join("`, `");
    let help = match nearest(text, options) {
        Some(near) => format!("did you mean `{near}`? allowed: `{all}`"),
        None => format!("allowed: `{all}`"),
    };
    problems.add_with_help(
        path,
        format!("`{path}` cannot be {}", shown(node, path)),
        help,
    );
    None
}

fn types(schema: &'static Json) -> Vec<&'static str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one.as_str()],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        Some(Json::Null | Json::Bool(_) | Json::Number(_) | Json::Object(_)) | None => Vec::new(),
    }
}

fn describe_types(types: &[&str]) -> String {
    let words: Vec<&str> = types
        .iter()
        .filter_map(|name| match *name {
            "string" => Some("text"),
            "integer" => Some("a whole number"),
            "number" => Some("a number"),
            "boolean" => Some("`true` or `false`"),
            "array" => Some("a list"),
            "object" => Some("a map of keys"),
            _ => None,
        })
        .collect();
    words.join(" or ")
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever the guards leave is of the wrong type"
)]
fn scalar(
    node: &Node,
    schema: &'static Json,
    types: &[&str],
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<Json> {
    match &node.value {
        Value::Text(text) if types.contains(&"string") => Some(Json::from(text.as_str())),
        Value::Bool(value) if types.contains(&"boolean") => Some(Json::from(*value)),
        Value::Integer(number) if types.contains(&"integer") || types.contains(&"number") => {
            in_range(*number, schema, path, problems)
        }
        Value::Float(number) if types.contains(&"number") => {
            let least = schema.get("minimum").and_then(Json::as_f64);
            let most = schema.get("maximum").and_then(Json::as_f64);
            if least.is_some_and(|least| *number < least)
                || most.is_some_and(|most| *number > most)
                || !number.is_finite()
            {
                let bounds = describe_range(least, most);
                problems.add(path, format!("`{path}` is `{number}`, it must be {bounds}"));
                return None;
            }
            Some(Json::from(*number))
        }
        _ => {
            let message = format!(
                "`{path}` must be {}, found {}",
                describe_types(types),
                shown(node, path)
            );
            match help_for_type(node, types, path) {
                Some(help) => problems.add_with_help(path, message, help),
                None => problems.add(path, message),
            }
            None
        }
    }
}

fn in_range(
    number: i128,
    schema: &'static Json,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<Json> {
    let format_most = match schema.get("format").and_then(Json::as_str) {
        Some("uint8") => Some(i128::from(u8::MAX)),
        Some("uint16") => Some(i128::from(u16::MAX)),
        Some("uint32") => Some(i128::from(u32::MAX)),
        Some("int32") => Some(i128::from(i32::MAX)),
        Some(_) | None => None,
    };
    let bound = |name: &str| {
        let value = schema.get(name)?;
        value
            .as_i64()
            .map(i128::from)
            .or_else(|| value.as_u64().map(i128::from))
            .or_else(|| value.as_f64().map(|bound| bound as i128))
    };
    let least = bound("minimum");
    let most = bound("maximum")
        .or(format_most)
        .or(Some(i128::from(i64::MAX)));
    if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
        let bounds = describe_range(least, most);
        problems.add(path, format!("`{path}` is `{number}`, it must be {bounds}"));
        return None;
    }
    i64::try_from(number).ok().map(Json::from)
}

fn describe_range<T: std::fmt::Display>(least: Option<T>, most: Option<T>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("from {least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => "a finite number".to_owned(),
    }
}

/// A value as it may be shown in a message.
fn shown(node: &Node, path: &Path) -> String {
    if path
        .last_key()
        .is_some_and(|key| sounds_secret(&key.to_ascii_lowercase()))
    {
        return node.value.kind().to_owned();
    }
    match &node.value {
        Value::Text(text) => format!("`{}`", hide_user_info(text)),
        Value::Bool(value) => format!("`{value}`"),
        Value::Integer(number) => format!("`{number}`"),
        Value::Float(number) => format!("`{number}`"),
        Value::Null | Value::List(_) | Value::Map(_) => node.value.kind().to_owned(),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only some mistakes have a way out that can be named"
)]
fn help_for_type(node: &Node, types: &[&str], path: &Path) -> Option<String> {
    match &node.value {
        Value::Text(text) if types.contains(&"integer") => {
            let number = with_unit(text, path.last_key()?)?;
            Some(format!("the unit is in the key's name: write `{number}`"))
        }
        Value::Text(text) if types.contains(&"boolean") => match text.as_str() {
            "yes" | "on" | "True" | "TRUE" => Some("write `true`".to_owned()),
            "no" | "off" | "False" | "FALSE" => Some("write `false`".to_owned()),
            _ => None,
        },
        Value::Bool(_) | Value::Integer(_) | Value::Float(_) if types.contains(&"string") => {
            Some("put the value in quotes".to_owned())
        }
        _ if types.contains(&"array") => {
            Some("a list is written with a `-` before each item, or as `[a, b]`".to_owned())
        }
        _ => None,
    }
}

/// `60s` in a key that counts milliseconds is `60000`.
fn with_unit(text: &str, key: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_')?;
    let number: u64 = text[..digits].replace('_', "").parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let milliseconds = match unit.as_str() {
        "ms" => Some(1),
        "s" | "sec" => Some(1_000),
        "m" | "min" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let bytes = match unit.as_str() {
        "b" => Some(1),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    if key.ends_with("_ms") {
        number.checked_mul(milliseconds?)
    } else if key.ends_with("_sec") {
        Some(number.checked_mul(milliseconds?)?.div_ceil(1_000))
    } else {
        number.checked_mul(bytes?)
    }
}

/// The JSON of a part that the schema leaves open, such as a plugin's own configuration.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Integer(number) => i64::try_from(*number).map_or_else(
            |_| u64::try_from(*number).map_or_else(|_| Json::from(number.to_string()), Json::from),
            Json::from,
        ),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::from(text.as_str()),
        Value::List(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Map(entries) => Json::Object(
            entries
                .iter()
                .map(|entry| (entry.key.clone(), plain(&entry.value)))
                .collect(),
        ),
    }
}

/// The known word that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Longer than any key: not worth comparing, and comparing costs the product of both lengths.
    const MAX_WORD_BYTES: usize = 64;
    let word = word.to_ascii_lowercase().replace('-', "_");
    if word.is_empty() || word.len() > MAX_WORD_BYTES {
        return None;
    }
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    let stem = |text: &str| {
        ["_ms", "_sec", "_seconds", "_bytes", "_file", "_url"]
            .iter()
            .find_map(|unit| text.strip_suffix(unit))
            .unwrap_or(text)
            .to_owned()
    };
    known
        .iter()
        .filter_map(|candidate| {
            let plain = candidate.to_ascii_lowercase();
            let distance = distance(&word, &plain).min(
                // Only the unit differs, or was left out.
                if stem(&word) == stem(&plain) {
                    1
                } else {
                    usize::MAX
                },
            );
            (distance <= allowed).then_some((distance, *candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits from one word to the other: insert, delete, replace, swap of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0_usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut least = (rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}
