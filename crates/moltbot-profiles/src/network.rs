//! Whether a store lies on a file system that other machines write to as well, whose locks and
//! syncs may promise more than they keep.

use std::path::Path;

use crate::files::{Files, directory};

/// Names the file system below `path` if it is one of other machines.
pub(crate) fn network_file_system(files: &Files, path: &Path) -> Option<&'static str> {
    let dir = directory(path);
    if let Some((magic, kind)) = files.file_system(dir) {
        return network_kind(magic, &kind);
    }
    let stat = rustix::fs::statfs(dir).ok()?;
    #[cfg(target_os = "linux")]
    {
        let magic = stat.f_type as u32;
        // Only there the number does not tell; the table is not read for anything else.
        let kind = if magic == FUSE { mounted(dir) } else { None };
        network_kind(magic, &kind.unwrap_or_default())
    }
    #[cfg(not(target_os = "linux"))]
    {
        const LOCAL: u32 = 0x1000;
        (stat.f_flags & LOCAL == 0).then_some("a network file system")
    }
}

/// What statfs(2) says of everything that is served by a program, or by the host of a virtual
/// machine.
const FUSE: u32 = 0x6573_5546;

/// Decides by the magic number of statfs(2) and, where that is [`FUSE`]'s, by the type in the table
/// of mounts. Pure. One that is not known to be of other machines is not.
fn network_kind(magic: u32, kind: &str) -> Option<&'static str> {
    Some(match magic {
        0x6969 => "NFS",
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => "SMB",
        0x0102_1997 => "9P",
        0x5346_414f | 0x6b41_4653 => "AFS",
        0x00c3_6400 => "Ceph",
        0x0bd0_0bd3 => "Lustre",
        0x7375_7245 => "Coda",
        0x564c => "NCP",
        0x4750_4653 => "GPFS",
        0x1983_0326 => "BeeGFS",
        0x2003_0528 => "OrangeFS",
        0xaad7_aaea => "PanFS",
        0x786f_4256 => "a folder that VirtualBox shares",
        0xbacb_acbc => "a folder that VMware shares",
        0x7c7c_6673 => "a folder that Parallels shares",
        FUSE => return served_by(kind),
        _ => return None,
    })
}

/// Names what is behind a type such as `fuse.sshfs`. Encrypted and overlaid directories of this
/// machine are no network.
fn served_by(kind: &str) -> Option<&'static str> {
    Some(match kind.strip_prefix("fuse.").unwrap_or(kind) {
        "sshfs" => "sshfs",
        "rclone" => "rclone",
        "s3fs" => "s3fs",
        "gcsfuse" => "gcsfuse",
        "goofys" => "goofys",
        "mount-s3" => "mount-s3",
        "blobfuse" | "blobfuse2" => "blobfuse",
        "glusterfs" => "GlusterFS",
        "ceph" | "ceph-fuse" => "Ceph",
        "juicefs" => "JuiceFS",
        "seaweedfs" => "SeaweedFS",
        "mfs" | "mfsmount" => "MooseFS",
        "curlftpfs" => "curlftpfs",
        "davfs" | "davfs2" => "WebDAV",
        "smbnetfs" => "SMB",
        "virtiofs" => "a folder that the virtual machine's host shares",
        "vmhgfs-fuse" => "a folder that VMware shares",
        _ => return None,
    })
}

/// Returns the type of the file system that a directory lies on, from the table of mounts.
#[cfg(target_os = "linux")]
fn mounted(dir: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let device = std::fs::metadata(dir).ok()?.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    type_of(&table, device).map(str::to_string)
}

/// Finds the type of a device in the table of mounts (proc_pid_mountinfo(5)). Pure.
#[cfg(target_os = "linux")]
fn type_of(table: &str, (major, minor): (u32, u32)) -> Option<&str> {
    let device = format!("{major}:{minor}");
    table.lines().find_map(|line| {
        // Optional words stand before the dash.
        let (mount, system) = line.split_once(" - ")?;
        let is_it = mount.split(' ').nth(2) == Some(device.as_str());
        is_it.then(|| system.split(' ').next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_and_type_is_decided() {
        for (magic, kind, wanted) in [
            (0x6969, "", Some("NFS")),
            (0x517b, "", Some("SMB")),
            (0xff53_4d42, "", Some("SMB")),
            (0xfe53_4d42, "", Some("SMB")),
            (0x0102_1997, "", Some("9P")),
            (0x5346_414f, "", Some("AFS")),
            (0x6b41_4653, "", Some("AFS")),
            (0x00c3_6400, "", Some("Ceph")),
            (0x0bd0_0bd3, "", Some("Lustre")),
            (0x7375_7245, "", Some("Coda")),
            (0x4750_4653, "", Some("GPFS")),
            (0x1983_0326, "", Some("BeeGFS")),
            (0x786f_4256, "", Some("a folder that VirtualBox shares")),
            (FUSE, "fuse.sshfs", Some("sshfs")),
            (FUSE, "fuse.rclone", Some("rclone")),
            (FUSE, "fuse.glusterfs", Some("GlusterFS")),
            (FUSE, "virtiofs", Some("a folder that the virtual machine's host shares")),
            // Of this machine: by FUSE, ext4, tmpfs, btrfs, overlayfs, XFS, ZFS.
            (FUSE, "", None),
            (FUSE, "fuseblk", None),
            (FUSE, "fuse.gocryptfs", None),
            (FUSE, "fuse.mergerfs", None),
            (0xef53, "", None),
            (0x0102_1994, "", None),
            (0x9123_683e, "", None),
            (0x794c_7630, "", None),
            (0x5846_5342, "", None),
            (0x2fc1_2fc1, "", None),
            // A type is only asked for where the number does not tell.
            (0xef53, "fuse.sshfs", None),
        ] {
            assert_eq!(network_kind(magic, kind), wanted, "{magic:x} {kind}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_table_of_mounts_is_read() {
        let table = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                     27 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw\n\
                     torn line\n\
                     90 27 0:62 / /home/a\\040b rw,nosuid - fuse.sshfs host:/srv rw,user_id=0\n";
        assert_eq!(type_of(table, (0, 62)), Some("fuse.sshfs"));
        assert_eq!(type_of(table, (254, 0)), Some("ext4"));
        assert_eq!(type_of(table, (0, 2)), None);
        assert_eq!(type_of("", (0, 62)), None);
        let dir = tempfile::tempdir().unwrap();
        assert!(mounted(dir.path()).is_some_and(|kind| !kind.is_empty()));
        assert_eq!(network_file_system(&Files::default(), &dir.path().join("store")), None);
    }
}
