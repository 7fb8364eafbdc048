//! The files of `config/providers`: all of them load, and an operator can use and change each.

mod round_trip;
mod vector;
mod verdict;

use super::super::{ConfigSource, Env};
use super::{Preset, all, catalogue, find, list, names};
use crate::plan::Then;
use crate::webhook::{Endpoint, Scheme, SchemeSpec};

/// Its endpoints say where they are registered.
pub(super) const PUBLIC_URL: &str = "https://edge.example/webhooks/shop";

pub(super) fn build(preset: &Preset) -> Scheme {
    let spec = SchemeSpec {
        public_url: Some(PUBLIC_URL.into()),
        ..preset.spec.clone()
    };
    Scheme::build(&spec).unwrap_or_else(|e| panic!("{}: {e:?}", preset.name))
}

/// A key of the right form for any scheme that has shared secrets.
fn shared_secret(preset: &Preset) -> &'static str {
    match preset.spec.key.as_deref() {
        Some("hex") => "00112233445566778899aabbccddeeff",
        Some("whsec") => "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        _ => "0123456789abcdef0123456789abcdef",
    }
}

fn load(preset: &Preset, scheme: &str, more: &str) -> Result<Endpoint, String> {
    let only_public = build(preset).has_public_keys() && preset.name != "standard-webhooks";
    let secret = match only_public {
        true => format!("public_key = {:?}", vector::fixture(preset.name).secrets[0]),
        false => "env = \"SHOP_SECRET\"".to_owned(),
    };
    load_with(preset, scheme, &secret, more)
}

fn load_with(preset: &Preset, scheme: &str, secret: &str, more: &str) -> Result<Endpoint, String> {
    let base = std::env::current_dir().unwrap().join("config/maitred.toml");
    let text = format!(
        "include = [{:?}]\n[webhooks.endpoints.shop]\nscheme = {scheme:?}\n\
         public_url = {PUBLIC_URL:?}\nsecrets = [{{ name = \"current\", {secret} }}]\n{more}\n",
        base.display().to_string()
    );
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let secrets = super::super::tests::SECRETS;
    let env: Env = secrets
        .into_iter()
        .chain([("SHOP_SECRET", shared_secret(preset))])
        .collect();
    let config = ConfigSource {
        path: Some(file.path().to_owned()),
        env,
    }
    .load();
    let config = config.map_err(|e| e.to_string())?;
    let endpoint = config.routes.iter().find_map(|r| match &r.plan.then {
        Then::Ingest(endpoint) if *endpoint.name == *"shop" => Some(endpoint),
        Then::Ingest(_) | Then::Forward { .. } | Then::Subscribe(_) | Then::Reply(_) => None,
    });
    Ok(Endpoint::clone(endpoint.expect("the endpoint has a route")))
}

/// The presets that are data altogether; `config::tests::special` loads the others.
fn grammar() -> Vec<Preset> {
    all().into_iter().filter(|p| p.special.is_none()).collect()
}

#[test]
fn every_file_of_the_folder_is_built_in() {
    let mut on_disk: Vec<_> = std::fs::read_dir("config/providers")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    on_disk.sort();
    assert_eq!(on_disk, names().collect::<Vec<_>>());
    assert_eq!(all().len(), catalogue::FILES.len());
}

#[test]
fn every_preset_is_a_scheme_that_can_be_verified_safely() {
    for preset in grammar() {
        build(&preset);
    }
}

#[test]
fn an_endpoint_names_a_preset_and_no_more() {
    for preset in grammar() {
        let endpoint = load(&preset, preset.name, "").unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(*endpoint.provider, *preset.provider, "{}", preset.name);
        let expected = build(&preset);
        assert_eq!(endpoint.scheme.tolerance_s(), expected.tolerance_s());
        assert_eq!(endpoint.scheme.on_replay(), expected.on_replay());
        let github = preset.name == "github";
        let bytes_max = if github { 25 << 20 } else { 1 << 20 };
        assert_eq!(endpoint.body_bytes_max, bytes_max, "{}", preset.name);
    }
}

#[test]
fn a_scheme_may_start_from_a_preset() {
    let stripe = find("stripe").unwrap();
    let more = "[schemes.strict]\npreset = \"stripe\"\nts.past_s = 60\n";
    let endpoint = load(&stripe, "strict", more).unwrap();
    assert_eq!(endpoint.scheme.tolerance_s(), Some((60, 300)));
    assert_eq!(&*endpoint.provider, "stripe");
}

#[test]
fn a_scheme_of_ones_own_is_no_preset_whatever_it_is_called() {
    let stripe = find("stripe").unwrap();
    let more = "[schemes.stripe]\nheader = \"X-Own\"\nsigned = \"{body}\"\n";
    let endpoint = load(&stripe, "stripe", more).unwrap();
    assert_eq!(endpoint.scheme.tolerance_s(), None);
}

#[test]
fn a_preset_that_is_not_there_is_answered_with_its_neighbour() {
    let stripe = find("stripe").unwrap();
    let wrong = load(&stripe, "strype", "").unwrap_err();
    assert!(
        wrong.contains("there is no scheme `strype`") && wrong.contains("did you mean `stripe`?"),
        "{wrong}"
    );
    let more = "[schemes.own]\npreset = \"githup\"\n";
    let wrong = load(&stripe, "own", more).unwrap_err();
    assert!(
        wrong.contains("there is no preset `githup`") && wrong.contains("did you mean `github`?"),
        "{wrong}"
    );
}

#[test]
fn a_shared_secret_is_not_taken_for_a_public_key() {
    let stripe = find("stripe").unwrap();
    let load = |secret| load_with(&stripe, "stripe", secret, "").unwrap_err();
    let wrong = load("public_key = \"0123456789abcdef0123456789abcdef\"");
    assert!(
        wrong.contains("the keys of this scheme are secret"),
        "{wrong}"
    );
    let wrong = load("public_key = \"0123456789abcdef\", env = \"SHOP_SECRET\"");
    assert!(wrong.contains("another source of this key"), "{wrong}");
}

#[test]
fn the_list_has_a_line_for_each() {
    let list = list();
    assert_eq!(list.lines().count(), names().count());
    assert!(list.contains("Stripe-Signature"));
}
