//! Depth first through all worlds that can be reached within a scope, each once.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use crate::fingerprint::fingerprint;
use crate::scope::Scope;
use crate::world::{Action, World};

/// What a search has seen.
#[derive(Debug, Default)]
pub struct Found {
    /// Distinct worlds.
    pub states: usize,
    /// Steps tried, most of which led to a world that was known.
    pub steps: u64,
    /// Length of the longest history.
    pub depth: usize,
    /// Whether every world within the bounds was seen.
    pub complete: bool,
    /// Newest index that was committed in any of them.
    pub committed: usize,
}

struct Frame {
    world: World,
    actions: Vec<Action>,
    next: usize,
}

struct Search<'a> {
    scope: &'a Scope,
    most: usize,
    seen: HashSet<u64>,
    stack: Vec<Frame>,
    found: Found,
}

/// Searches until every world of the scope is known, or `most` of them. Panics with the history
/// that leads to a broken promise.
pub fn search(scope: &Scope, most: usize) -> Found {
    let began = Instant::now();
    let mut search = Search {
        scope,
        most,
        seen: HashSet::new(),
        stack: Vec::new(),
        found: Found::default(),
    };
    let result = catch_unwind(AssertUnwindSafe(|| search.run()));
    if let Err(panic) = result {
        search.tell_history();
        resume_unwind(panic);
    }
    search.found.states = search.seen.len();
    let Scope { name, .. } = scope;
    println!(
        "{name}: {:?} in {:.1} s, bounds {scope:?}",
        search.found,
        began.elapsed().as_secs_f32()
    );
    search.found
}

impl Search<'_> {
    fn run(&mut self) {
        self.enter(World::new(self.scope));
        while let Some(frame) = self.stack.last_mut() {
            let Some(action) = frame.actions.get(frame.next).copied() else {
                self.stack.pop();
                continue;
            };
            frame.next += 1;
            let mut world = frame.world.clone();
            world.act(self.scope, action);
            self.found.steps += 1;
            self.enter(world);
            if self.seen.len() >= self.most {
                return;
            }
        }
        self.found.complete = true;
    }

    fn enter(&mut self, world: World) {
        if !self.seen.insert(fingerprint(&world)) {
            return;
        }
        self.found.committed = self.found.committed.max(world.past.committed());
        self.stack.push(Frame {
            actions: world.actions(self.scope),
            world,
            next: 0,
        });
        self.found.depth = self.found.depth.max(self.stack.len());
    }

    fn tell_history(&self) {
        eprintln!("{}: the history that broke a promise", self.scope.name);
        for frame in &self.stack {
            let Some(last) = frame.next.checked_sub(1) else {
                continue;
            };
            let action = frame.actions[last];
            match action {
                Action::Deliver(i) | Action::Copy(i) | Action::Drop(i) => {
                    let e = &frame.world.network[i];
                    eprintln!("  {action:?}: {} to {}: {:?}", e.from, e.to, e.message);
                }
                _ => eprintln!("  {action:?}"),
            }
        }
    }
}
