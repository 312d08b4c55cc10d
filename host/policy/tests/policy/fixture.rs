//! A hub with a few agents, and questions about them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use nowconnect_policy::{
    AgentFacts, Announce, ConnectorFacts, EndpointFacts, Facts, Hello, Http, HttpRequest,
    ListenerFacts, Meta, Name, Net, Open, PolicyBundle, Question, Signals, SourceFile, Sources,
    Viewer, ViewerFacts,
};

pub(crate) const NOW_MS: u64 = 1_795_248_000_000;

pub(crate) fn name(text: &str) -> Name {
    Name::from_text(text)
}

pub(crate) fn sources(text: &str) -> Sources {
    Sources {
        policies: vec![SourceFile::new("test.cedar", text)],
        ..Sources::default()
    }
}

pub(crate) fn bundle(text: &str) -> PolicyBundle {
    PolicyBundle::compile(&sources(text), 1).unwrap_or_else(|problems| panic!("{problems}"))
}

pub(crate) fn agent(text: &str) -> AgentFacts {
    AgentFacts {
        agent: name(text),
        scopes: Vec::new(),
        ephemeral: false,
        token_expires_ms: NOW_MS + 60_000,
        groups: Vec::new(),
        tags: Vec::new(),
    }
}

/// Agents `a1` and `acme/a1`, connectors `ldap` (in the group `directory`) and `acme/ldap`,
/// endpoint `app`, and listeners.
pub(crate) fn facts() -> Facts {
    let facts = Facts::new();
    facts.put_agent(&agent("a1"));
    facts.put_agent(&agent("acme/a1"));
    facts.put_connector(&ConnectorFacts {
        groups: vec!["directory".into()],
        tags: vec![("zone".to_owned(), "inner".to_owned())],
        ..ConnectorFacts::tcp(name("ldap"))
    });
    facts.put_connector(&ConnectorFacts::tcp(name("acme/ldap")));
    facts.put_endpoint(&EndpointFacts {
        endpoint: name("app"),
        owner: name("a1"),
        host: "app.example.org".to_owned(),
        reserved: false,
        public: false,
        tags: Vec::new(),
    });
    for (listener, port) in [
        ("ldap-port", 10389),
        ("acme/ldap-port", 10390),
        ("tunnel", 8443),
    ] {
        facts.put_listener(&ListenerFacts {
            listener: name(listener),
            port,
            protocol: "tcp".to_owned(),
        });
    }
    facts
}

pub(crate) fn net(listener: &str) -> Net {
    Net {
        source_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)),
        source_port: 40_000,
        listener: name(listener),
        tls: None,
    }
}

pub(crate) fn meta() -> Meta {
    Meta {
        now_ms: NOW_MS,
        hub: "hub-1".into(),
        request_id: "r-1".into(),
        trace_id: None,
        recheck: false,
    }
}

pub(crate) fn open() -> Open {
    Open {
        net: net("ldap-port"),
        meta: meta(),
        viewer: Viewer::Anonymous,
        connector: name("ldap"),
        agent: name("a1"),
        open_flows: 3,
        via_mesh: false,
        signals: Signals::default(),
    }
}

pub(crate) fn hello(agent: AgentFacts, claimed: &str) -> Question {
    Question::Hello(Hello {
        net: net("tunnel"),
        meta: meta(),
        agent: Arc::new(agent),
        claimed: name(claimed),
        agent_version: "0.1.0".to_owned(),
        announced: vec![name("ldap")],
        replacing: false,
    })
}

pub(crate) fn announce(agent: &Arc<AgentFacts>, connector: &str, required: bool) -> Question {
    Question::Announce(Announce {
        net: net("tunnel"),
        meta: meta(),
        agent: Arc::clone(agent),
        connector: name(connector),
        scopes_required: required,
    })
}

pub(crate) fn http_request(viewer: Viewer) -> Question {
    Question::HttpRequest(HttpRequest {
        net: net("ldap-port"),
        meta: meta(),
        viewer,
        endpoint: name("app"),
        connector: name("ldap"),
        agent: name("a1"),
        http: Http {
            method: "GET".to_owned(),
            host: "app.example.org".to_owned(),
            path: "/".to_owned(),
            header_names: vec!["accept".to_owned()],
        },
        signals: Signals::default(),
    })
}

pub(crate) fn viewer(text: &str) -> Viewer {
    Viewer::Known(Arc::new(ViewerFacts {
        viewer: name(text),
        issuer: Some("https://id.example.org".to_owned()),
        email: Some("alice@example.org".to_owned()),
        email_verified: Some(true),
        amr: vec!["pwd".to_owned()],
        auth_time_ms: Some(NOW_MS - 1000),
        // Twice, as a sloppy token has it.
        groups: vec!["staff".into(), "staff".into()],
        tags: vec![("department".to_owned(), "it".to_owned())],
    }))
}
