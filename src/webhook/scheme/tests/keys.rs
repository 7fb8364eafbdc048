//! Which texts are keys, for which algorithm, and when.

use super::*;

#[test]
fn an_algorithm_takes_only_keys_of_its_own_form() {
    let with = |alg: &str, key: Option<&str>| {
        keys(&SchemeSpec {
            alg: Some(alg.into()),
            key: key.map(str::to_owned),
            ..good()
        })
    };
    for (alg, key) in [
        ("ed25519", Some("utf8")),
        ("ed25519", Some("whsec")),
        ("ecdsa-p256", Some("hex")),
        ("ecdsa-p256", Some("whpk")),
        ("hmac-sha256", Some("spki")),
        ("hmac-sha1", Some("whsec")),
    ] {
        assert_eq!(with(alg, key), ["key"], "{alg} {key:?}");
    }
    for (alg, key) in [
        ("ed25519", None),
        ("ed25519", Some("hex")),
        ("ed25519", Some("whpk")),
        ("ecdsa-p256", None),
    ] {
        assert!(with(alg, key).is_empty(), "{alg} {key:?}");
    }
    let mixed = |key: &str| {
        keys(&SchemeSpec {
            split: Some(" ".into()),
            items: vec!["v1,{sig}".into(), "v1a,{sig:ed25519}".into()],
            key: Some(key.into()),
            ..good()
        })
    };
    assert!(mixed("whsec").is_empty());
    assert_eq!(mixed("utf8"), ["key"]);
}

#[test]
fn a_public_key_that_anybody_could_sign_for_is_refused() {
    let spec = SchemeSpec {
        alg: Some("ed25519".into()),
        key: Some("hex".into()),
        ..good()
    };
    let scheme = Scheme::build(&spec).unwrap();
    let takes = |hex: &str| ActiveSecret::new("key", &Secret::new(hex), &scheme).is_ok();
    assert!(takes(
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    ));
    let zeros = "00".repeat(31);
    for weak in [format!("00{zeros}"), format!("01{zeros}")] {
        assert!(!takes(&weak), "{weak}");
    }
    assert!(!takes("d75a980182b10ab7d54bfed3c964073a"));
}

#[test]
fn weak_and_broken_secrets_are_refused() {
    let check = |spec: &SchemeSpec, secret: &str| {
        ActiveSecret::new(
            "current",
            &Secret::new(secret),
            &Scheme::build(spec).unwrap(),
        )
        .is_ok()
    };
    assert!(check(&good(), "0123456789abcdef"));
    for bad in [
        "",
        " ",
        "\n",
        "0123456789abcde",
        "0123456789abcdef\n",
        " 0123456789abcdef",
        "${WH_SECRET_OF_BILLING}",
    ] {
        assert!(!check(&good(), bad), "{bad:?}");
    }
    let long = SchemeSpec {
        secret_bytes_min: Some(32),
        ..good()
    };
    assert!(!check(&long, "0123456789abcdef0123456789abcde"));
    assert!(check(&long, "0123456789abcdef0123456789abcdef"));
    let whsec = SchemeSpec {
        key: Some("whsec".into()),
        ..good()
    };
    assert!(check(&whsec, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    assert!(check(&whsec, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    for bad in [
        "whsec_",
        "whsec_MfKQ9r8GKYqrTwjUPD8=",
        "whsec_****************",
    ] {
        assert!(!check(&whsec, bad), "{bad}");
    }
    let hex = SchemeSpec {
        key: Some("hex".into()),
        ..good()
    };
    assert!(check(&hex, "00112233445566778899aabbccddeeff"));
    assert!(!check(&hex, "0011223344556677"));
    assert!(!check(&hex, "00112233445566778899aabbccddeefg"));
}

#[test]
fn a_secret_counts_within_its_time() {
    let scheme = Scheme::build(&good()).unwrap();
    let secret = ActiveSecret::new("old", &Secret::new("0123456789abcdef"), &scheme).unwrap();
    let secret = secret.within(Some(UnixMs(10)), Some(UnixMs(20)));
    let active: Vec<_> = [9, 10, 19, 20]
        .map(|at| secret.is_active(UnixMs(at)))
        .into();
    assert_eq!(active, [false, true, true, false]);
    assert!(!format!("{secret:?}").contains("0123456789abcdef"));
}
