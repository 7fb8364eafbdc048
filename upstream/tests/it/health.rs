//! Health, refusals that no context owns, and how the API starts.

use std::path::PathBuf;

use chefcloud_api::{Api, Config, Environment, Listener};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    sync::oneshot,
    time::timeout,
};

use crate::{
    client::{Call, DEADLINE},
    database::{Database, Engine},
    world::{self, World},
};

crate::on_both_databases!(
    the_health_routes_answer_without_identity,
    what_no_route_knows_is_a_problem,
    requests_are_counted_by_route,
    demo_data_is_refused_in_production,
);

async fn the_health_routes_answer_without_identity(world: &World) {
    let get = async |path: &str| world.send(Call::get(path)).await.expect(200);
    assert_eq!(get("/health").await.json(), json!({ "status": "ok" }));
    assert_eq!(get("/ready").await.json(), json!({ "status": "ready" }));
    assert_eq!(get("/version").await.json()["name"], "chefcloud-api");
}

async fn what_no_route_knows_is_a_problem(world: &World) {
    assert_eq!(
        world.send(Call::get("/nowhere")).await.expect(404).code(),
        "not_found"
    );
    assert_eq!(
        world
            .send(Call::get("/auth/login"))
            .await
            .expect(405)
            .code(),
        "method_not_allowed"
    );
    let large = json!({ "email": "x".repeat(300 * 1024) });
    let answer = world
        .send(Call::post("/auth/login", &large))
        .await
        .expect(413);
    assert_eq!(answer.code(), "body_too_large");
}

async fn requests_are_counted_by_route(world: &World) {
    world.send(Call::get("/secret/path")).await.expect(404);
    world.overview().await;
    let text = world.send(Call::get("/metrics")).await.expect(200).text;
    let line =
        r#"chefcloud_http_requests_total{method="GET",route="/franchise/overview",status="200"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("secret/path"));
}

async fn demo_data_is_refused_in_production(world: &World) {
    let mut config = world::config(&world.database_url);
    config.environment = Environment::Production;
    let api = Api::open(config).await.unwrap();
    assert!(
        api.seed_demo()
            .await
            .unwrap_err()
            .to_string()
            .contains("production")
    );
}

#[tokio::test]
async fn development_secrets_do_not_start_in_production() {
    let mut config = Config::development(
        ":memory:".to_owned(),
        chefcloud_api::DEVELOPMENT_ASSERTION_SECRET.to_owned(),
        chefcloud_api::development_delivery_secret(),
    );
    config.environment = Environment::Production;
    let error = Api::open(config).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("EDGE_ASSERTION_SECRET") && error.contains("EDGE_DELIVERY_SECRET"));
}

/// The program itself: migrates, serves, and ends by itself and without error when told to.
#[tokio::test]
async fn the_program_stops_gracefully_when_it_is_terminated() {
    let database = Database::create(Engine::Sqlite).await;
    let socket = std::env::temp_dir().join(format!("chefcloud_{}_bin.sock", std::process::id()));
    let program = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chefcloud-api"));
        command
            .args(arguments)
            .env("DATABASE_URL", &database.url)
            .env("RUST_LOG", "off");
        command.kill_on_drop(true);
        command
    };
    for arguments in [["db", "migrate"].as_slice(), &["seed-demo"]] {
        assert!(program(arguments).status().await.unwrap().success());
    }
    let listen = format!("unix:{}", socket.display());
    let mut serving = program(&["serve", "--listen", &listen]).spawn().unwrap();
    world::until("it listens", async || {
        UnixStream::connect(&socket).await.is_ok()
    })
    .await;
    let pid = serving.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    let status = timeout(DEADLINE, serving.wait())
        .await
        .expect("a prompt end")
        .unwrap();
    assert!(status.success(), "{status}");
    std::fs::remove_file(socket).unwrap();
    let production = program(&["serve"])
        .env("CHEFCLOUD_ENV", "production")
        .status()
        .await;
    assert_eq!(production.unwrap().code(), Some(64));
    database.remove().await;
}

#[tokio::test]
async fn a_database_in_memory_serves_over_a_unix_socket() {
    let api = world::open(":memory:").await;
    api.seed_demo().await.unwrap();
    let name = format!("chefcloud_{}.sock", std::process::id());
    let path: PathBuf = std::env::temp_dir().join(name);
    let listener = Listener::bind(&format!("unix:{}", path.display()))
        .await
        .unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(api.serve(listener, async move {
        let _ = stopped.await;
    }));
    let mut socket = UnixStream::connect(&path).await.unwrap();
    let body = r#"{"email":"manager@staging.com","password":"staging-manager-1"}"#;
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("accessToken"),
        "{answer}"
    );
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    // What is left of the socket is replaced by the next start.
    drop(
        Listener::bind(&format!("unix:{}", path.display()))
            .await
            .unwrap(),
    );
    std::fs::remove_file(path).unwrap();
}
