//! Attacks: nothing that one client sends may change what another one is given.

use super::{World, cache};
use crate::harness::either::{BOTH, Client, Speaks};
use crate::harness::origin::{Script, Seen};

/// Repeats what it was told, as a careless service would in links and redirects.
fn parrot(seen: &Seen, _: usize) -> Script {
    let mut body = format!("{} {}\n", seen.method, seen.target);
    for (name, value) in &seen.headers {
        if name.starts_with("x-") && name != "x-maitred-identity" && name != "x-request-id"
            || name == "forwarded"
            || name == "host"
        {
            body.push_str(&format!("{name}: {value}\n"));
        }
    }
    body.push_str(&String::from_utf8_lossy(&seen.body));
    Script::Answer {
        status: 200,
        headers: vec![(
            "location",
            format!("https://{}/", seen.header("host").unwrap_or("")),
        )],
        body: body.into_bytes(),
    }
}

#[tokio::test]
async fn headers_outside_the_key_do_not_reach_a_stored_response() {
    let world = World::new("ttl_s = 60", parrot).await;
    let attacks = [
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-proto", "evil"),
        ("x-forwarded-for", "evil"),
        ("x-forwarded-port", "evil"),
        ("x-forwarded-prefix", "/evil"),
        ("x-original-url", "/evil"),
        ("x-rewrite-url", "/evil"),
        ("x-http-method-override", "EVIL"),
        ("x-method-override", "EVIL"),
        ("forwarded", "host=evil.test"),
        ("x-maitred-provider", "evil"),
    ];
    for (n, (name, value)) in attacks.into_iter().enumerate() {
        for speaks in BOTH {
            let target = format!("/report/{n}-{speaks:?}?orgId=org_a");
            let mut attacker = world.caller(speaks, "usr_evil", "org_a").await;
            let poisoned = attacker.send("GET", &target, &[(name, value)]).await;
            assert_eq!(
                (poisoned.status, &*cache(&poisoned)),
                (200, "MISS"),
                "{name}"
            );
            let mut victim = world.caller(Speaks::Http1, "usr_a", "org_a").await;
            let answer = victim.get(&target).await;
            assert_eq!(cache(&answer), "HIT");
            assert!(
                !answer.text().to_lowercase().contains("evil"),
                "{name}: {}",
                answer.text()
            );
        }
    }
}

#[tokio::test]
async fn a_get_with_a_body_neither_fills_nor_uses_the_cache() {
    let world = World::new("ttl_s = 60", parrot).await;
    let target = "/report/fat?orgId=org_a";
    for speaks in BOTH {
        let mut attacker = world.caller(speaks, "usr_evil", "org_a").await;
        let headers = [("authorization", &*attacker.bearer)];
        let fat = attacker
            .client
            .request("GET", target, &headers, b"orgId=evil")
            .await
            .unwrap();
        assert_eq!((fat.status, &*cache(&fat)), (200, "BYPASS"), "{speaks:?}");
    }
    let mut victim = world.member().await;
    let answer = victim.get(target).await;
    assert_eq!(cache(&answer), "MISS");
    assert!(!answer.text().contains("evil"));
}

#[tokio::test]
async fn names_of_the_service_have_their_own_entries() {
    let world = World::new("ttl_s = 60", parrot).await;
    // Names that nobody binds: one host in other spellings.
    for (n, spelled) in ["localhost:1", "LOCALHOST", "localhost.", "localhost:443"]
        .into_iter()
        .enumerate()
    {
        let target = format!("/report/host-{n}?orgId=org_a");
        let mut attacker = world.member().await;
        attacker.send("GET", &target, &[("Host", spelled)]).await;
        let mut victim = world.member().await;
        let answer = victim.get(&target).await;
        let told = answer.header("location");
        assert_eq!(told, Some("https://localhost/"), "{spelled}");
    }
    let mut attacker = world.member().await;
    let other = [("Host", "api.localhost")];
    let first = attacker.send("GET", "/report/x?orgId=org_a", &other).await;
    assert_eq!((first.status, &*cache(&first)), (200, "MISS"));
    let mut victim = world.member().await;
    let answer = victim.get("/report/x?orgId=org_a").await;
    assert_eq!(cache(&answer), "MISS");
    assert_eq!(answer.header("location"), Some("https://localhost/"));
}

#[tokio::test]
async fn parameters_hidden_from_the_key_are_hidden_from_the_service() {
    let world = World::new("ttl_s = 60", parrot).await;
    let mut attacker = world.caller(Speaks::Http2, "usr_evil", "org_a").await;
    for (n, hidden) in [
        "callback=evil",
        "orgid=evil",
        "ORGID=evil",
        "range%00=evil",
        ";orgId=evil",
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/report/{n}?orgId=org_a");
        let poisoned = attacker.get(&format!("{target}&{hidden}")).await;
        assert_eq!(poisoned.status, 200, "{hidden}");
        let answer = world.member().await.get(&target).await;
        assert_eq!(cache(&answer), "HIT", "{hidden}");
        assert!(
            !answer.text().contains("evil"),
            "{hidden}: {}",
            answer.text()
        );
    }
    // A second spelling of the organisation is refused, not left to whoever reads it first.
    for twice in [
        "orgId=org_a&orgId=org_b",
        "orgId=org_a&org%49d=org_b",
        "orgId=org_a&+orgId=x&orgId=org_b",
    ] {
        let answer = attacker.get(&format!("/report/twice?{twice}")).await;
        assert_eq!(answer.status, 400, "{twice}");
    }
}

#[tokio::test]
async fn what_belongs_to_one_exchange_is_not_stored_with_it() {
    let extra = "[cors]\norigins = [\"https://one.test\", \"https://two.test\"]\n";
    let world = World::with("ttl_s = 60", extra, parrot).await;
    let target = "/shown/x";
    let mut client = Client::open(&world.edge, Speaks::Http2).await;
    let id = [
        ("origin", "https://one.test"),
        ("x-request-id", "first-request-0001"),
    ];
    let first = client.get(target, &id).await;
    assert_eq!(
        (
            cache(&first).as_str(),
            first.header("access-control-allow-origin")
        ),
        ("MISS", Some("https://one.test"))
    );
    let second = client.get(target, &[("origin", "https://two.test")]).await;
    assert_eq!(
        (
            cache(&second).as_str(),
            second.header("access-control-allow-origin")
        ),
        ("HIT", Some("https://two.test"))
    );
    let third = client.get(target, &[("origin", "https://evil.test")]).await;
    assert_eq!(
        (
            cache(&third).as_str(),
            third.header("access-control-allow-origin")
        ),
        ("HIT", None)
    );
    assert_eq!(first.header("x-request-id"), Some("first-request-0001"));
    assert_ne!(second.header("x-request-id"), first.header("x-request-id"));
    for answer in [&first, &second, &third] {
        assert_eq!(answer.header("vary"), Some("Origin"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}
