//! File systems in files, which can lose power.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

pub const FILE_SYSTEMS: [&str; 2] = ["ext4", "xfs"];

/// A directory on the real disk that goes away with the value.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("power-{}-{number}-{name}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("{program} {}: {said}", args.join(" ")))
        }
    }
}

/// Why there is no such program.
pub fn lacks(program: &str) -> Option<String> {
    let found = Command::new(program)
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    found.err().map(|error| format!("{program}: {error}"))
}

/// Why power cannot be cut here.
pub fn lacks_for_power_cuts() -> Option<String> {
    let programs = [
        "strace",
        "mkfs.ext4",
        "mkfs.xfs",
        "xfs_io",
        "mount",
        "umount",
    ];
    let missing = programs.iter().find_map(|program| lacks(program));
    missing.or_else(|| {
        let tried = FILE_SYSTEMS.iter().map(|kind| Disk::try_make(kind));
        tried.filter_map(Result::err).next()
    })
}

/// A disk with a file system on it, mounted.
pub struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    scratch: Option<Scratch>,
}

impl Disk {
    pub fn make(kind: &str) -> Disk {
        Disk::try_make(kind).unwrap()
    }

    fn try_make(kind: &str) -> Result<Disk, String> {
        let scratch = Scratch::new(kind);
        let image = scratch.path().join("disk");
        // The least that mkfs.xfs makes; most of it is a hole.
        let made = fs::File::create(&image).and_then(|file| file.set_len(320 << 20));
        made.map_err(|error| error.to_string())?;
        let mounted = scratch.path().join("mounted");
        fs::create_dir(&mounted).map_err(|error| error.to_string())?;
        run(&format!("mkfs.{kind}"), &["-q", text(&image)])?;
        let disk = Disk {
            image,
            mounted,
            scratch: Some(scratch),
        };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), String> {
        run(
            "mount",
            &["-o", "loop", text(&self.image), text(&self.mounted)],
        )
    }

    /// Where its root is.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// Nothing more comes to the disk; then it is there again, as it is found by the next boot.
    pub fn lose_power(&mut self) {
        run("xfs_io", &["-x", "-c", "shutdown", text(&self.mounted)]).unwrap();
        run("umount", &[text(&self.mounted)]).unwrap();
        self.await_release();
        self.mount().unwrap();
    }

    /// Whoever has made a mount namespace meanwhile holds it mounted there, shut down as it is, and
    /// mounting it again would show that.
    fn await_release(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let users = Command::new("losetup").arg("-j").arg(&self.image).output();
            if users.unwrap().stdout.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "{:?} stays mounted", self.image);
            std::thread::yield_now();
        }
    }

    /// Leaves it for somebody to look at; where it is.
    pub fn keep(&mut self) -> String {
        std::mem::forget(self.scratch.take());
        self.image.display().to_string()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &[text(&self.mounted)]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
