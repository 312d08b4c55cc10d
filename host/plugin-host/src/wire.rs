//! What crosses the border between host and guest, as the chains see it.
//!
//! Each served version of the contract has shapes of its own, in [`v0_1`] and [`v0_2`]; a
//! [`Question`] knows how to ask in either and turns both answers into one. Shapes that did not
//! change between the versions stand here. The shapes are derived by hand and not by `bindgen!`,
//! whose code has unsafe blocks and owns what it passes on, while these lower borrowed facts
//! straight into a guest's memory.
//!
//! An answer is as the guest gave it, not yet judged.

pub(crate) mod v0_1;
pub(crate) mod v0_2;

use wasmtime::component::{ComponentNamedList, ComponentType, Lift, Lower};

use crate::facts::{
    Attribute, Bye, CallInfo, Closed, Enrich, Field, Hello, HttpRequest, HttpResponse, LogEntry,
    Open,
};
use crate::hook::Hook;

/// One question of one hook, with the call in which it is put.
///
/// The trait has no lifetime of its own: a future that is generic over one could not be sent to
/// another thread.
pub(crate) trait Question: Copy + Send + Sync {
    const HOOK: Hook;
    type Answer;
    type Params1: ComponentNamedList + Lower + Send + Sync;
    type Answer1: ComponentNamedList + Lift + Send + Sync + 'static;
    type Params2: ComponentNamedList + Lower + Send + Sync;
    type Answer2: ComponentNamedList + Lift + Send + Sync + 'static;

    fn info(&self) -> &CallInfo<'_>;
    /// The question as `wit/0.1` puts it.
    fn ask_v0_1(self, terms: Terms) -> Self::Params1;
    /// What a plugin of `wit/0.1` said.
    fn hear_v0_1(answer: Self::Answer1) -> Result<Self::Answer, PluginError>;
    /// The question as `wit/0.2` puts it.
    fn ask_v0_2(self, terms: Terms) -> Self::Params2;
    /// What a plugin of `wit/0.2` said.
    fn hear_v0_2(answer: Self::Answer2) -> Result<Self::Answer, PluginError>;
}

/// On which terms a plugin is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) budget_ns: u64,
    pub(crate) shadow: bool,
}

/// The plugin answered that it cannot answer.
#[derive(Debug)]
pub(crate) struct PluginError {
    pub(crate) code: String,
    pub(crate) detail: String,
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct About {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) summary: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Denial {
    pub(crate) code: String,
    pub(crate) public: String,
    pub(crate) private: String,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Welcome {
    pub(crate) accept: Vec<String>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum HelloVerdict {
    #[component(name = "accept")]
    Accept(Welcome),
    #[component(name = "deny")]
    Deny(Denial),
}

/// What an enricher found; 0.1 knows no carry here.
#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Findings {
    pub(crate) signals: Vec<String>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Grant {
    #[component(name = "max-bytes")]
    pub(crate) max_bytes: Option<u64>,
    #[component(name = "max-seconds")]
    pub(crate) max_seconds: Option<u32>,
    #[component(name = "idle-seconds")]
    pub(crate) idle_seconds: Option<u32>,
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum OpenVerdict {
    #[component(name = "allow")]
    Allow(Grant),
    #[component(name = "deny")]
    Deny(Denial),
}

#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Edit {
    #[component(name = "set")]
    Set(Field),
    #[component(name = "append")]
    Append(Field),
    #[component(name = "remove")]
    Remove(String),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Next {
    pub(crate) edits: Vec<Edit>,
    pub(crate) carry: Vec<Attribute>,
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<Field>,
    pub(crate) body: Vec<u8>,
}

/// 0.1 knows no `deny`.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum RequestVerdict {
    #[component(name = "next")]
    Next(Next),
    #[component(name = "reply")]
    Reply(Reply),
    #[component(name = "deny")]
    Deny(Denial),
}

/// 0.1 knows edits only.
#[derive(Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum ResponseVerdict {
    #[component(name = "next")]
    Next(Vec<Edit>),
    #[component(name = "reply")]
    Reply(Reply),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum Cover {
    #[component(name = "erase")]
    Erase,
    #[component(name = "hash")]
    Hash,
    #[component(name = "keep-last")]
    KeepLast(u8),
}

#[derive(Debug, ComponentType, Lift)]
#[component(record)]
pub(crate) struct Mask {
    pub(crate) entry: u32,
    pub(crate) field: Option<String>,
    pub(crate) cover: Cover,
}

/// `describe` of `lifecycle`, the same in both versions.
pub(crate) type DescribeResult = (About,);

/// Question of the `hello` hook, with what the plugin said of this session before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskHello<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a Hello<'a>,
    pub(crate) &'a [Attribute],
);

/// News of the `bye` hook, with what the plugin attached to the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TellBye<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a Bye<'a>,
    pub(crate) &'a [Attribute],
);

/// Question of the `enrich` hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskEnrich<'a>(pub(crate) &'a CallInfo<'a>, pub(crate) &'a Enrich<'a>);

/// Question of the `open` hook, with what the plugin found as an enricher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskOpen<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a Open<'a>,
    pub(crate) &'a [Attribute],
);

/// News of the `close` hook, with what the plugin attached to the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TellClose<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a Closed<'a>,
    pub(crate) &'a [Attribute],
);

/// Question of the `http-request` hook, with what the plugin found as an enricher.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskRequest<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a HttpRequest<'a>,
    pub(crate) &'a [Attribute],
);

/// Question of the `http-response` hook, with what the plugin attached to the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskResponse<'a>(
    pub(crate) &'a CallInfo<'a>,
    pub(crate) &'a HttpResponse<'a>,
    pub(crate) &'a [Attribute],
);

/// Question of the `mask` hook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AskMask<'a>(pub(crate) &'a CallInfo<'a>, pub(crate) &'a [LogEntry]);

/// Says how a question is put in each version: parameters and answer of either, and how the
/// answer is heard. An answer of `()` is that of a plugin that is only told.
macro_rules! question {
    ($question:ident => $hook:ident, $answer:ty;
     $params1:ty, $answer1:ty, |$self1:ident, $call1:ident| $ask1:expr, $hear1:expr;
     $params2:ty, $answer2:ty, |$self2:ident, $call2:ident| $ask2:expr, $hear2:expr;) => {
        impl<'a> Question for $question<'a> {
            const HOOK: Hook = Hook::$hook;
            type Answer = $answer;
            type Params1 = $params1;
            type Answer1 = $answer1;
            type Params2 = $params2;
            type Answer2 = $answer2;

            fn info(&self) -> &CallInfo<'_> {
                self.0
            }

            fn ask_v0_1(self, terms: Terms) -> Self::Params1 {
                let ($self1, $call1) = (self, v0_1::Call::new(self.0, terms));
                $ask1
            }

            fn hear_v0_1(answer: Self::Answer1) -> Result<Self::Answer, PluginError> {
                $hear1(answer)
            }

            fn ask_v0_2(self, terms: Terms) -> Self::Params2 {
                let ($self2, $call2) = (self, v0_2::Call::new(self.0, terms));
                $ask2
            }

            fn hear_v0_2(answer: Self::Answer2) -> Result<Self::Answer, PluginError> {
                $hear2(answer)
            }
        }
    };
}

question! { AskHello => Hello, HelloVerdict;
    (v0_1::Call<'a>, v0_1::Hello<'a>), (Result<HelloVerdict, v0_1::Error>,),
    |ask, call| (call, v0_1::Hello::new(ask.1)), v0_1::said;
    (v0_2::Call<'a>, v0_2::Hello<'a>, &'a [Attribute]), (Result<HelloVerdict, v0_2::Error>,),
    |ask, call| (call, v0_2::Hello::new(ask.1), ask.2), v0_2::said;
}

question! { TellBye => Bye, ();
    (v0_1::Call<'a>, &'a Bye<'a>, &'a [Attribute]), (),
    |tell, call| (call, tell.1, tell.2), Ok;
    (v0_2::Call<'a>, v0_2::Bye<'a>, &'a [Attribute]), (),
    |tell, call| (call, v0_2::Bye::new(tell.1), tell.2), Ok;
}

question! { AskEnrich => Enrich, Findings;
    (v0_1::Call<'a>, &'a Enrich<'a>), (Result<Vec<String>, v0_1::Error>,),
    |ask, call| (call, ask.1), v0_1::found;
    (v0_2::Call<'a>, v0_2::Enrich<'a>), (Result<Findings, v0_2::Error>,),
    |ask, call| (call, v0_2::Enrich::new(ask.1)), v0_2::said;
}

question! { AskOpen => Open, OpenVerdict;
    (v0_1::Call<'a>, &'a Open<'a>), (Result<OpenVerdict, v0_1::Error>,),
    |ask, call| (call, ask.1), v0_1::said;
    (v0_2::Call<'a>, v0_2::Open<'a>, &'a [Attribute]), (Result<OpenVerdict, v0_2::Error>,),
    |ask, call| (call, v0_2::Open::new(ask.1), ask.2), v0_2::said;
}

question! { TellClose => Close, ();
    (v0_1::Call<'a>, v0_1::Closed<'a>, &'a [Attribute]), (),
    |tell, call| (call, v0_1::Closed::new(tell.1), tell.2), Ok;
    (v0_2::Call<'a>, v0_2::Closed<'a>, &'a [Attribute]), (),
    |tell, call| (call, v0_2::Closed::new(tell.1), tell.2), Ok;
}

question! { AskRequest => HttpRequest, RequestVerdict;
    (v0_1::Call<'a>, &'a HttpRequest<'a>), (Result<v0_1::RequestVerdict, v0_1::Error>,),
    |ask, call| (call, ask.1), v0_1::said;
    (v0_2::Call<'a>, v0_2::Request<'a>, &'a [Attribute]), (Result<RequestVerdict, v0_2::Error>,),
    |ask, call| (call, v0_2::Request::new(ask.1), ask.2), v0_2::said;
}

question! { AskResponse => HttpResponse, ResponseVerdict;
    (v0_1::Call<'a>, &'a HttpResponse<'a>, &'a [Attribute]), (Result<Vec<Edit>, v0_1::Error>,),
    |ask, call| (call, ask.1, ask.2), v0_1::edited;
    (v0_2::Call<'a>, v0_2::Response<'a>, &'a [Attribute]), (Result<ResponseVerdict, v0_2::Error>,),
    |ask, call| (call, v0_2::Response::new(ask.1), ask.2), v0_2::said;
}

question! { AskMask => Mask, Vec<Mask>;
    (v0_1::Call<'a>, &'a [LogEntry]), (Result<Vec<Mask>, v0_1::Error>,),
    |ask, call| (call, ask.1), v0_1::said;
    (v0_2::Call<'a>, &'a [LogEntry]), (Result<Vec<Mask>, v0_2::Error>,),
    |ask, call| (call, ask.1), v0_2::said;
}
