//! What the [specification](https://github.com/opencontainers/runtime-spec/tree/v1.3.0) demands, one
//! row a demand, said in our words; each row links the section it stands in.

use std::fmt;

/// How strongly the specification puts it (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Recommended: a runtime that does otherwise still conforms.
    Should,
    /// Demanded: a runtime that does otherwise does not conform.
    Must,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Should => "SHOULD",
            Self::Must => "MUST",
        })
    }
}

/// One demand of the specification.
#[derive(Debug)]
pub struct Requirement {
    /// Its name here, as `state-fields`.
    pub id: &'static str,
    /// MUST or SHOULD.
    pub level: Level,
    /// File and anchor below the specification's root, or a whole link to another document.
    section: &'static str,
    /// The demand in one sentence.
    pub sentence: &'static str,
}

impl Requirement {
    /// Where the specification says so.
    pub fn link(&self) -> String {
        if self.section.starts_with("https:") {
            return self.section.to_owned();
        }
        format!("https://github.com/opencontainers/runtime-spec/blob/v1.3.0/{}", self.section)
    }
}

macro_rules! requirements {
    ($($name:ident $id:literal $level:ident $section:literal $sentence:literal)*) => {
        $(
            #[doc = $sentence]
            pub static $name: Requirement =
                Requirement { id: $id, level: Level::$level, section: $section, sentence: $sentence };
        )*
        /// Every row of the table.
        pub static ALL: &[&Requirement] = &[$(&$name),*];
    };
}

requirements! {
    // runtime.md: state
    STATE_FIELDS "state-fields" Must "runtime.md#state"
        "The state holds ociVersion, id, status, bundle and, unless it is stopped, the pid."
    STATE_STATUS "state-status" Must "runtime.md#state"
        "The status is created after create, running after start and stopped after the process has exited."
    STATE_BUNDLE "state-bundle" Must "runtime.md#state"
        "The state's bundle is the absolute path of the bundle."
    STATE_PID "state-pid" Must "runtime.md#state"
        "The state's pid is the container process as the host sees it."
    STATE_ANNOTATIONS "state-annotations" Must "runtime.md#state"
        "The state carries the annotations of the configuration."
    STATE_NEEDS_ID "state-needs-id" Must "runtime.md#query-state"
        "The state operation without an id is an error."
    STATE_UNKNOWN "state-unknown" Must "runtime.md#query-state"
        "Asking for the state of a container that does not exist is an error."
    // runtime.md: lifecycle and errors
    CREATE_ENVIRONMENT "create-environment" Must "runtime.md#lifecycle"
        "When the environment of config.json cannot be made, create is an error."
    CREATE_NOT_RUN "create-not-run" Must "runtime.md#lifecycle"
        "The user's program is not run before start."
    CONFIG_SNAPSHOT "config-snapshot" Must "runtime.md#lifecycle"
        "Changes of config.json after create have no effect on the container."
    ERROR_LEAVES_NOTHING "error-leaves-nothing" Must "runtime.md#errors"
        "An operation that ends in an error leaves things as if it had never been tried."
    // runtime.md: operations
    CREATE_NEEDS_ID_AND_BUNDLE "create-needs-id-and-bundle" Must "runtime.md#create"
        "Create without an id, or without a bundle to be found, is an error."
    CREATE_UNIQUE_ID "create-unique-id" Must "runtime.md#create"
        "Create with an id in use is an error and makes no container."
    CREATE_VALID_ID "create-valid-id" Must "runtime.md#create"
        "Create with an id that is not valid is an error and makes no container."
    CREATE_APPLIES_ALL "create-applies-all" Must "runtime.md#create"
        "A property that cannot be applied as configured makes create an error, and no container."
    CREATE_WITHOUT_PROCESS "create-without-process" Must "config.md#process"
        "The process section is required only when start is called: create works without it."
    START_WITHOUT_PROCESS "start-without-process" Must "runtime.md#start"
        "Start of a container without a process section is an error."
    START_NEEDS_ID "start-needs-id" Must "runtime.md#start"
        "Start without an id is an error."
    START_ONLY_CREATED "start-only-created" Must "runtime.md#start"
        "Start of a container that is not created is an error and has no effect on it."
    START_RUNS_PROCESS "start-runs-process" Must "runtime.md#start"
        "Start runs the user's program as the process section says."
    KILL_NEEDS_ID "kill-needs-id" Must "runtime.md#kill"
        "Kill without an id is an error."
    KILL_ONLY_ALIVE "kill-only-alive" Must "runtime.md#kill"
        "Kill of a container that is neither created nor running is an error."
    KILL_SENDS "kill-sends" Must "runtime.md#kill"
        "Kill sends the given signal to the container process."
    DELETE_NEEDS_ID "delete-needs-id" Must "runtime.md#delete"
        "Delete without an id is an error."
    DELETE_ONLY_STOPPED "delete-only-stopped" Must "runtime.md#delete"
        "Delete of a container that is not stopped is an error and has no effect on it."
    DELETE_UNDOES_CREATE "delete-undoes-create" Must "runtime.md#delete"
        "Delete removes what create made."
    DELETE_ONLY_OWN "delete-only-own" Must "runtime.md#delete"
        "Delete leaves alone what belongs to the container but was not made by it."
    DELETE_FREES_ID "delete-frees-id" Must "runtime.md#delete"
        "The id of a deleted container can be used again."
    // config.md: version, root, mounts
    VERSION_SEMVER "version-semver" Must "config.md#specification-version"
        "ociVersion is a semantic version (SemVer 2.0.0)."
    ROOT_EXISTS "root-exists" Must "config.md#root"
        "A directory exists at root.path."
    ROOT_READONLY "root-readonly" Must "config.md#root"
        "With root.readonly the root filesystem is read-only inside the container, and not without it."
    MOUNTS_ORDER "mounts-order" Must "config.md#mounts"
        "Mounts are made in the listed order."
    MOUNTS_RELATIVE "mounts-relative-destination" Must "config.md#mounts"
        "A relative destination is taken as relative to \"/\"."
    MOUNTS_SOURCE "mounts-source" Must "config.md#posix-platform-mounts"
        "A bind mount shows the source: a file or a directory, absolute or relative to the bundle."
    MOUNT_OPTIONS "mount-options" Must "config.md#linux-mount-options"
        "Every option that the table calls MUST is implemented."
    MOUNT_OPTIONS_SHOULD "mount-options-should" Should "config.md#linux-mount-options"
        "Every option that the table calls SHOULD is implemented."
    MOUNT_DATA "mount-data" Should "config.md#linux-mount-options"
        "Options not in the table are handed to the file system."
    MOUNT_IDMAP "mount-idmap" Must "config.md#linux-mount-options"
        "idmap and ridmap without mappings are an error in a container without a user namespace."
    // config.md: process
    PROCESS_ARGS "process-args" Must "config.md#posix-process"
        "The program gets process.args as its arguments."
    PROCESS_ENV "process-env" Must "config.md#posix-process"
        "The program gets process.env as its environment."
    PROCESS_CWD "process-cwd" Must "config.md#process"
        "The program starts in process.cwd."
    PROCESS_CWD_ABSOLUTE "process-cwd-absolute" Must "config.md#process"
        "process.cwd is an absolute path."
    PROCESS_TERMINAL "process-terminal" Must "config.md#process"
        "With process.terminal, standard input, output and error are the slave of a new pseudo-terminal."
    PROCESS_CONSOLE_SIZE "process-console-size" Must "config.md#process"
        "The terminal has the configured size; without a terminal consoleSize is ignored."
    RLIMITS "rlimits" Must "config.md#posix-process"
        "Soft and hard resource limits are what is configured."
    RLIMITS_UNKNOWN "rlimits-unknown" Must "config.md#posix-process"
        "A resource limit that the kernel does not know is an error."
    RLIMITS_DUPLICATE "rlimits-duplicate" Must "config.md#posix-process"
        "The same resource limit twice is an error."
    CAPABILITIES "capabilities" Must "config.md#linux-process"
        "The process has the configured bounding, effective, inheritable, permitted and ambient sets."
    CAPABILITIES_UNKNOWN "capabilities-unknown" Should "config.md#linux-process"
        "A capability that cannot be granted is a warning and not an error."
    NO_NEW_PRIVILEGES "no-new-privileges" Must "config.md#linux-process"
        "noNewPrivileges is set on the process, and only when it is configured."
    OOM_SCORE_ADJ "oom-score-adj" Must "config.md#linux-process"
        "oom_score_adj is the configured value; without one it is left alone."
    USER "user" Must "config.md#posix-platform-user"
        "The process has the configured uid, gid and additional groups, and no others."
    UMASK "umask" Must "config.md#posix-platform-user"
        "The process has the configured umask."
    FILE_DESCRIPTORS "file-descriptors" Must "runtime-linux.md#file-descriptors"
        "Only standard input, output and error are open in the program."
    HOSTNAME "hostname" Must "config.md#hostname"
        "The container sees the configured host name."
    DOMAINNAME "domainname" Must "config.md#domainname"
        "The container sees the configured domain name."
    // config.md: hooks
    HOOKS_LISTED_ORDER "hooks-listed-order" Must "config.md#posix-platform-hooks"
        "Hooks of one kind are called in the listed order."
    HOOKS_LIFECYCLE "hooks-lifecycle" Must "runtime.md#lifecycle"
        "Each kind of hook is called at its place in the life of a container."
    HOOKS_STATE "hooks-state" Must "config.md#posix-platform-hooks"
        "Each hook gets the state of the container on its standard input."
    HOOKS_ARGS_ENV "hooks-args-env" Must "config.md#posix-platform-hooks"
        "A hook gets its args and env."
    HOOKS_NAMESPACE "hooks-namespace" Must "config.md#posix-platform-hooks"
        "createContainer and startContainer hooks run in the container's namespaces, all others in the runtime's."
    HOOKS_ABSOLUTE "hooks-absolute-path" Must "config.md#posix-platform-hooks"
        "The path of a hook is absolute."
    HOOKS_TIMEOUT_POSITIVE "hooks-timeout-positive" Must "config.md#posix-platform-hooks"
        "The timeout of a hook is greater than zero."
    HOOKS_TIMEOUT "hooks-timeout" Must "config.md#posix-platform-hooks"
        "A hook that runs past its timeout is aborted, and has failed."
    HOOK_FAILS_CREATE "hook-fails-create" Must "runtime.md#lifecycle"
        "When a prestart, createRuntime or createContainer hook fails, create is an error, the container is destroyed and poststop hooks run."
    HOOK_FAILS_START "hook-fails-start" Must "runtime.md#lifecycle"
        "When a startContainer hook fails, start is an error and the program does not run."
    HOOK_FAILS_POSTSTART "hook-fails-poststart" Must "runtime.md#lifecycle"
        "When a poststart hook fails, start is an error and the container is destroyed."
    HOOK_FAILS_POSTSTOP "hook-fails-poststop" Must "runtime.md#lifecycle"
        "When a poststop hook fails, the remaining hooks still run and delete succeeds."
    // config.md: annotations, extensibility
    ANNOTATION_KEYS "annotation-keys" Must "config.md#annotations"
        "An annotation's key is not empty."
    UNKNOWN_IGNORED "unknown-ignored" Must "config.md#extensibility"
        "Unknown properties are ignored."
    INVALID_REFUSED "invalid-refused" Must "config.md#valid-values"
        "Invalid and unsupported values are an error."
    // config-linux.md
    DEFAULT_FILESYSTEMS "default-filesystems" Should "config-linux.md#default-filesystems"
        "/proc, /sys, /dev/pts and /dev/shm are available as the configuration mounts them."
    NAMESPACES_NEW "namespaces-new" Must "config-linux.md#namespaces"
        "A namespace without a path is a new one."
    NAMESPACES_INHERITED "namespaces-inherited" Must "config-linux.md#namespaces"
        "A kind that is not listed is inherited from the runtime."
    NAMESPACES_PATH "namespaces-path" Must "config-linux.md#namespaces"
        "The process is placed in the namespace of the given path."
    NAMESPACES_PATH_TYPE "namespaces-path-type" Must "config-linux.md#namespaces"
        "A path that is not a namespace of the given type is an error."
    NAMESPACES_DUPLICATE "namespaces-duplicate" Must "config-linux.md#namespaces"
        "The same type twice is an error."
    ID_MAPPINGS "id-mappings" Must "config-linux.md#user-namespace-mappings"
        "The user namespace has the configured mappings."
    TIME_OFFSETS "time-offsets" Must "config-linux.md#offset-for-time-namespace"
        "The time namespace has the configured offsets."
    DEVICES "devices" Must "config-linux.md#devices"
        "The listed devices are there with their type, numbers, mode and owner."
    DEVICES_MISMATCH "devices-mismatch" Must "config-linux.md#devices"
        "A file at a device's path that is something else is an error."
    DEVICES_DEFAULT "devices-default" Must "config-linux.md#default-devices"
        "null, zero, full, random, urandom, tty and ptmx are supplied."
    DEV_SYMLINKS "dev-symlinks" Must "runtime-linux.md#dev-symbolic-links"
        "/dev/fd, /dev/stdin, /dev/stdout and /dev/stderr are links into /proc/self/fd."
    CGROUPS_PATH "cgroups-path" Must "config-linux.md#cgroups-path"
        "The container is placed at the configured place in the cgroup hierarchies."
    CGROUPS_ERROR "cgroups-error" Must "config-linux.md#control-groups"
        "A resource that cannot be limited as configured is an error."
    CGROUPS_UNIFIED "cgroups-unified" Must "config-linux.md#unified"
        "A cgroup controller that is not there, or not in a unified hierarchy, is an error."
    DEVICES_ALLOWED "devices-allowed" Must "config-linux.md#allowed-device-list"
        "The entries on access to devices are applied in the listed order."
    PIDS_LIMIT "pids-limit" Must "config-linux.md#pids"
        "The pids limit is applied."
    SYSCTL "sysctl" Must "config-linux.md#sysctl"
        "The kernel parameters have the configured values."
    SECCOMP "seccomp" Must "config-linux.md#seccomp"
        "The filter is loaded and does what it is configured to do."
    SECCOMP_ERRNO "seccomp-errno" Must "config-linux.md#seccomp"
        "errnoRet with an action that supports none is an error."
    MASKED_PATHS "masked-paths" Must "config-linux.md#masked-paths"
        "Masked paths cannot be read."
    MASKED_ABSOLUTE "masked-paths-absolute" Must "config-linux.md#masked-paths"
        "Masked paths are absolute."
    READONLY_PATHS "readonly-paths" Must "config-linux.md#readonly-paths"
        "Read-only paths cannot be written."
    READONLY_ABSOLUTE "readonly-paths-absolute" Must "config-linux.md#readonly-paths"
        "Read-only paths are absolute."
    PERSONALITY "personality" Must "config-linux.md#personality"
        "The process has the configured execution domain."
    // The command line, which the specification leaves open and engines rely on.
    PID_FILE "pid-file" Must
        "https://github.com/opencontainers/runtime-tools/blob/v0.9.0/docs/command-line-interface.md#create"
        "create --pid-file writes the container process's pid in decimal digits."
}
