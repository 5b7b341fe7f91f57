//! What the unit tests of this module share.

use crate::core::{Configuration, NodeId};

use super::{RowItem, Timers};

pub(super) fn id(raw: u64) -> NodeId {
    NodeId::new(raw).expect("tests name nodes from 1 on")
}

pub(super) fn ids(raw: &[u64]) -> Vec<NodeId> {
    raw.iter().map(|&n| id(n)).collect()
}

pub(super) fn config(voters: &[u64]) -> Configuration {
    Configuration {
        epoch: 1,
        voters: ids(voters),
        ..Configuration::default()
    }
}

/// The defaults of detection.md 4.2 at deadtime 30 s.
pub(super) fn timers() -> Timers {
    Timers {
        keepalive: 1000,
        warntime: 15_000,
        deadtime: 30_000,
        initdead: 120_000,
        settle: 3000,
        fencetime: 26_000,
        election: 2000,
        min_nodes: 0,
    }
}

pub(super) fn row_item(node: u64, age: u32, span: u32, incarnation: u64) -> RowItem {
    RowItem {
        node: id(node),
        age,
        span,
        incarnation,
    }
}
