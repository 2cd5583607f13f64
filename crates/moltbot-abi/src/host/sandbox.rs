//! What a plugin's process may reach: programs and libraries of the system, its own copy, and what
//! it asks the host for.

use std::path::Path;

/// Where programs, libraries and interpreters are; read and run, never written. Not `/proc/self`:
/// seen from here it is the host.
#[cfg(target_os = "linux")]
const SYSTEM: &[&str] = &[
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/opt",
    "/nix",
    "/gnu",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/alternatives",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys/fs/cgroup",
    "/sys/devices/system/cpu",
];

/// Locks this thread and every process it starts: no files but those of the system and below
/// `own`, no sockets, no calls that reach into other processes or the kernel. Returns whether the
/// kernel guards the files; an older one does less or nothing.
#[cfg(target_os = "linux")]
pub(crate) fn lock_in(own: &Path) -> bool {
    // In this order: the first lock makes calls that the second could refuse one day.
    let files = lock_files(own);
    lock_calls();
    files
}

/// Calls that neither a plugin nor the thread that starts it has any business with. Landlock
/// knows TCP only; without `socket` there is no other network either, and without `io_uring` no way
/// around this list.
#[cfg(target_os = "linux")]
const CALLS: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_socket,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Refuses [`CALLS`] with `EPERM` by seccomp. Returns whether the kernel does so.
#[cfg(target_os = "linux")]
pub(crate) fn lock_calls() -> bool {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};
    let refuse = || -> Result<(), seccompiler::Error> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
        let refused = SeccompAction::Errno(libc::EPERM as u32);
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?;
        let program: BpfProgram = filter.try_into()?;
        apply_filter(&program)
    };
    refuse().is_ok()
}

#[cfg(target_os = "linux")]
fn lock_files(own: &Path) -> bool {
    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, RestrictionStatus, Ruleset,
        RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
    };
    const NEWEST: ABI = ABI::V6;
    let restrict = || -> Result<RestrictionStatus, RulesetError> {
        let devices = ["/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"];
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM, AccessFs::from_read(NEWEST)))?
            .add_rules(path_beneath_rules([own], AccessFs::from_read(NEWEST)))?
            .add_rules(path_beneath_rules(devices, AccessFs::ReadFile | AccessFs::WriteFile))?
            .restrict_self()
    };
    restrict().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// Does nothing: this system has no such lock without a right to make one.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_in(_: &Path) -> bool {
    false
}

/// Does nothing: this system has no such filter.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lock_calls() -> bool {
    false
}

/// Limits the calling process; called in the child before the plugin's program begins.
///
/// Data 1 GiB, files written 64 MiB, 256 descriptors, no core file; on Linux it ends with the host.
pub(crate) fn limit() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limits = [
        (Resource::Data, 1 << 30),
        (Resource::Fsize, 64 << 20),
        (Resource::Nofile, 256),
        (Resource::Core, 0),
    ];
    for (resource, most) in limits {
        // A lower limit of the user's stays.
        let old = getrlimit(resource);
        let lower = |value: Option<u64>| Some(value.map_or(most, |value| value.min(most)));
        setrlimit(resource, Rlimit { current: lower(old.current), maximum: lower(old.maximum) })?;
    }
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}
