//! WASI with all doors closed, for toolchains that import it whatever a plugin does.
//!
//! Linked only where it is imported and granted. There are no files, arguments, environment or
//! standard input, and no sockets: what asks for them gets an error or nothing. The clocks and
//! the random numbers are the host's. What is written to standard output and error becomes lines
//! of the plugin's log, within the same bounds as those of the capability `log`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};
use wasmtime_wasi::{WasiCtx, WasiCtxView, async_trait};

/// Bytes of both outputs that one call may write; the rest is thrown away.
const OUTPUT_BYTES_MAX: usize = 8 * 1024;
/// Streams, pollables and the like that a guest may hold at once.
const RESOURCES_MAX: usize = 256;
/// Random bytes that a guest may ask for at once.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// The closed world of one instance.
pub(crate) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    output: Output,
}

impl Wasi {
    pub(crate) fn new() -> Self {
        let output = Output::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let context = WasiCtx::builder()
            .stdout(output.clone())
            .stderr(output.clone())
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .max_random_size(RANDOM_BYTES_MAX)
            .build();
        Self {
            context,
            table,
            output,
        }
    }

    pub(crate) fn view(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.context,
            table: &mut self.table,
        }
    }

    /// What was written since the last time, as text.
    pub(crate) fn take_output(&mut self) -> String {
        let bytes = std::mem::take(&mut *self.output.0.lock());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Where both outputs go: one buffer, so that their lines stay in order.
#[derive(Clone, Debug, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock();
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(OUTPUT_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.keep(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
