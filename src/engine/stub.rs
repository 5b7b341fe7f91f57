//! A stand-in with the boundary of the engine: a single node leads and applies at once, several
//! stay followers for ever.
#![allow(missing_docs, clippy::all)]

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Error, Host, Info, Input, NodeView, Request, Role, View};
use crate::cluster::{self, Params};
use crate::core::{Index, Millis, NodeId};
use crate::detector::{BlockedBy, NodeState};

#[derive(Clone, Debug)]
pub struct Settings {
    pub id: NodeId,
    pub cluster: u64,
    pub params: Params,
    pub heartbeat: Millis,
    pub election: Millis,
    pub queue_max: usize,
    pub entry_max: usize,
    pub seed: u64,
    pub log_level: i32,
}

#[derive(Clone, Debug)]
pub enum Place {
    Directory { path: PathBuf, create: bool },
    Volatile,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<VecDeque<Input>>,
    view: Mutex<View>,
    max: usize,
    wake: Mutex<Option<OwnedFd>>,
}

#[derive(Clone, Debug)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub fn submit(&self, input: Input) -> Result<(), Error> {
        let mut queue = self.0.queue.lock().unwrap();
        if queue.len() == self.0.max {
            return Err(Error::Full);
        }
        queue.push_back(input);
        if let Some(fd) = &*self.0.wake.lock().unwrap() {
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
        Ok(())
    }
    pub fn receive(&self, _from: Option<NodeId>, bytes: &[u8]) -> Result<(), Error> {
        Err(Error::Malformed(format!(
            "{} bytes that do not parse",
            bytes.len()
        )))
    }
    pub fn view<R>(&self, f: impl FnOnce(&View) -> R) -> R {
        f(&self.0.view.lock().unwrap())
    }
    pub fn timeout_ms(&self) -> Option<Millis> {
        None
    }
}

#[derive(Debug)]
pub struct Member {
    shared: Arc<Shared>,
    settings: Settings,
    peers: Vec<cluster::Member>,
    last: Index,
    fd_mode: bool,
    dead: Option<Error>,
}

impl Member {
    pub fn new(settings: Settings, place: Place) -> Result<(Member, Handle), Error> {
        if let Place::Directory { path, create } = &place {
            if !create && !path.exists() {
                return Err(Error::NotFound(format!("{}: no node here", path.display())));
            }
        }
        let p = &settings.params;
        if p.hb_deadtime != 0 && p.hb_deadtime <= 2 * p.hb_keepalive.max(1) {
            return Err(Error::Invalid(
                "hb_deadtime must be over 2 x hb_keepalive".into(),
            ));
        }
        let view = View {
            info: Info {
                id: Some(settings.id),
                cluster: settings.cluster,
                ..Info::default()
            },
            params: settings.params.clone(),
            ..View::default()
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(VecDeque::new()),
            view: Mutex::new(view),
            max: settings.queue_max,
            wake: Mutex::new(None),
        });
        let handle = Handle(shared.clone());
        let member = Member {
            shared,
            settings,
            peers: Vec::new(),
            last: 0,
            fd_mode: false,
            dead: None,
        };
        Ok((member, handle))
    }

    pub fn bootstrap(&mut self, peers: &[cluster::Member]) -> Result<(), Error> {
        if !self.peers.is_empty() {
            return Err(Error::Exists("this node has a log already".into()));
        }
        let mut ids: Vec<_> = peers.iter().map(|p| p.id).collect();
        ids.sort();
        ids.dedup();
        if ids.len() != peers.len() || !ids.contains(&self.settings.id) {
            return Err(Error::Invalid("a bad list".into()));
        }
        self.peers = peers.to_vec();
        self.last = 1;
        let mut view = self.shared.view.lock().unwrap();
        view.info.epoch = 1;
        view.nodes = peers
            .iter()
            .map(|p| NodeView {
                id: p.id,
                role: Role::Follower,
                state: NodeState::Joining,
                blocked_by: BlockedBy::Disabled,
                silent: None,
                excludes_in: None,
                epoch: 0,
                index: 0,
                match_index: 0,
                heard_by: 0,
                witnesses: 0,
                address: p.address.clone(),
                meta: p.meta.clone(),
                replaced_by: None,
            })
            .collect();
        Ok(())
    }

    pub fn step(&mut self, _now: Millis, host: &mut dyn Host) -> Result<Option<Millis>, Error> {
        if self.fd_mode {
            return Err(Error::State("the fd mode is in use".into()));
        }
        self.round(host)?;
        Ok(None)
    }

    pub fn fd(&mut self) -> Result<RawFd, Error> {
        self.fd_mode = true;
        let mut wake = self.shared.wake.lock().unwrap();
        if wake.is_none() {
            *wake = Some(
                rustix::event::eventfd(1, rustix::event::EventfdFlags::NONBLOCK)
                    .map_err(|e| Error::Io(e.to_string()))?,
            );
        }
        Ok(wake.as_ref().unwrap().as_raw_fd())
    }

    pub fn dispatch(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        if !self.fd_mode {
            return Err(Error::State("keel_fd() was not called".into()));
        }
        let mut count = [0u8; 8];
        if let Some(fd) = &*self.shared.wake.lock().unwrap() {
            let _ = rustix::io::read(fd, &mut count);
        }
        self.round(host)
    }

    fn round(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        if let Some(dead) = &self.dead {
            return Err(dead.clone());
        }
        let alone = self.peers.len() == 1;
        if alone && self.last == 1 {
            self.last = 2;
            {
                let mut view = self.shared.view.lock().unwrap();
                view.info.role = Role::Leader;
                view.info.leader = Some(self.settings.id);
                view.info.term = 1;
                view.info.has_quorum = true;
            }
            host.role(Role::Leader, 1, Some(self.settings.id));
            host.node(self.settings.id, NodeState::Alive, NodeState::Joining, 0);
            host.members(1, 1);
            host.fence(false, "a majority is heard");
            host.event("ROLE", "{\"role\":\"leader\"}");
            host.log(3, "leads");
            let params = self.settings.params.clone();
            host.params(&params);
        }
        loop {
            let Some(input) = self.shared.queue.lock().unwrap().pop_front() else {
                break;
            };
            match input {
                Input::Request(ticket, request) if alone => {
                    self.last += 1;
                    if let Request::Propose(data) = &request {
                        if let Err(code) = host.apply(self.last, 1, data) {
                            let error = Error::Internal(format!("apply returned {code}"));
                            self.dead = Some(error.clone());
                            host.stopped(&error);
                            return Err(error);
                        }
                    }
                    host.done(ticket, Ok(self.last));
                }
                Input::Request(ticket, _) => host.done(ticket, Err(Error::NotLeader)),
                Input::Packet(_) | Input::Heard(_) => {}
            }
        }
        if !alone {
            for p in &self.peers {
                if p.id != self.settings.id {
                    host.send(p.id, b"stub");
                }
            }
        }
        self.shared.view.lock().unwrap().metrics.steps += 1;
        Ok(())
    }
}
