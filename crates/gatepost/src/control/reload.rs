//! A changed configuration, or changed files that it names, taken into use: all of it or nothing.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::Server;
use super::listening::Listening;
use super::service_manager::News;
use super::start::{http_problem, room};
use crate::config::{self, Config, Draft, Level, Problem, Problems};
use crate::log::Logger;
use crate::stamp::Stamp;
use crate::world::World;

/// When certificates that could not be used are looked at again.
const RENEW_PAUSE: Duration = Duration::from_mins(1);

/// Where the configuration of a new world comes from.
enum Origin {
    File,
    /// As it is in force: only what it names has changed.
    Same(Box<Config>),
}

impl Server {
    /// Whether a certificate's files are others than when this was last asked, or could not be used some time ago. Called
    /// once a second.
    pub(super) fn take_certificate_change(&self) -> bool {
        let world = self.entrance.world.load();
        let files = world.certificates().iter().flat_map(|(files, _)| [&files.chain, &files.key]);
        let stamps: HashMap<_, _> = files.map(|path| (path.to_path_buf(), Stamp::of(path).ok())).collect();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        // Other files after a reload are no change of these.
        let has_changed = stamps.iter().any(|(path, stamp)| watched.get(path).is_some_and(|before| before != stamp));
        *watched = stamps;
        let mut again = self.renew_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = again.is_some_and(|at| Instant::now() >= at);
        if has_changed || is_due {
            *again = None;
        }
        has_changed || is_due
    }

    /// Takes renewed certificates into use, with the configuration as it is. A pair that isn't whole yet stays out.
    pub(super) async fn renew(&self, listening: &mut Listening) {
        let config = Box::new(self.entrance.world.load().config.clone());
        let log = &self.shared.log;
        match self.try_reload(Origin::Same(config), listening).await {
            Ok(_) => log.record(Level::Info, "server", "renewed certificates are in use").write(),
            Err(problems) => {
                // A key may come a moment after its chain, and what else is in the way may go.
                *self.renew_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + RENEW_PAUSE);
                for problem in problems.iter() {
                    let what = "changed certificates can't be used, those before stay";
                    log.record(Level::Error, "server", what).with("problem", problem.to_string()).write();
                }
            }
        }
    }

    /// Takes a changed configuration into use, or says what is wrong with it and changes nothing.
    pub(super) async fn reload(&self, listening: &mut Listening) -> Result<Vec<Problem>, Problems> {
        let log = &self.shared.log;
        self.tell_manager(News::Reloading);
        let result = self.try_reload(Origin::File, listening).await;
        self.tell_manager(News::Ready);
        match &result {
            Ok(warnings) => {
                self.lasting.metrics.reloads.one();
                for warning in warnings {
                    log.record(Level::Warning, "server", warning.to_string()).write();
                }
                log.record(Level::Info, "server", "the configuration was reloaded").write();
            }
            Err(problems) => {
                self.lasting.metrics.failed_reloads.one();
                for problem in problems.iter() {
                    log.record(Level::Error, "server", "the reload failed, nothing was changed")
                        .with("problem", problem.to_string())
                        .write();
                }
            }
        }
        result
    }

    async fn try_reload(&self, origin: Origin, listening: &mut Listening) -> Result<Vec<Problem>, Problems> {
        let failed = |error: String| Problems::one(Problem::of("reload", error));
        let (source, log, lasting) = (self.source.clone(), self.shared.log.clone(), self.lasting.clone());
        let checker = self.shared.checker.clone();
        let state = self.entrance.world.load().config.state.clone();
        // Reading files takes time that accepting connections should not wait for.
        let is_same = matches!(origin, Origin::Same(_));
        let build = move || {
            let Draft { mut config, mut warnings, mut problems, .. } = match origin {
                Origin::File => source.draft()?,
                Origin::Same(config) => Draft::of(*config),
            };
            if config.state != state {
                let what = "a change is used from the next start on";
                warnings.push(Problem::of("state", format!("{}: {what}", config.state.display())));
                if !config.admin.is_socket_set() {
                    config.admin.socket = state.join(config::SOCKET_NAME);
                }
                config.state = state;
            }
            let mut note = |found: Problems| problems.append(&mut found.into_vec());
            // Renewed certificates leave the log as it is, and what was said about it meanwhile.
            let prepared = if is_same { Ok(None) } else { Logger::prepare(&config.log).map(Some).map_err(&mut note) };
            let world = World::build(config, &log, &checker, &lasting, &mut warnings).map_err(&mut note);
            Problems::check(problems, ())?;
            match (world, prepared) {
                (Ok(world), Ok(prepared)) => Ok((world, prepared, warnings)),
                _ => Err(Problems::one(Problem::of("reload", "failed"))),
            }
        };
        let (world, prepared, warnings) =
            tokio::task::spawn_blocking(build).await.map_err(|error| failed(error.to_string()))??;

        let room = room(world.config.threads, world.addresses().len()).map_err(Problems::one)?;
        let moves = listening.socket.as_ref().is_none_or(|socket| !socket.is_at(&world.config.admin.socket));
        let moved = if moves { self.open_socket(&world.config)? } else { None };
        let before = self.entrance.world.load_full();
        listening.move_listeners(&before.config, &world.config).await?;
        if let Err((address, error)) = listening.http.listen(world.http(), &mut listening.given).await {
            // The rest is as it was before.
            let _ = listening.move_listeners(&world.config, &before.config).await;
            return Err(Problems::one(http_problem(address, &error)));
        }
        if world.http().addresses != before.http().addresses {
            self.invite(listening.http.app(), world.http());
        }
        // From here on nothing can fail but for want of memory or threads.
        self.entrance.workers.set_bounds(room.threads).map_err(|error| failed(error.to_string()))?;
        if let Some(prepared) = prepared {
            self.shared.log.switch(prepared);
        }
        if moved.is_some() {
            listening.socket = moved;
        }
        *self.looking.lock().unwrap_or_else(PoisonError::into_inner) = world.look(&self.shared.log);
        self.entrance.world.store(Arc::new(world));
        Ok(warnings)
    }
}
