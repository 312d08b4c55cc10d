//! A hub with nothing but its mesh, and flows that count what arrives.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use nowconnect_mesh::{
    CloseCode, Credentials, LinkEnd, LinkState, LinkTerms, LinkUser, Mesh, MeshObserver,
    MeshSettings, MeshTasks, PeerUrl, PeerView, ReadyLink, ReplicaId,
};
use nowconnect_protocol::mesh::MeshHello;
use nowconnect_registry::Seen;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::authority::Files;

impl Files {
    /// What is in them now, as of this hub.
    pub(crate) fn load(&self, replica: &str) -> Arc<Credentials> {
        Arc::new(Credentials::load(&self.mesh_files(), &name(replica)).unwrap())
    }
}

/// How long a test waits for what has to happen.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn name(text: &str) -> ReplicaId {
    ReplicaId::parse(text).unwrap()
}

/// A link that was handed over.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) theirs: MeshHello,
    pub(crate) dialled: bool,
    pub(crate) version: u16,
}

/// What happened at one hub.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) failed: Vec<(String, &'static str)>,
    pub(crate) turned_away: Vec<&'static str>,
    pub(crate) reconnected: Vec<String>,
    /// Every link that was handed over, and every end.
    pub(crate) links: Vec<Taken>,
    pub(crate) ends: Vec<LinkEnd>,
    /// What peers sent, by their name.
    pub(crate) heard: Vec<(ReplicaId, Bytes)>,
}

/// Sends one message at the start of each link and notes what arrives.
#[derive(Clone, Default)]
pub(crate) struct Notes(pub(crate) Arc<Mutex<Noted>>);

impl MeshObserver for Notes {
    fn peers(&self, _: &[PeerView]) {}

    fn reconnected(&self, peer: &str) {
        self.0.lock().reconnected.push(peer.to_owned());
    }

    fn failed(&self, peer: &str, code: &'static str) {
        self.0.lock().failed.push((peer.to_owned(), code));
    }

    fn turned_away(&self, _: IpAddr, code: &'static str) {
        self.0.lock().turned_away.push(code);
    }
}

struct Flows {
    name: ReplicaId,
    notes: Notes,
}

impl LinkUser for Flows {
    fn terms(&self) -> LinkTerms {
        LinkTerms {
            max_data_payload: 1024,
            flow_window: 32_768,
            release: format!("release of {}", self.name),
        }
    }

    fn serve(&self, link: ReadyLink) -> BoxFuture<'static, LinkEnd> {
        let notes = self.notes.clone();
        let greeting = Bytes::from(format!("flows of {}", self.name));
        Box::pin(async move {
            notes.0.lock().links.push(Taken {
                theirs: link.theirs.clone(),
                dialled: link.dialled,
                version: link.version,
            });
            let end = serve(link, greeting, &notes).await;
            notes.0.lock().ends.push(end.clone());
            end
        })
    }
}

async fn serve(mut link: ReadyLink, greeting: Bytes, notes: &Notes) -> LinkEnd {
    if let Err(error) = link.ws.send(Message::Binary(greeting)).await {
        return LinkEnd::Broken(error.to_string().into());
    }
    loop {
        tokio::select! {
            code = link.close.wanted() => {
                // The peer may have gone meanwhile.
                let _ = link.ws.close(Some(code.frame())).await;
                return LinkEnd::ByUs(code);
            }
            message = link.ws.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    notes.0.lock().heard.push((link.theirs.replica.clone(), bytes));
                }
                Some(Ok(Message::Close(frame))) => {
                    return LinkEnd::ByPeer(CloseCode::of_frame(frame.as_ref()));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return LinkEnd::Broken(error.to_string().into()),
                None => return LinkEnd::Broken("closed".into()),
            }
        }
    }
}

/// A hub that runs.
pub(crate) struct Hub {
    pub(crate) name: ReplicaId,
    pub(crate) mesh: Mesh,
    pub(crate) notes: Notes,
    pub(crate) address: SocketAddr,
    pub(crate) seen: watch::Sender<Seen>,
    pub(crate) settings: MeshSettings,
    pub(crate) files: Option<Files>,
    tasks: Option<MeshTasks>,
    port: JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.port.abort();
    }
}

impl Hub {
    /// A hub with these files that dials these addresses, at a free port.
    pub(crate) async fn start(replica: &str, files: Files, peers: &[String]) -> Self {
        let settings = MeshSettings {
            credentials: Some(files.load(replica)),
            ..settings(peers)
        };
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::start_at(replica, port, settings, Some(files))
    }

    pub(crate) fn start_at(
        replica: &str,
        port: TcpListener,
        settings: MeshSettings,
        files: Option<Files>,
    ) -> Self {
        let notes = Notes::default();
        let flows = Flows {
            name: name(replica),
            notes: notes.clone(),
        };
        let (seen, others) = watch::channel(Seen::default());
        let tasks = MeshTasks::start(
            name(replica),
            rand::random(),
            settings.clone(),
            others,
            Arc::new(flows),
            Arc::new(notes.clone()),
        );
        let mesh = tasks.mesh();
        let address = port.local_addr().unwrap();
        let served = mesh.clone();
        Self {
            name: name(replica),
            mesh,
            notes,
            address,
            seen,
            settings,
            files,
            tasks: Some(tasks),
            port: tokio::spawn(async move { served.serve(&port).await }),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://{}/mesh", self.address)
    }

    pub(crate) fn view(&self, peer: &str) -> Option<PeerView> {
        self.mesh.peers().into_iter().find(|view| view.peer == peer)
    }

    pub(crate) fn state(&self, peer: &str) -> Option<LinkState> {
        self.view(peer).map(|view| view.state)
    }

    /// Waits until a link to the other hub stands.
    pub(crate) async fn linked(&self, peer: &str) {
        let what = format!("{} links to {peer}: {:?}", self.name, self.mesh.peers());
        until(&what, || self.state(peer) == Some(LinkState::Established)).await;
    }

    pub(crate) fn update(&mut self, change: impl FnOnce(&mut MeshSettings)) {
        change(&mut self.settings);
        self.mesh.update(self.settings.clone());
    }

    /// Reads the files again, after `change`.
    pub(crate) fn reload(&mut self, change: impl FnOnce(&Files)) {
        let files = self.files.as_ref().unwrap();
        change(files);
        let credentials = files.load(self.name.as_str());
        self.update(|settings| settings.credentials = Some(credentials));
    }

    pub(crate) async fn shutdown(&mut self) {
        if let Some(tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
        self.port.abort();
    }

    pub(crate) fn links(&self) -> usize {
        self.notes.0.lock().links.len()
    }
}

pub(crate) fn settings(peers: &[String]) -> MeshSettings {
    MeshSettings {
        peers: peers
            .iter()
            .map(|url| PeerUrl::parse(url).unwrap())
            .collect(),
        connect_backoff_max: Duration::from_millis(300),
        ..MeshSettings::default()
    }
}

/// Polls until it is so, and fails the test where that takes too long.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
