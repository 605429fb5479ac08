//! The first process of every container, from the end of the set-up to the payload's execve.
//!
//! The runtime execs this tiny static program from a sealed memfd when mounts, namespaces and cgroups
//! are done. So no process that the container can see ever has the host's runtime binary as its
//! `/proc/PID/exe` (CVE-2019-5736), and what waits for `start` weighs a few pages instead of the
//! runtime's whole image. It has no library below it: only the system calls that are still to make, in
//! an order that matters, written once in `run`.
#![no_std]
#![no_main]

mod plan;
mod syscall;

use plan::{Header, Limit, flag, step, word};
use syscall::*;

const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EISDIR: i32 = 21;
const EINTR: i32 = 4;
const EINVAL: i32 = 22;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
const NEW_LISTENER: u32 = 8;
const CAP_SYS_ADMIN: u64 = 1 << 21;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    exit(125)
}

/// Called by `_start` with the initial stack pointer: argc, argv, NULL, envp, NULL.
#[unsafe(no_mangle)]
unsafe extern "C" fn begin(stack: *const usize) -> ! {
    unsafe {
        let argc = *stack;
        let argv = stack.add(1).cast::<*const u8>();
        let envp = argv.add(argc + 1);
        set_undumpable();
        let Some((fd, offset, length)) = numbers(*argv) else { exit(125) };
        let map = map_file(fd as i32, offset, length);
        if map.is_null() {
            exit(125);
        }
        close(fd as i32);
        // argv[0] was ours; the payload's arguments follow it.
        Last { plan: &*map.cast::<Header>(), base: map, report: -1 }.run(argv.add(1), envp)
    }
}

/// The three decimal numbers in `init FD OFFSET LENGTH`.
unsafe fn numbers(mut text: *const u8) -> Option<(usize, usize, usize)> {
    let mut found = [0_usize; 3];
    for slot in &mut found {
        while !unsafe { *text }.is_ascii_digit() {
            if unsafe { *text } == 0 {
                return None;
            }
            text = unsafe { text.add(1) };
        }
        while unsafe { *text }.is_ascii_digit() {
            *slot = *slot * 10 + usize::from(unsafe { *text } - b'0');
            text = unsafe { text.add(1) };
        }
    }
    Some((found[0], found[1], found[2]))
}

struct Last {
    plan: &'static Header,
    base: *const u8,
    /// Where errors go: first the runtime, later `start`.
    report: i32,
}

impl Last {
    /// The last steps, in order.
    unsafe fn run(mut self, argv: *const *const u8, envp: *const *const u8) -> ! {
        let p = self.plan;
        self.report = p.sync;
        close_on_exec(p.sync);
        unsafe { self.write_labels() };
        unsafe { self.set_limits() };
        umask(p.umask);
        let cwd = self.at(p.cwd);
        // Some folders only root may enter, some only the container's user: try both.
        let first_try = unsafe { chdir(cwd) };
        if p.flags & flag::NO_NEW_PRIVILEGES != 0 {
            self.check(step::NO_NEW_PRIVILEGES, set_no_new_privileges());
        }
        self.drop_bounding_set();
        self.change_ids();
        if first_try < 0 {
            self.check(step::CWD, unsafe { chdir(cwd) });
        }
        // A cwd that came in through a leaked descriptor lies outside our root (CVE-2024-21626).
        if !cwd_is_inside() {
            self.fail(step::CWD_OUTSIDE, ENOENT);
        }
        let program = match p.flags & flag::NO_PROGRAM {
            0 => unsafe { self.find_program(cwd) },
            _ => core::ptr::null(),
        };
        // From here on our parent may go away: that is how `create` ends.
        clear_parent_death_signal();
        // A filter with a listener is loaded while the runtime is still there to hand that to the agent.
        let asks_an_agent = p.filter_flags & NEW_LISTENER != 0;
        if asks_an_agent {
            self.confine();
        }
        self.say(word::READY);
        self.wait();
        self.say(word::LEAVING);
        if !asks_an_agent {
            self.confine();
        }
        let errno = unsafe { execve(program, argv, envp) };
        self.fail(step::EXEC, -errno)
    }

    /// AppArmor's and SELinux's label for the next execve: the payload's. The kernel takes it only from a
    /// file that was opened by the program that is running now.
    unsafe fn write_labels(&self) {
        let mut label = self.at(self.plan.labels);
        let files = [c"self/attr/apparmor/exec", c"self/attr/selinux/exec"];
        for file in files {
            let length = unsafe { length_of(label) };
            if length > 0 {
                let mut fd = unsafe { open_for_writing(self.plan.proc, file.as_ptr().cast()) };
                if fd < 0 {
                    // Kernels without a folder for each security module.
                    fd = unsafe { open_for_writing(self.plan.proc, c"self/attr/exec".as_ptr().cast()) };
                }
                self.check(step::LABEL, fd);
                self.check(step::LABEL, unsafe { write(fd, label, length) });
                close(fd);
            }
            label = unsafe { label.add(length + 1) };
        }
        if self.plan.proc >= 0 {
            close(self.plan.proc);
        }
    }

    /// While we may still raise them, and as ourselves: from outside, a process of another user could
    /// not be limited without CAP_SYS_RESOURCE.
    unsafe fn set_limits(&self) {
        let limits = self.at(self.plan.limits).cast::<Limit>();
        for n in 0..self.plan.limit_count as usize {
            self.check(step::LIMIT + n as u32, unsafe { set_limit(&*limits.add(n)) });
        }
    }

    fn drop_bounding_set(&self) {
        if self.plan.flags & flag::CAPABILITIES == 0 {
            return;
        }
        for capability in 0..64 {
            if self.plan.bounding >> capability & 1 == 0 {
                match drop_bounding(capability) {
                    0 => {}
                    e if e == -EINVAL => break, // past the last one this kernel knows
                    e => self.fail(step::BOUNDING, -e),
                }
            }
        }
    }

    fn change_ids(&self) {
        let p = self.plan;
        keep_capabilities();
        // Also to none, unless the configuration says that they stay: the runtime's own groups are not the
        // container's (CVE-2022-36109).
        if p.flags & flag::KEEP_GROUPS == 0 {
            match unsafe { set_groups(p.group_count, self.at(p.groups)) } {
                e if e == -EPERM && p.flags & flag::GROUPS_MAY_STAY != 0 => {}
                done => self.check(step::GROUPS, done),
            }
        }
        self.check(step::GID, set_gid(p.gid));
        self.check(step::UID, set_uid(p.uid));
        // A uid other than 0 has lost the effective set; what is still to be done needs a part of it.
        if p.flags & flag::CAPABILITIES != 0 && p.uid != 0 {
            let mut wanted = p.permitted | p.effective | p.inheritable | p.ambient;
            if p.filter_length > 0 && p.flags & flag::NO_NEW_PRIVILEGES == 0 {
                wanted |= CAP_SYS_ADMIN;
            }
            self.check(step::CAPABILITIES, set_capabilities(wanted, wanted, p.inheritable));
        }
    }

    fn set_capabilities(&self) {
        let p = self.plan;
        if p.flags & flag::CAPABILITIES == 0 {
            return;
        }
        self.check(step::CAPABILITIES, set_capabilities(p.effective, p.permitted, p.inheritable));
        for capability in 0..64 {
            if p.ambient >> capability & 1 == 1 {
                self.check(step::AMBIENT, raise_ambient(capability));
            }
        }
    }

    /// The first candidate that is there and may be executed; as execvp(3), a candidate without
    /// permission is remembered as the reason.
    unsafe fn find_program(&self, cwd: *const u8) -> *const u8 {
        let mut candidate = unsafe { cwd.add(length_of(cwd) + 1) };
        let mut reason = ENOENT;
        for _ in 0..self.plan.candidate_count {
            match unsafe { may_execute(candidate) } {
                0 => return candidate,
                e if e == -EACCES || e == -EPERM || e == -EISDIR => reason = -e,
                e if self.plan.candidate_count == 1 => reason = -e,
                _ => {}
            }
            candidate = unsafe { candidate.add(length_of(candidate) + 1) };
        }
        self.fail(step::LOOKUP, reason)
    }

    /// Waits for `start` at the gate, or for the runtime's "go".
    fn wait(&mut self) {
        if self.plan.gate >= 0 {
            close(self.plan.sync);
            self.report = -1;
            for signal in plan::ENDING_SIGNALS {
                exit_on(signal);
            }
            let connection = loop {
                match accept(self.plan.gate) {
                    e if e == -EINTR => {}
                    fd if fd < 0 => exit(125),
                    fd => break fd,
                }
            };
            close(self.plan.gate);
            self.report = connection;
        } else if self.plan.flags & flag::WAIT_FOR_GO != 0 {
            self.wait_for_go();
        }
    }

    fn wait_for_go(&self) {
        let mut byte = 0_u8;
        loop {
            match unsafe { read(self.plan.sync, &raw mut byte, 1) } {
                e if e == -EINTR => {}
                1 => break,
                _ => exit(125), // the runtime died: nobody wants this container any more
            }
        }
    }

    /// Capabilities and filter. The filter is last, so that the profile need allow nothing of the above.
    /// Without no_new_privs it asks for CAP_SYS_ADMIN, which must go before the payload runs.
    fn confine(&self) {
        if self.plan.flags & flag::NO_NEW_PRIVILEGES != 0 {
            self.set_capabilities();
            self.install_filter();
        } else {
            self.install_filter();
            self.set_capabilities();
        }
    }

    fn install_filter(&self) {
        let p = self.plan;
        if p.filter_length > 0 {
            let done = unsafe { set_filter(p.filter_flags, p.filter_length as u16, self.at(p.filter)) };
            self.check(step::FILTER, done);
            if p.filter_flags & NEW_LISTENER != 0 {
                self.hand_over(done);
            }
        }
    }

    /// Tells the runtime the listener's number, by which it takes the descriptor from us (pidfd_getfd(2)).
    /// Until then an agent could not answer, so write(2) is the one call that a profile cannot ask it
    /// about; from the read on it can.
    fn hand_over(&self, listener: i32) {
        let [a, b, c, d] = listener.to_ne_bytes();
        let message = [word::LISTENER, a, b, c, d];
        if unsafe { write(self.report, message.as_ptr(), message.len()) } < 0 {
            exit(125); // the filter forbids it, and so forbids to tell; the runtime guesses why
        }
        self.wait_for_go();
        // Once the agent is the only owner, its death ends all waiting: then calls give ENOSYS.
        close(listener);
    }

    fn at(&self, offset: u32) -> *const u8 {
        unsafe { self.base.add(offset as usize) }
    }

    fn say(&self, word: u8) {
        let _ = unsafe { write(self.report, &raw const word, 1) };
    }

    fn check(&self, step: u32, result: i32) {
        if result < 0 {
            self.fail(step, -result);
        }
    }

    fn fail(&self, step: u32, errno: i32) -> ! {
        let [a, b, c, d] = step.to_ne_bytes();
        let [e, f, g, h] = errno.to_ne_bytes();
        let report = [word::FAILED, a, b, c, d, e, f, g, h];
        let _ = unsafe { write(self.report, report.as_ptr(), report.len()) };
        exit(125)
    }
}
