//! The state that every node derives from the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::{Configuration, Entry, Epoch, Exclusion, Index, NodeId, Payload, Term};
use crate::wire::encode_entry;

use super::{
    Assembly, Change, ClusterError, Command, Fact, Member, Params, Peer, Piece, Refusal, Status,
};

/// The replicated cluster state as of one log index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Everybody who is or was a member: an id is never used again.
    pub(super) members: BTreeMap<NodeId, Member>,
    /// Who is out, replaced and removed ones included: `Status::Replaced` has no room for since
    /// when.
    pub(super) exclusions: BTreeMap<NodeId, Exclusion>,
    pub(super) params: Params,
    pub(super) epoch: Epoch,
    pub(super) genesis: u64,
    pub(super) applied: Index,
    /// Who led last, as far as it is on record.
    pub(super) leader: Option<Leadership>,
    /// The snapshot whose pieces are coming in the log.
    pub(super) assembly: Option<Assembly>,
    /// The configuration applied last is joint; until it is left no other may begin (thesis 4.3).
    pub(super) joint: bool,
}

/// Who leads since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub id: NodeId,
    /// Its term.
    pub term: Term,
}

/// The first entry of a new cluster's log, to be stored by each of its first members: index 1,
/// term 1. The same members, in any order, and the same settings give the same entry.
pub fn bootstrap_entry(members: &[Peer], params: &Params) -> Result<Entry, Refusal> {
    let mut members = members.to_vec();
    members.sort_by_key(|peer| peer.id);
    let first = State::first(&members, params)?;
    let command = Command::Bootstrap {
        members,
        params: first.params.clone(),
    };
    Ok(Entry {
        index: 1,
        term: 1,
        payload: Payload::Config(Arc::new(first.configuration()), command.encode().into()),
    })
}

/// FNV-1a: what must be found is a different list typed by mistake, not one made to collide. Never
/// 0, which stands for "no bootstrap entry yet".
fn digest(entry: &Entry) -> u64 {
    let mut bytes = Vec::new();
    encode_entry(entry, &mut bytes);
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    std::cmp::max(hash, 1)
}

impl State {
    /// What the leader asks before it proposes `cmd`. `newest` is the newest configuration of its
    /// log, committed or not: only one change may be under way (thesis 4.1, raft.md rule 43).
    pub fn check(&self, newest: &Configuration, cmd: &Command) -> Result<Change, Refusal> {
        assert!(
            newest.epoch >= self.epoch,
            "epoch {} is applied, but the newest logged is {}",
            self.epoch,
            newest.epoch
        );
        if self.epoch == 0 {
            return Err(Refusal::State(
                "the cluster has not been bootstrapped".into(),
            ));
        }
        if let Command::SetParams {
            expect_version,
            params,
        } = cmd
        {
            self.changed_params(*expect_version, params)?;
            return Ok(Change::Plain);
        }
        if !cmd.changes_members() {
            return Ok(Change::Plain);
        }
        if newest.epoch != self.epoch || self.joint {
            return Err(Refusal::Conflict(
                "another change of members is under way".into(),
            ));
        }
        assert_eq!(*newest, self.configuration(), "the log and its state");
        // Where it will stand in the log is not known yet, and no configuration depends on it.
        let next = self.changed(cmd, self.applied + 1)?;
        Ok(Change::Config(self.towards(&next)))
    }

    /// Applies a committed entry of any kind, in log order from index 1 on. Deterministic: equal
    /// states and entries give equal states and facts. After an error the state is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<Vec<Fact>, ClusterError> {
        let expected = self.applied + 1;
        if entry.index != expected {
            return Err(ClusterError::Index {
                expected,
                found: entry.index,
            });
        }
        let facts = match &entry.payload {
            Payload::Noop | Payload::Host(_) => Vec::new(),
            Payload::Cluster(command) => self.apply_plain(entry.index, command)?,
            Payload::Config(target, cause) if cause.is_empty() => self.leave_joint(target)?,
            Payload::Config(target, cause) => {
                self.apply_change(entry, target, &Command::decode(cause)?)?
            }
        };
        self.applied = entry.index;
        Ok(facts)
    }

    fn apply_plain(&mut self, index: Index, command: &[u8]) -> Result<Vec<Fact>, ClusterError> {
        if self.epoch == 0 {
            return Err(ClusterError::Contradiction(
                "a command before the bootstrap entry",
            ));
        }
        if let Some(piece) = Piece::decode(command)? {
            return Ok(self.piece(index, &piece));
        }
        match Command::decode(command)? {
            Command::SetParams {
                expect_version,
                params,
            } => Ok(vec![self.set_params(expect_version, &params)]),
            Command::Register { instances } => Ok(self.register(&instances)),
            Command::Lead { id, term } => Ok(self.lead(id, term)),
            Command::Compact { in_log } => {
                // What came of an earlier one has no end any more.
                self.assembly = in_log.then(|| Assembly::new(index));
                Ok(vec![Fact::Compact { in_log }])
            }
            _ => Err(ClusterError::Contradiction(
                "a change of members without its configuration",
            )),
        }
    }

    /// Two that were proposed on the same version may both be committed: the first one wins.
    fn set_params(&mut self, expect_version: u64, params: &Params) -> Fact {
        match self.changed_params(expect_version, params) {
            Ok(params) => {
                self.params = params;
                Fact::Params
            }
            Err(refusal) => Fact::ParamsRefused(refusal),
        }
    }

    /// The first instance that is registered for a node holds for ever: two leaders may have heard
    /// two, and the second one is what must be found (raft.md rule 51).
    fn register(&mut self, instances: &[(NodeId, u64)]) -> Vec<Fact> {
        let mut facts = Vec::new();
        for (id, instance) in instances {
            if let Some(member) = self.members.get_mut(id)
                && member.instance == 0
                && *instance != 0
            {
                member.instance = *instance;
                facts.push(Fact::Registered { id: *id });
            }
        }
        facts
    }

    /// Of two that are on record the one of the later term leads, in whatever order they came.
    fn lead(&mut self, id: NodeId, term: Term) -> Vec<Fact> {
        if self.leader.is_some_and(|known| known.term >= term) {
            return Vec::new();
        }
        self.leader = Some(Leadership { id, term });
        vec![Fact::Leads]
    }

    fn piece(&mut self, index: Index, piece: &Piece<'_>) -> Vec<Fact> {
        let Some(assembly) = &mut self.assembly else {
            return Vec::new();
        };
        let belongs = assembly.take(index, piece.at, piece.offset, piece.data.len());
        if !belongs || piece.whole.is_none() {
            return Vec::new();
        }
        let pieces = assembly.pieces(index);
        self.assembly = None;
        vec![Fact::Pieces(pieces)]
    }

    fn leave_joint(&mut self, target: &Configuration) -> Result<Vec<Fact>, ClusterError> {
        check_epoch(self.epoch, target)?;
        if !self.joint {
            return Err(ClusterError::Contradiction(
                "a joint configuration is left that was not entered",
            ));
        }
        if *target != self.configuration() {
            return Err(ClusterError::Contradiction(
                "a joint configuration is left for another than the one entered",
            ));
        }
        self.joint = false;
        Ok(Vec::new())
    }

    fn apply_change(
        &mut self,
        entry: &Entry,
        target: &Configuration,
        command: &Command,
    ) -> Result<Vec<Fact>, ClusterError> {
        check_epoch(self.epoch + 1, target)?;
        if self.joint {
            return Err(ClusterError::Contradiction(
                "a change of members before the joint configuration was left",
            ));
        }
        let mut next = match command {
            Command::Bootstrap { members, params } if entry.index == 1 => {
                let mut first = State::first(members, params).map_err(ClusterError::Refused)?;
                first.genesis = digest(entry);
                first
            }
            _ => self
                .changed(command, entry.index)
                .map_err(ClusterError::Refused)?,
        };
        if *target != self.towards(&next) {
            return Err(ClusterError::Contradiction(
                "a configuration that its command does not lead to",
            ));
        }
        next.joint = !target.outgoing.is_empty();
        *self = next;
        Ok(facts_of(command, self.epoch, entry.index))
    }

    /// The configuration that leads to `next`: joint if voters change (thesis 4.3).
    fn towards(&self, next: &State) -> Configuration {
        let now = self.configuration();
        let mut target = next.configuration();
        if target.voters != now.voters {
            target.outgoing = now.voters;
        }
        target
    }

    /// The settings in force.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The number of the membership; 0 before the bootstrap entry.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Digest of the bootstrap entry; 0 before it.
    pub fn genesis(&self) -> u64 {
        self.genesis
    }

    /// Who leads since when, as far as it is on record: an older term's than the present one while
    /// the record of this is on its way.
    pub fn leader(&self) -> Option<Leadership> {
        self.leader
    }

    /// Index of the last entry applied.
    pub fn applied(&self) -> Index {
        self.applied
    }

    /// Any node that is or was a member.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Every node that is or was a member, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Those that are excluded and not replaced, by id.
    pub fn excluded(&self) -> impl Iterator<Item = &Member> {
        self.members()
            .filter(|m| matches!(m.status, Status::Excluded { .. }))
    }

    /// The exclusion of a node that is out, also if it was removed or another node has its place by
    /// now: the old machine must be told when it comes back. A voter that is being removed is out
    /// only when the joint configuration is left: it lives, and its consent may be needed to leave
    /// it; a leader leads the change that removes it to its end (thesis 4.2.2).
    pub fn is_excluded(&self, id: NodeId) -> Option<Exclusion> {
        let exclusion = self.exclusions.get(&id).copied()?;
        let leaving = self.joint && exclusion.epoch == self.epoch && self.is_removed(id);
        (!leaving).then_some(exclusion)
    }

    /// Whether it was decided that a node leaves for good.
    pub fn is_removed(&self, id: NodeId) -> bool {
        let status = self.member(id).map(|m| &m.status);
        matches!(status, Some(Status::Removed { .. }))
    }

    /// Whether a node is meant to vote once it has caught up.
    pub fn is_elector(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|m| m.meant_to_vote)
    }

    /// Which storage a node has; `None` for strangers and while it is not registered.
    pub fn instance(&self, id: NodeId) -> Option<u64> {
        let instance = self.member(id).map(|m| m.instance);
        instance.filter(|instance| *instance != 0)
    }

    /// How many nodes the cluster is meant to have: voters, learners, and the excluded that nobody
    /// has replaced or removed (detection.md 4.6, cumulative minority rule).
    pub fn provisioned(&self) -> usize {
        self.members().filter(|m| m.status.is_provisioned()).count()
    }

    /// The configuration that the members make, never joint.
    pub fn configuration(&self) -> Configuration {
        let ids = |status: Status| {
            let with_status = self.members().filter(move |m| m.status == status);
            with_status.map(|m| m.id).collect()
        };
        Configuration {
            epoch: self.epoch,
            voters: ids(Status::Voter),
            outgoing: Vec::new(),
            learners: ids(Status::Learner),
        }
    }
}

fn check_epoch(expected: Epoch, target: &Configuration) -> Result<(), ClusterError> {
    if target.epoch == expected {
        return Ok(());
    }
    Err(ClusterError::Epoch {
        expected,
        found: target.epoch,
    })
}

fn facts_of(command: &Command, epoch: Epoch, index: Index) -> Vec<Fact> {
    let mut facts = match command {
        Command::Bootstrap { .. } => vec![Fact::Bootstrapped, Fact::Params],
        Command::Exclude { ids, .. } => {
            let mut ids = ids.clone();
            ids.sort();
            vec![Fact::Excluded { epoch, ids, index }]
        }
        Command::Readmit { id, .. } => vec![Fact::Readmitted { id: *id }],
        Command::Replace { old, by, .. } => vec![Fact::Replaced {
            old: *old,
            by: by.id,
        }],
        Command::Promote { id, .. } => vec![Fact::Promoted { id: *id }],
        Command::Add { peer, .. } => vec![Fact::Added { id: peer.id }],
        Command::Remove { id, .. } => vec![Fact::Removed {
            epoch,
            id: *id,
            index,
        }],
        _ => panic!("this is no change of members"),
    };
    facts.push(Fact::Members { epoch, index });
    facts
}
