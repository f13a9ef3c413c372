//! The port to the host.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Where the kernel names its ports.
const PORTS: &str = "/sys/class/virtio-ports";

/// Opens the port at `path`, or else the virtio-serial port with this `name`.
pub(crate) fn open(path: Option<&Path>, name: &str) -> io::Result<File> {
    let path = match path {
        Some(path) => path.to_owned(),
        None => device(Path::new(PORTS), name)?,
    };
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    File::options().read(true).write(true).open(&path).map_err(explain)
}

/// The device of the port with this `name`. No udev has to run: the kernel makes the device, and says its name in `ports`.
fn device(ports: &Path, name: &str) -> io::Result<PathBuf> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no virtio-serial port is named {name}"));
    for port in fs::read_dir(ports).map_err(|_| missing())? {
        let port = port?;
        if fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
    }
    Err(missing())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "org.vibra.guest\n")] {
            fs::create_dir(ports.path().join(port)).unwrap();
            fs::write(ports.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(device(ports.path(), "org.vibra.guest").unwrap(), Path::new("/dev/vport1p2"));
        let missing = device(ports.path(), "org.vibra").unwrap_err();
        assert!(missing.to_string().contains("named org.vibra"), "{missing}");
        assert!(device(&ports.path().join("none"), "org.vibra.guest").is_err());
    }
}
