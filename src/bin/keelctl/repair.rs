//! `keelctl repair`: what a damaged log has lost is given up, in words.

use std::fmt::Write;
use std::path::Path;

use raftkeel::storage::StorageError;
use raftkeel::storage::repair::{Repair, plan, repair};

use crate::advice;
use crate::inspect::upto;
use crate::words::{bytes, count, range};

/// What was dropped, or would be; and whether all is well by now.
pub fn run(path: &Path, accept: bool, to: Option<&Path>) -> Result<(String, bool), StorageError> {
    let found = match accept {
        true => repair(path, to),
        false => plan(path),
    };
    let found = match found {
        Err(error) => {
            let advice = advice::of_repair(path, &error).ok_or(error)?;
            return Ok((format!("{}\n{advice}\n", path.display()), false));
        }
        Ok(found) => found,
    };
    let Some(found) = found else {
        let text = "nothing to repair: this log has lost nothing that it may have acknowledged\n";
        return Ok((text.to_owned(), true));
    };
    let mut text = format!("{}\n", path.display());
    tell(&mut text, &found, accept);
    text += "\n";
    text += &end(path, &found, accept);
    Ok((text, accept))
}

fn end(path: &Path, found: &Repair, done: bool) -> String {
    let (dir, anew) = (path.display(), advice::anew(path));
    match (done, found.voters.is_empty()) {
        (true, false) => "\
DONE. Start the daemon. If other nodes have to be repaired as well, let it be the same
day: what one of them holds still, the others get from it.
"
        .to_owned(),
        (true, true) => format!(
            "\
DONE. If other nodes vote, start the daemon: their leader sends it the log.
{anew}
"
        ),
        (false, false) => format!(
            "\
NOTHING WAS CHANGED. If no node of the cluster holds what is lost here, and you accept
that: keelctl repair {dir} --accept-loss
"
        ),
        (false, true) => format!(
            "\
NOTHING WAS CHANGED. If other nodes vote, but none of them holds what is lost here, and
you accept that: keelctl repair {dir} --accept-loss
{anew}
"
        ),
    }
}

fn tell(out: &mut String, found: &Repair, done: bool) {
    let (was, is) = match done {
        true => ("was", "was"),
        false => ("would be", "is"),
    };
    let (base, last) = found.kept;
    for what in &found.what {
        let _ = writeln!(out, "damaged: {what}");
    }
    if found
        .what
        .iter()
        .any(|what| what.contains("another one's name"))
    {
        out.push_str(
            "BUT keelctl inspect says which segment that file holds: first see whether a new name helps\n",
        );
    }
    if found.what.is_empty() {
        out.push_str("damaged: an opening has found it, and has dropped what is not whole\n");
    }
    if let Some(term) = found.term {
        tell_meta(out, term, was);
    }
    let cut = match found.claim {
        Some(_) => format!("the log {was} cut: it"),
        None => "the log that is left looks whole: it".to_owned(),
    };
    let _ = writeln!(
        out,
        "{cut} begins behind index {} and ends at index {} of term {}",
        base.index, last.index, last.term
    );
    if let Some(claim) = found.claim {
        let _ = writeln!(out, "it may have held entries {}", upto(claim));
    }
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
    let _ = match found.claim {
        None => writeln!(out, "\nIf no file is missing, nothing {is} lost."),
        Some(_) => writeln!(
            out,
            "\nEntries that the cluster has committed may be among what {is} lost: what clients were told\n\
         was done may be undone. From then on this node votes and leads as if it had never held them."
        ),
    };
    tell_voters(out, found);
}

/// META is made anew.
fn tell_meta(out: &mut String, term: u64, was: &str) {
    let _ = writeln!(
        out,
        "META {was} made anew, of term {term}: far beyond any that this node can have been in. Only the old\n\
         one could say whether the newest files of the log are missing"
    );
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
             cannot be bootstrapped, for it has voted. IF NO OTHER NODE VOTES nobody will send it."
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
