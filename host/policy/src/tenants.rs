//! Policies of a tenant, among those of the hub.
//!
//! A file named `TENANT@ANYTHING.cedar` holds policies of that tenant. Each is *confined* before it
//! joins the set: its scope is narrowed to the tenant where it is open, and a condition that holds
//! for the tenant's own requests only is put in front of its others. So, by the text of the policy
//! that is in force, it neither permits nor forbids nor fails in a request of anybody else, and a
//! proof over the set covers that too. Its id carries the tenant in front, so that it takes nobody
//! else's place, and no guard's. The policies of the hub are in the same set: what they forbid, no
//! tenant permits.

use std::collections::HashSet;

use cedar_policy::{ActionConstraint, EntityUid, Policy, PrincipalConstraint, ResourceConstraint};
use serde_json::{Value, json};

use crate::name::DEFAULT_TENANT;
use crate::source::SourceFile;
use crate::vocabulary;

/// The actions that a tenant may speak of, and whose side is the tenant's.
const ACTIONS: [(&str, Side); 5] = [
    ("hello", Side::Principal),
    ("announce", Side::Both),
    ("endpoint-create", Side::Both),
    ("open", Side::Resource),
    ("http-request", Side::Resource),
];

/// Types whose id carries the tenant.
const NAMED: [&str; 5] = ["Agent", "Connector", "Endpoint", "Listener", "Viewer"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Principal,
    Resource,
    Both,
}

/// The tenant whose policies a file holds.
pub(crate) fn tenant_of(file: &SourceFile) -> Option<&str> {
    let name = file.name.rsplit('/').next().unwrap_or(&file.name);
    name.split_once('@').map(|(tenant, _)| tenant)
}

/// The policy's id within the whole set.
pub(crate) fn id_of(tenant: &str, id: &str) -> String {
    format!("{tenant}/{id}")
}

/// The policy as it applies to this tenant alone; or a sentence and a way out.
pub(crate) fn confine(policy: &Policy, tenant: &str) -> Result<Policy, (String, &'static str)> {
    check_name(tenant)?;
    let side = side_of(policy)?;
    let uid = vocabulary::uid(&vocabulary::TENANT, tenant);
    if side != Side::Resource
        && let PrincipalConstraint::Eq(named) = policy.principal_constraint()
    {
        must_be_own(&named, tenant)?;
    }
    if side != Side::Principal
        && let ResourceConstraint::Eq(named) = policy.resource_constraint()
    {
        must_be_own(&named, tenant)?;
    }
    let mut json = policy.to_json().map_err(|error| internal(&error))?;
    let uid = json!({"type": uid.type_name().to_string(), "id": uid.id().unescaped()});
    let mut conditions = Vec::new();
    for (name, wanted) in [
        ("principal", side != Side::Resource),
        ("resource", side != Side::Principal),
    ] {
        if wanted {
            narrow(&mut json[name], &uid);
            conditions.push(json!({"kind": "when", "body": {"in": {
                "left": {"Var": name}, "right": {"Value": {"__entity": uid}}}}}));
        }
    }
    // In front of all others, so that these are not even evaluated for anybody else.
    if let Some(Value::Array(own)) = json.get_mut("conditions") {
        conditions.append(own);
    }
    json["conditions"] = Value::Array(conditions);
    Policy::from_json(Some(policy.id().clone()), json).map_err(|error| internal(&error))
}

/// An open scope becomes the tenant's; one that names somebody is left as it is.
fn narrow(scope: &mut Value, tenant: &Value) {
    match scope["op"].as_str() {
        Some("All") => *scope = json!({"op": "in", "entity": tenant}),
        Some("is") if scope.get("in").is_none() => scope["in"] = json!({"entity": tenant}),
        Some(_) | None => {}
    }
}

fn side_of(policy: &Policy) -> Result<Side, (String, &'static str)> {
    const HELP: &str = "write one action, such as `action == NowConnect::Action::\"open\"`; a \
                        tenant may speak of hello, announce, endpoint-create, open and \
                        http-request";
    let actions = match policy.action_constraint() {
        ActionConstraint::Any => {
            return Err(("a tenant's policy must name its action".to_owned(), HELP));
        }
        ActionConstraint::Eq(action) => vec![action],
        ActionConstraint::In(actions) => actions,
    };
    let mut sides = actions.iter().map(|action| {
        let name = action.id().unescaped();
        ACTIONS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, side)| *side)
            .ok_or_else(|| (format!("action `{name}` is not a tenant's to decide"), HELP))
    });
    let first = sides
        .next()
        .ok_or_else(|| ("a tenant's policy must name its action".to_owned(), HELP))??;
    for side in sides {
        if side? != first {
            return Err((
                "these actions are about different sides: an agent, or what it offers".to_owned(),
                HELP,
            ));
        }
    }
    Ok(first)
}

fn must_be_own(uid: &EntityUid, tenant: &str) -> Result<(), (String, &'static str)> {
    let id = uid.id().unescaped();
    let own = id.split_once('/').is_some_and(|(owner, _)| owner == tenant);
    let named = NAMED.contains(&uid.type_name().basename());
    if named && !own {
        return Err((
            format!("`{uid}` is not of tenant `{tenant}`, so this policy would never apply"),
            "names outside of the default tenant are written `tenant/name`",
        ));
    }
    Ok(())
}

/// Whether a file may belong to it.
pub(crate) fn check_name(tenant: &str) -> Result<(), (String, &'static str)> {
    if is_name(tenant) && tenant != DEFAULT_TENANT {
        return Ok(());
    }
    Err((
        format!("`{tenant}` in front of the `@` of the file's name is no tenant"),
        "name the file `acme@anything.cedar`; policies of the hub and of the default tenant have \
         no `@` in their file's name",
    ))
}

/// Whether an entry of a tenant's entities is about that tenant's own alone.
pub(crate) fn own_groups(
    tenant: &str,
    uid: &EntityUid,
    parents: &HashSet<EntityUid>,
    tags: &[(String, String)],
) -> Result<(), String> {
    for named in std::iter::once(uid).chain(parents) {
        let id = named.id().unescaped();
        let is_own = id.split_once('/').is_some_and(|(owner, _)| owner == tenant);
        let is_group = *named.type_name() == *vocabulary::GROUP;
        let is_member = NAMED.contains(&named.type_name().basename());
        if !is_own || !(is_group || is_member) {
            return Err(format!(
                "`{named}` is not of tenant `{tenant}`: in its own file a tenant puts what is named \
                 `{tenant}/…` into groups that are named so too"
            ));
        }
    }
    match tags.first() {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "`{uid}`: tag `{name}` is the hub's to give, whose policies read it too; a tenant says \
             it by a group of its own"
        )),
    }
}

fn is_name(tenant: &str) -> bool {
    !tenant.is_empty()
        && tenant
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn internal(error: &dyn std::error::Error) -> (String, &'static str) {
    (
        format!(
            "this policy cannot be confined to its tenant: {}",
            crate::diagnostic::with_causes(error)
        ),
        "please report it with the policy's text",
    )
}
