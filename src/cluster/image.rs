//! The state as bytes: the head of every snapshot. A version that was ever written is never given
//! another meaning.
//!
//! Whatever the bytes are, decoding neither panics nor allocates more than
//! [`MAX_AMPLIFICATION`](super::MAX_AMPLIFICATION) times their length; a state that comes of it has
//! these bytes only, and any command may be checked against it and applied to it.

use std::collections::BTreeMap;

use crate::core::{Exclusion, Index, NodeId};
use crate::wire::{Reader, WireError, Writer};

use super::{Assembly, Leadership, MAX_IDS, Member, Params, Peer, State, Status};

const VERSION: u8 = 1;

const VOTER: u8 = 1;
const LEARNER: u8 = 2;
const EXCLUDED: u8 = 3;
const REPLACED: u8 = 4;
const REMOVED: u8 = 5;

/// Bytes of the shortest member.
const MIN_MEMBER: usize = 26;

/// No cluster lives long enough to count so far, at a million a second; and above it one that counts
/// on has no numbers left.
const MAX_NUMBER: u64 = 1 << 62;

/// Bytes of the largest image of a state.
pub const MAX_IMAGE: usize = 4 << 20;

impl State {
    /// Appends the state to `bytes`; equal states give equal bytes.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        self.write(&mut Writer::new(bytes));
    }

    /// The same, to be measured first.
    pub fn write(&self, out: &mut Writer<'_>) {
        let State {
            members,
            exclusions,
            params,
            epoch,
            genesis,
            applied,
            leader,
            assembly,
            joint,
        } = self;
        out.u8(VERSION);
        out.u64(*epoch);
        out.u64(*genesis);
        out.u64(*applied);
        out.bool(*joint);
        params.encode(out);
        out.count("members", MAX_IDS, members.len());
        for member in members.values() {
            encode_member(member, out);
        }
        out.count("exclusions", MAX_IDS, exclusions.len());
        for (id, exclusion) in exclusions {
            out.node(*id);
            out.u64(exclusion.epoch);
            out.u64(exclusion.index);
        }
        out.optional_node(leader.map(|l| l.id));
        out.u64(leader.map_or(0, |l| l.term));
        let assembly = assembly.unwrap_or(Assembly::new(0));
        for number in [assembly.at, assembly.first, assembly.next] {
            out.u64(number);
        }
    }

    /// Takes a state off the front of `input`.
    pub fn decode(input: &mut Reader<'_>) -> Result<State, WireError> {
        match input.u8()? {
            VERSION => {}
            version => return Err(WireError::Version(version)),
        }
        let (epoch, genesis, applied) = (input.u64()?, input.u64()?, input.u64()?);
        let joint = input.bool("joint flag")?;
        let params = Params::decode(input)?;
        let members = decode_members(input)?;
        let exclusions = decode_exclusions(input)?;
        let (leader, term) = (input.optional_node()?, input.u64()?);
        let assembly = Assembly {
            at: input.u64()?,
            first: input.u64()?,
            next: input.u64()?,
        };
        // What stands for "none" has one encoding too.
        if leader.is_none() && term != 0 || assembly.at == 0 && assembly != Assembly::new(0) {
            let what = "what is not there";
            return Err(WireError::BadValue { what });
        }
        let state = State {
            members,
            exclusions,
            params,
            epoch,
            genesis,
            applied,
            leader: leader.map(|id| Leadership { id, term }),
            assembly: (assembly.at > 0).then_some(assembly),
            joint,
        };
        state.check_image()
    }

    /// What every state that was applied to is like.
    fn check_image(self) -> Result<State, WireError> {
        let known = |id: &NodeId| self.members.contains_key(id);
        let voters = self.members().any(|m| m.status == Status::Voter);
        let counted = [self.epoch, self.applied, self.params.version];
        let numbers = counted.iter().all(|n| (1..=MAX_NUMBER).contains(n));
        if numbers && voters && self.exclusions.keys().all(known) {
            return Ok(self);
        }
        let what = "state of the cluster";
        Err(WireError::BadValue { what })
    }
}

fn decode_members(input: &mut Reader<'_>) -> Result<BTreeMap<NodeId, Member>, WireError> {
    let count = input.count("members", MAX_IDS, MIN_MEMBER)?;
    let mut members = BTreeMap::new();
    for _ in 0..count {
        let member = decode_member(input)?;
        ascending(members.last_key_value(), member.id)?;
        members.insert(member.id, member);
    }
    Ok(members)
}

fn decode_exclusions(input: &mut Reader<'_>) -> Result<BTreeMap<NodeId, Exclusion>, WireError> {
    let count = input.count("exclusions", MAX_IDS, 24)?;
    let mut exclusions = BTreeMap::new();
    for _ in 0..count {
        let id = input.node("excluded id")?;
        ascending(exclusions.last_key_value(), id)?;
        let (epoch, index) = (input.u64()?, input.u64()?);
        exclusions.insert(id, Exclusion { epoch, index });
    }
    Ok(exclusions)
}

/// One encoding for one state.
fn ascending<T>(last: Option<(&NodeId, T)>, next: NodeId) -> Result<(), WireError> {
    match last {
        Some((last, _)) if *last >= next => Err(WireError::BadValue {
            what: "order of members",
        }),
        _ => Ok(()),
    }
}

fn encode_member(member: &Member, out: &mut Writer<'_>) {
    let Member {
        id,
        address,
        meta,
        status,
        meant_to_vote,
        instance,
    } = member;
    let peer = Peer {
        id: *id,
        address: address.clone(),
        meta: meta.clone(),
    };
    peer.encode(out);
    out.u64(*instance);
    out.bool(*meant_to_vote);
    match status {
        Status::Voter => out.u8(VOTER),
        Status::Learner => out.u8(LEARNER),
        Status::Excluded { epoch, index } => {
            out.u8(EXCLUDED);
            out.u64(*epoch);
            out.u64(*index);
        }
        Status::Replaced { by } => {
            out.u8(REPLACED);
            out.node(*by);
        }
        Status::Removed { epoch, index } => {
            out.u8(REMOVED);
            out.u64(*epoch);
            out.u64(*index);
        }
    }
}

fn decode_member(input: &mut Reader<'_>) -> Result<Member, WireError> {
    let peer = Peer::decode(input)?;
    let (instance, meant_to_vote) = (input.u64()?, input.bool("vocation of a member")?);
    let place = |input: &mut Reader<'_>| -> Result<(u64, Index), WireError> {
        Ok((input.u64()?, input.u64()?))
    };
    let status = match input.u8()? {
        VOTER => Status::Voter,
        LEARNER => Status::Learner,
        EXCLUDED => {
            let (epoch, index) = place(input)?;
            Status::Excluded { epoch, index }
        }
        REPLACED => Status::Replaced {
            by: input.node("replacing id")?,
        },
        REMOVED => {
            let (epoch, index) = place(input)?;
            Status::Removed { epoch, index }
        }
        _ => {
            return Err(WireError::BadValue {
                what: "status of a member",
            });
        }
    };
    Ok(Member {
        instance,
        ..peer.into_member(status, meant_to_vote)
    })
}
