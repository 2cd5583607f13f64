//! The doctor's look around the stores: side files that others can read, temporary files of killed
//! writers, renewals that were interrupted, network file systems, logins that stand there twice.

use moltbot_config::AgentId;
use moltbot_core::Generation;
use moltbot_gateway::{AgentPaths, Engine, ProfileView};
use moltbot_profiles::PendingRenewal;

use super::Doctor;
use crate::commands::credentials::prune::remove_seen;
use crate::out::clean;
use crate::{Context, Failure};

/// Checks what lies beside one agent's store.
pub(super) fn check(
    cx: &mut Context,
    doctor: &mut Doctor,
    id: &AgentId,
    agent: &AgentPaths,
) -> Result<(), Failure> {
    let store = cx.store(agent);
    let found = store.inspect()?;
    if let Some(kind) = found.network {
        let shown = cx.shown(&agent.store);
        doctor.warning(
            cx,
            &format!("{shown} lies on {kind}: use it from one machine only, or move it"),
        );
    }
    let mut mends: Vec<String> = Vec::new();
    // Of the store itself more was said already.
    for (path, mode) in found.exposed.iter().filter(|(path, _)| *path != agent.store) {
        mends.push(format!("{} is open to others (mode {mode:03o})", cx.shown(path)));
    }
    for path in &found.temporaries {
        mends.push(format!("{} was left by a writer that was killed", cx.shown(path)));
    }
    for renewal in found.renewals.iter().filter(|renewal| renewal.profile.is_none()) {
        let shown = cx.shown(&renewal.path);
        mends.push(format!("{shown} was left by a renewal that never began"));
    }
    let mended = if doctor.fix { store.tidy_blocking(cx.now())? } else { Vec::new() };
    for text in &mends {
        match doctor.fix && !mended.is_empty() {
            true => doctor.repaired(cx, &clean(&format!("mended: {text}"))),
            false => doctor.repairable(cx, &clean(text)),
        }
    }
    for renewal in &found.renewals {
        if let Some(profile) = &renewal.profile {
            finish(cx, doctor, id, agent, profile, renewal)?;
        }
    }
    Ok(())
}

/// Finishes a renewal that was interrupted.
fn finish(
    cx: &mut Context,
    doctor: &mut Doctor,
    id: &AgentId,
    agent: &AgentPaths,
    profile: &str,
    renewal: &PendingRenewal,
) -> Result<(), Failure> {
    let shown = clean(profile).into_owned();
    let what = match renewal.answered {
        true => "the answer is kept and not yet stored",
        false => "whether it was answered is unknown",
    };
    let text = format!("agent {id}: the renewal of {shown} was interrupted; {what}");
    if !doctor.fix {
        doctor.repairable(cx, &text);
        return Ok(());
    }
    let engine: Engine = cx.engine(agent)?;
    // An answer that is there needs no request; otherwise the service is asked once more.
    match cx.block_on(engine.refresh(profile, !renewal.answered))? {
        Ok(_) => doctor.repaired(cx, &format!("finished the renewal of {shown}")),
        Err(error) => {
            let cause = clean(&error.message).into_owned();
            doctor.problem(cx, &text, Some(&cause));
        }
    }
    Ok(())
}

/// Names profiles that are of one account, and removes those that are one and the same login.
pub(super) fn duplicates(
    cx: &mut Context,
    doctor: &mut Doctor,
    agent: &AgentPaths,
    engine: &Engine,
) -> Result<(), Failure> {
    let views = cx.block_on(engine.resolve_profiles(None))??;
    let profiles = cx.store(agent).load_blocking()?.profiles;
    let account = |id: &str| profiles.stats(id).and_then(|stats| stats.account.clone());
    let own: Vec<_> = views.iter().filter(|view| !view.stored.is_link()).collect();
    for (at, view) in own.iter().enumerate() {
        let (id, stored) = (&view.id, &view.stored);
        let alike = |other: &&&ProfileView| {
            other.stored.provider == stored.provider && other.stored.kind == stored.kind
        };
        let same_login = |other: &&&ProfileView| {
            stored.secret().is_some()
                && Generation::of(stored) == Generation::of(&other.stored)
                && alike(other)
        };
        if let Some(first) = own[..at].iter().find(same_login) {
            let text = format!("{} and {id} are one and the same login", first.id);
            if !doctor.fix {
                doctor.repairable(cx, &clean(&text));
            } else if !remove_seen(cx, agent, &views, vec![id.clone()])?.is_empty() {
                let undo = "`moltbot models auth undo` brings it back for 7 days";
                let text = format!("{text}: removed the second; {undo}");
                doctor.repaired(cx, &clean(&text));
            }
            continue;
        }
        let mine = account(id);
        let same_account =
            |other: &&&ProfileView| mine.is_some() && account(&other.id) == mine && alike(other);
        if let Some(first) = own[..at].iter().find(same_account) {
            let text = format!(
                "{} and {id} are one account and share its limits; `moltbot models auth remove \
                 {id}` removes the second",
                first.id
            );
            doctor.warning(cx, &clean(&text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use moltbot_profiles::{FileHook, Go, Step};
    use serde_json::json;

    use crate::testing::{Bench, KEY};

    /// A file system as statfs(2) and the table of mounts tell of it.
    struct On(u32, &'static str);

    impl FileHook for On {
        fn before(&self, _: &Step<'_>) -> std::io::Result<Go> {
            Ok(Go::On)
        }

        fn file_system(&self, directory: &Path) -> Option<(u32, String)> {
            assert!(directory.is_absolute(), "{directory:?}");
            Some((self.0, self.1.into()))
        }
    }

    #[test]
    fn a_store_on_a_network_file_system_is_warned_of() {
        let fuse = 0x6573_5546;
        for (magic, kind, said) in [
            (0x6969, "nfs4", Some("lies on NFS")),
            (0xff53_4d42, "cifs", Some("lies on SMB")),
            (fuse, "fuse.sshfs", Some("lies on sshfs")),
            (fuse, "fuse.gocryptfs", None),
            (0xef53, "ext4", None),
        ] {
            let bench = Bench::new();
            bench.key_and_token();
            let ran = bench.run_hooked(&["doctor"], "", Some(Arc::new(On(magic, kind))));
            let warned = ran.stdout.contains("use it from one machine only, or move it");
            assert_eq!(warned, said.is_some(), "{kind}: {ran:?}");
            assert!(said.is_none_or(|said| ran.stdout.contains(said)), "{kind}: {ran:?}");
        }
    }

    #[test]
    fn leftovers_are_named_and_mended() {
        let bench = Bench::new();
        bench.key_and_token();
        let dir = bench.store_path().parent().unwrap().to_path_buf();
        let orphan = dir.join(".auth-profiles.json.999-0.tmp");
        std::fs::write(&orphan, "half").unwrap();
        let ran = bench.run(&["doctor"]);
        assert_eq!(ran.code, 1, "{}", ran.stdout);
        let said = ".auth-profiles.json.999-0.tmp was left by a writer that was killed";
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
        assert!(orphan.exists());
        let ran = bench.run(&["doctor", "--fix"]);
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
        assert!(!orphan.exists());
        let ran = bench.run(&["doctor"]);
        assert!(!ran.stdout.contains("was left"), "{}", ran.stdout);
    }

    #[test]
    fn one_key_under_two_names_is_named_and_mended() {
        let bench = Bench::new();
        let store = json!({ "profiles": {
            "acme:default": { "type": "api_key", "provider": "acme", "key": KEY },
            "acme:again": { "type": "api_key", "provider": "acme", "key": KEY } } });
        bench.store(&store.to_string());
        let ran = bench.run(&["doctor"]);
        let said = "acme:default and acme:again are one and the same login";
        assert!(ran.code == 1 && ran.stdout.contains(said), "{}", ran.stdout);
        let ran = bench.run(&["doctor", "--fix", "--non-interactive"]);
        assert!(ran.code == 0 && ran.stdout.contains(said), "{}", ran.stdout);
        let ids = bench.run(&["models", "status", "--json"]).stdout;
        assert!(ids.contains("acme:default") && !ids.contains("acme:again"), "{ids}");
    }
}
