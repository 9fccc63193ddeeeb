//! Commands about the users of the embedded directory.

use gatepost_wire::sasl;

use super::Server;
use crate::admin::{UserChange, answers};
use crate::directory::sqlite::{Account, Change, Services, Sqlite};
use crate::directory::{Bar, Entry, KeptSecret, Location};

impl Server {
    /// The only embedded directory, or the one of this name, opened.
    async fn embedded(&self, wanted: Option<&str>) -> Result<(String, Sqlite), String> {
        let (name, path) = {
            let world = self.entrance.world.load();
            let (name, path) = world.config.embedded(wanted)?;
            (name.to_owned(), path.clone())
        };
        let opened = Sqlite::create(&path).await.map_err(|fault| fault.to_string())?;
        Ok((name, opened))
    }

    /// Everybody in it.
    pub(super) async fn users(&self, directory: Option<&str>) -> Result<Vec<answers::User>, String> {
        let (directory, sqlite) = self.embedded(directory).await?;
        let listed = sqlite.list().await.map_err(|fault| fault.to_string());
        sqlite.close().await;
        let describe = |account: Account| answers::User {
            directory: directory.clone(),
            name: account.name,
            backend: account.place,
            disabled: account.disabled,
            held: account.held,
            services: account.services,
            password: account.has_password,
        };
        Ok(listed?.into_iter().map(describe).collect())
    }

    /// Adds a user, or changes what is said of one.
    pub(super) async fn set_user(
        &self,
        name: &str,
        change: &UserChange,
        directory: Option<&str>,
    ) -> Result<answers::Changed, String> {
        let sound = sasl::user_name(name.as_bytes());
        let sound = sound.ok_or(sasl::USER_NAME)?;
        let name = self.entrance.world.load().config.names.canonical(&sound);
        if let Some(backend) = change.backend.as_deref() {
            self.check_backend(backend)?;
        }
        let UserChange { backend, disabled, held, services, password } = change.clone();
        let services = match services.as_deref() {
            Some("all") => Some(Services::All),
            list => list.map(Services::only).transpose()?,
        };
        let password = password.map(KeptSecret::new);
        let (_, sqlite) = self.embedded(directory).await?;
        let work = async {
            let entry = Entry {
                place: backend.as_deref().map(Location::from),
                password: password.clone(),
                held: held.unwrap_or(false),
                barred: (disabled == Some(true)).then_some(Bar::Disabled),
                services: services.clone().and_then(Services::listed),
                ..Entry::default()
            };
            let is_new = sqlite.add(&name, &entry).await?;
            if !is_new {
                sqlite.set(&name, &Change { password, place: backend, disabled, held, services }).await?;
            }
            Ok::<_, crate::directory::Fault>(is_new)
        };
        let result = work.await.map_err(|fault| fault.to_string());
        sqlite.close().await;
        self.entrance.world.load().forget(Some(&name));
        Ok(answers::Changed { result: if result? { "added" } else { "changed" }.into(), name })
    }

    /// Removes a user.
    pub(super) async fn remove_user(&self, name: &str, directory: Option<&str>) -> Result<answers::Changed, String> {
        let name = self.entrance.world.load().config.names.canonical(name);
        let (_, sqlite) = self.embedded(directory).await?;
        let removed = sqlite.remove(&name).await.map_err(|fault| fault.to_string());
        sqlite.close().await;
        self.entrance.world.load().forget(Some(&name));
        if removed? {
            Ok(answers::Changed { name, result: "removed".into() })
        } else {
            Err(format!("there is no user {name:?}"))
        }
    }
}
