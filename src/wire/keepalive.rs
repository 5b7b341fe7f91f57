//! Keepalives as bytes.

use crate::core::MAX_MEMBERS;
use crate::core::NodeId;
use crate::detector::{BlockedBy, Keepalive, KeepaliveKind, NodeState, Notice, RowItem};

use super::{MAX_HEALTH, MAX_WHY, Reader, WireError, Writer};

const ROW_ITEM_LEN: usize = 24;
const NOTICE_ITEM_LEN: usize = 10;

pub(super) fn encode(keepalive: &Keepalive, out: &mut Writer<'_>) {
    let Keepalive {
        kind,
        health,
        applied,
        row,
        notice,
    } = keepalive;
    assert!(*health <= MAX_HEALTH, "health score {health} of 8");
    out.u8(kind_code(*kind));
    out.u8(*health);
    out.u64(*applied);
    out.count("row", MAX_MEMBERS, row.len());
    for item in row {
        out.node(item.node);
        out.u32(item.age);
        out.u32(item.span);
        out.u64(item.incarnation);
    }
    out.bool(notice.is_some());
    if let Some(notice) = notice {
        encode_notice(notice, out);
    }
}

pub(super) fn decode(input: &mut Reader<'_>) -> Result<Keepalive, WireError> {
    let kind = kind_from(input.u8()?)?;
    let health = input.u8()?;
    if health > MAX_HEALTH {
        return Err(WireError::BadValue {
            what: "health score",
        });
    }
    let applied = input.u64()?;
    let count = input.count("row", MAX_MEMBERS, ROW_ITEM_LEN)?;
    let row = (0..count)
        .map(|_| decode_row_item(input))
        .collect::<Result<_, _>>()?;
    let notice = match input.bool("notice flag")? {
        true => Some(decode_notice(input)?),
        false => None,
    };
    Ok(Keepalive {
        kind,
        health,
        applied,
        row,
        notice,
    })
}

fn decode_row_item(input: &mut Reader<'_>) -> Result<RowItem, WireError> {
    Ok(RowItem {
        node: input.node("node in a row")?,
        age: input.u32()?,
        span: input.u32()?,
        incarnation: input.u64()?,
    })
}

fn encode_notice(notice: &Notice, out: &mut Writer<'_>) {
    out.count("notice", MAX_MEMBERS, notice.nodes.len());
    for (node, state, blocked_by) in &notice.nodes {
        out.node(*node);
        out.u8(state_code(*state));
        out.u8(blocked_by_code(*blocked_by));
    }
    // Cut, not refused: a sentence that is too long is no reason to stop a node.
    let end = (0..=MAX_WHY.min(notice.why.len()))
        .rfind(|at| notice.why.is_char_boundary(*at))
        .unwrap_or(0);
    out.text("notice", MAX_WHY, &notice.why[..end]);
}

fn decode_notice(input: &mut Reader<'_>) -> Result<Notice, WireError> {
    let count = input.count("notice", MAX_MEMBERS, NOTICE_ITEM_LEN)?;
    let nodes = (0..count)
        .map(|_| decode_notice_item(input))
        .collect::<Result<_, _>>()?;
    let why = input.text("notice", MAX_WHY)?.to_owned();
    Ok(Notice { nodes, why })
}

fn decode_notice_item(input: &mut Reader<'_>) -> Result<(NodeId, NodeState, BlockedBy), WireError> {
    Ok((
        input.node("node in a notice")?,
        state_from(input.u8()?)?,
        blocked_by_from(input.u8()?)?,
    ))
}

fn kind_code(kind: KeepaliveKind) -> u8 {
    match kind {
        KeepaliveKind::Push => 1,
        KeepaliveKind::Probe => 2,
        KeepaliveKind::Poll => 3,
        KeepaliveKind::Reply => 4,
    }
}

fn kind_from(code: u8) -> Result<KeepaliveKind, WireError> {
    Ok(match code {
        1 => KeepaliveKind::Push,
        2 => KeepaliveKind::Probe,
        3 => KeepaliveKind::Poll,
        4 => KeepaliveKind::Reply,
        _ => {
            return Err(WireError::BadValue {
                what: "keepalive kind",
            });
        }
    })
}

// The codes of raftkeel.h, so that a packet dump and a status can be compared by eye.
fn state_code(state: NodeState) -> u8 {
    match state {
        NodeState::Joining => 1,
        NodeState::Alive => 2,
        NodeState::Late => 3,
        NodeState::Suspect => 4,
        NodeState::Excluded => 5,
        NodeState::Returned => 6,
        NodeState::Replaced => 7,
        NodeState::Removed => 8,
    }
}

fn state_from(code: u8) -> Result<NodeState, WireError> {
    Ok(match code {
        1 => NodeState::Joining,
        2 => NodeState::Alive,
        3 => NodeState::Late,
        4 => NodeState::Suspect,
        5 => NodeState::Excluded,
        6 => NodeState::Returned,
        7 => NodeState::Replaced,
        8 => NodeState::Removed,
        _ => return Err(WireError::BadValue { what: "node state" }),
    })
}

fn blocked_by_code(blocked_by: BlockedBy) -> u8 {
    match blocked_by {
        BlockedBy::None => 0,
        BlockedBy::Disabled => 1,
        BlockedBy::NotLeaderFresh => 2,
        BlockedBy::ListenerUnhealthy => 3,
        BlockedBy::NoQuorumAfter => 4,
        BlockedBy::MinNodes => 5,
        BlockedBy::Veto => 6,
        BlockedBy::InitDead => 7,
        BlockedBy::Settling => 8,
    }
}

fn blocked_by_from(code: u8) -> Result<BlockedBy, WireError> {
    Ok(match code {
        0 => BlockedBy::None,
        1 => BlockedBy::Disabled,
        2 => BlockedBy::NotLeaderFresh,
        3 => BlockedBy::ListenerUnhealthy,
        4 => BlockedBy::NoQuorumAfter,
        5 => BlockedBy::MinNodes,
        6 => BlockedBy::Veto,
        7 => BlockedBy::InitDead,
        8 => BlockedBy::Settling,
        _ => {
            return Err(WireError::BadValue {
                what: "guard that blocks",
            });
        }
    })
}
