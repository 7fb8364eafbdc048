//! The one-command start as a test sees it: the shipped configuration with the embedded API, its demo
//! data and a database of its own, on ports that the system chose.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use super::edge::Edge;
use super::keys::{Authority, WEBHOOK_SECRET};

/// Over `config/dev.toml`; `{…}` is filled in.
const TEMPLATE: &str = r#"
include = ["{repository}/config/dev.toml"]
[server]
threads = 2
upgrade_socket = "{dir}/upgrade.sock"
[listeners.https]
address = "127.0.0.1:{https}"
[listeners.http]
address = "127.0.0.1:0"
redirect_to_port = {https}
[listeners.admin]
address = "127.0.0.1:0"
[tls]
certificates = [{ chain = "{dir}/localhost.pem", key = "{dir}/localhost.key" }]
[webhooks.endpoints.billing]
secrets = [{ name = "current", danger_secret = "{webhook}" }]
[upstreams.api]
endpoints = ["127.0.0.1:{api}"]
[embedded_api]
listen = "127.0.0.1:{api}"
database_url = "sqlite://{dir}/chefcloud.db?mode=rwc"
[log]
format = "json"
"#;

/// Starts it; `ca.pem` in its folder is the authority of its certificate.
pub async fn start() -> Edge {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let authority = Arc::new(Authority::new());
    authority.issue(dir.path(), "localhost", &["localhost"]);
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    let config = dir.path().join("maitred.toml");
    std::fs::write(&config, text(dir.path())).unwrap();
    Edge::launch(config, dir, authority, &[]).await
}

/// The API's port and the one that the redirect names must be known before anybody listens, so both
/// are chosen at the same moment and given back just before the start.
fn text(dir: &Path) -> String {
    let chosen = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [https, api] = chosen.map(|listener| listener.local_addr().unwrap().port().to_string());
    TEMPLATE
        .replace("{repository}", env!("CARGO_MANIFEST_DIR"))
        .replace("{dir}", &dir.display().to_string())
        .replace("{https}", &https)
        .replace("{api}", &api)
        .replace("{webhook}", WEBHOOK_SECRET)
}
