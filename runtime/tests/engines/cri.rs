//! Kubernetes' side of containerd: the calls that kubelet makes, in the order of a pod's life.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::image::{self, IMAGE};
use crate::machine::{Daemon, contrib, install_runtime, must, on_a_machine, wait_until, write};

const PROGRAMS: [&str; 4] = ["containerd", "ctr", "protoc", "python3"];
/// What a pod's first process is made of, in place of Kubernetes' pause.
const PAUSE: &str = "docker.io/library/pause:latest";
const CONTAINER: &str = "container_id";
const POD: &str = "pod_sandbox_id";

/// A network for pods, on a bridge of the machine.
const NETWORK: &str = r#"{
  "cniVersion": "0.4.0", "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods", "isGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.85.0.0/16"}]]}
  }]
}"#;

/// What we ship for this containerd, and what the test needs: where the pause image and the network are. A
/// root without CAP_SYS_RESOURCE cannot give a pod the score that Kubernetes wants.
fn settings() -> String {
    let version = must(&["containerd", "--version"]);
    let version = version.split_whitespace().nth(2).expect("a version").trim_start_matches('v');
    if version.starts_with("1.") {
        let ours = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"/usr/lib/cni\"\nconf_dir = \"/etc/cni/pods\"\n"
        );
        return contrib("containerd/config-2.toml") + &ours;
    }
    let ours = format!(
        "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE}\"\n\
         [plugins.\"io.containerd.cri.v1.runtime\"]\nrestrict_oom_score_adj = true\n\
         [plugins.\"io.containerd.cri.v1.runtime\".cni]\nbin_dirs = [\"/usr/lib/cni\"]\nconf_dir = \"/etc/cni/pods\"\n"
    );
    contrib("containerd/config-3.toml") + &ours
}

/// A containerd that has the runtime as a handler and the images, and a client that talks to it.
struct Kubelet {
    client: Child,
    answers: Lines<BufReader<ChildStdout>>,
    _containerd: Daemon,
}

impl Kubelet {
    fn start() -> Self {
        install_runtime();
        write("/etc/containerd/config.toml", &settings());
        write("/etc/cni/pods/10-pods.conflist", NETWORK);
        let containerd = Daemon::start(&["containerd"], "/tmp/containerd.log", &["ctr", "version"]);
        for name in [IMAGE, PAUSE] {
            must(&["ctr", "--namespace", "k8s.io", "images", "import", &image::archive(name)]);
        }
        let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines/cri");
        let mut client = Command::new(client)
            .arg("/run/containerd/containerd.sock")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the client");
        let answers = BufReader::new(client.stdout.take().expect("a pipe")).lines();
        let mut kubelet = Self { client, answers, _containerd: containerd };
        kubelet.call("Version", &json!({}));
        kubelet
    }

    /// One call; its answer, or the error that it gave.
    fn try_call(&mut self, method: &str, request: &Value) -> Result<Value, String> {
        let calls = self.client.stdin.as_mut().expect("a pipe");
        writeln!(calls, "{method} {request}").expect("ask the client");
        let answer = self.answers.next().expect("an answer").expect("read the answer");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["error"].as_str().map_or_else(|| Ok(answer["answer"].clone()), |error| Err(error.to_owned()))
    }

    fn call(&mut self, method: &str, request: &Value) -> Value {
        self.try_call(method, request).unwrap_or_else(|error| panic!("{method} {request}: {error}"))
    }

    /// A call about one container or pod.
    fn tell(&mut self, method: &str, what: &str, id: &str) -> Value {
        self.call(method, &json!({what: id}))
    }

    /// A pod that runs; its id.
    fn run_pod(&mut self, config: &Value) -> String {
        let request = json!({"config": config, "runtime_handler": "runtime"});
        text(&self.call("RunPodSandbox", &request)["podSandboxId"])
    }

    /// A container in the pod that has been created; its id.
    fn create(&mut self, pod: &str, pod_config: &Value, command: &[&str]) -> String {
        let config = json!({
            "metadata": {"name": "main"}, "image": {"image": IMAGE}, "command": command, "log_path": "main.log",
            "mounts": [{"container_path": "/node", "host_path": "/etc", "readonly": true}],
            "linux": {
                "resources": {"memory_limit_in_bytes": 67108864, "cpu_quota": 50000, "cpu_period": 100000},
                "security_context": {
                    "namespace_options": pod_config["linux"]["security_context"]["namespace_options"],
                    "seccomp": {"profile_type": "RuntimeDefault"}, "no_new_privs": true,
                },
            },
        });
        let request = json!({POD: pod, "config": config, "sandbox_config": pod_config});
        text(&self.call("CreateContainer", &request)["containerId"])
    }

    /// What a command in the container printed; it has to work.
    fn exec(&mut self, container: &str, script: &str) -> String {
        let request = json!({CONTAINER: container, "cmd": ["sh", "-c", script], "timeout": 20});
        let said = self.call("ExecSync", &request);
        assert_eq!(said["exitCode"], 0, "{script}: {said}");
        text(&said["stdout"])
    }

    /// What the container itself reads of a limit: version 1 or 2 of cgroups.
    fn limit(&mut self, container: &str, v1: &str, v2: &str) -> String {
        self.exec(container, &format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"))
    }

    fn status(&mut self, container: &str) -> Value {
        self.tell("ContainerStatus", CONTAINER, container)["status"].clone()
    }
}

fn pod_config(namespaces: &Value) -> Value {
    json!({
        "metadata": {"name": "pod", "uid": "1", "namespace": "default"},
        "hostname": if namespaces["network"] == "NODE" { "" } else { "pod" },
        "log_directory": "/tmp/logs",
        "linux": {
            "cgroup_parent": "/kubepods/pod1",
            "security_context": {"namespace_options": namespaces, "seccomp": {"profile_type": "RuntimeDefault"}},
        },
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// Cgroups of this pod, wherever they are.
fn cgroups() -> Vec<String> {
    let found = must(&["find", "/sys/fs/cgroup", "-type", "d", "-path", "*/kubepods/pod1/*"]);
    found.lines().map(str::to_owned).collect()
}

#[test]
fn a_pod_lives_and_dies_as_kubelet_wants() {
    on_a_machine(&PROGRAMS, || {
        let mut kubelet = Kubelet::start();
        let config = pod_config(&json!({}));
        let pod = kubelet.run_pod(&config);
        let seen = kubelet.tell("PodSandboxStatus", POD, &pod)["status"].clone();
        assert_eq!((&seen["state"], &seen["runtimeHandler"]), (&json!("SANDBOX_READY"), &json!("runtime")));
        let ip = text(&seen["network"]["ip"]);

        let main = kubelet.create(&pod, &config, &["sh", "-c", "echo begun; sleep 1000"]);
        assert_eq!(kubelet.status(&main)["state"], "CONTAINER_CREATED");
        kubelet.tell("StartContainer", CONTAINER, &main);
        assert_eq!(kubelet.status(&main)["state"], "CONTAINER_RUNNING");
        assert_eq!(kubelet.exec(&main, "hostname"), "pod\n");
        assert!(kubelet.exec(&main, "ip addr").contains(&format!("inet {ip}/")), "the pod's network");
        must(&["busybox", "ping", "-c", "1", "-W", "5", &ip]);
        let log = || fs::read_to_string("/tmp/logs/main.log").unwrap_or_default();
        wait_until("the log has the line", || log().contains("stdout F begun"));

        let said =
            kubelet.call("ExecSync", &json!({CONTAINER: main, "cmd": ["sh", "-c", "echo no >&2; exit 4"]}));
        assert_eq!(said, json!({"stdout": "", "stderr": "no\n", "exitCode": 4}));
        let error = kubelet
            .try_call("ExecSync", &json!({CONTAINER: main, "cmd": ["nothing"]}))
            .expect_err("no program");
        assert!(error.contains("\"nothing\": executable file not found in $PATH"), "{error}");
        let slow = json!({CONTAINER: main, "cmd": ["sleep", "100"], "timeout": 1});
        let error = kubelet.try_call("ExecSync", &slow).expect_err("too slow");
        assert!(error.contains("timeout 1s exceeded"), "{error}");

        kubelet.tell("StopContainer", CONTAINER, &main);
        let seen = kubelet.status(&main);
        assert_eq!((&seen["state"], &seen["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(137)), "{seen}");
        kubelet.tell("RemoveContainer", CONTAINER, &main);
        kubelet.tell("StopPodSandbox", POD, &pod);
        assert_eq!(kubelet.tell("PodSandboxStatus", POD, &pod)["status"]["state"], "SANDBOX_NOTREADY");
        kubelet.tell("RemovePodSandbox", POD, &pod);
        assert_eq!(cgroups(), Vec::<String>::new());
        let left: Vec<_> = fs::read_dir("/run/containerd/runc/k8s.io").expect("the runtime's root").collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn kubelet_limits_a_container_resizes_it_and_reads_what_it_uses() {
    on_a_machine(&PROGRAMS, || {
        let mut kubelet = Kubelet::start();
        let config = pod_config(&json!({"network": "NODE"}));
        let pod = kubelet.run_pod(&config);
        let main = kubelet.create(&pod, &config, &["sleep", "1000"]);
        kubelet.tell("StartContainer", CONTAINER, &main);
        assert_eq!(kubelet.limit(&main, "memory/memory.limit_in_bytes", "memory.max"), "67108864\n");
        let stats = kubelet.tell("ContainerStats", CONTAINER, &main)["stats"].clone();
        for value in [&stats["memory"]["workingSetBytes"], &stats["cpu"]["usageCoreNanoSeconds"]] {
            assert!(text(&value["value"]).parse::<u64>().is_ok_and(|n| n > 0), "{stats}");
        }
        kubelet.call(
            "UpdateContainerResources",
            &json!({CONTAINER: main, "linux": {"memory_limit_in_bytes": 33554432, "cpu_quota": 25000, "cpu_period": 100000}}),
        );
        assert_eq!(kubelet.limit(&main, "memory/memory.limit_in_bytes", "memory.max"), "33554432\n");
        let quota = kubelet.limit(&main, "cpu/cpu.cfs_quota_us", "cpu.max");
        assert!(["25000\n", "25000 100000\n"].contains(&&*quota), "{quota}");
    });
}

#[test]
fn a_pod_may_share_the_nodes_network_and_its_own_processes() {
    on_a_machine(&PROGRAMS, || {
        let mut kubelet = Kubelet::start();
        // A pod's one pid namespace is POD, 0, which kubelet asks for with shareProcessNamespace.
        let config = pod_config(&json!({"network": "NODE", "pid": "POD"}));
        let pod = kubelet.run_pod(&config);
        let main = kubelet.create(&pod, &config, &["sleep", "999"]);
        kubelet.tell("StartContainer", CONTAINER, &main);
        assert_eq!(
            kubelet.exec(&main, "readlink /proc/self/ns/net"),
            must(&["readlink", "/proc/self/ns/net"])
        );
        let processes = kubelet.exec(&main, "ps");
        assert!(processes.contains("sleep 1000000") && processes.contains("sleep 999"), "{processes}");
        assert_eq!(kubelet.exec(&main, "touch /node/file 2>/dev/null || echo read-only"), "read-only\n");
        // What is left runs until the pod is stopped.
        kubelet.tell("StopPodSandbox", POD, &pod);
        wait_until("the container has ended", || kubelet.status(&main)["state"] == "CONTAINER_EXITED");
        kubelet.tell("RemovePodSandbox", POD, &pod);
        assert_eq!(cgroups(), Vec::<String>::new());
    });
}

#[test]
fn kubelet_is_told_why_a_container_does_not_start() {
    on_a_machine(&PROGRAMS, || {
        let mut kubelet = Kubelet::start();
        let config = pod_config(&json!({"network": "NODE"}));
        let pod = kubelet.run_pod(&config);
        let main = kubelet.create(&pod, &config, &["/no/such/program"]);
        let error = kubelet.try_call("StartContainer", &json!({CONTAINER: main})).expect_err("no program");
        assert!(
            error.contains("exec: \"/no/such/program\": stat /no/such/program: no such file or directory"),
            "{error}"
        );
        let seen = kubelet.status(&main);
        assert_eq!(
            (&seen["state"], &seen["reason"]),
            (&json!("CONTAINER_EXITED"), &json!("StartError")),
            "{seen}"
        );
        assert!(!Path::new("/run/containerd/runc/k8s.io").join(&main).exists(), "state is left");
    });
}

/// Which containerd asks the runtime's `features` for.
#[test]
fn a_pod_may_have_a_user_namespace() {
    on_a_machine(&PROGRAMS, || {
        let mut kubelet = Kubelet::start();
        let handlers = kubelet.call("Status", &json!({}))["runtimeHandlers"].clone();
        let handlers = handlers.as_array().expect("a list");
        if handlers.is_empty() {
            println!("SKIP: this containerd does not ask runtimes what they can do");
            return;
        }
        let ours = handlers.iter().find(|handler| handler["name"] == "runtime").expect("our handler");
        assert_eq!(ours["features"], json!({"recursiveReadOnlyMounts": true, "userNamespaces": true}));

        let ids = json!([{"container_id": 0, "host_id": 100000, "length": 65536}]);
        let config = pod_config(&json!({"userns_options": {"mode": "POD", "uids": ids, "gids": ids}}));
        let pod = kubelet.run_pod(&config);
        let main = kubelet.create(&pod, &config, &["sleep", "1000"]);
        kubelet.tell("StartContainer", CONTAINER, &main);
        let map = kubelet.exec(&main, "cat /proc/self/uid_map");
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
        assert_eq!(kubelet.exec(&main, "touch /file && stat -c %u /file /etc/passwd"), "0\n0\n");
        kubelet.tell("StopPodSandbox", POD, &pod);
        kubelet.tell("RemovePodSandbox", POD, &pod);
        assert_eq!(cgroups(), Vec::<String>::new());
    });
}
