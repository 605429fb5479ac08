//! kill -9 at random moments, and many at once: whatever is left is a store that the next command works with.
//! `STRESS_KILLS=200` kills each command that often; `make test` does it a few times.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::image::{Image, image};
use crate::support::registry::Registry;
use crate::support::server::{Request, Server, honest};
use crate::support::tar::Tar;
use crate::support::{Manager, has, noise};

pub(crate) fn kills() -> u32 {
    std::env::var("STRESS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

/// Three layers: a large file, many small ones, and what replaces some of them.
pub(crate) fn sample(seed: u64) -> Image {
    let mut many = Tar::new().dir("many");
    for index in 0..150 {
        many = many.file(&format!("many/{index}"), noise(seed + index, 2000));
    }
    let mut upper = Tar::new().file("many/.wh.7", "").file("new", format!("{seed}"));
    for index in 0..50 {
        upper = upper.file(&format!("many/{index}"), format!("{seed} {index}"));
    }
    image(&[Tar::new().file("large", noise(seed, 3_000_000)).finish(), many.finish(), upper.finish()])
}

/// A registry that is no faster than a good line, so that what it has sent is what has arrived.
pub(crate) fn steady(image: &Image) -> Server {
    let inner = honest(&[("x", image)]);
    Server::start(move |request: &Request| {
        let mut reply = inner(request);
        reply.pause = Some(Duration::from_micros(500));
        reply
    })
}

/// Moments from nothing to a little more than `whole`, spread evenly but in no order.
pub(crate) fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    let count = kills();
    (0..count).map(move |index| {
        // A step of the golden ratio never comes near an earlier one.
        let part = (f64::from(index) * 0.618_033_988_75).fract();
        whole.mul_f64(part * 1.1)
    })
}

/// How long a command takes that is not killed.
pub(crate) fn timed(command: &mut Command) -> Duration {
    let start = Instant::now();
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{command:?}");
    start.elapsed()
}

fn kill_after(command: &mut Command, moment: Duration) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Nothing that a name stands for is missing, at most the list of names is to be written again.
fn assert_sound(manager: &Manager, what: &str) {
    let ran = manager.run(&["system", "check"]);
    if ran.code != Some(0) {
        assert_eq!(ran.stdout, "index.json does not list the images that are here\n", "{what}: {ran:?}");
        manager.ok(&["system", "check", "--repair"]);
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n", "{what}");
    }
    for name in manager.ok(&["images", "--format", "{{.ID}}"]).lines() {
        manager.ok(&["image", "inspect", name]);
    }
}

#[test]
fn a_killed_pull_is_gone_on_with() {
    let image = sample(1);
    let total: usize = image.blobs.values().map(Vec::len).sum::<usize>() + image.manifest.len();
    let whole = {
        let (server, manager) = (steady(&image), Manager::new());
        timed(&mut manager.command(&["pull", "-q", &format!("{}/x", server.host)]))
    };
    for moment in moments(whole) {
        let (server, manager) = (steady(&image), Manager::new());
        let name = format!("{}/x", server.host);
        kill_after(&mut manager.command(&["pull", "-q", &name]), moment);
        assert_sound(&manager, &format!("pull killed after {moment:?}"));
        manager.ok(&["pull", "-q", &name]);
        let twice = server.sent().saturating_sub(total);
        assert!(twice < 1 << 20, "killed after {moment:?} of {whole:?}: {twice} bytes came twice");
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
        manager.ok(&["rmi", &name]);
        manager.assert_empty(&[]);
    }
}

#[test]
fn a_killed_process_that_unpacks_is_an_error() {
    let image = sample(9);
    let (server, manager) = (steady(&image), Manager::new());
    let name = format!("{}/x", server.host);
    let pull = manager.command(&["pull", "-q", &name]).stderr(Stdio::piped()).spawn().unwrap();
    let children = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", pull.id())).into_iter().flatten().flatten();
        let lists =
            tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
        lists.collect::<Vec<_>>().join(" ")
    };
    let child = loop {
        if let Some(child) = children().split_whitespace().next() {
            break child.to_owned();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(Command::new("kill").args(["-9", &child]).status().unwrap().success());
    let output = pull.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("the process that unpacks it was killed by signal 9"), "{error}");
    manager.ok(&["pull", "-q", &name]);
    manager.ok(&["rmi", &name]);
    manager.assert_empty(&["ingest"]);
}

#[test]
fn a_killed_push_is_done_by_the_next() {
    if !has("docker-registry") {
        return;
    }
    let image = sample(2);
    let (server, manager, registry) =
        (Server::start(honest(&[("x", &image)])), Manager::new(), Registry::start());
    let local = format!("{}/x", server.host);
    manager.ok(&["pull", "-q", &local]);
    let push = |manager: &Manager, name: &str| manager.command(&["push", "-q", &local, name]);
    // To a registry that has nothing, each time: it would take the blobs from another repository.
    let whole = timed(&mut push(&manager, &format!("{}/x", registry.host)));
    for moment in moments(whole) {
        let registry = Registry::start();
        let name = format!("{}/x", registry.host);
        kill_after(&mut push(&manager, &name), moment);
        assert_sound(&manager, &format!("push killed after {moment:?}"));
        // What it has of the image it has whole.
        let other = Manager::new();
        let there = other.run(&["pull", "-q", &name]);
        assert!(there.code == Some(0) || there.stderr.contains("manifest unknown"), "{moment:?}: {there:?}");
        assert!(push(&manager, &name).stdout(Stdio::null()).status().unwrap().success());
        let again = other.ok(&["pull", "-q", &name]);
        assert_eq!(again, format!("{name}:latest\n"));
        assert_eq!(other.ok(&["system", "check"]), "no faults\n");
    }
}

#[test]
fn a_killed_load_has_loaded_all_or_nothing() {
    let image = sample(3);
    let (server, manager) = (Server::start(honest(&[("x", &image)])), Manager::new());
    let name = format!("{}/x", server.host);
    manager.ok(&["pull", "-q", &name]);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("archive.tar");
    let archive = archive.to_str().unwrap();
    manager.ok(&["save", "-o", archive, &name]);
    let whole = timed(&mut Manager::new().command(&["load", "-q", "-i", archive]));
    for moment in moments(whole) {
        let manager = Manager::new();
        kill_after(&mut manager.command(&["load", "-q", "-i", archive]), moment);
        assert_sound(&manager, &format!("load killed after {moment:?}"));
        manager.ok(&["load", "-q", "-i", archive]);
        assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
        manager.ok(&["rmi", &name]);
        manager.assert_empty(&[]);
    }
}

/// Kills a command that removes one of two images which share layers, and sees the other one unharmed.
fn removal(remove: impl Fn(&str) -> Vec<String>) {
    let (base, top) = (sample(4), Tar::new().file("top", noise(7, 100_000)).finish());
    let tars = [Tar::new().file("large", noise(4, 3_000_000)).finish(), top];
    let shared = image(&tars);
    assert!(base.layers.contains(&shared.layers[0]));
    let server = Server::start(honest(&[("kept", &shared), ("gone", &base)]));
    let [kept, gone] = ["kept", "gone"].map(|name| format!("{}/{name}", server.host));
    let manager = Manager::new();
    let pull = |name: &str| manager.ok(&["pull", "-q", name]);
    let command = || {
        let words = remove(&gone);
        manager.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    pull(&kept);
    pull(&gone);
    let whole = timed(&mut command());
    for moment in moments(whole) {
        pull(&kept);
        pull(&gone);
        kill_after(&mut command(), moment);
        assert_sound(&manager, &format!("killed after {moment:?}"));
        let names = manager.ok(&["images", "--format", "{{.Repository}}"]);
        assert!(names.lines().any(|name| name == kept), "killed after {moment:?}: {names}");
    }
    pull(&gone);
    for name in [&gone, &kept] {
        manager.ok(&["rmi", name]);
    }
    manager.assert_empty(&[]);
}

#[test]
fn a_killed_rmi_takes_nothing_that_others_have() {
    removal(|name| vec!["rmi".into(), name.into()]);
}

#[test]
fn a_killed_prune_takes_nothing_that_others_have() {
    removal(|name| {
        let filter = format!("reference={name}");
        ["image", "prune", "--all", "--force", "--filter", &filter].map(str::to_owned).to_vec()
    });
}

#[test]
fn pulls_and_prunes_at_the_same_time_lose_nothing() {
    let base = Tar::new().file("base", noise(5, 500_000)).finish();
    let middle = [1, 2].map(|seed| Tar::new().file("middle", noise(seed, 200_000)).finish());
    let images: Vec<Image> = (0u8..5)
        .map(|seed| {
            let own = Tar::new().file("own", [seed; 1000]).finish();
            image(&[base.clone(), middle[usize::from(seed % 2)].clone(), own])
        })
        .collect();
    let names = ["a", "b", "c", "d", "e"];
    let named: Vec<(&str, &Image)> = names.into_iter().zip(&images).collect();
    let server = Server::start(honest(&named));
    let manager = Manager::new();
    let (running, rounds) = (AtomicUsize::new(20), kills() / 4);
    std::thread::scope(|scope| {
        for worker in 0..20 {
            let (manager, server, running) = (&manager, &server, &running);
            scope.spawn(move || {
                let name = format!("{}/{}", server.host, names[worker % names.len()]);
                let all_well = (0..=rounds).all(|_| {
                    let pulled = manager.run(&["pull", "-q", &name]);
                    // Those of one name take it from each other; only the pull has to work.
                    let removed = manager.run(&["rmi", "-f", &name]);
                    let told = pulled.code == Some(0)
                        && (removed.code == Some(0) || removed.stderr.contains("no such image"));
                    assert!(told, "{pulled:?} {removed:?}");
                    manager.run(&["pull", "-q", &name]).code == Some(0)
                });
                running.fetch_sub(1, Ordering::Relaxed);
                assert!(all_well, "{name}");
            });
        }
        for arguments in [["image", "prune", "--force"], ["system", "prune", "--force"]] {
            let (manager, running) = (&manager, &running);
            scope.spawn(move || {
                while running.load(Ordering::Relaxed) > 0 {
                    manager.ok(&arguments);
                }
            });
        }
    });
    for name in names {
        manager.ok(&["pull", "-q", &format!("{}/{name}", server.host)]);
    }
    manager.ok(&["system", "prune", "--force"]);
    assert_eq!(manager.ok(&["system", "check"]), "no faults\n");
    assert_eq!(manager.stored("layers").len(), 1 + 2 + 5);
    for name in names {
        manager.ok(&["rmi", &format!("{}/{name}", server.host)]);
    }
    manager.assert_empty(&[]);
}
