//! The end of an agent reaches responses that their viewers do not read.

use tokio::task::JoinHandle;

use super::endings::{ended, flood, is_reset, stuck};
use super::streams::Played;
use super::{SHOP, web, web_hub};
use crate::cluster::TestHub;
use crate::cluster::web::Web;

#[tokio::test]
async fn an_operators_kick_reaches_viewers_that_read_nothing() {
    let origin = Played::new().await;
    let hub = web_hub(&[SHOP]).admin().start().await;
    let _agent = hub.plant("shop", origin.address()).await;
    let unread = Unread::new(&hub, &origin).await;
    hub.operator().kick_agent("plant").await.unwrap();
    unread.until_ended(&hub).await;
}

/// A response without end whose viewer has read its head, and nothing since.
struct Unread {
    viewer: Web,
    flooding: JoinHandle<()>,
}

impl Unread {
    async fn new(hub: &TestHub, origin: &Played) -> Self {
        let mut viewer = Web::connect(web(hub)).await;
        let flooding = flood(&mut viewer, origin).await;
        stuck(hub).await;
        Self { viewer, flooding }
    }

    async fn until_ended(mut self, hub: &TestHub) {
        self.flooding.await.unwrap();
        ended(hub, "origin_broke").await;
        assert!(is_reset(&mut self.viewer.stream).await);
    }
}
