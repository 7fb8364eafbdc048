//! Overview and rankings.

use serde_json::{Value, json};

use crate::world::World;

crate::on_both_databases!(
    the_overview_adds_up_from_order_rows,
    the_overview_is_labelled_for_the_cache,
    other_organisations_and_other_roles_are_refused,
    faulty_questions_name_their_fields,
    each_tenant_sees_its_own,
    rankings_are_in_order_of_the_metric,
    demo_data_is_added_once,
);

async fn the_overview_adds_up_from_order_rows(world: &World) {
    let overview = world.overview().await;
    let branches = overview["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 2);
    for figure in ["revenue", "orders"] {
        let sum: i64 = branches
            .iter()
            .map(|branch| branch[figure].as_i64().unwrap())
            .sum();
        assert_eq!(overview["summary"][figure], sum);
        assert!(sum > 0);
    }
    let day = world.served.clock.now().day().0;
    let today = format!("FROM orders WHERE org_id = 'org_demo' AND business_day = {day}");
    assert_eq!(
        overview["summary"]["orders"],
        world.count(&format!("SELECT COUNT(*) {today}")).await
    );
    let sum = format!("SELECT CAST(SUM(total_minor) AS BIGINT) {today}");
    assert_eq!(overview["summary"]["revenue"], world.count(&sum).await);
    assert_eq!(overview["currency"], "USD");
    let month = "/franchise/overview?orgId=org_demo&range=30d";
    let month = world.get(month, &world.manager()).await.expect(200).json();
    assert!(month["summary"]["orders"].as_i64() > overview["summary"]["orders"].as_i64());
}

async fn the_overview_is_labelled_for_the_cache(world: &World) {
    let path = "/franchise/overview?orgId=org_demo";
    let answer = world.get(path, &world.manager()).await.expect(200);
    assert_eq!(answer.header("cache-groups"), Some("\"overview\""));
    assert_eq!(answer.header("cache-control"), None);
    assert_eq!(answer.json()["range"], "today");
}

async fn other_organisations_and_other_roles_are_refused(world: &World) {
    for org_id in ["org_other", "org_missing"] {
        let path = format!("/franchise/overview?orgId={org_id}");
        let answer = world.get(&path, &world.manager()).await.expect(403);
        assert_eq!(answer.code(), "org_forbidden");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for (role, status) in [
        ("owner", 200),
        ("accountant", 200),
        ("waiter", 403),
        ("chef", 403),
        ("sorcerer", 403),
    ] {
        let identity = world.identity(json!({ "org_demo": role }));
        world
            .get("/franchise/overview?orgId=org_demo", &identity)
            .await
            .expect(status);
    }
}

async fn faulty_questions_name_their_fields(world: &World) {
    let faults = async |path: &str| world.get(path, &world.manager()).await.expect(422).faults();
    assert_eq!(
        faults("/franchise/overview?range=century").await,
        ["orgId", "range"]
    );
    assert_eq!(faults("/franchise/overview?orgId=a%20b").await, ["orgId"]);
    assert_eq!(
        faults("/franchise/rankings?period=2024-13&metric=luck").await,
        ["orgId", "period", "metric"]
    );
}

async fn each_tenant_sees_its_own(world: &World) {
    let identity = world.identity(json!({ "org_other": "owner" }));
    let path = "/franchise/overview?orgId=org_other";
    let theirs = world.get(path, &identity).await.expect(200);
    assert!(!theirs.text.contains("brn_demo"));
    world.order(123_456_789).await;
    let after = world.get(path, &identity).await.expect(200).json();
    assert_eq!(after["summary"], theirs.json()["summary"]);
}

async fn rankings_are_in_order_of_the_metric(world: &World) {
    let today = world.served.clock.now().rfc3339();
    let period = today.get(..7).unwrap();
    for metric in ["revenue", "orders"] {
        let path = format!("/franchise/rankings?orgId=org_demo&period={period}&metric={metric}");
        let answer = world.get(&path, &world.manager()).await.expect(200);
        assert_eq!(answer.header("cache-groups"), Some("\"rankings\""));
        let body = answer.json();
        let rankings = body["rankings"].as_array().unwrap();
        let values: Vec<_> = rankings
            .iter()
            .map(|entry| entry[metric].as_i64().unwrap())
            .collect();
        assert!(values.is_sorted_by(|a, b| a >= b), "{values:?}");
        let ranks: Vec<_> = rankings.iter().map(|entry| entry["rank"].clone()).collect();
        assert_eq!(ranks, [1, 2].map(Value::from));
    }
    let empty = "/franchise/rankings?orgId=org_demo&period=2001-01";
    let body = world.get(empty, &world.manager()).await.expect(200).json();
    assert_eq!(body["rankings"][0]["revenue"], 0);
}

async fn demo_data_is_added_once(world: &World) {
    let before = world.overview().await;
    let api = world.replica().await;
    api.seed_demo().await.unwrap();
    assert_eq!(world.overview().await["summary"], before["summary"]);
    // A day later, that day has its orders too.
    api.clock().shift(24 * 60 * 60 * 1000);
    api.seed_demo().await.unwrap();
    world.served.clock.shift(24 * 60 * 60 * 1000);
    let next = world.overview().await;
    assert!(next["summary"]["orders"].as_i64().unwrap() > 0);
}
