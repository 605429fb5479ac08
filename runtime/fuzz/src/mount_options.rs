//! The options of a mount: whatever they are, the later ones win, and what is no option of the table
//! reaches the file system as it is.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use crate::container::id_mapped::ContainerIds;
use crate::container::{mount_options, mounts};
use crate::sys::mount::attr;

/// The input is text: destination, type, source, then options, a line each.
pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let mut word = || lines.next().unwrap_or_default().to_owned();
    let (destination, kind, source) = (word(), word(), word());
    let options: Vec<String> = lines.map(str::to_owned).collect();
    check(&options);

    let mut mount = Mount::default();
    mount.set_destination(destination.into());
    mount.set_typ(Some(kind));
    mount.set_source(Some(source.into()));
    mount.set_options(Some(options));
    let mut spec = Spec::default();
    spec.set_mounts(Some(vec![mount]));
    let _ = mounts::plan(&spec, Path::new("/bundle"), Path::new("/bundle/rootfs"), ContainerIds::Host);
}

fn check(options: &[String]) {
    let parsed = mount_options::parse(options);
    // A bit is set or cleared; access times are a field, which is cleared before it is set.
    assert_eq!(parsed.set & parsed.clear & !attr::ATIME, 0, "{parsed:?}");
    assert_eq!(parsed.set_all & parsed.clear_all & !attr::ATIME, 0, "{parsed:?}");
    assert!(parsed.data.iter().all(|part| !part.is_empty()), "{parsed:?}");
    // What is handed to the file system is cut where the kernel would cut it.
    let joined = [parsed.data.join(",")];
    if parsed.data.iter().all(|part| part.matches('"').count() % 2 == 0 && !part.contains('\\')) {
        let again = mount_options::parse(&joined);
        let words = mount_options::names().any(|name| joined[0] == name) || joined[0].starts_with("idmap=");
        assert!(
            words || joined[0].starts_with("ridmap=") || again.data == parsed.data,
            "{parsed:?} {again:?}"
        );
    }
    // Options at the end win over all before them.
    let last: Vec<&str> =
        options.iter().map(String::as_str).chain(["rw", "suid", "strictatime", "rro"]).collect();
    let last = mount_options::parse(&last);
    assert_eq!(last.set & (attr::RDONLY | attr::NOSUID), 0, "{last:?}");
    assert_eq!(last.set & attr::ATIME, attr::STRICTATIME, "{last:?}");
    assert_eq!(last.set_all & attr::RDONLY, attr::RDONLY, "{last:?}");
}
