//! Templates become static policies, one for each link.
//!
//! `links.json` lists the links in the form of the stock Cedar CLI: `template_id`, `link_id` and
//! `args` from slot to uid. Each makes a policy with the text of its template, the link's id and
//! entities in the place of the slots. So whatever runs was checked as it runs, and has a text
//! that can be read, compared and proved about.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::str::FromStr as _;

use cedar_policy::{EntityUid, PolicySet};
use serde::Deserialize;

use crate::check::{POLICIES, line_and_column, nested_too_deep};
use crate::source::SourceFile;
use crate::tenants;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    template_id: String,
    link_id: String,
    #[serde(default)]
    args: BTreeMap<String, String>,
}

/// A template with its place.
#[derive(Debug)]
struct Template {
    text: String,
    place: String,
    file: String,
    /// Whose it is, where its file is a tenant's: what is made of it is confined like it.
    tenant: Option<String>,
    used: bool,
}

/// Takes linked templates out of their files, whose lines stay where they are, and makes one
/// more file of the links. A file that does not parse is left as it is: the check says why.
pub(crate) fn expand(policies: &mut Vec<SourceFile>, links: &SourceFile) -> Result<(), String> {
    let list: Vec<Link> = serde_json::from_str(&links.text).map_err(|error| {
        format!(
            "{error}; a link is {{\"template_id\": \"grant\", \"link_id\": \"grant-acme\", \
             \"args\": {{\"?principal\": \"NowConnect::Tenant::\\\"acme\\\"\"}}}}"
        )
    })?;
    if list.len() > POLICIES {
        return Err(format!("more than {POLICIES} links"));
    }
    let mut templates = BTreeMap::new();
    for file in policies.iter() {
        collect(file, &mut templates);
    }
    let mut expanded: BTreeMap<Option<String>, String> = BTreeMap::new();
    for link in &list {
        let id = &link.link_id;
        let template = templates.get_mut(&link.template_id).ok_or_else(|| {
            format!(
                "link `{id}`: there is no template with `@id(\"{}\")`",
                link.template_id
            )
        })?;
        template.used = true;
        let text =
            fill(&template.text, link).map_err(|problem| format!("link `{id}`: {problem}"))?;
        let _ = writeln!(
            expanded.entry(template.tenant.clone()).or_default(),
            "// From the template at {}.\n{text}\n",
            template.place
        );
    }
    for file in policies.iter_mut() {
        let used = |template: &&Template| template.used && template.file == file.name;
        let own: Vec<&Template> = templates.values().filter(used).collect();
        for template in own {
            if let Some(at) = file.text.find(&template.text) {
                let lines = "\n".repeat(template.text.matches('\n').count());
                file.text
                    .replace_range(at..at + template.text.len(), &lines);
            }
        }
    }
    for (tenant, text) in expanded {
        let tenant = tenant.map_or_else(String::new, |tenant| format!("{tenant}@"));
        let folder = links.name.strip_suffix("links.json").unwrap_or_default();
        let name = format!("{folder}{tenant}links.expanded.cedar");
        policies.push(SourceFile::new(name, text));
    }
    Ok(())
}

fn collect(file: &SourceFile, templates: &mut BTreeMap<String, Template>) {
    if nested_too_deep(&file.text).is_some() {
        return;
    }
    let Ok(set) = PolicySet::from_str(&file.text) else {
        return;
    };
    for template in set.templates() {
        let text = template.to_cedar();
        let Some(id) = template.annotation("id") else {
            continue;
        };
        let (line, _) = line_and_column(&file.text, file.text.find(&text).unwrap_or(0));
        let tenant = tenants::tenant_of(file).map(ToOwned::to_owned);
        // As its policies are called: two tenants may use the same word.
        let id = match &tenant {
            Some(tenant) => tenants::id_of(tenant, id),
            None => id.to_owned(),
        };
        let template = Template {
            tenant,
            file: file.name.clone(),
            place: format!("{}:{line}", base_name(&file.name)),
            text,
            used: false,
        };
        templates.insert(id, template);
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The text of a template with the link's id and entities. Strings and comments are left alone.
fn fill(text: &str, link: &Link) -> Result<String, String> {
    if let Some(slot) = link
        .args
        .keys()
        .find(|slot| !["?principal", "?resource"].contains(&slot.as_str()))
    {
        return Err(format!("there is no slot `{slot}`"));
    }
    let mut filled = String::new();
    let mut rest = text;
    let mut unused: Vec<&String> = link.args.keys().collect();
    // An id is named by the string two tokens after `@id`.
    let mut names_id = false;
    while let Some(letter) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        match token {
            "@id" => names_id = true,
            "?principal" | "?resource" => {
                let uid = link
                    .args
                    .get(token)
                    .ok_or_else(|| format!("`{token}` has no value in `args`"))?;
                let uid = EntityUid::from_str(uid).map_err(|_| {
                    format!("`{uid}` is not a uid such as `NowConnect::Tenant::\"acme\"`")
                })?;
                filled.push_str(&uid.to_string());
                unused.retain(|slot| *slot != token);
                rest = after;
                continue;
            }
            _ if letter == '"' && names_id => {
                names_id = false;
                let _ = write!(filled, "\"{}\"", link.link_id.escape_default());
                rest = after;
                continue;
            }
            _ => {}
        }
        filled.push_str(token);
        rest = after;
    }
    match unused.first() {
        Some(slot) => Err(format!("the template has no `{slot}`")),
        None => Ok(filled),
    }
}

/// Bytes of the string, comment, annotation name, slot or single letter that a text begins with.
fn token_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, letter) in text.char_indices().skip(1) {
            match letter {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    if text.starts_with(['@', '?']) {
        let name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        return text
            .char_indices()
            .skip(1)
            .find(|(_, letter)| !name(*letter))
            .map_or(text.len(), |(at, _)| at);
    }
    text.chars().next().map_or(0, char::len_utf8)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const TEMPLATE: &str = "// one\n@id(\"grant\") // @id(\"no\")\n@advice(\"?principal\")\npermit \
                            (principal in ?principal, action, resource == ?resource);\n\n@id(\"x\")\
                            \nforbid (principal, action, resource);\n";

    fn links(json: &str) -> SourceFile {
        SourceFile::new("p/links.json", json)
    }

    #[test]
    fn each_link_is_a_policy_and_the_other_lines_stay() {
        let mut files = vec![SourceFile::new("p/a.cedar", TEMPLATE)];
        let json = r#"[{"template_id": "grant", "link_id": "grant-1", "args": {
            "?principal": "NowConnect::Tenant::\"a\"", "?resource": "NowConnect::Connector::\"b\\\"\""}}]"#;
        expand(&mut files, &links(json)).unwrap();
        assert_eq!(
            files[0].text,
            "// one\n\n\n\n\n@id(\"x\")\nforbid (principal, action, resource);\n"
        );
        assert_eq!(files[1].name, "p/links.expanded.cedar");
        let set: PolicySet = files[1].text.parse().unwrap();
        let policy = set.policies().next().unwrap();
        assert_eq!(policy.annotation("id"), Some("grant-1"));
        assert_eq!(policy.annotation("advice"), Some("?principal"));
        let text = policy.to_cedar().unwrap();
        assert!(
            text.contains("principal in NowConnect::Tenant::\"a\""),
            "{text}"
        );
        assert!(
            text.contains(r#"resource == NowConnect::Connector::"b\"""#),
            "{text}"
        );
    }

    #[test]
    fn a_tenants_template_makes_policies_of_that_tenant() {
        let mut files = vec![
            SourceFile::new("p/acme@a.cedar", TEMPLATE),
            SourceFile::new("p/a.cedar", TEMPLATE),
        ];
        let json = r#"[{"template_id": "acme/grant", "link_id": "one", "args": {
            "?principal": "A::\"a\"", "?resource": "A::\"b\""}}]"#;
        expand(&mut files, &links(json)).unwrap();
        assert_eq!(files[2].name, "p/acme@links.expanded.cedar");
        assert!(files[1].text == TEMPLATE && files[0].text != TEMPLATE);
    }

    #[test]
    fn wrong_links_are_refused_by_name() {
        for (json, problem) in [
            ("{", "a link is"),
            (r#"[{"template_id": "no", "link_id": "l"}]"#, "no template"),
            (
                r#"[{"template_id": "grant", "link_id": "l"}]"#,
                "has no value",
            ),
            (
                r#"[{"template_id": "grant", "link_id": "l", "args": {"?who": "A::\"b\""}}]"#,
                "no slot `?who`",
            ),
            (
                r#"[{"template_id": "grant", "link_id": "l",
                     "args": {"?principal": "x y", "?resource": "A::\"b\""}}]"#,
                "not a uid",
            ),
        ] {
            let mut files = vec![SourceFile::new("a.cedar", TEMPLATE)];
            let found = expand(&mut files, &links(json)).unwrap_err();
            assert!(found.contains(problem), "{json}: {found}");
        }
    }
}
