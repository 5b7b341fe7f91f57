//! What no single node knows: what was ever said, led, appended and committed. The last three are
//! not rules but what the rules are for (paper fig. 3): were one of them broken without a rule's
//! complaint, the rules would have a hole.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::data::{Config, Id, Message, MixState, Snapshot, mix};
use super::log::{Log, Place};
use super::{Node, Verdict};

#[derive(Clone, Default)]
pub struct History {
    said: HashSet<u64, MixState>,
    leaders: HashMap<u64, Id, MixState>,
    /// By index and term.
    places: HashMap<(u64, u64), u64, MixState>,
    /// From index 1, with the term of the node that knew it first.
    committed: Vec<Option<(Place, u64)>>,
    /// Those that are committed, ascending by index.
    configs: Vec<(u64, Arc<Config>)>,
}

impl History {
    pub fn say(&mut self, from: Id, to: Id, message: &Message) {
        self.said.insert(mix(&(from, to, message)));
    }

    pub fn has_said(&self, from: Id, to: Id, message: &Message) -> bool {
        self.said.contains(&mix(&(from, to, message)))
    }

    /// Whether a node has led in a term.
    pub fn leads(&self, term: u64, id: Id) -> bool {
        self.leaders.get(&term) == Some(&id)
    }

    pub fn committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// Election Safety and Leader Completeness.
    pub fn lead(&mut self, node: &Node) -> Verdict {
        let other = *self.leaders.entry(node.term).or_insert(node.id);
        rule!(other == node.id => "Election Safety, I1", "n{other} leads as well");
        let older = |known: &Option<(Place, u64)>| known.is_some_and(|(_, by)| by < node.term);
        let newest = self.committed.iter().rposition(older);
        let Some(at) = newest else {
            return Ok(());
        };
        let holds = node.log.place(at as u64 + 1) == self.committed[at].map(|(place, _)| place);
        rule!(holds => "Leader Completeness, I7", "leads without {}", at + 1);
        Ok(())
    }

    /// Log Matching.
    pub fn append(&mut self, index: u64, place: Option<Place>) -> Verdict {
        let Some(place) = place else {
            return Ok(());
        };
        let known = self.places.entry((index, place.term));
        let same = *known.or_insert(place.chain) == place.chain;
        rule!(same => "Log Matching, I5", "another log up to {index}.{}", place.term);
        Ok(())
    }

    /// State Machine Safety: what a node has committed since its commit index was `from`.
    pub fn commit(&mut self, node: &Node, from: u64) -> Verdict {
        for index in from + 1..=node.commit {
            let Some(place) = node.log.place(index) else {
                continue;
            };
            if self.committed.len() < index as usize {
                self.committed.resize(index as usize, None);
            }
            let known = self.committed[index as usize - 1].get_or_insert((place, node.term));
            let same = known.0 == place;
            rule!(same => "State Machine Safety, I6", "commits another {index}");
        }
        self.note_configs(node);
        Ok(())
    }

    fn note_configs(&mut self, node: &Node) {
        let (mut upto, known) = (node.commit, self.configs.len());
        let newest = self.configs.last().map_or(0, |(index, _)| *index);
        while let Some((index, config)) = node.log.config_at(upto).filter(|c| c.0 > newest) {
            self.configs.insert(known, (*index, config.clone()));
            upto = index - 1;
        }
    }

    /// The log of all that is committed up to an index, if that much is known.
    pub fn log_to(&self, index: u64) -> Option<Log> {
        let mut log = Log::default();
        for known in self.committed.get(..index as usize)? {
            log.push_known((*known)?.0);
        }
        for (at, config) in self.configs.iter().take_while(|(at, _)| *at <= index) {
            log.push_config(*at, config);
        }
        Some(log)
    }

    /// Paper 7, rule 37, I14: a snapshot ends with what is committed there, and holds the newest
    /// configuration that is committed up to there.
    pub fn check_snapshot(&self, snapshot: &Snapshot) -> Verdict {
        let known = self.committed.get(snapshot.index as usize - 1);
        let term = known.copied().flatten().map(|(place, _)| place.term);
        let right = term == Some(snapshot.term);
        rule!(right => "paper 7, I14", "{snapshot:?} ends with {term:?}");
        let newest = self
            .configs
            .iter()
            .rev()
            .find(|(at, _)| *at <= snapshot.index);
        let own = (snapshot.config_index, snapshot.config.clone());
        rule!(newest == Some(&own) => "thesis 5.1, rule 37, I14", "{own:?} for {newest:?}");
        Ok(())
    }
}
