//! A client of the gateway.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::Failed;
use crate::stage::PATIENCE;

/// A flow through the gateway, held by a client.
#[derive(Debug)]
pub struct Flow(TcpStream);

impl Flow {
    /// Connects to a listener.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(port: u16) -> Result<Self, Failed> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream =
            TcpStream::connect_timeout(&address, PATIENCE).map_err(Failed::doing(address))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .map_err(Failed::doing(address))?;
        Ok(Self(stream))
    }

    /// The client's own address, by which the hub's log and decisions name it.
    #[must_use]
    pub fn client(&self) -> String {
        self.0
            .local_addr()
            .map(|address| address.to_string())
            .unwrap_or_default()
    }

    /// Whether `text` comes back.
    pub fn echoes(&mut self, text: &str) -> bool {
        let mut back = vec![0; text.len()];
        self.0.write_all(text.as_bytes()).is_ok()
            && self.0.read_exact(&mut back).is_ok()
            && back == text.as_bytes()
    }

    /// Sends a request and returns all that comes back until the end; nothing if the hub closes.
    pub fn ask(&mut self, request: &str) -> String {
        let mut answer = String::new();
        if self.0.write_all(request.as_bytes()).is_ok() {
            // A refusal may come as an end or as a reset.
            let _ = self.0.read_to_string(&mut answer);
        }
        answer
    }
}
