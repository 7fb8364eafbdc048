//! Shows the presets to people: as a list on a terminal, and as `docs/webhook-presets.md`. Decides
//! nothing.

use std::fmt::Write as _;

use super::{Preset, all};

/// One line for each preset: its name, the header that it reads, the algorithm, and the provider.
#[must_use]
pub fn list() -> String {
    let mut out = String::new();
    for preset in all() {
        let (name, header) = (preset.name, header(&preset));
        let (alg, title) = (alg(&preset), &preset.title);
        let _infallible = writeln!(out, "{name:<22} {header:<40} {alg:<12} {title}");
    }
    out
}

/// `docs/webhook-presets.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(HEAD);
    for preset in all() {
        let (name, title, docs) = (preset.name, &preset.title, &preset.docs);
        let (header, alg, signed) = (header(&preset), alg(&preset), signed(&preset));
        let tolerance = preset.spec.ts.as_ref().map_or("–".into(), |ts| {
            let unit = &ts.unit;
            format!("{unit}, −{} s +{} s", ts.past_s, ts.future_s)
        });
        let (basis, deadline, retries) = (&preset.basis, &preset.deadline, &preset.retries);
        let _infallible = writeln!(
            out,
            "| [`{name}`](../config/providers/{name}.toml) | [{title}]({docs}) | `{header}` | {alg} | \
             {signed} | {tolerance} | {deadline} | {retries} | {basis} |"
        );
    }
    out
}

const HEAD: &str = "# Webhook presets\n\n\
    Generated from `config/providers/*.toml` by `cargo test --test docs`; do not edit. \
    [webhook-schemes.md](webhook-schemes.md) explains the grammar and how to add a provider.\n\n\
    An endpoint names a preset like a scheme of its own: `scheme = \"stripe\"`. *Signed* is what the \
    signature covers. *Time* is the unit of the timestamp and how far behind and ahead of our clock \
    it may lie. *Answer within* and *sent again* are the provider's words for what it expects.\n\n\
    | preset | provider | header | algorithm | signed | time | answer within | sent again | rests on |\n\
    |---|---|---|---|---|---|---|---|---|\n";

/// Special schemes have what they need in several headers, or in the body.
fn header(preset: &Preset) -> &str {
    match preset.special {
        Some(_) => "–",
        None => &preset.spec.header,
    }
}

fn alg(preset: &Preset) -> &str {
    if preset.special.is_some() {
        return "special";
    }
    preset.spec.alg.as_deref().unwrap_or("hmac-sha256")
}

/// Line feeds are shown as they are written in a file.
fn signed(preset: &Preset) -> String {
    if preset.special.is_some() {
        return "see the file".into();
    }
    let signed = preset.spec.signed.as_deref().map(|text| {
        let text = text.replace('\n', "\\n");
        format!("`{text}`")
    });
    match (signed, preset.spec.unsigned_body) {
        (Some(signed), false) => signed,
        (Some(signed), true) => format!("{signed}, **not the body**"),
        (None, _) => "nothing: a shared token".into(),
    }
}
