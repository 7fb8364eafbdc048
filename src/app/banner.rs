//! What the one-command start prints: where everything listens and commands that work as pasted.

use std::io::Write as _;
use std::path::Path;

use crate::config::Environment;
use crate::proxy::shared::Shared;

/// What the demo data is called, for the commands.
pub(crate) struct Demo {
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) org_id: String,
    pub(crate) po_id: String,
    pub(crate) item_id: String,
}

/// Prints to standard output, in development and with demo data only. `file` is the configuration, where
/// it is not the built-in one.
pub(super) fn print(shared: &Shared, demo: Option<&Demo>, file: Option<&Path>) {
    let live = shared.live.load();
    let (Environment::Development, Some(demo), Some((https, tls))) =
        (live.config.environment, demo, &live.config.https)
    else {
        return;
    };
    let ca = tls
        .certificates
        .first()
        .map(|c| c.chain.with_file_name("ca.pem"));
    let ca = ca.unwrap_or_default();
    let (port, ca, admin) = (https.address.port(), ca.display(), live.config.admin);
    let base = format!("https://localhost:{port}");
    let (email, password, org) = (&demo.email, &demo.password, &demo.org_id);
    let (po, item) = (&demo.po_id, &demo.item_id);
    let text = format!(
        r#"
maitred {version} is up, with ChefCloud's API and demo data

  edge     {base}   (development certificate, authority {ca})
  admin    http://{admin}   metrics, health, refusals, inbox
  user     {email} / {password}   organisation {org}

Log in (the token is good for 15 minutes):
  TOKEN=$(curl -s --cacert {ca} {base}/auth/login -H 'content-type: application/json' -d '{{"email":"{email}","password":"{password}"}}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/')

A signed webhook; the second, replayed one is refused:
  TS=$(date +%s%3N); BODY='{{"event":"invoice.paid","id":"evt_'$TS'","amount":5000}}'; SIG=$(printf '%s.%s' "$TS" "$BODY" | openssl dgst -sha256 -hmac {secret} -hex | sed 's/.* //')
  for n in 1 2; do curl -s -o /dev/null -w '%{{http_code}}\n' --cacert {ca} {base}/webhooks/billing -H 'content-type: application/json' -H "x-timestamp: $TS" -H "x-signature: $SIG" -H "x-request-id: try-$n" --data-binary "$BODY"; done

A live stream (ends by itself after 5 seconds here):
  curl -sN --max-time 5 --cacert {ca} "{base}/stream/kpis?orgId={org}" -H "authorization: Bearer $TOKEN"

A cached GET, MISS then HIT; receiving goods makes it a MISS again:
  for n in 1 2; do curl -s -o /dev/null -D - --cacert {ca} "{base}/franchise/overview?orgId={org}&range=today" -H "authorization: Bearer $TOKEN" | grep -i -E '^(x-cache|cache-status|age):'; done
  curl -s --cacert {ca} {base}/procurement/purchase-orders/receive -H "authorization: Bearer $TOKEN" -H 'content-type: application/json' -d '{{"orgId":"{org}","poId":"{po}","receivedBy":"demo","items":[{{"itemId":"{item}","quantity":1}}]}}'

Metrics, and the whole validation in one command:
  curl -s http://{admin}/metrics
  {maitred} smoke{config}
"#,
        version = env!("CARGO_PKG_VERSION"),
        maitred = this_program(),
        config = file
            .map(|f| format!(" --config {}", word(f)))
            .unwrap_or_default(),
        secret = "\"${WH_SECRET:-dev-webhook-secret-for-one-machine-only}\"",
    );
    // Nobody reads it when standard output is closed; the edge serves all the same.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// As it can be called from the folder it was started in.
fn this_program() -> String {
    let (Ok(program), Ok(here)) = (std::env::current_exe(), std::env::current_dir()) else {
        return "maitred".into();
    };
    match program.strip_prefix(here) {
        Ok(below) => word(&Path::new(".").join(below)),
        Err(_) => word(&program),
    }
}

/// A path as one word for a POSIX shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}
