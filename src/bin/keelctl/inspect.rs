//! `keelctl inspect`: a directory in words.

use std::fmt::Write;
use std::path::Path;

use raftkeel::core::{Position, Snapshot};
use raftkeel::storage::inspect::{
    Gap, ImageState, Inspection, MetaState, Other, SegmentState, Sound, Walk,
};
use raftkeel::storage::{Lost, StorageError};

use crate::advice;
use crate::words::{bytes, count, range};

/// What is in the directory, and whether all of that is well.
pub fn inspect(path: &Path) -> Result<(String, bool), StorageError> {
    let found = raftkeel::storage::inspect::inspect(path)?;
    let mut text = String::new();
    let out = &mut text;
    line(out, &path.display().to_string());
    if let Some(process) = in_use_by(path) {
        line(
            out,
            &format!(
                "in use by process {process}: the end of the log may be seen half written, and\n\
                 what is said of damage there means nothing"
            ),
        );
    }
    match &found.meta {
        Ok(meta) => tell_meta(out, meta),
        Err(error) => line(out, &error.to_string()),
    }
    tell_log(out, &found);
    tell_images(out, &found);
    tell_files(out, &found);
    line(out, "");
    let sound = verdict(out, path, &found);
    Ok((text, sound))
}

pub fn line(out: &mut String, text: &str) {
    // A String takes everything.
    let _ = writeln!(out, "{text}");
}

// ---- META -------------------------------------------------------------------

pub fn tell_meta(out: &mut String, meta: &MetaState) {
    let (identity, hard) = (&meta.identity, &meta.hard);
    line(
        out,
        &format!(
            "node {} of cluster {}, instance {:016x}, opened {}",
            identity.node.get(),
            identity.cluster,
            meta.instance,
            count(u64::from(meta.incarnation), "time"),
        ),
    );
    let vote = match hard.vote {
        Some(node) => format!("voted for node {}", node.get()),
        None => "has not voted in it".to_owned(),
    };
    line(out, &format!("term {}, {vote}", hard.term));
    if hard.commit > 0 {
        line(
            out,
            &format!(
                "knows the log to be committed up to index {} at least",
                hard.commit
            ),
        );
    }
    if let Some(excluded) = hard.excluded {
        line(
            out,
            &format!(
                "this node is excluded since epoch {} (log index {})",
                excluded.epoch, excluded.index
            ),
        );
    }
    if let Some(claim) = hard.claim {
        line(
            out,
            &format!(
                "its log has lost entries, {}: until the leader has\n\
                 sent them again it does not lead, and votes only for nodes that have them",
                upto(claim)
            ),
        );
    }
    if meta.repaired {
        line(
            out,
            "one of the two copies in META is damaged; the other one counts, and opening repairs it",
        );
    }
}

// ---- the log ----------------------------------------------------------------

fn tell_log(out: &mut String, found: &Inspection) {
    line(out, "");
    if found.segments.is_empty() {
        line(out, "log: no segments");
        return;
    }
    let walks = found
        .segments
        .iter()
        .filter_map(|s| s.contents.as_ref().ok());
    let entries = walks.map(|walk| walk.entries).sum();
    line(
        out,
        &format!(
            "log: {} in {}",
            count(entries, "entry"),
            count(found.segments.len() as u64, "segment")
        ),
    );
    for segment in &found.segments {
        tell_segment(out, segment);
    }
}

fn tell_segment(out: &mut String, segment: &SegmentState) {
    let made = segment
        .made
        .map(|opening| format!(", made in opening {opening}"));
    let made = made.unwrap_or_default();
    line(
        out,
        &format!("  {}  {}{made}", segment.name, bytes(segment.bytes)),
    );
    match &segment.contents {
        Err(error) => {
            line(out, &format!("    DAMAGED: {error}"));
            if let Some(other) = &segment.other {
                line(out, &format!("    {}", held(other)));
            }
        }
        Ok(_) if segment.trimmed => line(
            out,
            "    not needed any more: the next opening removes it, for a snapshot has its place, or sets it\n    \
                 aside, where none has",
        ),
        Ok(walk) => {
            line(out, &format!("    {}", contents(walk)));
            for gap in &walk.gaps {
                line(out, &format!("    {}", not_whole(gap)));
            }
        }
    }
}

/// What to do with a file that holds another segment than its name says.
fn held(other: &Other) -> String {
    let Other { name, same } = other;
    let holds = format!("it holds what is to be called {name}");
    match same {
        None => format!("{holds}:\n    no file is. Rename it, if it is needed there"),
        Some(true) => format!(
            "{holds}:\n    that file is the same byte for byte. Move this one out of the directory"
        ),
        Some(false) => format!("{holds}:\n    that file differs from it. Keep a copy of both"),
    }
}

pub fn contents(walk: &Walk) -> String {
    let Some(indexes) = walk.indexes else {
        return format!("no entries; continues index {}", walk.prev.index);
    };
    let mut text = range("index", indexes);
    if let Some(terms) = walk.terms {
        text += &format!(", {}", range("term", terms));
    }
    text += &format!(", {}", count(walk.groups, "write"));
    if walk.replacing > 0 {
        text += &format!(", of which {} replaced entries", walk.replacing);
    }
    if walk.resets {
        text += ", begins anew behind a snapshot";
    }
    text + &format!(", {} free", bytes(walk.unused))
}

pub fn not_whole(gap: &Gap) -> String {
    let at = match gap.index {
        0 => String::new(),
        index => format!(", where index {index} belongs"),
    };
    format!(
        "NOT WHOLE: {} at offset {}{at}: {}",
        bytes(gap.bytes),
        gap.offset,
        gap.what
    )
}

// ---- snapshots and other files ----------------------------------------------

fn tell_images(out: &mut String, found: &Inspection) {
    line(out, "");
    if found.images.is_empty() {
        line(out, "snapshots: none");
    } else {
        line(out, "snapshots:");
    }
    for ImageState { name, contents } in &found.images {
        line(out, &format!("  {name}"));
        let text = match contents {
            Ok(snapshot) => describe(snapshot),
            Err(error) => format!("DAMAGED: {error}"),
        };
        line(out, &format!("    {text}"));
    }
    if let Some(receiving) = &found.receiving {
        let snapshot = &receiving.snapshot;
        line(
            out,
            &format!(
                "receiving one up to index {}: {} of {} are here",
                snapshot.last.index,
                bytes(receiving.stored),
                bytes(snapshot.size)
            ),
        );
    }
}

pub fn describe(snapshot: &Snapshot) -> String {
    let Position { index, term } = snapshot.last;
    let mut text = format!(
        "the state up to index {index} of term {term}, {}, whole",
        bytes(snapshot.size)
    );
    if let Some(pieces) = snapshot.pieces {
        text += "; the host's part is in the log, ";
        text += &range("index", pieces);
    }
    text
}

fn tell_files(out: &mut String, found: &Inspection) {
    if !found.unfinished.is_empty() {
        line(
            out,
            &format!(
                "unfinished, removed by the next opening: {}",
                found.unfinished.join(", ")
            ),
        );
    }
    if !found.aside.is_empty() {
        line(
            out,
            &format!(
                "set aside by an opening that found them behind damage, removed when the leader has sent \
                 again what was lost: {}",
                found.aside.join(", ")
            ),
        );
    }
    if !found.lost.is_empty() {
        line(
            out,
            &format!(
                "taken out of the log by a repair or an opening, left alone (keelctl inspect FILE says what is\n\
                 in one): {}",
                found.lost.join(", ")
            ),
        );
    }
    if !found.foreign.is_empty() {
        line(
            out,
            &format!("not raftkeel's, left alone: {}", found.foreign.join(", ")),
        );
    }
}

// ---- the verdict ------------------------------------------------------------

fn verdict(out: &mut String, path: &Path, found: &Inspection) -> bool {
    match &found.verdict {
        Ok(Sound {
            lost: Some(lost), ..
        }) => {
            line(out, &with_loss(lost));
            false
        }
        Ok(sound) => {
            line(out, &well(sound));
            let damaged = found.images.iter().any(|image| image.contents.is_err());
            if damaged {
                line(
                    out,
                    "BUT a snapshot is damaged. What it stood for is still in the log, or in an older\n\
                     snapshot and the log behind it, and the next one takes its place; until then one\n\
                     more fault may be too many. Look at the disk.",
                );
            }
            let of_log = |what: &&String| what.contains(".seg");
            for what in sound.passed_over.iter().filter(of_log) {
                line(
                    out,
                    &format!(
                        "BUT a part of the log is damaged that a snapshot has the place of: {what}.\n\
                         Nothing is lost, and opening removes it. Look at the disk."
                    ),
                );
            }
            let waits = found
                .meta
                .as_ref()
                .is_ok_and(|meta| meta.hard.claim.is_some());
            let lost = tell_no_log(out, path, sound, found);
            !damaged && sound.passed_over.is_empty() && !waits && !lost
        }
        Err(error) => {
            line(out, &format!("CANNOT BE OPENED: {error}"));
            line(out, &advice::of_opening(path, error, found.only_voter));
            false
        }
    }
}

/// Says so if nothing is left of a log that there was.
fn tell_no_log(out: &mut String, path: &Path, sound: &Sound, found: &Inspection) -> bool {
    let began = |meta: &MetaState| meta.hard.term > 1 || meta.hard.vote.is_some();
    let lost = sound.last.index == 0 && found.meta.as_ref().is_ok_and(began);
    if lost {
        line(
            out,
            &format!(
                "BUT nothing is left of its log, nor who the members are, and it has voted: it cannot be\n\
                 bootstrapped, and waits for a leader to send it the log.\n{}",
                advice::anew(path)
            ),
        );
    }
    lost
}

fn with_loss(lost: &Lost) -> String {
    let Lost { what, kept, claim } = lost;
    format!(
        "CAN BE OPENED, BUT ENTRIES ARE LOST: {what}.\n\
         What is whole of the log ends at index {} of term {}; it may have held entries {}.\n\
         As a member of a cluster the node opens with what is whole and drops the rest. It does not\n\
         lead, and votes only for nodes that have what it lost, until the leader has sent it again:\n\
         nothing needs to be done as long as other nodes hold it. Look at the disk.\n\
         If all nodes have lost entries, nobody leads: keelctl repair says what could be given up.",
        kept.index,
        kept.term,
        upto(*claim)
    )
}

/// How far a claim goes.
pub fn upto(claim: Position) -> String {
    match claim.is_counted() {
        true => format!("up to index {} of term {} at most", claim.index, claim.term),
        false => format!("of terms up to {}, nobody knows how many", claim.term),
    }
}

fn well(sound: &Sound) -> String {
    let mut text = format!(
        "CAN BE OPENED: the log begins behind index {} and ends at index {} of term {}.",
        sound.base.index, sound.last.index, sound.last.term
    );
    if sound.torn_bytes > 0 {
        text += &format!(
            "\n{} at its end belong to a write that was cut off; nobody was told that it was done, unless\n\
             the disk has lost what was durable for less than a second or two. Opening drops it.",
            bytes(sound.torn_bytes)
        );
    }
    text
}

// ---- who uses it --------------------------------------------------------------

/// The process that has locked the directory, as far as the system says so. Looking does not
/// lock anything: a daemon that starts at this moment must not find it in use.
fn in_use_by(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;

    let lock = std::fs::metadata(path.join("LOCK")).ok()?;
    let inode = lock.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF"
        let mut fields = line.split_whitespace();
        let kind = fields.nth(1)?;
        let process = fields.nth(2)?;
        let file = fields.next()?;
        let same = file.rsplit(':').next() == Some(&inode);
        (kind == "FLOCK" && same).then(|| process.parse().ok())?
    })
}
