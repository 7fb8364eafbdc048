//! Entering, staying and leaving.

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, jwk::JwkSet};
use serde_json::{Value, json};

use crate::{
    client::{Answer, Call},
    world::{self, World, assertion, assertion_with, claims_of},
};

crate::on_both_databases!(
    a_registered_owner_logs_in_and_sees_who_they_are,
    access_tokens_verify_against_the_published_keys,
    registration_lists_every_fault,
    an_address_is_taken_once,
    unknown_users_and_wrong_passwords_get_the_same_answer,
    five_failures_close_the_door_until_the_lock_ends,
    attempts_in_parallel_share_one_count,
    a_refresh_token_works_once_and_its_reuse_ends_the_session,
    concurrent_refreshes_have_one_winner,
    logout_ends_the_session_and_tells_the_edge,
    sessions_end_after_thirty_days,
    keys_survive_a_restart_and_are_shared_by_replicas,
    nothing_but_the_edges_assertion_is_an_identity,
    an_identity_ends_with_its_expiry,
);

const LOGIN: &str = "/auth/login";
const REFRESH: &str = "/auth/refresh";
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

async fn login(world: &World, email: &str, password: &str) -> Answer {
    world
        .send(Call::post(
            LOGIN,
            &json!({ "email": email, "password": password }),
        ))
        .await
}

async fn login_demo(world: &World) -> Value {
    login(world, &world.demo.email, &world.demo.password)
        .await
        .expect(200)
        .json()
}

async fn refresh(world: &World, token: &Value) -> Answer {
    world
        .send(Call::post(REFRESH, &json!({ "refreshToken": token })))
        .await
}

async fn a_registered_owner_logs_in_and_sees_who_they_are(world: &World) {
    let body = json!({
        "email": " Ana@Example.com", "password": "correct horse battery", "name": "Ana",
        "orgName": "Casa Ana", "currency": "EUR",
    });
    let created = world
        .send(Call::post("/auth/register", &body))
        .await
        .expect(201)
        .json();
    let tokens = login(world, "ana@example.COM", "correct horse battery")
        .await
        .expect(200)
        .json();
    let me = world
        .get(
            "/auth/me",
            &world.identity_of(tokens["accessToken"].as_str().unwrap()),
        )
        .await
        .expect(200)
        .json();
    assert_eq!(me["id"], created["user"]["id"]);
    assert_eq!(me["email"], "ana@example.com");
    assert_eq!(me["orgs"][0]["name"], "Casa Ana");
    assert_eq!(me["orgs"][0]["role"], "owner");
    assert_eq!(me["plan"], "FREE");
    assert!(!created.to_string().contains("correct horse"));
}

async fn access_tokens_verify_against_the_published_keys(world: &World) {
    let tokens = login_demo(world).await;
    assert_eq!(tokens["expiresIn"], 900);
    let token = tokens["accessToken"].as_str().unwrap();
    let answer = world
        .send(Call::get("/.well-known/jwks.json"))
        .await
        .expect(200);
    let keys: JwkSet = serde_json::from_str(&answer.text).unwrap();
    assert!(
        !answer.text.contains("\"d\""),
        "a private key was published"
    );
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["chefcloud"]);
    validation.set_issuer(&["chefcloud-api"]);
    // The library looks at the wall clock; the API under test has its own.
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], "usr_demo_manager");
    assert_eq!(claims["orgs"], json!({ "org_demo": "manager" }));
    assert_eq!(claims["plan"], "PRO");
    assert!(claims["scopes"].is_array());
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        900
    );
    assert!(claims["jti"].as_str().unwrap().len() > 20 && claims["nbf"].is_i64());
}

async fn registration_lists_every_fault(world: &World) {
    let body = json!({ "email": "nobody", "password": "short", "currency": "euro" });
    let answer = world
        .send(Call::post("/auth/register", &body))
        .await
        .expect(422);
    assert_eq!(answer.faults(), ["email", "password", "name", "currency"]);
    for broken in ["", "[1]", "{", "\"x\""] {
        let answer = world
            .send(Call::post_bytes("/auth/register", broken))
            .await
            .expect(400);
        assert_eq!(answer.code(), "body_not_json");
    }
}

async fn an_address_is_taken_once(world: &World) {
    let body = json!({ "email": "b@example.com", "password": "correct horse", "name": "B" });
    let calls = (0..4).map(|_| world.send(Call::post("/auth/register", &body)));
    let mut statuses: Vec<_> = join_all(calls)
        .await
        .iter()
        .map(|answer| answer.status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
}

async fn unknown_users_and_wrong_passwords_get_the_same_answer(world: &World) {
    let wrong = login(world, &world.demo.email, "not the password")
        .await
        .expect(401);
    let unknown = login(world, "nobody@example.com", "not the password")
        .await
        .expect(401);
    assert_eq!(wrong.text, unknown.text);
    assert_eq!(wrong.code(), "credentials_invalid");
}

async fn five_failures_close_the_door_until_the_lock_ends(world: &World) {
    for address in [world.demo.email.as_str(), "nobody@example.com"] {
        for _ in 0..5 {
            login(world, address, "not the password").await.expect(401);
        }
        let locked = login(world, address, &world.demo.password)
            .await
            .expect(429);
        assert_eq!(locked.code(), "too_many_attempts");
        let wait: i64 = locked.header("retry-after").unwrap().parse().unwrap();
        assert!((890..=901).contains(&wait), "{wait}");
    }
    world.served.clock.shift(15 * 60 * 1000 + 1);
    login_demo(world).await;
    // A success forgets the failures before it.
    for _ in 0..4 {
        login(world, &world.demo.email, "not the password")
            .await
            .expect(401);
    }
    login_demo(world).await;
}

async fn attempts_in_parallel_share_one_count(world: &World) {
    let attempts = (0..12).map(|_| login(world, &world.demo.email, "not the password"));
    let answers = join_all(attempts).await;
    let judged = answers.iter().filter(|answer| answer.status == 401).count();
    assert_eq!(
        judged,
        5,
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
}

async fn a_refresh_token_works_once_and_its_reuse_ends_the_session(world: &World) {
    let first = login_demo(world).await;
    let second = refresh(world, &first["refreshToken"])
        .await
        .expect(200)
        .json();
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    assert_ne!(first["accessToken"], second["accessToken"]);
    let mut edge = world.edge_events(Some(0)).await;
    let reused = refresh(world, &first["refreshToken"]).await.expect(401);
    assert_eq!(reused.code(), "refresh_reused");
    assert_eq!(
        refresh(world, &second["refreshToken"])
            .await
            .expect(401)
            .code(),
        "refresh_invalid"
    );
    let mut dead = Vec::new();
    for _ in 0..2 {
        let event = edge.next().await;
        assert_eq!(event.event, "token.revoked");
        dead.push(event.data["jti"].clone());
    }
    for tokens in [&first, &second] {
        let access = tokens["accessToken"].as_str().unwrap();
        let claims = claims_of(access);
        assert!(dead.contains(&claims["jti"]));
    }
}

async fn concurrent_refreshes_have_one_winner(world: &World) {
    let tokens = login_demo(world).await;
    let calls = (0..4).map(|_| refresh(world, &tokens["refreshToken"]));
    let answers = join_all(calls).await;
    assert_eq!(
        answers.iter().filter(|answer| answer.status == 200).count(),
        1
    );
}

async fn logout_ends_the_session_and_tells_the_edge(world: &World) {
    let tokens = login_demo(world).await;
    let access = tokens["accessToken"].as_str().unwrap();
    let mut edge = world.edge_events(None).await;
    assert_eq!(edge.next().await.event, "ready");
    let identity = world.identity_of(access);
    world
        .post("/auth/logout", &json!({}), &identity)
        .await
        .expect(204);
    let event = edge.next().await;
    let claims = claims_of(access);
    assert_eq!(
        (event.event.as_str(), &event.data["jti"]),
        ("token.revoked", &claims["jti"])
    );
    assert_eq!(event.data["exp"], claims["exp"]);
    refresh(world, &tokens["refreshToken"]).await.expect(401);
    // Once more changes nothing.
    world
        .post("/auth/logout", &json!({}), &identity)
        .await
        .expect(204);
}

async fn sessions_end_after_thirty_days(world: &World) {
    let tokens = login_demo(world).await;
    world.served.clock.shift(30 * DAY_MS + 1000);
    assert_eq!(
        refresh(world, &tokens["refreshToken"])
            .await
            .expect(401)
            .code(),
        "refresh_invalid"
    );
}

async fn keys_survive_a_restart_and_are_shared_by_replicas(world: &World) {
    let keys = world
        .send(Call::get("/.well-known/jwks.json"))
        .await
        .expect(200)
        .text;
    let replica = world::serve(world.replica().await).await;
    let of_replica = Call::get("/.well-known/jwks.json")
        .send(replica.address)
        .await
        .text;
    assert_eq!(keys, of_replica);
    replica.stop().await;
}

async fn nothing_but_the_edges_assertion_is_an_identity(world: &World) {
    let claims = world.claims(
        "usr_demo_manager",
        json!({ "org_demo": "manager" }),
        &["api"],
    );
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        assertion(&claims)
    };
    let access = login_demo(world).await["accessToken"]
        .as_str()
        .unwrap()
        .to_owned();
    let me = || Call::get("/auth/me");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1c3JfZGVtb19tYW5hZ2VyIn0.";
    let refused = [
        me(),
        me().header("authorization", format!("Bearer {access}")),
        me().identity(&access),
        me().identity(unsigned),
        me().identity(&assertion_with(
            &claims,
            "another secret of thirty-two chars",
        )),
        me().identity(&changed("iss", json!("somebody"))),
        me().identity(&changed("aud", json!("chefcloud"))),
        me().identity(&changed("exp", json!(4_000_000_000_i64))),
        me().identity(&assertion(&claims))
            .identity(&assertion(&claims)),
        me().identity(&assertion(&world.claims("maitred", json!({}), &["edge"]))),
    ];
    for call in refused {
        let answer = world.send(call).await.expect(401);
        assert!(answer.code().starts_with("identity_"));
    }
    world
        .send(me().identity(&assertion(&claims)))
        .await
        .expect(200);
    // And the edge's own routes are not a user's.
    let edge = Call::get("/internal/edge-events");
    world
        .send(edge.clone().identity(&assertion(&claims)))
        .await
        .expect(403);
    world.send(edge).await.expect(401);
}

async fn an_identity_ends_with_its_expiry(world: &World) {
    let identity = world.manager();
    world.get("/auth/me", &identity).await.expect(200);
    world.served.clock.shift(66_000);
    assert_eq!(
        world.get("/auth/me", &identity).await.expect(401).code(),
        "identity_expired"
    );
}
