//! A QEMU process: its command line, its console, and its end.

use super::{probe::Accelerator, qmp::Qmp};
use crate::host::{
    cgroup::DiskLimit,
    process::{Exit, contained, signal},
};
use rustix::process::Signal;
use std::{
    ffi::OsString,
    fs,
    io::{self, Seek, SeekFrom, Write},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
    task::JoinHandle,
    time::{sleep, timeout},
};
use vibra_guest::PORT;
use vibra_model::Bytes;

/// The program.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// How long QEMU may take to open its sockets.
const OPENING: Duration = Duration::from_secs(20);
/// How long it may take to end once it was killed.
const ENDING: Duration = Duration::from_secs(10);
/// The most of a console that is kept, in bytes: a guest may write without end.
const CONSOLE: u64 = 1 << 20;
/// How many of the console's last lines an error quotes.
const QUOTED: usize = 5;
/// What QEMU's translation of the guest's code may take, in MiB.
const TRANSLATION: u32 = 64;

/// What to start.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// What the process is called.
    pub(super) name: String,
    pub(super) accelerator: Accelerator,
    /// Where kernel and initramfs are.
    pub(super) image: PathBuf,
    /// The disk with what is served.
    pub(super) content: PathBuf,
    pub(super) disk: Option<DiskLimit>,
    /// What the guest has without its balloon.
    pub(super) memory: Bytes,
    /// The guest's own address, in a /24.
    pub(super) address: Ipv4Addr,
    /// The tap device.
    pub(super) tap: String,
    /// For sockets and the console; made anew.
    pub(super) directory: PathBuf,
    /// Whether it begins with the state of another one, instead of booting.
    pub(super) begins: Beginning,
}

/// How a VM comes to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beginning {
    /// Its kernel boots.
    Boot,
    /// It waits for the state of a running one.
    Incoming,
}

impl Launch {
    pub(super) fn qmp_socket(&self) -> PathBuf {
        self.directory.join("qmp")
    }

    /// Where the guest agent is heard.
    pub(super) fn guest_socket(&self) -> PathBuf {
        self.directory.join("guest")
    }

    /// QEMU's arguments.
    fn arguments(&self) -> Vec<OsString> {
        let memory = self.memory.0 >> 20;
        let (accelerator, tuning) = match self.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), ""),
            // What guards against speculation costs much where it is emulated, and nothing speculates there.
            Accelerator::Tcg => (format!("tcg,tb-size={TRANSLATION}"), " mitigations=off"),
        };
        let kernel = format!("console=ttyS0 quiet panic=-1 vibra.address={}/24{tuning}", self.address);
        let throttle = self.disk.map_or(String::new(), |limit| {
            format!(",throttling.iops-read={},throttling.bps-read={}", limit.reads_per_s, limit.read.0)
        });
        let words = format!(
            "-nodefaults -no-user-config -no-reboot -display none -machine pc -cpu max -smp 1 -m {memory}M \
             -accel {accelerator} -chardev stdio,id=console,signal=off -serial chardev:console \
             -mon chardev=qmp,mode=control \
             -device virtio-serial-pci -device virtserialport,chardev=guest,name={PORT} \
             -device virtio-blk-pci,drive=content -netdev tap,id=net,ifname={tap},script=no,downscript=no \
             -device virtio-net-pci,netdev=net,mac={mac},romfile= -device virtio-balloon-pci,id=balloon",
            tap = self.tap,
            mac = mac(self.address),
        );
        let mut arguments: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        option("-name", self.name.clone().into());
        option("-kernel", self.image.join("kernel").into());
        option("-initrd", self.image.join("initramfs").into());
        option("-append", kernel.into());
        let socket = |id: &str, path: &Path| with_path(&format!("socket,id={id},server=on,wait=off,path="), path, "");
        option("-chardev", socket("qmp", &self.qmp_socket()));
        option("-chardev", socket("guest", &self.guest_socket()));
        let content = format!(",format=raw,if=none,readonly=on{throttle}");
        option("-drive", with_path("id=content,file=", &self.content, &content));
        if self.begins == Beginning::Incoming {
            option("-incoming", "defer".into());
        }
        arguments
    }
}

/// A path within an option: there, commas are written twice.
fn with_path(before: &str, path: &Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let doubled = path.as_os_str().as_bytes().iter().flat_map(|&byte| match byte {
        b',' => vec![b',', b','],
        byte => vec![byte],
    });
    OsString::from_vec(before.bytes().chain(doubled).chain(after.bytes()).collect())
}

/// The network card's address follows from the VM's: others in the same network have others, and one that is restarted
/// or goes to another host keeps its own.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A QEMU that runs, or has ended. Dropped, it is killed.
#[derive(Debug)]
pub(super) struct Qemu {
    child: Mutex<Child>,
    exit: Exit,
    qmp: Qmp,
    launch: Launch,
    /// Keeps what the console says.
    console: JoinHandle<()>,
}

impl Qemu {
    /// Starts it in `namespace` and in the control groups with these `groups` directories, and waits until it takes
    /// commands; its guest has only begun to boot then.
    ///
    /// # Errors
    /// What the system says, or QEMU.
    pub(super) async fn start(launch: Launch, namespace: &str, groups: &[PathBuf]) -> io::Result<Qemu> {
        let directory = &launch.directory;
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(directory)?,
        }
        let console = fs::File::create_new(console_of(directory))?;
        let mut child = contained(QEMU, namespace, groups)
            .args(launch.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(console.try_clone()?)
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let console = tokio::spawn(keep_console(output, console));
        let (exit, qmp) = (Exit::of(&child)?, Qmp::new(&launch.qmp_socket()));
        let qemu = Qemu { child: Mutex::new(child), exit, qmp, launch, console };
        match timeout(OPENING, qemu.takes_commands()).await {
            Ok(taken) => taken.map(|()| qemu),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, qemu.said("QEMU does not open its socket"))),
        }
    }

    /// Waits for the socket to answer, or for the end.
    async fn takes_commands(&self) -> io::Result<()> {
        while self.qmp.ask::<serde_json::Value>("query-status").await.is_err() {
            if let Some(status) = self.ended()? {
                // What it said last may still be on its way.
                sleep(Duration::from_millis(20)).await;
                return Err(io::Error::other(self.said(&format!("QEMU ended ({status})"))));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(super) fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    pub(super) fn launch(&self) -> &Launch {
        &self.launch
    }

    /// How it ended; `None` if it runs.
    pub(super) fn ended(&self) -> io::Result<Option<ExitStatus>> {
        self.child().try_wait()
    }

    /// Its end.
    pub(super) fn exit(&self) -> Exit {
        self.exit.clone()
    }

    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        matches!(self.ended(), Ok(None))
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where it does not end.
    pub(super) async fn kill(&self) -> io::Result<()> {
        signal(&self.child(), Signal::KILL)?;
        let gone = async {
            while self.ended()?.is_none() {
                sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        let lingers = |_| io::Error::new(io::ErrorKind::TimedOut, "QEMU was killed and does not end");
        timeout(ENDING, gone).await.map_err(lingers)?
    }

    /// `what`, and the console's last lines.
    pub(super) fn said(&self, what: &str) -> String {
        let console = fs::read(console_of(&self.launch.directory)).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let mut last: Vec<_> =
            console.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(QUOTED).collect();
        // Many lines may follow the one that says why.
        let panic = console.lines().rfind(|line| line.contains("Kernel panic")).map(str::trim);
        last.extend(panic.filter(|line| !last.contains(line)));
        last.reverse();
        match last.is_empty() {
            true => format!("{what}; its console says nothing"),
            false => format!("{what}; its console ends with: {}", last.join("; ")),
        }
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.console.abort();
    }
}

fn console_of(directory: &Path) -> PathBuf {
    directory.join("console.log")
}

/// Writes what comes to `log`, which begins anew when it has grown too long.
async fn keep_console(mut output: impl AsyncRead + Unpin, mut log: fs::File) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        let long = log.seek(SeekFrom::End(0)).is_ok_and(|length| length > CONSOLE);
        let begun = if long { log.set_len(0).and_then(|()| log.rewind()) } else { Ok(()) };
        // A full disk costs the log, not the VM.
        let _ = begun.and_then(|()| log.write_all(&buffer[..read]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::BytesPerSec;

    fn launch() -> Launch {
        Launch {
            name: "vm1".to_owned(),
            accelerator: Accelerator::Tcg,
            image: "/images/1".into(),
            content: "/a,b/content.ext4".into(),
            disk: Some(DiskLimit { reads_per_s: 117, read: BytesPerSec(60_000_000) }),
            memory: Bytes(256 << 20),
            address: Ipv4Addr::new(10, 177, 3, 130),
            tap: "vm0".to_owned(),
            directory: "/run/vibra/r3/vm0".into(),
            begins: Beginning::Boot,
        }
    }

    fn line(launch: &Launch) -> String {
        let words: Vec<_> = launch.arguments().iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn the_command_line_has_what_was_asked_for() {
        let line = line(&launch());
        for part in [
            "-m 256M",
            "-accel tcg,",
            "ifname=vm0,script=no",
            "mac=52:54:0a:b1:03:82",
            "vibra.address=10.177.3.130/24",
            "file=/a,,b/content.ext4,format=raw,if=none,readonly=on,throttling.iops-read=117,throttling.bps-read=60000000",
            "path=/run/vibra/r3/vm0/qmp",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert!(!line.contains("-incoming"), "{line}");
    }

    #[test]
    fn what_differs_is_said() {
        let kvm = Launch { accelerator: Accelerator::Kvm, disk: None, begins: Beginning::Incoming, ..launch() };
        let line = line(&kvm);
        assert!(line.contains("-accel kvm") && line.contains("-incoming defer"), "{line}");
        assert!(!line.contains("throttling") && !line.contains("mitigations"), "{line}");
    }

    #[tokio::test]
    async fn a_console_without_end_fills_no_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = console_of(directory.path());
        let endless = tokio::io::repeat(b'x').take(3 * CONSOLE);
        keep_console(endless, fs::File::create_new(&path).unwrap()).await;
        assert!(fs::metadata(&path).unwrap().len() <= CONSOLE + 4096);
    }
}
