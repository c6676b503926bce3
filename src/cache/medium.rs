//! What a folder lies on, as far as the order of reads matters there.

use std::path::Path;

/// What a folder lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A disk that the system calls rotating; many virtual disks are among them.
    Rotating,
    /// A file system on another machine, or one that a process serves (FUSE).
    Network,
    /// Any other, and whatever the system does not tell.
    Other,
}

/// `f_type` of the file systems that are read over a network or through FUSE, as `statfs(2)`
/// and the kernel's `magic.h` have them.
#[cfg(target_os = "linux")]
const NETWORK: [u32; 7] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xfe53_4d42, // SMB 2
    0xff53_4d42, // CIFS
    0x00c3_6400, // Ceph
    0x0bd0_0bd0, // Lustre
    0x6573_5546, // FUSE
];

impl Medium {
    /// What `folder` lies on.
    #[cfg(target_os = "linux")]
    pub fn of(folder: &Path) -> Self {
        // The numbers have 32 bits; the field is wider on some machines and signed on others.
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the bits above are the sign's"
        )]
        let network = rustix::fs::statfs(folder)
            .is_ok_and(|system| NETWORK.contains(&(system.f_type as u32)));
        if network {
            Self::Network
        } else if is_rotating(folder) == Some(true) {
            Self::Rotating
        } else {
            Self::Other
        }
    }

    /// What `folder` lies on: not known on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn of(_: &Path) -> Self {
        Self::Other
    }
}

/// Whether the kernel calls the disk of `folder` rotating; nothing for a file system that has no
/// disk of its own.
#[cfg(target_os = "linux")]
fn is_rotating(folder: &Path) -> Option<bool> {
    let device = rustix::fs::stat(folder).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has no queue: its disk is the folder above.
    let queues = ["queue", "../queue"];
    queues.iter().find_map(|queue| {
        let file = Path::new(&device).join(queue).join("rotational");
        Some(fs_err::read_to_string(file).ok()?.trim() == "1")
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::path::Path;

    use super::Medium;

    #[test]
    fn what_has_no_disk_is_other() {
        assert_eq!(Medium::of(Path::new("/proc")), Medium::Other);
        assert_eq!(Medium::of(Path::new("/no/such/folder")), Medium::Other);
    }
}
