//! The rules: which command may follow which state, and what the state is then.
//!
//! Each function is pure and is asked twice, by the leader before it proposes and by every node that
//! applies, so that no rule can be in one place only.

use crate::core::{Epoch, Exclusion, Index, MAX_MEMBERS, NodeId};

use super::state::State;
use super::{Command, MAX_ADDRESS, MAX_IDS, MAX_META, Member, Params, Peer, Refusal, Status};

impl State {
    /// The state after the bootstrap entry, its log index apart.
    pub(super) fn first(members: &[Peer], params: &Params) -> Result<State, Refusal> {
        if members.is_empty() {
            return Err(Refusal::Invalid("a cluster needs a first member".into()));
        }
        if members.len() > MAX_MEMBERS {
            return Err(Refusal::TooBig(format!(
                "{} first members are more than the limit of {MAX_MEMBERS}",
                members.len()
            )));
        }
        if !members.is_sorted_by(|a, b| a.id < b.id) {
            return Err(Refusal::Invalid(
                "a node is twice in the list of first members".into(),
            ));
        }
        params.validate().map_err(invalid)?;
        let mut state = State {
            epoch: 1,
            params: Params {
                version: 1,
                ..params.clone()
            },
            ..State::default()
        };
        for peer in members {
            check_peer(peer)?;
            let member = peer.clone().into_member(Status::Voter, true);
            state.members.insert(peer.id, member);
        }
        Ok(state)
    }

    /// The settings that a command leaves.
    pub(super) fn changed_params(
        &self,
        expect_version: u64,
        params: &Params,
    ) -> Result<Params, Refusal> {
        let version = self.params.version;
        if expect_version != 0 && expect_version != version {
            return Err(Refusal::Conflict(format!(
                "the settings have version {version}, not {expect_version}"
            )));
        }
        params.validate().map_err(invalid)?;
        Ok(Params {
            version: version + 1,
            ..params.clone()
        })
    }

    /// The state that a change of membership at log index `index` leaves.
    pub(super) fn changed(&self, command: &Command, index: Index) -> Result<State, Refusal> {
        let mut next = self.clone();
        next.epoch = self.epoch + 1;
        match command {
            Command::Exclude {
                expect,
                ids,
                silent,
                ..
            } => {
                self.check_epoch(*expect)?;
                self.check_exclusion(ids, silent)?;
                ids.iter().for_each(|id| next.put_out(*id, index));
            }
            Command::Readmit { expect, id } => {
                self.check_epoch(*expect)?;
                self.check_excluded(*id)?;
                next.put_status(*id, Status::Learner);
                next.exclusions.remove(id);
            }
            Command::Replace { expect, old, by } => {
                self.check_epoch(*expect)?;
                self.check_excluded(*old)?;
                self.check_newcomer(by)?;
                next.put_status(*old, Status::Replaced { by: by.id });
                let member = by
                    .clone()
                    .into_member(Status::Learner, self.is_elector(*old));
                next.members.insert(by.id, member);
            }
            Command::Promote { expect, id } => {
                self.check_epoch(*expect)?;
                self.check_learner(*id)?;
                next.put_status(*id, Status::Voter);
                next.member_mut(*id).meant_to_vote = true;
            }
            Command::Add { expect, peer } => {
                self.check_epoch(*expect)?;
                self.check_newcomer(peer)?;
                self.check_room()?;
                let member = peer.clone().into_member(Status::Learner, false);
                next.members.insert(peer.id, member);
            }
            Command::Remove { expect, id } => {
                self.check_epoch(*expect)?;
                self.check_removal(*id)?;
                next.take_away(*id, index);
            }
            Command::Bootstrap { .. } => {
                return Err(Refusal::Exists("the cluster exists already".into()));
            }
            _ => return Err(Refusal::Invalid("this changes no membership".into())),
        }
        Ok(next)
    }

    fn member_mut(&mut self, id: NodeId) -> &mut Member {
        match self.members.get_mut(&id) {
            Some(member) => member,
            None => panic!("{id} was checked to be a member"),
        }
    }

    fn put_status(&mut self, id: NodeId, status: Status) {
        self.member_mut(id).status = status;
    }

    fn take_away(&mut self, id: NodeId, index: Index) {
        let epoch = self.epoch;
        self.put_status(id, Status::Removed { epoch, index });
        self.exclusions.insert(id, Exclusion { epoch, index });
    }

    fn put_out(&mut self, id: NodeId, index: Index) {
        let epoch = self.epoch;
        self.put_status(id, Status::Excluded { epoch, index });
        self.exclusions.insert(id, Exclusion { epoch, index });
    }

    fn check_epoch(&self, expect: Epoch) -> Result<(), Refusal> {
        if expect == self.epoch {
            return Ok(());
        }
        Err(Refusal::Conflict(format!(
            "decided on epoch {expect}, but the epoch is {}",
            self.epoch
        )))
    }

    fn known(&self, id: NodeId) -> Result<&Member, Refusal> {
        self.member(id)
            .ok_or_else(|| Refusal::NotFound(format!("{id} was never a member")))
    }

    fn check_excluded(&self, id: NodeId) -> Result<(), Refusal> {
        match self.known(id)?.status {
            Status::Excluded { .. } => Ok(()),
            Status::Replaced { by } => Err(replaced(id, by)),
            Status::Removed { epoch, .. } => Err(removed(id, epoch)),
            Status::Voter | Status::Learner => Err(Refusal::State(format!("{id} is not excluded"))),
        }
    }

    fn check_learner(&self, id: NodeId) -> Result<(), Refusal> {
        match self.known(id)?.status {
            Status::Learner => Ok(()),
            Status::Voter => Err(Refusal::State(format!("{id} votes already"))),
            Status::Excluded { .. } => Err(Refusal::State(format!("{id} is excluded"))),
            Status::Replaced { by } => Err(replaced(id, by)),
            Status::Removed { epoch, .. } => Err(removed(id, epoch)),
        }
    }

    /// A voter, a learner or an excluded node, but not the last voter.
    fn check_removal(&self, id: NodeId) -> Result<(), Refusal> {
        match self.known(id)?.status {
            Status::Voter if self.configuration().voters.len() == 1 => {
                Err(Refusal::State(format!("{id} is the last voter")))
            }
            Status::Voter | Status::Learner | Status::Excluded { .. } => Ok(()),
            Status::Replaced { by } => Err(replaced(id, by)),
            Status::Removed { epoch, .. } => Err(removed(id, epoch)),
        }
    }

    fn check_room(&self) -> Result<(), Refusal> {
        if self.provisioned() < MAX_MEMBERS {
            return Ok(());
        }
        Err(Refusal::TooBig(format!(
            "the cluster has {MAX_MEMBERS} nodes, excluded ones included, which is the limit"
        )))
    }

    fn check_newcomer(&self, peer: &Peer) -> Result<(), Refusal> {
        if self.member(peer.id).is_some() {
            return Err(Refusal::Exists(format!(
                "{} was used before; a new node needs a new id",
                peer.id
            )));
        }
        if self.members.len() >= MAX_IDS {
            return Err(Refusal::TooBig(format!(
                "the cluster has had {MAX_IDS} nodes, which is the limit"
            )));
        }
        check_peer(peer)
    }

    fn check_exclusion(&self, ids: &[NodeId], silent: &[u32]) -> Result<(), Refusal> {
        if ids.is_empty() || ids.len() != silent.len() {
            return Err(Refusal::Invalid(format!(
                "{} ids and {} silences make no exclusion",
                ids.len(),
                silent.len()
            )));
        }
        let mut voters_out = 0;
        for (at, id) in ids.iter().enumerate() {
            if ids[..at].contains(id) {
                return Err(Refusal::Invalid(format!("{id} is named twice")));
            }
            match self.known(*id)?.status {
                Status::Voter => voters_out += 1,
                Status::Learner => {}
                Status::Excluded { epoch, .. } => {
                    return Err(Refusal::State(format!(
                        "{id} has been excluded since epoch {epoch}"
                    )));
                }
                Status::Replaced { by } => return Err(replaced(*id, by)),
                Status::Removed { epoch, .. } => return Err(removed(*id, epoch)),
            }
        }
        self.check_remaining(voters_out)
    }

    /// Those who stay must be able to decide it without those who go: a decision that waits for a
    /// dead node's consent would block every other change until that node is back. It follows that
    /// at least two voters remain.
    fn check_remaining(&self, voters_out: usize) -> Result<(), Refusal> {
        let voters = self.configuration().voters.len();
        let remain = voters - voters_out;
        let needed = voters / 2 + 1;
        if remain >= needed {
            return Ok(());
        }
        Err(Refusal::State(format!(
            "{remain} of {voters} voters would remain, {needed} are needed to decide it"
        )))
    }
}

fn replaced(id: NodeId, by: NodeId) -> Refusal {
    Refusal::State(format!("{id} was replaced by {by}"))
}

fn removed(id: NodeId, epoch: Epoch) -> Refusal {
    Refusal::State(format!("{id} was removed at epoch {epoch}"))
}

fn check_peer(peer: &Peer) -> Result<(), Refusal> {
    for (what, len, max) in [
        ("address", peer.address.len(), MAX_ADDRESS),
        ("meta", peer.meta.len(), MAX_META),
    ] {
        if len > max {
            return Err(Refusal::TooBig(format!(
                "{what} of {}: {len} bytes are more than the limit of {max}",
                peer.id
            )));
        }
    }
    Ok(())
}

fn invalid(error: super::ParamsError) -> Refusal {
    Refusal::Invalid(error.to_string())
}
