//! `moltbot gateway install`: a user unit of systemd that may do little beside serving.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::place::{Place, place};
use crate::{Context, Exit, Failure, Outcome};

/// The unit's name.
const UNIT: &str = "moltbot-gateway.service";

/// The name of the unit that holds the sockets.
const SOCKET: &str = "moltbot-gateway.socket";

/// Writes the unit and starts it. With a socket unit, systemd holds the sockets: connections wait
/// while one program ends and the next one starts.
pub(super) fn install(cx: &mut Context, socket: bool) -> Outcome {
    supported()?;
    let place = socket.then(|| place(cx, None)).transpose()?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("this program does not know its place: {error}")))?;
    let state = cx.paths().state_dir().display().to_string();
    let text = unit(&program.display().to_string(), &state, &Around::of(cx), socket);
    let path = file(cx, UNIT);
    let shown = cx.shown(&path);
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {shown}: {error}"));
    std::fs::create_dir_all(path.parent().expect("a file in a directory")).map_err(failed)?;
    std::fs::write(&path, text).map_err(failed)?;
    cx.out.line(format!("Wrote {shown}"));
    if let Some(place) = place {
        let path = file(cx, SOCKET);
        let shown = cx.shown(&path);
        std::fs::write(&path, socket_unit(&place))
            .map_err(|error| Failure::new(format!("cannot write {shown}: {error}")))?;
        cx.out.line(format!("Wrote {shown}"));
    }
    systemctl(&["daemon-reload"])?;
    if socket {
        systemctl(&["enable", "--now", SOCKET])?;
    }
    systemctl(&["enable", "--now", UNIT])?;
    cx.out.line("The gateway starts with your session from now on");
    Ok(Exit::OK)
}

/// Stops the unit and removes it.
pub(super) fn uninstall(cx: &mut Context) -> Outcome {
    supported()?;
    let path = file(cx, UNIT);
    let shown = cx.shown(&path);
    if !path.exists() {
        cx.out.line(format!("There is no {shown}"));
        return Ok(Exit::OK);
    }
    systemctl(&["disable", "--now", UNIT])?;
    std::fs::remove_file(&path)
        .map_err(|error| Failure::new(format!("cannot remove {shown}: {error}")))?;
    cx.out.line(format!("Removed {shown}"));
    let path = file(cx, SOCKET);
    if path.exists() {
        let shown = cx.shown(&path);
        systemctl(&["disable", "--now", SOCKET])?;
        std::fs::remove_file(&path)
            .map_err(|error| Failure::new(format!("cannot remove {shown}: {error}")))?;
        cx.out.line(format!("Removed {shown}"));
    }
    systemctl(&["daemon-reload"])?;
    Ok(Exit::OK)
}

fn supported() -> Result<(), Failure> {
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    Err(Failure::new("only systemd is served; start `moltbot gateway` by your system's own means"))
}

fn file(cx: &Context, unit: &str) -> PathBuf {
    let configured = cx.process_env("XDG_CONFIG_HOME").map(PathBuf::from);
    let dir = configured.unwrap_or_else(|| cx.home().join(".config"));
    dir.join("systemd/user").join(unit)
}

/// What the programs need that the gateway runs for a login: `PATH`, and where they keep it.
struct Around {
    path: Option<String>,
    places: Vec<String>,
}

impl Around {
    fn of(cx: &Context) -> Self {
        let offers = cx.registry.offers().iter().map(|entry| &entry.offer.needs);
        let files = offers.filter(|needs| !needs.programs.is_empty()).flat_map(|n| &n.files);
        let mut places: Vec<String> = Vec::new();
        for file in files {
            let named = file.dir_env.as_ref().and_then(|name| cx.process_env(name));
            let dir = named.unwrap_or(&file.dir);
            let dir = match dir.strip_prefix("~/") {
                Some(rest) => cx.home().join(rest).display().to_string(),
                None => dir.to_string(),
            };
            if dir.starts_with('/') && !places.contains(&dir) {
                places.push(dir);
            }
        }
        Self { path: cx.process_env("PATH").map(String::from), places }
    }
}

/// Writes the unit: it sees little of the system, writes to the state directory and to the places
/// of its programs only, and cannot gain rights.
fn unit(program: &str, state: &str, around: &Around, socket: bool) -> String {
    let quote = |text: &str| {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%"))
    };
    // What is not there is left out.
    let places = around.places.iter().map(|place| format!(" {}", quote(&format!("-{place}"))));
    let places: String = places.collect();
    let path = around.path.as_ref().map(|path| quote(&format!("PATH={path}")));
    let path = path.map(|path| format!("Environment={path}\n")).unwrap_or_default();
    let needs = if socket { format!("Requires={SOCKET}\nAfter={SOCKET}\n") } else { String::new() };
    format!(
        "[Unit]\nDescription=moltbot gateway\nAfter=network-online.target\n{needs}\n\
         [Service]\nExecStart={} gateway run\nEnvironment={}\n{path}Restart=on-failure\n\
         KillSignal=SIGTERM\nTimeoutStopSec=40\nLimitCORE=0\nLimitNOFILE=65536\nUMask=0077\n\
         NoNewPrivileges=yes\nPrivateTmp=yes\nProtectSystem=strict\nProtectHome=read-only\n\
         ReadWritePaths={}{places}\nProtectKernelTunables=yes\nProtectKernelModules=yes\n\
         ProtectControlGroups=yes\nRestrictSUIDSGID=yes\nRestrictRealtime=yes\n\
         RestrictNamespaces=yes\nLockPersonality=yes\nMemoryDenyWriteExecute=yes\n\
         RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX\nSystemCallArchitectures=native\n\n\
         [Install]\nWantedBy=default.target\n",
        quote(&program.replace('$', "$$")),
        quote(&format!("MOLTBOT_STATE_DIR={state}")),
        quote(state),
    )
}

/// Writes the unit of the sockets: the addresses that the gateway itself would take.
fn socket_unit(place: &Place) -> String {
    let streams: String = place
        .addresses
        .iter()
        .map(|address| format!("ListenStream={}\n", SocketAddr::new(*address, place.port)))
        .collect();
    format!(
        "[Unit]\nDescription=moltbot gateway, its sockets\n\n[Socket]\n{streams}\
         BindIPv6Only=ipv6-only\nBacklog=4096\nNoDelay=yes\n\n[Install]\n\
         WantedBy=sockets.target\n"
    )
}

fn systemctl(args: &[&str]) -> Result<(), Failure> {
    let line = args.join(" ");
    let done = Command::new("systemctl").arg("--user").args(args).output();
    match done {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
            Err(Failure::new(format!("systemctl --user {line} failed: {said}")))
        }
        Err(error) => Err(Failure::new(format!("systemctl cannot be run: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_hardened_and_quotes_what_it_names() {
        let around = Around {
            path: Some("/usr/bin:/opt/100%".into()),
            places: vec!["/home/a/.program".into()],
        };
        let text = unit("/opt/my bin/m%t", "/home/a\"b/.moltbot", &around, false);
        assert!(text.contains("ExecStart=\"/opt/my bin/m%%t\" gateway run\n"), "{text}");
        let places = "ReadWritePaths=\"/home/a\\\"b/.moltbot\" \"-/home/a/.program\"\n";
        assert!(text.contains(places), "{text}");
        assert!(text.contains("Environment=\"PATH=/usr/bin:/opt/100%%\"\n"), "{text}");
        for wanted in ["NoNewPrivileges=yes", "ProtectSystem=strict", "LimitCORE=0"] {
            assert!(text.contains(wanted), "{wanted}");
        }
    }

    #[test]
    fn systemd_holds_the_sockets_if_asked_to() {
        let addresses = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        let place = Place { port: 18_789, addresses, bind: "loopback", loopback: true };
        let text = socket_unit(&place);
        assert!(
            text.contains("ListenStream=127.0.0.1:18789\nListenStream=[::1]:18789\n"),
            "{text}"
        );
        let alone = Around { path: None, places: Vec::new() };
        let service = unit("/bin/moltbot", "/home/a/.moltbot", &alone, true);
        assert!(service.contains("ReadWritePaths=\"/home/a/.moltbot\"\n"), "{service}");
        assert!(service.contains("Requires=moltbot-gateway.socket\n"), "{service}");
    }
}
