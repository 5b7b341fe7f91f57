//! `keelctl inspect FILE`: a file by itself in words.

use std::fmt::Write;
use std::path::Path;

use raftkeel::storage::inspect::{FileState, Run, Saved, file};
use raftkeel::storage::{Identity, StorageError};

use crate::inspect::{contents, describe, line, not_whole, tell_meta};
use crate::words::{bytes, count, range};

/// What is in the file, and whether all of that is well.
pub fn inspect(path: &Path) -> Result<(String, bool), StorageError> {
    let mut text = format!("{}\n", path.display());
    let out = &mut text;
    let name = path.file_name().map(|name| name.to_string_lossy());
    line(out, whence(&name.unwrap_or_default()));
    let well = match file(path)? {
        FileState::Segment {
            identity,
            instance,
            made,
            name,
            bytes: size,
            walk,
        } => {
            line(
                out,
                &format!(
                    "segment of the log of {}, instance {instance:016x}, made in opening {made}; in a\n\
                     log it is called {name}",
                    whose(&identity)
                ),
            );
            let prev = walk.prev;
            line(
                out,
                &format!(
                    "  {}, continues index {} of term {}",
                    bytes(size),
                    prev.index,
                    prev.term
                ),
            );
            line(out, &format!("  {}", contents(&walk)));
            for gap in &walk.gaps {
                line(out, &format!("  {}", not_whole(gap)));
            }
            if walk.entries > 0 {
                tell_extract(out, path);
            }
            walk.gaps.is_empty()
        }
        FileState::Saved(saved) => tell_saved(out, path, &saved),
        FileState::Image {
            identity,
            snapshot,
            damaged,
        } => {
            line(out, &format!("snapshot of {}", whose(&identity)));
            match &damaged {
                None => line(out, &format!("  {}", describe(&snapshot))),
                Some(error) => line(out, &format!("  DAMAGED: {error}")),
            }
            damaged.is_none()
        }
        FileState::Meta(meta) => {
            tell_meta(out, &meta);
            !meta.repaired
        }
        FileState::Unknown => {
            line(
                out,
                "no segment, snapshot or META of a log, nor written by a repair; or its first page is damaged",
            );
            false
        }
    };
    Ok((text, well))
}

fn whose(identity: &Identity) -> String {
    format!(
        "node {} of cluster {}",
        identity.node.get(),
        identity.cluster
    )
}

/// How a file of this name came to be.
fn whence(name: &str) -> &'static str {
    let lost = name.starts_with("lost-");
    match name {
        _ if lost && name.ends_with(".aside") => {
            "set aside by an opening that found it behind damage; it counts for nothing, and goes when the\n\
             leader has sent again what was lost, or the disk is full. A repair writes down what is in it"
        }
        _ if lost && name.ends_with(".found") => {
            "put back when the log had gone on without it, and kept by an opening; it counts for nothing.\n\
             Nobody removes it but you"
        }
        _ if lost => {
            "written by a repair before it dropped what is in here. Nobody removes it but you"
        }
        _ => "a file by itself; for what counts inspect its directory",
    }
}

fn tell_saved(out: &mut String, path: &Path, saved: &Saved) -> bool {
    line(
        out,
        &format!(
            "what a repair has dropped: {}",
            count(saved.parts.len() as u64, "part") + " of files"
        ),
    );
    for (region, runs) in &saved.parts {
        line(
            out,
            &format!(
                "  {}: {} from offset {} on, as they were",
                region.name,
                bytes(region.bytes),
                region.offset
            ),
        );
        for run in runs {
            line(out, &format!("    {}", entries(run)));
        }
    }
    if saved.parts.iter().any(|(_, runs)| !runs.is_empty()) {
        tell_extract(out, path);
    }
    if saved.cut {
        line(
            out,
            "IT ENDS TOO SOON: the repair was cut short, and changed nothing. Run it again: it goes on here",
        );
    }
    !saved.cut
}

fn entries(run: &Run) -> String {
    let (first, last) = run.indexes;
    let mut text = format!(
        "{}, {}",
        range("index", run.indexes),
        range("term", run.terms)
    );
    let _ = write!(
        text,
        ": {}, of which {} of the daemon, {}",
        count(last - first + 1, "entry"),
        count(run.commands, "command"),
        bytes(run.bytes)
    );
    text
}

fn tell_extract(out: &mut String, path: &Path) {
    line(
        out,
        &format!(
            "keelctl extract {} INDEX writes a command of the daemon to standard output. Whether it was\n\
             committed this file cannot say, nor whether another one took its place",
            path.display()
        ),
    );
}
