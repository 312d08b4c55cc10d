//! How each rival is set up: its fastest usual configuration, and nothing but what the test
//! needs. What is not said keeps the rival's default.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::credentials::ServerFiles;
use super::{RunningPeer, Yard, free_port, run_tool};
use crate::failure::{Context, Failure};

/// Connections an HAProxy may hold: the 9,000 idle ones and room, within 20,000 descriptors.
const HAPROXY_MAX_CONNECTIONS: u32 = 9_800;

/// The client straight to the backend, or through the far-away proxy alone.
pub(super) fn start_direct(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let link = yard.link(yard.site.backend.port())?;
    Ok(RunningPeer::new(link.port, Vec::new(), Some(link)))
}

pub(super) fn start_haproxies(yard: &Yard<'_>, tls: bool) -> Result<RunningPeer, Failure> {
    let (public, inner) = (free_port()?, free_port()?);
    let link = yard.link(inner)?;
    let files = ServerFiles::create(&yard.dir)?;
    let (server_tls, bind_tls) = if tls {
        let bind = format!(" ssl crt {}", files.both.display());
        (" ssl verify none".to_owned(), bind)
    } else {
        (String::new(), String::new())
    };
    let outer_file = yard.write("outer.cfg", &haproxy(public, "", link.port, &server_tls))?;
    let inner_file = yard.write(
        "inner.cfg",
        &haproxy(inner, &bind_tls, yard.site.backend.port(), ""),
    )?;
    let mut processes = Vec::new();
    for (name, file) in [("outer", &outer_file), ("inner", &inner_file)] {
        let file = file.display().to_string();
        processes.push(yard.spawn(name, "haproxy", &["-db", "-f", &file], &[])?);
    }
    Ok(RunningPeer::new(public, processes, Some(link)))
}

fn haproxy(port: u16, bind_more: &str, to: u16, server_more: &str) -> String {
    format!(
        "global\n  nbthread 2\n  maxconn {HAPROXY_MAX_CONNECTIONS}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend in\n  bind 127.0.0.1:{port}{bind_more}\n  default_backend out\n\
         backend out\n  server s 127.0.0.1:{to}{server_more}\n"
    )
}

pub(super) fn start_rathole(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (control, public) = (free_port()?, free_port()?);
    let link = yard.link(control)?;
    let files = ServerFiles::create(&yard.dir)?;
    let bundle = yard.dir.join("server.p12").display().to_string();
    // Without `-legacy`: the OpenSSL that rathole is linked with lacks the old ciphers.
    let arguments = [
        "pkcs12",
        "-export",
        "-passout",
        "pass:bench",
        "-out",
        &bundle,
        "-inkey",
        &files.key.display().to_string(),
        "-in",
        &files.certificate.display().to_string(),
    ];
    run_tool(&yard.program("openssl")?, &arguments)?;
    let server = yard.write(
        "server.toml",
        &format!(
            "[server]\nbind_addr = \"127.0.0.1:{control}\"\ndefault_token = \"bench\"\n\
             [server.transport]\ntype = \"tls\"\n\
             [server.transport.tls]\npkcs12 = \"{bundle}\"\npkcs12_password = \"bench\"\n\
             [server.services.bench]\nbind_addr = \"127.0.0.1:{public}\"\n"
        ),
    )?;
    let client = yard.write(
        "client.toml",
        &format!(
            "[client]\nremote_addr = \"127.0.0.1:{}\"\ndefault_token = \"bench\"\n\
             [client.transport]\ntype = \"tls\"\n\
             [client.transport.tls]\ntrusted_root = \"{}\"\nhostname = \"localhost\"\n\
             [client.services.bench]\nlocal_addr = \"{}\"\n",
            link.port,
            files.ca.display(),
            yard.site.backend
        ),
    )?;
    let quiet = [("RUST_LOG".to_owned(), "error".to_owned())];
    let server = server.display().to_string();
    let client = client.display().to_string();
    let processes = vec![
        yard.spawn("server", "rathole", &["--server", &server], &quiet)?,
        yard.spawn("client", "rathole", &["--client", &client], &quiet)?,
    ];
    Ok(RunningPeer::new(public, processes, Some(link)))
}

pub(super) fn start_wstunnel(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (control, public) = (free_port()?, free_port()?);
    let link = yard.link(control)?;
    let listen = format!("wss://127.0.0.1:{control}");
    let reach = format!("wss://127.0.0.1:{}", link.port);
    let forward = format!("tcp://127.0.0.1:{public}:{}", yard.site.backend);
    let server = ["--log-lvl", "ERROR", "server", &listen];
    let client = ["--log-lvl", "ERROR", "client", "-R", &forward, &reach];
    let processes = vec![
        yard.spawn("server", "wstunnel", &server, &[])?,
        yard.spawn("client", "wstunnel", &client, &[])?,
    ];
    Ok(RunningPeer::new(public, processes, Some(link)))
}

pub(super) fn start_frp(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (control, public) = (free_port()?, free_port()?);
    let link = yard.link(control)?;
    // The old form of the configuration, which every version reads.
    let server = yard.write(
        "frps.ini",
        &format!("[common]\nbind_addr = 127.0.0.1\nbind_port = {control}\nlog_level = error\n"),
    )?;
    let client = yard.write(
        "frpc.ini",
        &format!(
            "[common]\nserver_addr = 127.0.0.1\nserver_port = {}\nlog_level = error\n\
             tls_enable = true\n\
             [bench]\ntype = tcp\nlocal_ip = 127.0.0.1\nlocal_port = {}\nremote_port = {public}\n",
            link.port,
            yard.site.backend.port()
        ),
    )?;
    let server = server.display().to_string();
    let client = client.display().to_string();
    let processes = vec![
        yard.spawn("frps", "frps", &["-c", &server], &[])?,
        yard.spawn("frpc", "frpc", &["-c", &client], &[])?,
    ];
    Ok(RunningPeer::new(public, processes, Some(link)))
}

pub(super) fn start_chisel(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (control, public) = (free_port()?, free_port()?);
    let link = yard.link(control)?;
    let listen = control.to_string();
    let reach = format!("http://127.0.0.1:{}", link.port);
    let forward = format!("R:127.0.0.1:{public}:{}", yard.site.backend);
    let server = ["server", "--reverse", "--host", "127.0.0.1", "-p", &listen];
    let processes = vec![
        yard.spawn("server", "chisel", &server, &[])?,
        yard.spawn("client", "chisel", &["client", &reach, &forward], &[])?,
    ];
    Ok(RunningPeer::new(public, processes, Some(link)))
}

pub(super) fn start_ssh(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    let (control, public) = (free_port()?, free_port()?);
    let link = yard.link(control)?;
    let keygen = yard.program("ssh-keygen")?;
    let host_key = yard.dir.join("host").display().to_string();
    let user_key = yard.dir.join("user").display().to_string();
    for key in [&host_key, &user_key] {
        run_tool(&keygen, &["-q", "-t", "ed25519", "-N", "", "-f", key])?;
    }
    make_privilege_separation_folder()?;
    let config = yard.write(
        "sshd_config",
        &format!(
            "ListenAddress 127.0.0.1:{control}\nHostKey {host_key}\nPidFile none\n\
             AuthorizedKeysFile {user_key}.pub\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
             PermitRootLogin prohibit-password\nAllowTcpForwarding yes\nLogLevel ERROR\n"
        ),
    )?;
    let config = config.display().to_string();
    // It re-executes itself and wants its whole path, which `spawn` gives it.
    let server = yard.spawn("sshd", "sshd", &["-D", "-e", "-f", &config], &[])?;
    wait_for_port(control)?;
    let (port, forward) = (
        link.port.to_string(),
        format!("127.0.0.1:{public}:{}", yard.site.backend),
    );
    let client = [
        "-N",
        "-F",
        "none",
        "-p",
        &port,
        "-i",
        &user_key,
        "-R",
        &forward,
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "ExitOnForwardFailure=yes",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "BatchMode=yes",
        "-c",
        "aes128-gcm@openssh.com",
        "127.0.0.1",
    ];
    let client = yard.spawn("ssh", "ssh", &client, &[])?;
    Ok(RunningPeer::new(public, vec![server, client], Some(link)))
}

/// sshd refuses to start without this folder, which a service manager would have made.
fn make_privilege_separation_folder() -> Result<(), Failure> {
    let folder = Path::new("/run/sshd");
    if folder.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(folder).context(|| "create /run/sshd".to_owned())?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn wait_for_port(port: u16) -> Result<(), Failure> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    Err(Failure::new(format!("nothing listens on port {port}")))
}

/// The control port of bore is a constant of its program.
const BORE_CONTROL: u16 = 7835;

pub(super) fn start_bore(yard: &Yard<'_>) -> Result<RunningPeer, Failure> {
    if yard.site.round_trip.is_some() {
        return Err(Failure::new("bore's control port cannot be moved"));
    }
    let public = free_port()?.to_string();
    let server = [
        "server",
        "--min-port",
        &public,
        "--max-port",
        &public,
        "--bind-addr",
        "127.0.0.1",
    ];
    let server = yard.spawn("server", "bore", &server, &[])?;
    wait_for_port(BORE_CONTROL)?;
    let to = yard.site.backend.port().to_string();
    let client = ["local", &to, "--to", "127.0.0.1", "--port", &public];
    let client = yard.spawn("client", "bore", &client, &[])?;
    let public = public.parse().context(|| "read back a port".to_owned())?;
    Ok(RunningPeer::new(public, vec![server, client], None))
}
