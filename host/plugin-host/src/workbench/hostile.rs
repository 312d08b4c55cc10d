//! Questions at the edges of what the contract's types allow: what a peer, a client or an
//! origin can send, and more.

use super::inputs::{
    ByeInput, CloseInput, EnrichInput, HelloInput, HttpLineInput, MaskInput, OpenInput, Question,
    RequestInput, ResponseInput,
};
use crate::facts::{Agent, Attribute, Field, Level, LogEntry, Peer, Viewer};
use crate::hook::Hook;

/// Right-to-left marks, a zero-width joiner, combining accents, an astral character, NUL, a
/// line break, a terminal's escape sequence.
const ODD: &str = "\u{202e}a\u{200d}\u{301}\u{301}\u{1f980}\0\r\n\u{1b}[2J\u{feff}%00../\"'\\";
/// Items of a huge list; the hub's own lists are shorter.
const MANY: usize = 1000;
/// Bytes of a long text.
const LONG: usize = 16 * 1024;
/// Bytes that are not UTF-8.
const NOT_TEXT: &[u8] = &[0xff, 0xfe, 0x00, 0xc3, 0x28, 0x80];

/// Named questions for a hook, the ordinary one first.
pub(super) fn questions(hook: Hook) -> Vec<(&'static str, Question)> {
    let mut all = vec![("ordinary", Question::ordinary(hook))];
    all.extend(match hook {
        Hook::Hello => texts(hello),
        Hook::Bye => texts(bye),
        Hook::Enrich => texts(enrich),
        Hook::Open => texts(open),
        Hook::Close => texts(close),
        Hook::HttpRequest => request(),
        Hook::HttpResponse => response(),
        Hook::Mask => mask(),
    });
    all
}

/// The same question with each kind of text in every place that takes one.
fn texts(question: fn(&Kind) -> Question) -> Vec<(&'static str, Question)> {
    Kind::all()
        .iter()
        .map(|kind| (kind.name, question(kind)))
        .collect()
}

/// What fills a question.
struct Kind {
    name: &'static str,
    text: String,
    /// Items of each list.
    items: usize,
    /// Whether what may be absent is there.
    optional: bool,
    number: u64,
}

impl Kind {
    fn all() -> [Self; 5] {
        let kind = |name, text: String, items, optional, number| Self {
            name,
            text,
            items,
            optional,
            number,
        };
        [
            kind("empty texts, nothing optional", String::new(), 0, false, 0),
            kind(
                "odd Unicode and control characters",
                ODD.to_owned(),
                3,
                true,
                1,
            ),
            kind("texts of 16 KiB", "a".repeat(LONG), 1, true, u64::MAX),
            kind("lists of 1000", "x".to_owned(), MANY, true, u64::MAX),
            kind("numbers at their end", "a".to_owned(), 1, true, u64::MAX),
        ]
    }

    fn text(&self) -> String {
        self.text.clone()
    }

    fn option(&self) -> Option<String> {
        self.optional.then(|| self.text())
    }

    fn list(&self) -> Vec<String> {
        (0..self.items)
            .map(|n| format!("{}{n}", self.text))
            .collect()
    }

    fn attributes(&self) -> Vec<Attribute> {
        self.list()
            .into_iter()
            .map(|name| (name, self.text()))
            .collect()
    }

    fn peer(&self) -> Peer {
        Peer {
            // The host writes addresses itself, so they are always addresses.
            ip: if self.optional {
                "2001:db8::ffff"
            } else {
                "0.0.0.0"
            }
            .to_owned(),
            port: u16::try_from(self.number).unwrap_or(u16::MAX),
            tls_version: self.option(),
            sni: self.option(),
            client_san: self.option(),
        }
    }

    fn agent(&self) -> Agent {
        Agent {
            id: self.text(),
            version: self.text(),
            scopes: self.list(),
            attributes: self.attributes(),
        }
    }

    fn viewer(&self) -> Viewer {
        Viewer {
            subject: self.option(),
            issuer: self.option(),
            groups: self.list(),
            attributes: self.attributes(),
        }
    }
}

fn hello(kind: &Kind) -> Question {
    Question::Hello(HelloInput {
        agent: kind.agent(),
        peer: kind.peer(),
        announced: kind.list(),
        why: kind.text(),
    })
}

fn bye(kind: &Kind) -> Question {
    Question::Bye(ByeInput {
        agent_id: kind.text(),
        reason: kind.text(),
        lasted_ms: kind.number,
        flows: kind.number,
    })
}

fn enrich(kind: &Kind) -> Question {
    Question::Enrich(EnrichInput {
        connector: kind.text(),
        listener: kind.text(),
        peer: kind.peer(),
        viewer: kind.viewer(),
        http: kind.optional.then(|| HttpLineInput {
            method: kind.text(),
            authority: kind.text(),
            path: kind.text(),
            header_names: kind.list(),
        }),
    })
}

fn open(kind: &Kind) -> Question {
    Question::Open(OpenInput {
        connector: kind.text(),
        listener: kind.text(),
        peer: kind.peer(),
        viewer: kind.viewer(),
        agent: kind.agent(),
        via_mesh: kind.optional,
    })
}

fn close(kind: &Kind) -> Question {
    Question::Close(CloseInput {
        connector: kind.text(),
        listener: kind.text(),
        peer: kind.peer(),
        viewer: kind.viewer(),
        agent_id: kind.text(),
        cause: kind.text(),
        bytes_c2a: kind.number,
        bytes_a2c: kind.number,
        lasted_ms: kind.number,
    })
}

fn request() -> Vec<(&'static str, Question)> {
    let mut all = texts(|kind| {
        Question::HttpRequest(RequestInput {
            method: kind.text(),
            scheme: kind.text(),
            authority: kind.text(),
            path_with_query: kind.text(),
            headers: fields_of(kind),
            peer: kind.peer(),
            viewer: kind.viewer(),
            agent: kind.agent(),
            endpoint: kind.text(),
            connector: kind.text(),
        })
    });
    for (name, headers) in hostile_headers() {
        let input = RequestInput {
            headers,
            ..RequestInput::default()
        };
        all.push((name, Question::HttpRequest(input)));
    }
    all
}

fn response() -> Vec<(&'static str, Question)> {
    let mut all = Vec::new();
    for (name, status) in [
        ("status 0", 0),
        ("status 65535", u16::MAX),
        ("status 304", 304),
    ] {
        let input = ResponseInput {
            status,
            headers: Vec::new(),
        };
        all.push((name, Question::HttpResponse(input)));
    }
    for (name, headers) in hostile_headers() {
        let input = ResponseInput {
            headers,
            ..ResponseInput::default()
        };
        all.push((name, Question::HttpResponse(input)));
    }
    all
}

fn fields_of(kind: &Kind) -> Vec<Field> {
    kind.list()
        .into_iter()
        .map(|name| (name.to_lowercase(), kind.text.clone().into_bytes()))
        .collect()
}

fn hostile_headers() -> Vec<(&'static str, Vec<Field>)> {
    let field = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let many = (0..MANY).map(|n| field(&format!("x-{n}"), b"1")).collect();
    vec![
        (
            "header values that are not UTF-8",
            ["cookie", "x-forwarded-for", "authorization", "x-any"]
                .map(|name| field(name, NOT_TEXT))
                .to_vec(),
        ),
        ("1000 headers", many),
        ("a header of 16 KiB", vec![field("x-long", &[b'a'; LONG])]),
        (
            "the same header 100 times",
            vec![field("x-forwarded-for", b"192.0.2.9"); 100],
        ),
        ("a header without name and value", vec![field("", b"")]),
    ]
}

fn mask() -> Vec<(&'static str, Question)> {
    let entry = |message: &str, fields: Vec<(String, String)>| LogEntry {
        level: Level::Critical,
        target: message.chars().take(8).collect(),
        message: message.to_owned(),
        fields,
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let batches = [
        ("empty texts", vec![entry("", vec![pair("", "")])]),
        (
            "odd Unicode and control characters",
            vec![entry(ODD, vec![pair(ODD, ODD)])],
        ),
        (
            "a message of 16 KiB",
            vec![entry(&"a@b.".repeat(LONG / 4), Vec::new())],
        ),
        (
            "a full batch of 256",
            vec![entry("user ann@example.com", vec![pair("ip", "192.0.2.1")]); 256],
        ),
        (
            "an entry with 1000 fields",
            vec![entry(
                "many",
                (0..MANY).map(|n| pair(&n.to_string(), "v")).collect(),
            )],
        ),
    ];
    batches
        .into_iter()
        .map(|(name, entries)| (name, Question::Mask(MaskInput { entries })))
        .collect()
}
