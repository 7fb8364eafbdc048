//! Commands as a person meets them: arguments in, text and exit code out.

use std::cell::RefCell;
use std::io::{self, Read as _, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::thread::JoinHandle;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{Output, Serve, run};
use crate::config::{Config, ConfigSource, Env};

const BODY: &str = r#"{"event":"invoice.paid","id":"evt_test_123","amount":5000}"#;
const SECRET: &str = "dev-webhook-secret-for-one-machine-only";

/// A writer that a test can read.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a command line did.
struct Done {
    code: ExitCode,
    out: String,
    err: String,
}

impl Done {
    /// `ExitCode` has no equality, but it can be shown.
    fn is(&self, code: u8) -> bool {
        format!("{:?}", self.code) == format!("{:?}", ExitCode::from(code))
    }
}

fn maitred(line: &[&str]) -> Done {
    maitred_with(line, &[])
}

fn maitred_with(line: &[&str], env: &[(&str, &str)]) -> Done {
    let (out, err) = (Pipe::default(), Pipe::default());
    let mut output = Output::to(Box::new(out.clone()), Box::new(err.clone()));
    let arguments = std::iter::once("maitred")
        .chain(line.iter().copied())
        .map(Into::into);
    let env: Env = env.iter().copied().collect();
    let code = run(arguments, env, &mut output, start);
    let text = |pipe: &Pipe| String::from_utf8(pipe.0.borrow().clone()).unwrap();
    Done {
        code,
        out: text(&out),
        err: text(&err),
    }
}

/// Tells by its exit code how it was started.
fn start(_config: Config, _source: ConfigSource, how: Serve) -> ExitCode {
    ExitCode::from(match how {
        Serve::Fresh => 40,
        Serve::Upgrade => 41,
    })
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("maitred-cli-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// Answers one request and gives back what it was.
fn server(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        while !complete(&seen) {
            let n = socket.read(&mut piece).unwrap();
            seen.extend_from_slice(&piece[..n]);
        }
        socket.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(seen).unwrap()
    });
    (base, thread)
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    !head.starts_with("POST") || body.len() >= BODY.len()
}

#[test]
fn serve_is_what_no_command_means() {
    assert!(maitred(&[]).is(40));
    assert!(maitred(&["serve"]).is(40));
    assert!(maitred(&["serve", "--upgrade"]).is(41));
}

#[test]
fn bad_usage_is_64_and_help_is_not() {
    assert!(maitred(&["bogus"]).is(64));
    assert!(maitred(&["--help"]).is(0));
    assert!(maitred(&["version"]).out.starts_with("maitred 0."));
}

#[test]
fn a_bad_file_is_64_and_every_problem_is_told() {
    let path = file("bad.toml", "enviroment = 1\n[cors]\nmax_age_s = \"x\"\n");
    let done = maitred(&["serve", "--config", path.to_str().unwrap()]);
    assert!(done.is(64));
    assert!(
        done.err.contains("bad.toml:1:1: enviroment: unknown key"),
        "{}",
        done.err
    );
    assert!(
        done.err.contains("bad.toml:3:13: cors.max_age_s: is text"),
        "{}",
        done.err
    );
}

#[test]
fn the_variable_names_the_file_too() {
    let path = file("named.toml", "nonsense = 1\n");
    let done = maitred_with(
        &["config", "show"],
        &[("MAITRED_CONFIG", path.to_str().unwrap())],
    );
    assert!(done.is(64));
    assert!(done.err.contains("nonsense"));
}

#[test]
fn check_says_go_or_no_go() {
    let done = maitred(&["check", "--offline"]);
    assert!(done.is(0), "{}{}", done.out, done.err);
    assert!(done.out.ends_with("go\n"));
    let path = file("check.toml", "[log]\nlevel = 3\n");
    let done = maitred(&["check", "--config", path.to_str().unwrap()]);
    assert!(done.is(1));
    assert!(
        done.out.contains("FAIL") && done.out.ends_with("no go\n"),
        "{}",
        done.out
    );
}

#[test]
fn check_finds_an_upstream_that_is_away() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let dev = std::env::current_dir().unwrap().join("config/dev.toml");
    let text = format!(
        "include = [{:?}]\n[embedded_api]\nenabled = false\n[upstreams.api]\nendpoints = [\"{free}\"]\n",
        dev.display().to_string()
    );
    let path = file("away.toml", &text);
    let done = maitred(&["check", "--config", path.to_str().unwrap()]);
    assert!(done.is(1));
    assert!(
        done.out
            .contains(&format!("FAIL  upstream api           {free}: ")),
        "{}",
        done.out
    );
}

#[test]
fn explain_shows_what_a_request_meets() {
    let url = "/franchise/../franchise/overview?range=today&orgId=org_1&utm=x";
    let done = maitred(&["explain", "get", url, "-H", "Origin: https://evil.example"]);
    assert!(done.is(0), "{}", done.err);
    for expected in [
        "request   GET /franchise/overview\n",
        "there is none: 401; organisation org_1",
        "FREE 10 in 60 s",
        "https://evil.example is not allowed",
        "overview for 15 s, scope org",
        "key dev:overview:org_1:https://localhost/franchise/overview?orgId=org_1&range=today\n",
        "api (127.0.0.1:8081)",
    ] {
        assert!(
            done.out.contains(expected),
            "{expected}\nnot in\n{}",
            done.out
        );
    }
}

#[test]
fn explain_knows_what_is_not_served() {
    let done = maitred(&["explain", "GET", "/wp-login.php"]);
    assert!(done.is(1) && done.out.contains("404"), "{}", done.out);
    let done = maitred(&["explain", "GET", "/webhooks/billing"]);
    assert!(
        done.is(1) && done.out.contains("405, Allow: OPTIONS, POST"),
        "{}",
        done.out
    );
    let done = maitred(&["explain", "GET", "/orders/%2e%2e%2fhealth"]);
    assert!(done.is(64), "{}{}", done.out, done.err);
}

#[test]
fn a_signed_webhook_is_what_the_contract_says() {
    let body = file("sign.json", BODY);
    let done = maitred(&[
        "sign",
        "--endpoint",
        "billing",
        "--body",
        body.to_str().unwrap(),
    ]);
    assert!(done.is(0), "{}", done.err);
    assert!(
        done.out
            .starts_with("curl -sS 'https://localhost:8443/webhooks/billing'")
    );
    let header = |name: &str| {
        let line = done
            .out
            .lines()
            .find_map(|l| l.trim().strip_prefix(&format!("-H '{name}: ")));
        line.and_then(|l| l.split('\'').next()).unwrap().to_owned()
    };
    assert_eq!(
        header("x-signature"),
        expected_signature(&header("x-timestamp"))
    );
}

#[test]
fn a_scheme_with_public_keys_is_signed_for_with_the_private_one() {
    let here = std::env::current_dir().unwrap();
    let key = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let config = format!(
        "include = [{:?}]\n[webhooks.endpoints.bot]\nscheme = \"discord\"\n\
         secrets = [{{ name = \"app\", public_key = \"{key}\" }}]\n",
        here.join("config/dev.toml").display().to_string()
    );
    let (config, body) = (file("bot.toml", &config), file("bot.json", BODY));
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let seed = file("bot.key", seed);
    let mut line = vec!["--config", config.to_str().unwrap(), "sign"];
    line.extend(["--endpoint", "bot", "--body", body.to_str().unwrap()]);
    let without = maitred(&line);
    assert!(
        without.is(64) && without.err.contains("--private-key"),
        "{}",
        without.err
    );
    line.extend(["--private-key", seed.to_str().unwrap(), "--query", "a=b"]);
    let done = maitred(&line);
    assert!(done.is(0), "{}", done.err);
    assert!(done.out.contains("/webhooks/bot?a=b'"), "{}", done.out);
    assert!(
        done.out.contains("-H 'x-signature-ed25519: "),
        "{}",
        done.out
    );
}

#[test]
fn presets_are_listed() {
    let done = maitred(&["config", "presets"]);
    assert!(done.is(0));
    assert!(
        done.out.lines().any(|l| l.starts_with("stripe ")),
        "{}",
        done.out
    );
}

fn expected_signature(timestamp: &str) -> String {
    assert_eq!(timestamp.len(), 13, "milliseconds");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{timestamp}.{BODY}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[test]
fn an_endpoint_that_is_not_there_lists_those_that_are() {
    let body = file("unknown.json", BODY);
    let done = maitred(&[
        "sign",
        "--endpoint",
        "bill",
        "--body",
        body.to_str().unwrap(),
    ]);
    assert!(done.is(64));
    assert!(
        done.err.contains("there is billing, marketplace"),
        "{}",
        done.err
    );
}

#[test]
fn send_posts_the_exact_body_and_shows_the_answer() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"status\":\"accepted\"}";
    let (base, thread) = server(answer);
    let body = file("send.json", BODY);
    let body = body.to_str().unwrap();
    let done = maitred(&[
        "send",
        "--endpoint",
        "billing",
        "--body",
        body,
        "--base",
        &base,
    ]);
    assert!(done.is(0), "{}", done.err);
    assert_eq!(done.out, "200 OK {\"status\":\"accepted\"}\n");
    let request = thread.join().unwrap();
    assert!(request.starts_with("POST /webhooks/billing HTTP/1.1\r\n"));
    assert!(request.ends_with(BODY), "{request}");
    assert!(request.contains("x-signature: "));
}

#[test]
fn send_tells_by_its_exit_code_that_it_was_refused() {
    let (base, _thread) = server("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
    let body = file("refused.json", BODY);
    let body = body.to_str().unwrap();
    let done = maitred(&[
        "send",
        "--endpoint",
        "billing",
        "--body",
        body,
        "--base",
        &base,
    ]);
    assert!(done.is(1));
    assert!(done.out.starts_with("401"));
}

#[test]
fn healthcheck_is_the_answer_as_an_exit_code() {
    for (answer, code) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 0),
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            1,
        ),
    ] {
        let (base, _thread) = server(answer);
        assert!(maitred(&["healthcheck", "--url", &format!("{base}/healthz")]).is(code));
    }
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(maitred(&["healthcheck", "--url", &format!("http://{free}/")]).is(1));
}

#[test]
fn the_format_is_shown_in_three_ways() {
    let schema = maitred(&["config", "schema"]).out;
    assert!(serde_json::from_str::<serde_json::Value>(&schema).is_ok());
    assert!(
        maitred(&["config", "docs"])
            .out
            .starts_with("# Configuration")
    );
    assert!(
        maitred(&["config", "defaults"])
            .out
            .contains("[defaults.route]")
    );
    let shown = maitred(&["config", "show"]).out;
    assert!(!shown.contains(SECRET));
}
