//! The `RuntimeDefault` seccomp profile: system calls containers may use, everything else fails with EPERM. The list
//! follows containerd's default profile; calls that need a capability are allowed with it only.

use std::path::Path;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

const ALLOWED: &str = "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32 \
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep \
clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 \
epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit \
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown \
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 \
fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
futimesat getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 \
getrlimit get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32 \
getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy io_getevents \
io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill landlock_add_rule \
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr \
listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier \
memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr \
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl \
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open openat \
openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl \
pread64 preadv preadv2 prlimit64 process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead \
readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat \
rename renameat renameat2 restart_syscall riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask \
rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo \
sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler \
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler \
sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg \
sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority \
setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit set_robust_list setsid \
setsockopt set_thread_area set_tid_address setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown \
sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statmount \
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun \
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 \
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat uretprobe \
utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev ptrace process_vm_readv \
process_vm_writev arch_prctl modify_ldt";

/// Calls that go with a capability.
const WITH_CAPABILITY: [(Capability, &str); 12] = [
    (Capability::DacReadSearch, "open_by_handle_at"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module init_module finit_module"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "iopl ioperm"),
    (Capability::SysTime, "settimeofday stime clock_settime clock_settime64"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::Syslog, "syslog"),
];

/// Flags of `clone` that make namespaces.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
/// Personalities a process may take: Linux, with and without legacy address layouts, and the query.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];
/// vsock reaches the host past every network namespace.
const AF_VSOCK: u64 = 40;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn names(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn rule(list: &str, action: LinuxSeccompAction) -> LinuxSyscallBuilder {
    LinuxSyscallBuilder::default().names(names(list)).action(action)
}

fn done(rule: LinuxSyscallBuilder) -> LinuxSyscall {
    rule.build().expect("names and action are set")
}

fn when(list: &str, index: usize, value: u64, other: Option<u64>, operator: LinuxSeccompOperator) -> LinuxSyscall {
    let mut argument = LinuxSeccompArgBuilder::default().index(index).value(value).op(operator);
    if let Some(other) = other {
        argument = argument.value_two(other);
    }
    let argument = argument.build().expect("index, value and operator are set");
    done(rule(list, LinuxSeccompAction::ScmpActAllow).args(vec![argument]))
}

/// The default profile for a process with these capabilities.
pub fn runtime_default(capabilities: &Capabilities) -> LinuxSeccomp {
    let allow = LinuxSeccompAction::ScmpActAllow;
    let mut syscalls = vec![done(rule(ALLOWED, allow))];
    syscalls.push(when("socket", 0, AF_VSOCK, None, LinuxSeccompOperator::ScmpCmpNe));
    for persona in PERSONALITIES {
        syscalls.push(when("personality", 0, persona, None, LinuxSeccompOperator::ScmpCmpEq));
    }
    for (capability, list) in WITH_CAPABILITY {
        if capabilities.contains(&capability) {
            syscalls.push(done(rule(list, allow)));
        }
    }
    if !capabilities.contains(&Capability::SysAdmin) {
        syscalls.push(when("clone", 0, CLONE_NAMESPACES, Some(0), LinuxSeccompOperator::ScmpCmpMaskedEq));
        // Its flags lie in memory, out of a filter's sight; with ENOSYS the C library falls back to clone.
        syscalls.push(done(rule("clone3", LinuxSeccompAction::ScmpActErrno).errno_ret(ENOSYS)));
    }
    let architectures = match std::env::consts::ARCH {
        "x86_64" => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32],
        "aarch64" => vec![Arch::ScmpArchAarch64, Arch::ScmpArchArm],
        _ => Vec::new(),
    };
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(EPERM)
        .architectures(architectures)
        .syscalls(syscalls)
        .build()
        .expect("the default action is set")
}

/// A profile of the node's administrator; `None` when there is none of that name or it does not parse.
pub fn localhost(directory: &Path, name: &str) -> Option<LinuxSeccomp> {
    let relative = Path::new(name);
    if relative.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return None;
    }
    serde_json::from_slice(&std::fs::read(directory.join(relative)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use oci_spec::runtime::{Capabilities, Capability};

    use super::{ALLOWED, names, runtime_default};

    fn allowed(capabilities: &Capabilities) -> HashSet<String> {
        let profile = runtime_default(capabilities);
        let rules = profile.syscalls().clone().unwrap();
        let plain = rules.iter().filter(|rule| rule.args().is_none() && rule.errno_ret().is_none());
        plain.flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn capabilities_open_their_calls() {
        let none = allowed(&Capabilities::new());
        assert!(none.contains("read") && !none.contains("mount") && !none.contains("chroot"));
        assert!(allowed(&Capabilities::from([Capability::SysAdmin])).contains("mount"));
    }

    #[test]
    fn no_call_is_listed_twice() {
        let list = names(ALLOWED);
        assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
    }
}
