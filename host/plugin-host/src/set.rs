//! An immutable set of plugins, and the chains that it makes of them.
//!
//! A chain is asked in order and ends at the first no. What the hub asks about is already
//! allowed, so each answer can only take away: connectors are intersected, limits are the
//! smallest given, edits are checked one by one, a failure is a no unless the operator made the
//! plugin optional.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::answer::{
    Carry, Denial, Edit, HelloOutcome, HttpRequestOutcome, HttpResponseOutcome, Masked,
    OpenOutcome, Signals, Terms, Welcome,
};
use crate::call::{Failure, call};
use crate::engine::PluginEngine;
use crate::error::LoadError;
use crate::facts::{
    Attribute, Bye, CallInfo, Closed, Enrich, Field, Head, Hello, HttpRequest, HttpResponse,
    LogEntry, Open,
};
use crate::hook::{CallOutcome, Hook};
use crate::judge;
use crate::load;
use crate::mask;
use crate::observer::Dropped;
use crate::plugin::Plugin;
use crate::signature::SignedAs;
use crate::spec::{DEFAULT_TENANT, Mode, PluginSpec};
use crate::wire;

/// What an operator is shown about one plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginStatus {
    /// Its name in the configuration.
    pub name: String,
    /// What it says about itself: name, version and summary; never trusted.
    pub about: String,
    /// Digest of its component, 64 hex digits.
    pub digest: String,
    /// The hooks that are called.
    pub hooks: Vec<Hook>,
    /// Whether its answers count.
    pub mode: Mode,
    /// It failed too often and is not called.
    pub quarantined: bool,
    /// The trusted key that signed it.
    pub signed_by: Option<String>,
    /// The name and version that this key signed.
    pub signed_as: Option<String>,
}

/// A plugin that is signed as an earlier version than the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downgrade {
    /// Its name in the configuration.
    pub plugin: String,
    /// What was signed before, by name and version.
    pub before: String,
    /// What is signed now.
    pub now: String,
}

/// Checked plugins, ready to be called. The empty set allows everything that it is asked.
#[derive(Debug, Default)]
pub struct PluginSet {
    plugins: Vec<(Arc<Plugin>, String)>,
    chains: [Vec<Arc<Plugin>>; Hook::ALL.len()],
}

/// Instances that are kept hold their plugin, so that the last set must let go of them.
impl Drop for PluginSet {
    fn drop(&mut self) {
        for (plugin, _) in &self.plugins {
            plugin.warm.leave();
        }
    }
}

impl PluginSet {
    /// A set without plugins.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Reads, checks, compiles and tries every plugin, compiling off the runtime's threads. A
    /// plugin that did not change since an earlier set still in use is taken over as it is, with
    /// its quarantine.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first thing; nothing is loaded then.
    pub async fn load(
        engine: &PluginEngine,
        specs: Vec<PluginSpec>,
    ) -> Result<Self, Vec<LoadError>> {
        let mut loaded = load::load(engine, specs).await?;
        loaded.sort_by(|a, b| {
            let key = |one: &load::Loaded| (one.plugin.spec.order, Arc::clone(&one.plugin.name));
            key(a).cmp(&key(b))
        });
        let mut set = Self::default();
        for load::Loaded { plugin, about } in loaded {
            if plugin.spec.mode != Mode::Off {
                // Log records are of all tenants at once.
                let one_tenants = !plugin.spec.tenants.is_empty();
                for hook in plugin.hooks() {
                    if hook == Hook::Mask && one_tenants {
                        continue;
                    }
                    set.chains[hook.index()].push(Arc::clone(&plugin));
                }
            }
            plugin.warm.join();
            set.plugins.push((plugin, about));
        }
        Ok(set)
    }

    /// Some plugin of the set is called for this hook; where none is, skip building the question.
    pub fn has(&self, hook: Hook) -> bool {
        !self.chains[hook.index()].is_empty()
    }

    /// What the set consists of, in the order of its chains.
    pub fn status(&self) -> Vec<PluginStatus> {
        self.plugins
            .iter()
            .map(|(plugin, about)| PluginStatus {
                name: plugin.name.to_string(),
                about: about.clone(),
                digest: plugin.digest.clone(),
                hooks: plugin.hooks().collect(),
                mode: plugin.spec.mode,
                quarantined: plugin.breaker.is_open(),
                signed_by: plugin.signed_by.as_ref().map(|one| one.key().to_string()),
                signed_as: plugin
                    .signed_by
                    .as_ref()
                    .map(|one| one.signed_as().to_string()),
            })
            .collect()
    }

    /// The plugins that are signed as an earlier version of what stood under the same name. A
    /// signature does not keep an old version from being served, so its operator must be told.
    pub fn downgrades_from(&self, before: &Self) -> Vec<Downgrade> {
        let signed = |set: &Self| -> BTreeMap<Arc<str>, SignedAs> {
            let plugins = set.plugins.iter();
            plugins
                .filter_map(|(plugin, _)| {
                    let signature = plugin.signed_by.as_ref()?;
                    Some((Arc::clone(&plugin.name), signature.signed_as().clone()))
                })
                .collect()
        };
        let earlier = signed(before);
        signed(self)
            .into_iter()
            .filter_map(|(plugin, now)| {
                let before = earlier.get(&plugin)?;
                now.is_older_than(before).then(|| Downgrade {
                    plugin: plugin.to_string(),
                    before: before.to_string(),
                    now: now.to_string(),
                })
            })
            .collect()
    }

    /// Asks the `hello` chain.
    pub async fn hello(&self, info: &CallInfo<'_>, hello: &Hello<'_>) -> HelloOutcome {
        let mut accepted: Cow<'_, [&str]> = Cow::Borrowed(hello.announced);
        let mut welcome = Welcome {
            carry: info.carry.cloned().unwrap_or_default(),
            ..Welcome::default()
        };
        for plugin in self.chain_of(Hook::Hello, info) {
            let question = Hello {
                announced: &accepted,
                ..*hello
            };
            let question = wire::AskHello(info, &question, carried(info, plugin));
            let answer = call(plugin, question, |verdict| judge_hello(plugin, verdict)).await;
            match decide(plugin, answer) {
                Decided::Go(answer) => {
                    let (kept, lost): (Vec<&str>, Vec<&str>) = accepted
                        .iter()
                        .partition(|name| answer.accept.iter().any(|accept| accept == *name));
                    let lost = lost.into_iter().map(str::to_owned);
                    let refused = lost.map(|name| (name, Arc::clone(&plugin.name)));
                    welcome.refused.extend(refused);
                    welcome.attributes.extend(answer.attributes);
                    welcome.carry.attach(&plugin.name, answer.carry);
                    accepted = Cow::Owned(kept);
                }
                Decided::Skip => {}
                Decided::Deny(denial) => return HelloOutcome::Deny(denial),
            }
        }
        welcome.accepted = accepted.iter().map(|name| (*name).to_owned()).collect();
        HelloOutcome::Accept(welcome)
    }

    /// Tells the `bye` chain.
    pub async fn bye(&self, info: &CallInfo<'_>, bye: &Bye<'_>, carry: &Carry) {
        for plugin in self.chain_of(Hook::Bye, info) {
            let news = wire::TellBye(info, bye, carry.of(&plugin.name));
            ignore(call(plugin, news, heard).await);
        }
    }

    /// Asks the `enrich` chain.
    pub async fn enrich(&self, info: &CallInfo<'_>, enrich: &Enrich<'_>) -> Signals {
        let mut all = Signals::default();
        for plugin in self.chain_of(Hook::Enrich, info) {
            let question = wire::AskEnrich(info, enrich);
            let answer = call(plugin, question, |found: wire::Findings| {
                judge::carry(&found.carry)?;
                let (signals, dropped) = judge::signals(plugin, found.signals)?;
                Ok(((signals, dropped, found.carry), CallOutcome::Ok))
            })
            .await;
            if plugin.spec.mode == Mode::Shadow {
                continue;
            }
            match answer {
                Ok((signals, dropped, carry)) => {
                    all.signals.extend(signals);
                    all.carry.attach(&plugin.name, carry);
                    if dropped > 0 {
                        let observer = &plugin.engine.observer;
                        observer.dropped(&plugin.name, Dropped::Signals, dropped);
                    }
                }
                Err(_) if plugin.spec.optional => {}
                Err(_) => all.missing.push(plugin.name.to_string()),
            }
        }
        all.signals.sort_unstable();
        all.signals.dedup();
        all.missing.sort_unstable();
        all
    }

    /// Asks the `open` chain.
    pub async fn open(&self, info: &CallInfo<'_>, open: &Open<'_>) -> OpenOutcome {
        let mut terms = Terms {
            carry: info.carry.cloned().unwrap_or_default(),
            ..Terms::default()
        };
        for plugin in self.chain_of(Hook::Open, info) {
            let question = wire::AskOpen(info, open, carried(info, plugin));
            let before = &terms.attributes;
            let judge = |verdict| judge_open(plugin, before, verdict);
            let answer = call(plugin, question, judge).await;
            match decide(plugin, answer) {
                Decided::Go(grant) => {
                    terms.max_bytes = smaller(terms.max_bytes, grant.max_bytes);
                    terms.max_seconds = smaller(terms.max_seconds, grant.max_seconds);
                    terms.idle_seconds = smaller(terms.idle_seconds, grant.idle_seconds);
                    terms.attributes.extend(grant.attributes);
                    terms.carry.attach(&plugin.name, grant.carry);
                }
                Decided::Skip => {}
                Decided::Deny(denial) => return OpenOutcome::Deny(denial),
            }
        }
        OpenOutcome::Allow(terms)
    }

    /// Tells the `close` chain.
    pub async fn close(&self, info: &CallInfo<'_>, closed: &Closed<'_>, carry: &Carry) {
        for plugin in self.chain_of(Hook::Close, info) {
            let news = wire::TellClose(info, closed, carry.of(&plugin.name));
            ignore(call(plugin, news, heard).await);
        }
    }

    /// Asks the `http-request` chain; each plugin sees the edits of those before it.
    pub async fn http_request(
        &self,
        info: &CallInfo<'_>,
        request: &HttpRequest<'_>,
    ) -> HttpRequestOutcome {
        let mut headers: Cow<'_, [Field]> = Cow::Borrowed(request.head.headers);
        let mut edits = Vec::new();
        let mut carry = info.carry.cloned().unwrap_or_default();
        for plugin in self.chain_of(Hook::HttpRequest, info) {
            let question = HttpRequest {
                head: Head {
                    headers: &headers,
                    ..request.head
                },
                ..*request
            };
            let question = wire::AskRequest(info, &question, carried(info, plugin));
            let judge = |verdict| judge_request(plugin, verdict);
            let answer = call(plugin, question, judge).await;
            match decide(plugin, answer.map(Ok)) {
                Decided::Go(RequestAnswer::Next(more, carried)) => {
                    apply(&mut headers, &more);
                    edits.extend(more);
                    carry.attach(&plugin.name, carried);
                }
                Decided::Go(RequestAnswer::Reply(reply)) => {
                    return HttpRequestOutcome::Reply {
                        plugin: Arc::clone(&plugin.name),
                        status: reply.status,
                        headers: reply.headers,
                        body: reply.body,
                    };
                }
                Decided::Go(RequestAnswer::Deny(denial)) => {
                    return HttpRequestOutcome::Deny(denial);
                }
                Decided::Skip => {}
                Decided::Deny(denial) => return HttpRequestOutcome::Failed(denial),
            }
        }
        HttpRequestOutcome::Forward { edits, carry }
    }

    /// Asks the `http-response` chain; each plugin sees the edits of those before it.
    pub async fn http_response(
        &self,
        info: &CallInfo<'_>,
        response: &HttpResponse<'_>,
        carry: &Carry,
    ) -> HttpResponseOutcome {
        let mut headers: Cow<'_, [Field]> = Cow::Borrowed(response.headers);
        let mut edits = Vec::new();
        for plugin in self.chain_of(Hook::HttpResponse, info) {
            let question = HttpResponse {
                status: response.status,
                headers: &headers,
            };
            let question = wire::AskResponse(info, &question, carry.of(&plugin.name));
            let judge = |verdict| judge_response(plugin, verdict);
            let answer = call(plugin, question, judge).await;
            match decide(plugin, answer.map(Ok)) {
                Decided::Go(ResponseAnswer::Next(more)) => {
                    apply(&mut headers, &more);
                    edits.extend(more);
                }
                Decided::Go(ResponseAnswer::Reply(reply)) => {
                    return HttpResponseOutcome::Reply {
                        plugin: Arc::clone(&plugin.name),
                        status: reply.status,
                        headers: reply.headers,
                        body: reply.body,
                    };
                }
                Decided::Skip => {}
                Decided::Deny(denial) => return HttpResponseOutcome::Failed(denial),
            }
        }
        HttpResponseOutcome::Forward(edits)
    }

    /// Covers a batch of log records in place, any number of them; plugins see at most 256 at
    /// once. Where a plugin fails, optional or not, its part of the batch keeps target, level
    /// and number only.
    pub async fn mask(&self, batch: &mut [LogEntry]) -> Masked {
        mask::mask(self.chain(Hook::Mask), batch).await
    }

    /// The plugins that are asked about this tenant.
    fn chain_of(&self, hook: Hook, info: &CallInfo<'_>) -> impl Iterator<Item = &Arc<Plugin>> {
        let tenant = info.tenant.unwrap_or(DEFAULT_TENANT);
        self.chain(hook)
            .iter()
            .filter(move |plugin| plugin.spec.serves(tenant))
    }

    fn chain(&self, hook: Hook) -> &[Arc<Plugin>] {
        &self.chains[hook.index()]
    }
}

/// What one plugin's answer means for its chain.
enum Decided<T> {
    Go(T),
    /// The plugin is in shadow, or optional and failed.
    Skip,
    Deny(Denial),
}

fn decide<T>(plugin: &Plugin, answer: Result<Result<T, Denial>, Failure>) -> Decided<T> {
    if plugin.spec.mode == Mode::Shadow {
        return Decided::Skip;
    }
    match answer {
        Ok(Ok(value)) => Decided::Go(value),
        Ok(Err(denial)) => Decided::Deny(denial),
        Err(_) if plugin.spec.optional => Decided::Skip,
        Err(failure) => Decided::Deny(judge::failed(plugin, &failure)),
    }
}

type Judged<T> = Result<(T, CallOutcome), Failure>;

fn judge_hello(
    plugin: &Plugin,
    verdict: wire::HelloVerdict,
) -> Judged<Result<wire::Welcome, Denial>> {
    match verdict {
        wire::HelloVerdict::Accept(mut welcome) => {
            judge::carry(&welcome.carry)?;
            welcome.attributes = judge::attributes(plugin, welcome.attributes)?;
            Ok((Ok(welcome), CallOutcome::Ok))
        }
        wire::HelloVerdict::Deny(denial) => {
            Ok((Err(judge::denial(plugin, denial)?), CallOutcome::Deny))
        }
    }
}

fn judge_open(
    plugin: &Plugin,
    before: &[Attribute],
    verdict: wire::OpenVerdict,
) -> Judged<Result<wire::Grant, Denial>> {
    match verdict {
        wire::OpenVerdict::Allow(mut grant) => {
            judge::carry(&grant.carry)?;
            grant.attributes = judge::attributes(plugin, grant.attributes)?;
            judge::fits(before, &grant.attributes)?;
            Ok((Ok(grant), CallOutcome::Ok))
        }
        wire::OpenVerdict::Deny(denial) => {
            Ok((Err(judge::denial(plugin, denial)?), CallOutcome::Deny))
        }
    }
}

enum RequestAnswer {
    Next(Vec<Edit>, Vec<Attribute>),
    Reply(wire::Reply),
    Deny(Denial),
}

fn judge_request(plugin: &Plugin, verdict: wire::RequestVerdict) -> Judged<RequestAnswer> {
    match verdict {
        wire::RequestVerdict::Next(next) => {
            judge::carry(&next.carry)?;
            let edits = judge::edits(plugin, next.edits)?;
            Ok((RequestAnswer::Next(edits, next.carry), CallOutcome::Ok))
        }
        wire::RequestVerdict::Reply(reply) => {
            judge::reply(&reply)?;
            Ok((RequestAnswer::Reply(reply), CallOutcome::Deny))
        }
        wire::RequestVerdict::Deny(denial) => {
            let denial = judge::denial(plugin, denial)?;
            Ok((RequestAnswer::Deny(denial), CallOutcome::Deny))
        }
    }
}

enum ResponseAnswer {
    Next(Vec<Edit>),
    Reply(wire::Reply),
}

fn judge_response(plugin: &Plugin, verdict: wire::ResponseVerdict) -> Judged<ResponseAnswer> {
    match verdict {
        wire::ResponseVerdict::Next(edits) => {
            let edits = judge::edits(plugin, edits)?;
            Ok((ResponseAnswer::Next(edits), CallOutcome::Ok))
        }
        wire::ResponseVerdict::Reply(reply) => {
            judge::reply(&reply)?;
            Ok((ResponseAnswer::Reply(reply), CallOutcome::Deny))
        }
    }
}

/// What the plugin attached before to what it is asked about now.
fn carried<'a>(info: &CallInfo<'a>, plugin: &Plugin) -> &'a [Attribute] {
    info.carry.map_or(&[], |carry| carry.of(&plugin.name))
}

fn apply(headers: &mut Cow<'_, [Field]>, edits: &[Edit]) {
    if !edits.is_empty() {
        let headers = headers.to_mut();
        for edit in edits {
            edit.apply(headers);
        }
    }
}

fn smaller<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (Some(one), None) | (None, Some(one)) => Some(one),
        (None, None) => None,
    }
}

fn heard((): ()) -> Judged<()> {
    Ok(((), CallOutcome::Ok))
}

/// A plugin that is told something has nothing to answer; the observer counted its failure.
fn ignore(told: Result<(), Failure>) {
    let _ = told;
}

#[cfg(test)]
mod tests {
    use super::smaller;

    #[test]
    fn the_smallest_limit_counts_and_none_is_no_limit() {
        assert_eq!(smaller(Some(1), Some(2)), Some(1));
        assert_eq!(smaller(Some(2), Some(1)), Some(1));
        assert_eq!(smaller(None, Some(2)), Some(2));
        assert_eq!(smaller(Some(2), None), Some(2));
        assert_eq!(smaller::<u32>(None, None), None);
    }
}
