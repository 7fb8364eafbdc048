//! The page in a real browser (Chromium, driven over WebDriver): it shows what is there, follows
//! changes by itself, its buttons work by mouse and keyboard, and a stranger's text stays text.

mod driver;

use maitred::webhook::Refusal;
use maitred::webhook::inbox::{Event, Standing};
use serde_json::{Value, json};

use super::{Window, event};
use crate::harness::until;
use driver::{Browser, ENTER, TAB};

/// Sets a global if any of it is run.
const ATTACKS: [&str; 4] = [
    "<script>window.owned=1</script>",
    "<img src=x onerror=\"window.owned=1\">",
    "\"><svg onload=window.owned=1>",
    "'-window.owned=1-'</td></table><iframe srcdoc=\"<script>parent.owned=1</script>\">",
];

/// Whether some text is on the page.
async fn shown(browser: &Browser, text: &str) -> bool {
    let script = "return document.body.innerText.includes(arguments[0])";
    browser.run(script, json!([text])).await == Value::Bool(true)
}

async fn wait_for(browser: &Browser, text: &str) {
    until(text, || async { shown(browser, text).await.then_some(()) }).await;
}

async fn open(window: &Window, browser: &Browser, path: &str) {
    browser
        .go(&format!("http://{}{path}", window.address))
        .await;
    wait_for(browser, "live").await;
}

#[tokio::test]
async fn it_shows_what_is_there_and_follows_changes() {
    let window = Window::open().await;
    window.append(event("billing", "evt_first")).await;
    let browser = Browser::start().await;
    open(&window, &browser, "/").await;
    for expected in [
        "evt_first",
        "No dead letters.",
        "Webhooks since the start",
        "None since the start.",
    ] {
        assert!(shown(&browser, expected).await, "{expected}");
    }
    window.dead(event("billing", "evt_second")).await;
    wait_for(&browser, "all 1 dead letters of billing").await;
    assert!(shown(&browser, "evt_second").await);
    window.refuse(Refusal::Stale { age_s: 4321 }, "req-9", "/webhooks/billing");
    wait_for(&browser, "the timestamp is 4321 s old").await;
    assert!(shown(&browser, "check NTP on this host").await);
    let twice = "const ids = [...document.querySelectorAll('[id]')].map(e => e.id); \
                 return ids.filter((id, at) => ids.indexOf(id) !== at || /\\s/.test(id))";
    assert_eq!(browser.run(twice, json!([])).await, json!([]));
    // Nothing that the browser had to complain about: policy, missing file, script error.
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}

#[tokio::test]
async fn dead_letters_are_redelivered_by_mouse_after_a_look_at_the_plan() {
    let window = Window::open().await;
    for n in 0..3 {
        let old = maitred::kernel::clock::UnixMs(1_700_000_000_000);
        window
            .dead(Event {
                received_at: old,
                ..event("billing", &format!("evt_{n}"))
            })
            .await;
    }
    let browser = Browser::start().await;
    open(&window, &browser, "/").await;
    let all = "[aria-label='redeliver all 3 dead letters of billing']";
    browser.click(all).await;
    wait_for(&browser, "redeliver 3?").await;
    assert!(shown(&browser, "at 50 per second: about 1 s").await);
    browser.click("#confirm-no").await;
    until("the dialog is gone", || async {
        let open = browser
            .run("return document.getElementById('confirm').open", json!([]))
            .await;
        (open == Value::Bool(false)).then_some(())
    })
    .await;
    assert_eq!(window.entries(Standing::Dead).await, 3);
    browser.click(all).await;
    wait_for(&browser, "redeliver 3?").await;
    browser.click("#confirm-yes").await;
    wait_for(&browser, "redeliver: 3 of 3").await;
    wait_for(&browser, "No dead letters.").await;
    assert_eq!(window.entries(Standing::Pending).await, 3);
}

#[tokio::test]
async fn the_keyboard_alone_is_enough() {
    let window = Window::open().await;
    let id = window.dead(event("billing", "evt_1")).await;
    let browser = Browser::start().await;
    open(&window, &browser, "/").await;
    // Tab through the page until the button has the focus.
    let mut label = Value::Null;
    for _ in 0..40 {
        browser.press(TAB).await;
        label = browser
            .run("return document.activeElement.ariaLabel", json!([]))
            .await;
        if label == format!("discard {id}") {
            break;
        }
    }
    assert_eq!(label, format!("discard {id}"));
    browser.press(ENTER).await;
    wait_for(&browser, "They cannot be brought back.").await;
    // Enter alone cancels.
    browser.press(ENTER).await;
    until("the button has the focus again", || async {
        let label = browser
            .run("return document.activeElement.ariaLabel", json!([]))
            .await;
        (label == format!("discard {id}")).then_some(())
    })
    .await;
    assert_eq!(window.entries(Standing::Dead).await, 1);
    browser.press(ENTER).await;
    wait_for(&browser, "discard 1?").await;
    browser.press(TAB).await;
    browser.press(ENTER).await;
    wait_for(&browser, "discard: 1 of 1").await;
    assert_eq!(window.entries(Standing::Dead).await, 0);
}

#[tokio::test]
async fn a_strangers_markup_is_shown_and_not_run() {
    let window = Window::open().await;
    let browser = Browser::start().await;
    let mut last = String::new();
    for attack in ATTACKS {
        let evil = Event {
            headers: vec![(attack.into(), attack.into())],
            body: attack.into(),
            content_type: Some(attack.into()),
            traceparent: Some(attack.into()),
            order_key: Some(attack.into()),
            ..event("billing", attack)
        };
        last = window
            .append(Event {
                order_key: None,
                ..evil.clone()
            })
            .await
            .to_string();
        window.append(evil).await;
        let name = http::HeaderName::from_static("x");
        window.refuse(Refusal::MissingHeader(name), attack, attack);
        window.refuse(
            Refusal::MissingQuery(attack.into()),
            attack,
            "/webhooks/billing",
        );
    }
    open(&window, &browser, "/").await;
    // By the first load, by a refresh, and as a filter that is written back into the form.
    window.append(event(ATTACKS[1], "evt_refreshed")).await;
    wait_for(&browser, "evt_refreshed").await;
    let owned = "return [typeof window.owned, document.querySelectorAll('main img, main svg, main iframe, main script').length]";
    assert_eq!(browser.run(owned, json!([])).await, json!(["undefined", 0]));
    for attack in ATTACKS {
        assert!(shown(&browser, attack).await, "{attack}");
    }
    open(
        &window,
        &browser,
        "/?endpoint=%22%3E%3Cscript%3Ewindow.owned%3D1%3C%2Fscript%3E",
    )
    .await;
    assert_eq!(browser.run(owned, json!([])).await, json!(["undefined", 0]));
    open(&window, &browser, &format!("/inbox/events/{last}")).await;
    assert_eq!(browser.run(owned, json!([])).await, json!(["undefined", 0]));
    let body = "return document.querySelector('pre').textContent";
    assert_eq!(browser.run(body, json!([])).await, ATTACKS[3]);
    // Should escaping ever fail in the page's own script: the policy takes no string as markup or code.
    let inject = "const tries = [ \
                    () => document.body.insertAdjacentHTML('beforeend', '<b>x</b>'), \
                    () => document.body.setAttribute('onclick', 'window.owned = 1'), \
                    () => { document.createElement('iframe').srcdoc = '<b>x</b>' }, \
                    () => { document.createElement('script').textContent = 'window.owned = 1' }, \
                  ]; \
                  return tries.map(t => { try { t(); return 'done' } catch (e) { return e.name } })";
    let refused = json!(["TypeError", "TypeError", "TypeError", "TypeError"]);
    assert_eq!(browser.run(inject, json!([])).await, refused);
}
