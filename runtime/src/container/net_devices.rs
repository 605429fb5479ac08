//! `linux.netDevices`: config-linux.md#network-devices. Host devices that move into the container's network
//! namespace with their permanent global addresses, under a new name if one is given, and are up there.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use super::rootless;
use crate::log;
use crate::sys::netlink::{Body, Netlink};

/// Bytes of `struct ifaddrmsg`.
const ADDRESS: usize = 8;

/// A device to move.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    name: String,
    /// Its name in the container. The kernel counts a `%d` in it up to a free number.
    inside: String,
}

/// Checks names, and that there is a namespace to move them to.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Device>> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(Vec::new());
    };
    if !namespaces.has(CloneFlags::CLONE_NEWNET) {
        bail!("linux.netDevices: unable to move network devices without a NET namespace");
    }
    if rootless::is_rootless() {
        bail!("linux.netDevices: network devices are not supported for rootless containers");
    }
    let mut plan: Vec<Device> = Vec::with_capacity(devices.len());
    for (name, device) in devices {
        let inside = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(name);
        check_name(name).with_context(|| format!("linux.netDevices[{name:?}]"))?;
        check_name(inside)
            .and_then(|()| check_template(inside))
            .with_context(|| format!("linux.netDevices[{name:?}].name"))?;
        plan.push(Device { name: name.clone(), inside: inside.to_owned() });
    }
    plan.sort_by(|a, b| a.name.cmp(&b.name));
    for (n, device) in plan.iter().enumerate() {
        if !device.is_template() && plan[..n].iter().any(|other| other.inside == device.inside) {
            bail!("linux.netDevices[{:?}].name: {:?} is the name of another one", device.name, device.inside);
        }
    }
    Ok(plan)
}

/// As the kernel's dev_valid_name().
fn check_name(name: &str) -> Result<()> {
    let bad = |byte: u8| matches!(byte, b'/' | b':' | 0) || byte.is_ascii_whitespace() || byte == 0x0b;
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || matches!(name, "." | "..") || name.bytes().any(bad)
    {
        bail!("invalid network device name {name:?}");
    }
    Ok(())
}

fn check_template(name: &str) -> Result<()> {
    if name.contains('%') && (name.matches('%').count() != 1 || !name.contains("%d")) {
        bail!(
            "invalid network device name {name:?}: one \"%d\" stands for a number, no other % may be there"
        );
    }
    Ok(())
}

impl Device {
    fn is_template(&self) -> bool {
        self.inside.contains('%')
    }
}

/// Devices that have been moved. The container's failure to start gives them back.
#[derive(Debug)]
pub(crate) struct Moved {
    /// The runtime's own network namespace, and a socket in the container's.
    home: OwnedFd,
    inside: Netlink,
    devices: Vec<MovedDevice>,
}

#[derive(Debug)]
struct MovedDevice {
    name: String,
    /// Its number in the container.
    index: i32,
    was_up: bool,
    addresses: Vec<Body>,
}

/// Moves them all, or none.
pub(crate) fn move_all(devices: &[Device], namespace: BorrowedFd) -> Result<Moved> {
    let home = OwnedFd::from(std::fs::File::open("/proc/self/ns/net").context("open our network namespace")?);
    let outside = Netlink::open().context("open a netlink socket")?;
    let inside = open_inside(namespace, home.as_fd())
        .context("linux.netDevices: reach the container's network namespace")?;
    let mut moved = Moved { home, inside, devices: Vec::new() };
    for device in devices {
        let done = moved
            .move_one(device, &outside, namespace)
            .with_context(|| format!("linux.netDevices[{:?}]", device.name));
        if let Err(error) = done {
            moved.take_back();
            return Err(error);
        }
    }
    Ok(moved)
}

/// A socket stays in the namespace that it was made in.
fn open_inside(namespace: BorrowedFd, home: BorrowedFd) -> Result<Netlink> {
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter it")?;
    let inside = Netlink::open();
    setns(home, CloneFlags::CLONE_NEWNET).context("return from it")?;
    inside.context("open a netlink socket in it")
}

impl Moved {
    fn move_one(&mut self, device: &Device, outside: &Netlink, namespace: BorrowedFd) -> Result<()> {
        let link = find(outside, &device.name)?.with_context(|| "there is no such network device")?;
        // Asked first: the move would take it away under its old name, and fail then.
        if !device.is_template() && find(&self.inside, &device.inside)?.is_some() {
            bail!("the container's network namespace has a device {:?} already", device.inside);
        }
        let before = if device.is_template() { indexes(&self.inside)? } else { Vec::new() };
        let index = index_of(&link);
        // Now, while it is up: with that go all of version 6.
        let addresses = addresses(outside, index).context("list its addresses")?;
        let was_up = u32::from_ne_bytes(link.fixed(8)) & libc::IFF_UP as u32 != 0;
        send_to(outside, index, namespace, &device.inside)
            .context("move it to the container's network namespace")?;
        let index = match device.is_template() {
            false => find(&self.inside, &device.inside)?.map(|link| index_of(&link)),
            true => indexes(&self.inside)?.into_iter().find(|index| !before.contains(index)),
        };
        let index = index.context("it has vanished while it was being moved")?;
        self.devices.push(MovedDevice {
            name: device.name.clone(),
            index,
            was_up,
            addresses: addresses.clone(),
        });
        for address in &addresses {
            add_address(&self.inside, address, index).context("give it its addresses again")?;
        }
        set_up(&self.inside, index).context("bring it up")
    }

    /// Gives back what was moved, the last one first.
    pub(crate) fn take_back(&self) {
        let back = |device: &MovedDevice| -> Result<()> {
            send_to(&self.inside, device.index, self.home.as_fd(), &device.name)?;
            let outside = Netlink::open()?;
            let link = find(&outside, &device.name)?.context("it has vanished")?;
            if device.was_up {
                set_up(&outside, index_of(&link))?;
            }
            for address in &device.addresses {
                add_address(&outside, address, index_of(&link))?;
            }
            Ok(())
        };
        for device in self.devices.iter().rev() {
            if let Err(error) = back(device) {
                log::warn(&format!("linux.netDevices[{:?}]: give it back: {error:#}", device.name));
            }
        }
    }
}

fn index_of(link: &Body) -> i32 {
    i32::from_ne_bytes(link.fixed(4))
}

fn find(netlink: &Netlink, name: &str) -> Result<Option<Body>> {
    let request = Body::link(0, None).with(libc::IFLA_IFNAME, &terminated(name));
    match netlink.ask(libc::RTM_GETLINK, 0, &request) {
        Ok(links) => Ok(links.into_iter().next()),
        Err(Errno::ENODEV) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("look for the network device {name:?}")),
    }
}

fn indexes(netlink: &Netlink) -> Result<Vec<i32>> {
    let links =
        netlink.ask(libc::RTM_GETLINK, libc::NLM_F_DUMP, &Body::link(0, None)).context("list devices")?;
    Ok(links.iter().map(index_of).collect())
}

/// "MUST preserve ... all permanent IP addresses (IFA_F_PERMANENT flag) of any family with global scope
/// (RT_SCOPE_UNIVERSE value)". Each as a request that makes it again.
fn addresses(netlink: &Netlink, index: i32) -> Result<Vec<Body>> {
    /// What an address was asked to be, not what has become of it: no duplicate detection, home address,
    /// managing temporary ones, no route of its prefix, multicast.
    const ASKED: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
    const IFA_RT_PRIORITY: u16 = 9;
    let all = netlink.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &Body::address(0, 0, 0, 0))?;
    let mut kept = Vec::new();
    for address in all {
        let [family, prefix, flags, scope] = address.fixed(0);
        let long = address.attribute(ADDRESS, libc::IFA_FLAGS).and_then(|value| value.try_into().ok());
        let flags = long.map_or(u32::from(flags), u32::from_ne_bytes);
        if i32::from_ne_bytes(address.fixed(4)) != index
            || flags & libc::IFA_F_PERMANENT == 0
            || scope != libc::RT_SCOPE_UNIVERSE
        {
            continue;
        }
        let mut again = Body::address(family, prefix, scope, 0);
        for (kind, value) in address.attributes(ADDRESS) {
            if [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST, IFA_RT_PRIORITY].contains(&kind) {
                again = again.with(kind, value);
            }
        }
        kept.push(again.with(libc::IFA_FLAGS, &(flags & ASKED).to_ne_bytes()));
    }
    Ok(kept)
}

fn add_address(netlink: &Netlink, address: &Body, index: i32) -> Result<()> {
    let [family, prefix, _, scope] = address.fixed(0);
    let mut request = Body::address(family, prefix, scope, index);
    for (kind, value) in address.attributes(ADDRESS) {
        request = request.with(kind, value);
    }
    match netlink.ask(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &request) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Moves and renames in one request, so that no name is taken in between.
fn send_to(netlink: &Netlink, index: i32, namespace: BorrowedFd, name: &str) -> Result<()> {
    const IFLA_NET_NS_FD: u16 = 28;
    let request = Body::link(index, None)
        .with(libc::IFLA_IFNAME, &terminated(name))
        .with(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    netlink.ask(libc::RTM_NEWLINK, 0, &request).map(drop).map_err(Into::into)
}

fn set_up(netlink: &Netlink, index: i32) -> Result<()> {
    netlink.ask(libc::RTM_NEWLINK, 0, &Body::link(index, Some(true))).map(drop).map_err(Into::into)
}

fn terminated(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        for good in ["eth0", "a", "fifteen-letters", "%"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters-"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_template("eth%d").is_ok());
        for bad in ["%", "%s", "%d%d", "%%d"] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
    }
}
