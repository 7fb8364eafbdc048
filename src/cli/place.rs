//! Where commands find the edge when they are not told: the configuration's own listener on this
//! machine, and in development the authority that its certificate comes from.

use std::path::{Path, PathBuf};

use crate::config::{Config, Environment};

/// How a URL names this machine.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The edge's URL and whom to trust. The development authority counts only for the configuration's own
/// edge: somebody else's is known to browsers, or has a `--ca`.
pub(super) fn whereabouts(
    config: &Config,
    base: Option<&str>,
    ca: Option<&Path>,
) -> (String, Option<PathBuf>) {
    let own = own(config);
    let base = base.map_or(own.as_str(), |base| base.trim_end_matches('/'));
    let same = LOOPBACK
        .iter()
        .any(|host| base == own.replace("localhost", host));
    let ca = ca.map(Path::to_owned);
    let ca = ca.or_else(|| authority(config).filter(|_| same));
    (base.to_owned(), ca)
}

/// The https listener as this machine reaches it.
fn own(config: &Config) -> String {
    match &config.https {
        Some((listener, _)) => format!("https://localhost:{}", listener.address.port()),
        None => "https://localhost".into(),
    }
}

/// The development authority, once the first start has made it.
fn authority(config: &Config) -> Option<PathBuf> {
    let (_, tls) = config.https.as_ref()?;
    let file = tls.certificates.first()?.chain.with_file_name("ca.pem");
    let ours = config.environment == Environment::Development && file.is_file();
    ours.then_some(file)
}
