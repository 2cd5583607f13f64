//! Logins over a socket: the token endpoint, expiry by the lab's clock, profile, log.

#![allow(clippy::unwrap_used)] // Helpers here are tests too.

mod common;

use std::time::Duration;

use common::{End, KEY, TOKEN, exchange, hello, lab, post};
use moltbot_lab::{Keys, Lab, LabOptions, fingerprint};
use serde_json::{Value, json};

fn refresh(lab: &Lab, token: &str) -> common::Reply {
    let body = json!({"grant_type": "refresh_token", "refresh_token": token, "client_id": "c"});
    post(lab, "/v1/oauth/token", &[], &body)
}

fn ask(lab: &Lab, token: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let reply = post(lab, "/v1/messages", &[("authorization", &bearer)], &hello());
    (reply.status, if reply.status == 200 { String::new() } else { reply.message() })
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap().to_owned()
}

#[test]
fn a_login_expires_is_renewed_once_and_can_be_revoked() {
    let lab = lab("{tokens: {accessSeconds: 100}}");
    let login = lab.issue_login("mia", Duration::from_secs(60));
    assert_eq!(ask(&lab, &login.access_token).0, 200);
    lab.advance(Duration::from_secs(61));
    let (status, says) = ask(&lab, &login.access_token);
    assert!(status == 401 && says.starts_with("OAuth token has expired"), "{says}");
    let renewed = refresh(&lab, &login.refresh_token).json();
    assert_eq!(renewed["expires_in"], 100);
    assert_eq!(ask(&lab, &text(&renewed, "access_token")).0, 200);
    let spent = refresh(&lab, &login.refresh_token);
    assert_eq!((spent.status, text(&spent.json(), "error")), (400, "invalid_grant".into()));
    assert_eq!(lab.revoke_login("mia"), 1);
    assert_eq!(ask(&lab, &text(&renewed, "access_token")).0, 403);
}

#[test]
fn an_answer_lost_on_the_way_has_spent_the_token() {
    let lab = lab(
        "{rules: [{match: {path: '/v1/oauth/token', key: 'mia'}, fault: {reset: 'headers'}, times: 1}]}",
    );
    let login = lab.issue_login("mia", Duration::ZERO);
    assert_eq!(refresh(&lab, &login.refresh_token).end, End::Reset);
    assert_eq!(refresh(&lab, &login.refresh_token).status, 400);
    // Before the request took effect nothing is lost.
    let lab =
        common::lab("[{match: {path: '/v1/oauth/token'}, fault: {reset: 'request'}, times: 1}]");
    let login = lab.issue_login("mia", Duration::ZERO);
    assert_eq!(refresh(&lab, &login.refresh_token).end, End::Reset);
    assert_eq!(refresh(&lab, &login.refresh_token).status, 200);
}

#[test]
fn repeat_mode_forgives_within_the_window() {
    let lab = lab("{tokens: {rotation: 'repeat', windowSeconds: 10},
                    logins: [{label: 'a', expiresIn: 0, refreshToken: 'sk-ant-ort01-FAKE-a'}]}");
    let first = refresh(&lab, "sk-ant-ort01-FAKE-a");
    assert_eq!(first.json(), refresh(&lab, "sk-ant-ort01-FAKE-a").json());
    lab.advance(Duration::from_secs(10));
    assert_eq!(refresh(&lab, "sk-ant-ort01-FAKE-a").status, 400);
}

#[test]
fn the_profile_needs_a_login_and_not_just_a_token() {
    let lab = lab("[]");
    let get = |credential: &str| {
        let bearer = format!("Bearer {credential}");
        exchange(&lab, "GET", "/api/oauth/profile", &[("authorization", &bearer)], b"")
    };
    let login = lab.issue_login("mia", Duration::from_secs(60));
    let profile = get(&login.access_token);
    assert_eq!(profile.json()["organization"]["uuid"], login.organization);
    let setup = get(TOKEN);
    assert_eq!(setup.status, 403);
    assert!(setup.message().contains("scope requirement user:profile"));
    assert_eq!(get(KEY).status, 401);
}

#[test]
fn a_lab_with_listed_keys_still_serves_its_logins() {
    let keys = Keys::Only(vec![KEY.to_owned()]);
    let lab = Lab::start_on_thread(LabOptions { keys, ..LabOptions::default() }).unwrap();
    assert_eq!(ask(&lab, KEY).0, 200);
    assert_eq!(ask(&lab, TOKEN), (401, "Invalid bearer token".into()));
    let login = lab.issue_login("mia", Duration::from_secs(60));
    assert_eq!(ask(&lab, &login.access_token).0, 200);
}

#[test]
fn the_log_shows_what_came_and_no_credential() {
    let lab = lab("[]");
    let login = lab.issue_login("mia", Duration::from_secs(60));
    refresh(&lab, &login.refresh_token);
    ask(&lab, &login.access_token);
    let bearer = format!("Bearer {TOKEN}");
    let body = json!({"model": "m", "max_tokens": 1,
                      "messages": [{"role": "user", "content": format!("my key is {KEY}")}]});
    post(&lab, "/v1/messages?beta=true", &[("authorization", &bearer)], &body);
    let shown = exchange(&lab, "GET", "/lab/log", &[], b"").text();
    for secret in [&login.refresh_token, &login.access_token, TOKEN, KEY] {
        let middle = &secret[13..25];
        assert!(!shown.contains(middle), "{middle} is in the log");
    }
    let entries = lab.log();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].body["refresh_token"], fingerprint(&login.refresh_token));
    assert_eq!(entries[0].body["grant_type"], "refresh_token");
    assert_eq!(entries[2].target, "/v1/messages?beta=true");
    assert_eq!(entries[2].credentials[0].sha256, fingerprint(TOKEN));
    assert!(entries[2].complete && entries[2].status == 200 && entries[2].sent > 0);
}
