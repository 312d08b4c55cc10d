//! `nowconnect url`: URLs that are good for a time, for routes with the way `signed_url`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use http::{Method, Uri};

use super::Exit;
use crate::config::ListenerName;
use crate::ingress::{Authority, normal_path};
use crate::viewer::signed_url::{Terms, UrlKey, has_parameters};

/// Signs URLs.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print a URL with a signature, which whoever has it may use until it ends
    ///
    /// Method, host, path and query are signed; scheme and port are not. Nothing is asked of a hub.
    Sign {
        /// The whole URL, such as `https://files.example.com/report.pdf`
        url: String,
        /// The name of the key in the hub's `signed_url.keys`
        #[arg(short, long, value_name = "NAME")]
        key_name: String,
        /// The file with the key's secret
        #[arg(short = 'f', long, value_name = "FILE")]
        key_file: PathBuf,
        /// How long it is to be good for, in seconds
        #[arg(short, long, value_name = "SECONDS", default_value_t = 3600,
              value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        expires_in_sec: u64,
        /// The method that it is for; GET is for HEAD as well
        #[arg(short, long, default_value = "GET")]
        method: String,
    },
}

impl Command {
    /// Runs the command.
    pub fn run(self) -> Exit {
        let Self::Sign {
            url,
            key_name,
            key_file,
            expires_in_sec,
            method,
        } = self;
        let until = SystemTime::now() + Duration::from_secs(expires_in_sec);
        let key = match UrlKey::read(&key_file) {
            Ok(key) => key,
            Err(error) => return complain(&error.to_string()),
        };
        match signed(&url, (&key_name, &key), &method, until) {
            Ok(signed) => match writeln!(io::stdout().lock(), "{signed}") {
                Ok(()) => Exit::Success,
                Err(_) => Exit::Failure,
            },
            Err(problem) => complain(&problem),
        }
    }
}

/// The URL with its signature. It is written with the path that the hub makes of it.
fn signed(
    url: &str,
    (key_name, key): (&str, &UrlKey),
    method: &str,
    until: SystemTime,
) -> Result<String, String> {
    let key_name = ListenerName::parse(key_name)
        .map_err(|_| format!("`{key_name}` cannot be the name of a key"))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| format!("`{method}` is no method of HTTP"))?;
    let parsed = url
        .parse::<Uri>()
        .map_err(|_| format!("`{url}` is no URL"))?;
    let (Some(scheme), Some(written)) = (parsed.scheme_str(), parsed.authority()) else {
        return Err(format!("`{url}` is no whole URL: begin with `https://`"));
    };
    let authority = Authority::parse(written.as_str()).map_err(|error| error.to_string())?;
    let path = normal_path(parsed.path()).map_err(|error| error.to_string())?;
    let query = parsed.query().unwrap_or_default();
    if has_parameters(query) {
        return Err("the URL has parameters of a signature already: leave them out".to_owned());
    }
    let expires_s = until
        .duration_since(UNIX_EPOCH)
        .map_err(|_| "the clock is before 1970".to_owned())?
        .as_secs();
    let terms = Terms {
        method: method.as_str(),
        host: &authority.host,
        path: &path.text,
        query,
        expires_s,
    };
    let parameters = key.sign(&key_name, &terms);
    let and = if query.is_empty() { "" } else { "&" };
    Ok(format!(
        "{scheme}://{authority}{}?{query}{and}{parameters}",
        path.text
    ))
}

fn complain(problem: &str) -> Exit {
    // Where stderr is closed the exit code still tells.
    let _ = writeln!(io::stderr().lock(), "nowconnect: {problem}");
    Exit::Usage
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    #[test]
    fn what_the_hub_reads_is_what_was_signed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
        let key = UrlKey::read(&file).unwrap();
        let until = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let sign = |url: &str, method: &str| signed(url, ("2026-01", &key), method, until);
        assert_eq!(
            sign("https://Files.Example.com/a/../report%2Epdf?page=2", "GET").unwrap(),
            "https://files.example.com/report.pdf?page=2&nc-expires=2000000000&nc-key=2026-01&\
             nc-signature=TiCWUcU3YdbgMImAj9HQEtR6FDShsa9RSbsF1jLcKBU"
        );
        assert_eq!(
            sign("http://files.example.com:8082/report.pdf", "POST").unwrap(),
            "http://files.example.com:8082/report.pdf?nc-expires=2000000000&nc-key=2026-01&\
             nc-method=POST&nc-signature=VGc095aX6Yk6bDovkkEwvLpV5KBED_FwgPH6Hq6y_Gc"
        );
        for wrong in [
            "/report.pdf",
            "https://a b/",
            "https://a/..",
            "https://a/?nc-key=1",
        ] {
            assert!(sign(wrong, "GET").is_err(), "{wrong}");
        }
        assert!(sign("https://a/", "G T").is_err());
    }
}
