//! What auth reads from a request, parsed into values that cannot be wrong.

use serde_json::Value;

use crate::kernel::{
    input::{Fault, Faults, Fields},
    secret::Secret,
};

const EMAIL_CHARS_MAX: usize = 254;
const NAME_CHARS_MAX: usize = 120;
const PASSWORD_CHARS_MIN: usize = 12;
/// Bounds the work of one hash.
const PASSWORD_BYTES_MAX: usize = 256;
const TOKEN_CHARS_MAX: usize = 256;
const DEFAULT_CURRENCY: &str = "USD";

pub(crate) struct Registration {
    pub email: String,
    pub password: Secret,
    pub name: String,
    pub organisation: Option<NewOrganisation>,
}

pub(crate) struct NewOrganisation {
    pub name: String,
    pub currency: String,
}

pub(crate) struct Credentials {
    pub email: String,
    pub password: Secret,
}

impl Registration {
    pub(crate) fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let fields = Fields::of(body);
        let email = email(&fields, &mut faults);
        let password = password(&fields, PASSWORD_CHARS_MIN, &mut faults);
        let name = fields.text("name", NAME_CHARS_MAX, &mut faults);
        let org_name = fields.optional_text("orgName", NAME_CHARS_MAX, &mut faults);
        let currency = match body.get("currency") {
            Some(_) => fields.currency("currency", &mut faults),
            None => Some(DEFAULT_CURRENCY.to_owned()),
        };
        faults.finish()?;
        Ok(Self {
            email: email.unwrap_or_default(),
            password: password.unwrap_or_else(|| Secret::new(String::new())),
            name: name.unwrap_or_default(),
            organisation: org_name
                .zip(currency)
                .map(|(name, currency)| NewOrganisation { name, currency }),
        })
    }
}

impl Credentials {
    pub(crate) fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Faults::default();
        let fields = Fields::of(body);
        let email = email(&fields, &mut faults);
        let password = password(&fields, 1, &mut faults);
        faults.finish()?;
        Ok(Self {
            email: email.unwrap_or_default(),
            password: password.unwrap_or_else(|| Secret::new(String::new())),
        })
    }
}

pub(crate) fn refresh_token(body: &Value) -> Result<Secret, Vec<Fault>> {
    let mut faults = Faults::default();
    let token = Fields::of(body).text("refreshToken", TOKEN_CHARS_MAX, &mut faults);
    faults.finish()?;
    Ok(Secret::new(token.unwrap_or_default()))
}

/// Addresses are compared in lower case; the full grammar of addresses is not this check's business.
fn email(fields: &Fields<'_>, faults: &mut Faults) -> Option<String> {
    let text = fields
        .text("email", EMAIL_CHARS_MAX, faults)?
        .to_lowercase();
    let shaped = text
        .split_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
        && !text.chars().any(char::is_whitespace);
    if !shaped {
        faults.add("email", "must be an e-mail address");
        return None;
    }
    Some(text)
}

/// A password is taken as it is: no trimming, and every character is allowed.
fn password(fields: &Fields<'_>, chars_min: usize, faults: &mut Faults) -> Option<Secret> {
    let text = fields.raw_text("password");
    match text.filter(|text| text.chars().count() >= chars_min && text.len() <= PASSWORD_BYTES_MAX)
    {
        Some(text) => Some(Secret::new(text.to_owned())),
        None => {
            let message = format!(
                "must have at least {chars_min} characters and at most {PASSWORD_BYTES_MAX} bytes"
            );
            faults.add("password", message);
            None
        }
    }
}
