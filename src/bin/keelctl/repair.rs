//! `keelctl repair`: what a damaged log has lost is given up, in words.

use std::fmt::Write;
use std::path::Path;

use raftkeel::storage::StorageError;
use raftkeel::storage::repair::{Repair, plan, repair};

use crate::inspect::upto;
use crate::words::{bytes, count, range};

/// What was dropped, or would be; and whether all is well by now.
pub fn run(path: &Path, accept: bool, to: Option<&Path>) -> Result<(String, bool), StorageError> {
    let found = match accept {
        true => repair(path, to)?,
        false => plan(path)?,
    };
    let Some(found) = found else {
        let text = "nothing to repair: this log has lost nothing that it may have acknowledged\n";
        return Ok((text.to_owned(), true));
    };
    let mut text = format!("{}\n", path.display());
    tell(&mut text, &found, accept);
    let _ = match accept {
        true => writeln!(
            text,
            "\nDONE. Start the daemon. If other nodes have to be repaired as well, let it be the same\n\
             day: what one of them holds still, the others get from it."
        ),
        false => writeln!(
            text,
            "\nNOTHING WAS CHANGED. If no node of the cluster holds what is lost here, and you accept\n\
             that: keelctl repair {} --accept-loss",
            path.display()
        ),
    };
    Ok((text, accept))
}

fn tell(out: &mut String, found: &Repair, done: bool) {
    let (was, is) = match done {
        true => ("was", "was"),
        false => ("would be", "is"),
    };
    let (base, last) = found.kept;
    let _ = match &found.what {
        Some(what) => writeln!(out, "damaged: {what}"),
        None => writeln!(
            out,
            "damaged: an opening has found it, and has dropped what is not whole"
        ),
    };
    let _ = writeln!(
        out,
        "the log {was} cut: it begins behind index {} and ends at index {} of term {}",
        base.index, last.index, last.term
    );
    let _ = writeln!(out, "it may have held entries {}", upto(found.claim));
    for region in &found.regions {
        let _ = writeln!(
            out,
            "  {}: {} from offset {} on {was} dropped",
            region.name,
            bytes(region.bytes),
            region.offset
        );
    }
    tell_entries(out, found);
    if let Some(saved) = &found.saved {
        let _ = writeln!(out, "all of that is in {}", saved.display());
    }
    let _ = writeln!(
        out,
        "\nEntries that the cluster has committed may be among what {is} lost: what clients were told\n\
         was done may be undone. From then on this node votes and leads as if it had never held them."
    );
    tell_voters(out, found);
}

fn tell_entries(out: &mut String, found: &Repair) {
    let indexes = found.entries.iter().map(|(index, _)| *index);
    let (Some(low), Some(high)) = (indexes.clone().min(), indexes.max()) else {
        return;
    };
    let _ = writeln!(
        out,
        "  {} in there can still be read: {}; some may have been replaced by others",
        count(found.entries.len() as u64, "entry"),
        range("index", (low, high))
    );
}

fn tell_voters(out: &mut String, found: &Repair) {
    let voters: Vec<String> = found.voters.iter().map(|id| id.to_string()).collect();
    let _ = match &voters[..] {
        [] => writeln!(
            out,
            "No configuration is left: the node waits for the leader of its cluster to send it the log, and\n\
             cannot be bootstrapped, for it has voted. IF IT WAS THE ONLY ONE nobody will: move the\n\
             directory away, begin with an empty one, and restore the daemon's data from a backup."
        ),
        [only] => writeln!(
            out,
            "By the configuration that is left {only} votes alone. IF THE CLUSTER HAS MORE VOTERS, DO\n\
             NOT USE IT: it would lead by itself, beside them."
        ),
        _ => writeln!(
            out,
            "By the configuration that is left these vote: {}.",
            voters.join(", ")
        ),
    };
}
