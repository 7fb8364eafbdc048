//! The one-command start as a test sees it: the shipped configuration with the embedded API, its demo
//! data and a database of its own, on free ports.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};

use super::edge::Edge;
use super::keys::WEBHOOK_SECRET;

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
[inbox]
path = "{dir}/inbox"
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
    let edge = Edge::on(text).await;
    std::fs::write(edge.dir.path().join("ca.pem"), &edge.ca).unwrap();
    edge
}

fn text(dir: &Path) -> String {
    let [https, api] = [free_port(), free_port()].map(|port| port.to_string());
    TEMPLATE
        .replace("{repository}", env!("CARGO_MANIFEST_DIR"))
        .replace("{dir}", &dir.display().to_string())
        .replace("{https}", &https)
        .replace("{api}", &api)
        .replace("{webhook}", WEBHOOK_SECRET)
}

/// The API's port and the one that the redirect names must be known before anybody listens. A port that
/// the system chose could go to an outgoing connection in between, so these are from below its range.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let process = u16::try_from(std::process::id() % 800).unwrap();
    let port = || 20_000 + (process * 13 + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_400;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(port).find(is_free).unwrap()
}
