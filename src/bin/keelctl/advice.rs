//! What an administrator does next, where the tool cannot do it.

use std::path::Path;

use raftkeel::storage::StorageError;

const OTHERS: &str = "  \
  If other nodes of the cluster vote: they hold everything that was committed. Remove this node
  from the cluster, move the directory away, and add a node with an empty directory under a new
  id. Do not put an older copy of the directory in its place: it has forgotten votes.";

const DOUBLE: &str = "\
Nothing is lost by that, and nothing was changed. keelctl inspect says of each file when it was made,
and what it holds. Move the one that does not belong there out of the directory, do not delete it,
and look again: the log is whole if the right one stayed.";

/// Whether there are more files than belong there.
fn is_double(what: &str) -> bool {
    what.contains("out of the directory")
}

/// For a directory that cannot be opened. By what is left of its log the node is the `only_voter`.
pub fn of_opening(path: &Path, error: &StorageError, only_voter: bool) -> String {
    let dir = path.display();
    match error {
        StorageError::Corrupt { what, .. } if is_double(what) => DOUBLE.to_owned(),
        StorageError::Corrupt { .. } if only_voter => format!(
            "\
What was written and acknowledged here is not there any more. Nothing was changed.
  By the configuration that is left this node votes alone, so that nobody else holds what it lost:
  keep a copy of the directory. keelctl repair {dir} says what could be kept of it.
  If the cluster has more voters by now, they hold everything that was committed: remove this node
  from it, move the directory away, and add a node with an empty directory under a new id."
        ),
        StorageError::Corrupt { .. } => format!(
            "\
What was written and acknowledged here is not there any more. Nothing was changed.
{OTHERS}
  If no other node votes: keep a copy of the directory. keelctl repair {dir} says what could
  be kept of it, or how to begin anew."
        ),
        StorageError::Version { .. } => {
            "A newer version of this library wrote this: use one that is at least as new."
                .to_owned()
        }
        StorageError::Io { .. } => {
            "The system could not read it: see the kernel's log, and who owns the files.".to_owned()
        }
        _ => String::new(),
    }
}

/// For a directory that no repair can mend; nothing for an error that is no damage.
pub fn of_repair(path: &Path, error: &StorageError) -> Option<String> {
    let StorageError::Corrupt {
        path: file, what, ..
    } = error
    else {
        return None;
    };
    if is_double(what) {
        return Some(format!(
            "NOT REPAIRED: {error}\nNothing was changed.\n\n{DOUBLE}"
        ));
    }
    let dir = path.display();
    let why = match *what {
        what if file.ends_with("META") && what.contains("older than the log") => format!(
            "\
META is a copy of an earlier day. If this node votes alone and there is no newer one, move META
out of the directory: keelctl repair {dir} makes another one from what the log says."
        ),
        _ if file.ends_with("META") => "\
META held the term and the vote of this node, which nobody else knows. It is made anew only for a
node that votes alone by what is left of its log, and by that this one does not."
            .to_owned(),
        what if what.contains("before this one is missing") => "\
The log has lost its beginning, and with it who its members are: what comes behind it cannot be
applied without it. If the files before this one are anywhere, put them back."
            .to_owned(),
        _ => "Nothing can be dropped that would mend this.".to_owned(),
    };
    Some(format!(
        "NOT REPAIRED: {error}\nNothing was changed.\n\n{why}\n{OTHERS}\n{}",
        anew(path)
    ))
}

/// How the only voter of a cluster begins again without its log.
pub fn anew(path: &Path) -> String {
    let path = path.display();
    format!(
        "  \
  If no other node votes, begin anew:
    1. mv {path} {path}.lost
       Keep it: keelctl inspect says which entries it holds still.
    2. Start the daemon as at its first start: as a new node (KEEL_NEW_NODE), bootstrapped
       (keel_bootstrap()). The id and the cluster's number may stay; if nodes belong to the
       cluster that do not vote, give it a new number, and let them join as new nodes.
    3. Restore the daemon's data from a backup."
    )
}
