//! How much of the machine's memory programs take that wait for a next turn.

/// The most that one program may take to be kept for another turn, in bytes.
pub(crate) const MOST_EACH: u64 = 1 << 30;

/// The most that all waiting programs may take together, in bytes.
pub(crate) const MOST_TOGETHER: u64 = 2 << 30;

/// Returns how much memory a process takes now (its resident set), in bytes. `None` if the system
/// does not say.
pub(crate) fn of(pid: u32) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
        Some(kib << 10)
    }
    #[cfg(not(target_os = "linux"))]
    {
        // Elsewhere the system's own tool says it, in KiB.
        let pid = pid.to_string();
        let ran = std::process::Command::new("/bin/ps").args(["-o", "rss=", "-p", &pid]).output();
        let kib: u64 = String::from_utf8(ran.ok()?.stdout).ok()?.trim().parse().ok()?;
        Some(kib << 10)
    }
}

/// Says how many of the programs that wait, the one that has waited longest first, must be ended
/// so that the rest keeps to the limits. Pure; `taken` in bytes each.
pub(crate) fn surplus(taken: &[u64], most: usize) -> usize {
    let mut left: u64 = taken.iter().sum();
    let mut over = 0;
    for each in taken {
        if taken.len() - over <= most && left <= MOST_TOGETHER {
            break;
        }
        left -= each;
        over += 1;
    }
    over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_some() {
        let taken = of(std::process::id()).unwrap();
        assert!((100 << 10..64 << 30).contains(&taken), "{taken}");
        assert_eq!(of(u32::MAX), None);
    }

    #[test]
    fn the_longest_waiting_go_first_by_number_and_by_memory() {
        assert_eq!(surplus(&[], 8), 0);
        assert_eq!(surplus(&[1; 8], 8), 0);
        assert_eq!(surplus(&[1; 11], 8), 3);
        assert_eq!(surplus(&[MOST_EACH; 2], 8), 0);
        assert_eq!(surplus(&[MOST_EACH; 3], 8), 1);
        assert_eq!(surplus(&[1, MOST_EACH, MOST_EACH], 8), 1);
        assert_eq!(surplus(&[1, 1, MOST_EACH, MOST_EACH, 1], 8), 3);
        assert_eq!(surplus(&[MOST_TOGETHER + 1], 8), 1);
    }
}
