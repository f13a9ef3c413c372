//! What this machine can do for virtual machines: found out by trying.

use super::process::QEMU;
use crate::{
    host::{
        Reason,
        command::{Step, with_search_path},
    },
    namespace,
};
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

/// Where `images/build` keeps what it makes, unless told otherwise.
const IMAGES: &str = "/var/cache/vibra/images";
/// Names another place.
const IMAGES_VARIABLE: &str = "VIBRA_IMAGE_CACHE";
/// How long a VM on KVM may take until its init speaks. One takes less than a second where KVM works.
const BOOTING: Duration = Duration::from_secs(8);

/// What runs a guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU, which translates it.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "QEMU's own emulation",
        })
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuCapabilities {
    /// A host with a network and control groups can be made: see [`Capabilities`](crate::Capabilities).
    pub host: Result<(), Reason>,
    /// QEMU; its version.
    pub qemu: Result<String, Reason>,
    /// The directory with kernel and initramfs.
    pub image: Result<PathBuf, Reason>,
    /// Disk images of what is served can be made.
    pub mke2fs: Result<(), Reason>,
    /// A VM booted with KVM. If not, QEMU emulates.
    pub kvm: Result<(), Reason>,
}

impl QemuCapabilities {
    /// Whether VMs can be run, with KVM or without.
    ///
    /// # Errors
    /// Every [`Reason`] why not, in one.
    pub fn machines(&self) -> Result<(), Reason> {
        let host = self.host.as_ref().err().map(|reason| format!("no host: {reason}"));
        let qemu = self.qemu.as_ref().err().map(|reason| format!("no QEMU: {reason}"));
        let image = self.image.as_ref().err().map(|reason| format!("no VM image: {reason}"));
        let mke2fs = self.mke2fs.as_ref().err().map(|reason| format!("no mke2fs: {reason}"));
        let reasons: Vec<_> = [host, qemu, image, mke2fs].into_iter().flatten().collect();
        if reasons.is_empty() { Ok(()) } else { Err(Reason(reasons.join("; "))) }
    }

    /// What runs the guests' code.
    pub fn accelerator(&self) -> Accelerator {
        if self.kvm.is_ok() { Accelerator::Kvm } else { Accelerator::Tcg }
    }
}

impl fmt::Display for QemuCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Err(reason) = self.machines() {
            return write!(f, "no virtual machines: {reason}");
        }
        write!(f, "virtual machines on {}", self.accelerator())?;
        if let Err(reason) = &self.kvm {
            write!(f, ", because {reason}")?;
        }
        self.qemu.as_ref().map_or(Ok(()), |version| write!(f, "; {version}"))
    }
}

/// Tries what virtual machines need, with the VM image in the directory `image`, or else with the newest that
/// `images/build` made, and removes what it made. Blocks for a second, or for up to ten where KVM hangs.
pub fn probe_qemu(image: Option<&Path>) -> QemuCapabilities {
    let base = namespace::probe();
    let of_host = [base.network.as_ref().err(), base.cgroup.as_ref().err()];
    let missing: Vec<_> = of_host.into_iter().flatten().map(ToString::to_string).collect();
    let host = if missing.is_empty() { Ok(()) } else { Err(Reason(missing.join("; "))) };
    let (qemu, image) = (version(), find_image(image));
    let kvm = match (&qemu, &image) {
        (Ok(_), Ok(image)) => kvm(image).clone(),
        _ => Err(Reason("it could not be tried".to_owned())),
    };
    QemuCapabilities { host, qemu, image, mke2fs: mke2fs(), kvm }
}

pub(super) fn version() -> Result<String, Reason> {
    let shown = Step::new(&format!("{QEMU} --version")).run().map_err(|error| Reason::of(&error))?;
    Ok(shown.lines().next().unwrap_or(QEMU).to_owned())
}

fn mke2fs() -> Result<(), Reason> {
    Step::new("mke2fs -V").run().map(drop).map_err(|error| Reason::of(&error))
}

/// The directory with kernel and initramfs: `given`, or the newest that was made here.
pub(super) fn find_image(given: Option<&Path>) -> Result<PathBuf, Reason> {
    let hint = "make one with images/build";
    if let Some(image) = given {
        let whole = ["kernel", "initramfs"].iter().all(|file| image.join(file).is_file());
        let lacks = || Reason(format!("{} holds no kernel and initramfs: {hint}", image.display()));
        return whole.then(|| image.to_owned()).ok_or_else(lacks);
    }
    let images = std::env::var_os(IMAGES_VARIABLE).map_or_else(|| IMAGES.into(), PathBuf::from);
    let made = |entry: io::Result<fs::DirEntry>| -> Option<(SystemTime, PathBuf)> {
        let path = entry.ok()?.path();
        Some((fs::metadata(path.join("complete")).ok()?.modified().ok()?, path))
    };
    let newest = fs::read_dir(&images).into_iter().flatten().filter_map(made).max();
    newest.map(|(_, image)| image).ok_or_else(|| Reason(format!("there is none in {}: {hint}", images.display())))
}

/// Whether a VM boots with KVM; tried once in a process.
pub(super) fn kvm(image: &Path) -> &'static Result<(), Reason> {
    static TRIED: OnceLock<Result<(), Reason>> = OnceLock::new();
    TRIED.get_or_init(|| {
        let tried = try_kvm(image).map_err(|error| Reason(error.to_string()));
        match &tried {
            Ok(()) => tracing::info!("virtual machines use KVM: one booted with it"),
            Err(reason) => tracing::info!(%reason, "virtual machines are emulated"),
        }
        tried
    })
}

/// Boots the image without an address, which its init complains of: then kernel, drivers and user space work.
fn try_kvm(image: &Path) -> io::Result<()> {
    let device = Path::new("/dev/kvm");
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(device)
        .map_err(|error| io::Error::new(error.kind(), format!("{} cannot be used: {error}", device.display())))?;
    let began = Instant::now();
    let output = with_search_path("timeout")
        .args(["-s", "KILL", &BOOTING.as_secs().to_string(), QEMU])
        .args(["-accel", "kvm", "-cpu", "max", "-m", "192", "-nodefaults", "-no-user-config", "-no-reboot"])
        .args(["-display", "none", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(image.join("kernel"))
        .arg("-initrd")
        .arg(image.join("initramfs"))
        .stdin(Stdio::null())
        .output()?;
    if String::from_utf8_lossy(&output.stdout).contains("vibra:") {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(io::Error::other(match (began.elapsed() >= BOOTING, said.is_empty()) {
        (true, _) => format!("a VM on KVM did not boot within {} s", BOOTING.as_secs()),
        (false, false) => format!("a VM on KVM did not boot: {said}"),
        (false, true) => "a VM on KVM ended before it had booted".to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_what_to_do() {
        let empty = tempfile::tempdir().unwrap();
        let reason = find_image(Some(empty.path())).unwrap_err().to_string();
        assert!(reason.contains("images/build") && reason.contains(empty.path().to_str().unwrap()), "{reason}");
        for file in ["kernel", "initramfs"] {
            fs::write(empty.path().join(file), "").unwrap();
        }
        assert_eq!(find_image(Some(empty.path())).unwrap(), empty.path());
    }

    #[test]
    fn all_reasons_are_told_in_one() {
        let missing = |what: &str| Err(Reason(what.to_owned()));
        let found = QemuCapabilities {
            host: Ok(()),
            qemu: missing("not installed"),
            image: Err(Reason("none made".to_owned())),
            mke2fs: Ok(()),
            kvm: Err(Reason("it hangs".to_owned())),
        };
        assert_eq!(found.to_string(), "no virtual machines: no QEMU: not installed; no VM image: none made");
        let works = QemuCapabilities { qemu: Ok("QEMU 7.2".to_owned()), image: Ok("/i".into()), ..found };
        assert_eq!(works.to_string(), "virtual machines on QEMU's own emulation, because it hangs; QEMU 7.2");
        assert_eq!(QemuCapabilities { kvm: Ok(()), ..works }.accelerator(), Accelerator::Kvm);
    }
}
