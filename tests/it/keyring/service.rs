//! A Secret Service on a socket of its own: of its D-Bus interface what keeping and finding a secret
//! takes, and of the bus what comes before. Nothing of the system is needed for it, and nothing of
//! the user's is touched.
//!
//! Secrets travel encrypted, under a key that both sides work out from each other's public number.
//! If one of them is 0, so is what they share: every session has the same key, and what was handed
//! in can be handed out as it is.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use zbus::blocking::connection;
use zbus::zvariant::{ObjectPath, OwnedObjectPath, OwnedValue, Type, Value};
use zbus::{Guid, ObjectServer, fdo, interface};

const SERVICE: &str = "/org/freedesktop/secrets";
const COLLECTION: &str = "/org/freedesktop/secrets/collection/login";

/// A service; it ends with the test.
pub(super) struct SecretService {
    items: Items,
    dir: tempfile::TempDir,
}

type Items = Arc<Mutex<Vec<Entry>>>;

struct Entry {
    attributes: HashMap<String, String>,
    secret: Secret,
}

/// A secret as it travels: by which session, the start of its encryption, itself, of what type.
#[derive(Clone, Serialize, Deserialize, Type)]
struct Secret(OwnedObjectPath, Vec<u8>, Vec<u8>, String);

impl SecretService {
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("bus")).unwrap();
        let service = Self { items: Items::default(), dir };
        let items = service.items.clone();
        std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().flatten() {
                let items = items.clone();
                let mut connection = connection::Builder::async_io_unix_stream(stream)
                    .server(Guid::generate())
                    .and_then(|it| it.p2p().serve_at("/org/freedesktop/DBus", Bus))
                    .and_then(|it| it.serve_at(SERVICE, Service(items.clone())))
                    .and_then(|it| it.serve_at(COLLECTION, Collection(items.clone())));
                for n in 0..items.lock().unwrap().len() {
                    let item = Item(items.clone(), n);
                    connection = connection.and_then(|it| it.serve_at(path_of(n), item));
                }
                // Whoever leaves in the middle of it is no concern of the others.
                connections.extend(connection.and_then(connection::Builder::build));
            }
        });
        service
    }

    /// Returns where it listens, as `DBUS_SESSION_BUS_ADDRESS` has it.
    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    /// Lists service and account of what it keeps.
    pub(super) fn entries(&self) -> Vec<(String, String)> {
        let of = |entry: &Entry, name| entry.attributes.get(name).cloned().unwrap_or_default();
        let items = self.items.lock().unwrap();
        items.iter().map(|entry| (of(entry, "service"), of(entry, "username"))).collect()
    }
}

fn path_of(n: usize) -> OwnedObjectPath {
    OwnedObjectPath::try_from(format!("{COLLECTION}/{n}")).unwrap()
}

/// No question is asked: whoever wants one to be answered is sent here.
fn no_prompt() -> OwnedObjectPath {
    OwnedObjectPath::try_from("/").unwrap()
}

/// What every client of a bus asks for before anything else.
struct Bus;

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> String {
        ":1.1".into()
    }

    fn add_match(&self, _rule: String) {}

    fn remove_match(&self, _rule: String) {}

    fn get_name_owner(&self, _name: String) -> String {
        ":1.0".into()
    }

    fn start_service_by_name(&self, _name: String, _flags: u32) -> u32 {
        // It runs already.
        2
    }
}

struct Service(Items);

#[interface(name = "org.freedesktop.Secret.Service")]
impl Service {
    fn open_session(
        &self,
        algorithm: String,
        _input: Value<'_>,
    ) -> fdo::Result<(OwnedValue, OwnedObjectPath)> {
        if algorithm != "dh-ietf1024-sha256-aes128-cbc-pkcs7" {
            return Err(fdo::Error::NotSupported("secrets do not travel in clear here".into()));
        }
        let public = Value::from(vec![0_u8]);
        let session = ObjectPath::try_from("/org/freedesktop/secrets/session/1").unwrap();
        Ok((public.try_into().unwrap(), session.into()))
    }

    fn search_items(
        &self,
        attributes: HashMap<String, String>,
    ) -> (Vec<OwnedObjectPath>, Vec<OwnedObjectPath>) {
        let items = self.0.lock().unwrap();
        let wanted = |entry: &Entry| {
            attributes.iter().all(|(name, value)| entry.attributes.get(name) == Some(value))
        };
        let found = items.iter().enumerate().filter(|(_, entry)| wanted(entry));
        (found.map(|(n, _)| path_of(n)).collect(), Vec::new())
    }

    fn unlock(&self, objects: Vec<OwnedObjectPath>) -> (Vec<OwnedObjectPath>, OwnedObjectPath) {
        (objects, no_prompt())
    }

    fn read_alias(&self, _name: String) -> OwnedObjectPath {
        OwnedObjectPath::try_from(COLLECTION).unwrap()
    }
}

struct Collection(Items);

#[interface(name = "org.freedesktop.Secret.Collection")]
impl Collection {
    async fn create_item(
        &self,
        #[zbus(object_server)] server: &ObjectServer,
        properties: HashMap<String, OwnedValue>,
        secret: Secret,
        _replace: bool,
    ) -> fdo::Result<(OwnedObjectPath, OwnedObjectPath)> {
        let attributes = properties.get("org.freedesktop.Secret.Item.Attributes");
        let attributes = attributes.and_then(|value| value.try_clone().ok()?.try_into().ok());
        let attributes =
            attributes.ok_or_else(|| fdo::Error::InvalidArgs("no attributes".into()))?;
        let n = {
            let mut items = self.0.lock().unwrap();
            items.push(Entry { attributes, secret });
            items.len() - 1
        };
        server.at(path_of(n), Item(self.0.clone(), n)).await?;
        Ok((path_of(n), no_prompt()))
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        false
    }
}

struct Item(Items, usize);

#[interface(name = "org.freedesktop.Secret.Item")]
impl Item {
    fn get_secret(&self, session: OwnedObjectPath) -> (Secret,) {
        let Secret(_, start, value, kind) = self.0.lock().unwrap()[self.1].secret.clone();
        (Secret(session, start, value, kind),)
    }

    fn set_secret(&self, secret: Secret) {
        self.0.lock().unwrap()[self.1].secret = secret;
    }

    #[zbus(property)]
    fn locked(&self) -> bool {
        false
    }
}
