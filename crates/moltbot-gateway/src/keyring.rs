//! The operating system's keyring: Secret Service on Linux, Keychain on macOS.
//!
//! Only a build with the feature `keyring` contains it; `cargo xtask dist` switches that on when
//! the plugin `keyring` is chosen.

use moltbot_core::{HostError, KeyringEntry, Secret};

/// Keeps secrets by service and account.
pub trait Keyring: Send + Sync {
    /// Writes `put`, if there is anything to write, and returns what the entry holds then.
    fn entry(&self, entry: &KeyringEntry, put: Option<Secret>)
    -> Result<Option<Secret>, HostError>;
}

/// The keyring of this machine and user.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsKeyring;

#[cfg(not(feature = "keyring"))]
impl Keyring for OsKeyring {
    fn entry(&self, _: &KeyringEntry, _: Option<Secret>) -> Result<Option<Secret>, HostError> {
        let what = "the keyring (this build was made without it; \
                    `cargo xtask dist` with the plugin keyring makes one that has it)";
        Err(HostError::Unsupported { what: what.into() })
    }
}

#[cfg(feature = "keyring")]
impl Keyring for OsKeyring {
    fn entry(
        &self,
        entry: &KeyringEntry,
        put: Option<Secret>,
    ) -> Result<Option<Secret>, HostError> {
        // The library waits for the keyring's answer with a runtime of its own, which may not
        // start inside another one; hence the thread.
        let failed = || HostError::Other { message: "the keyring could not be asked".into() };
        std::thread::scope(|scope| scope.spawn(|| ask(entry, put)).join()).map_err(|_| failed())?
    }
}

#[cfg(feature = "keyring")]
fn ask(entry: &KeyringEntry, put: Option<Secret>) -> Result<Option<Secret>, HostError> {
    let failed = |error: keyring::Error| {
        // The library's errors may carry the bytes they are about; only the kind is told.
        let why = match error {
            keyring::Error::NoDefaultStore => "there is none here",
            keyring::Error::NoStorageAccess(_) => "it is locked, or there is none here",
            keyring::Error::PlatformFailure(_) => "it does not answer",
            keyring::Error::Ambiguous(_) => "it holds several such entries",
            keyring::Error::BadEncoding(_) => "the entry is not text",
            _ => "it refused the entry",
        };
        HostError::Other { message: format!("the keyring of this machine: {why}") }
    };
    let found = keyring::Entry::new(&entry.service, &entry.account).map_err(failed)?;
    if let Some(secret) = put {
        found.set_password(secret.expose()).map_err(failed)?;
    }
    match found.get_password() {
        Ok(text) => Ok(Some(Secret::new(text))),
        Err(keyring::Error::NoEntry) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
