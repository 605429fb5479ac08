//! Many calls at the same time, on one container and on many: none fails that has no reason to, none
//! hangs, and what is left is whole.

mod harness;

use std::sync::Barrier;

use harness::{Bundle, Said};

const EXECS: usize = 200;
const RUNS: usize = 100;

/// All at once, and what each said.
fn at_once(count: usize, call: impl Fn(usize) -> Said + Sync) -> Vec<Said> {
    let barrier = Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (barrier, call) = (&barrier, &call);
                scope.spawn(move || {
                    barrier.wait();
                    call(number)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

fn all_are_well(all: &[Said]) {
    for said in all {
        assert_eq!((said.code, said.stderr.as_str()), (0, ""), "{said:?}");
    }
}

fn sleeping() -> Bundle {
    Bundle::of(&["sleep", "1000"])
}

#[test]
fn two_hundred_execs_in_one_container() {
    let bundle = sleeping();
    bundle.create();
    bundle.start();
    all_are_well(&at_once(EXECS, |_| bundle.say_in_time(&["exec", &bundle.id, "true"])));
    let processes = bundle.say_in_time(&["ps", "--format", "json", &bundle.id]).stdout;
    assert_eq!(processes.matches(',').count(), 0, "only its init is left: {processes}");
}

#[test]
fn a_hundred_runs() {
    let bundle = Bundle::of(&["true"])
        .with(|config| drop(config["linux"].as_object_mut().expect("linux").remove("cgroupsPath")));
    all_are_well(&at_once(RUNS, |number| bundle.say_in_time(&["run", &format!("{}-{number}", bundle.id)])));
    bundle.assert_nothing_is_left();
}

/// Readers and writers of one container, each many times; some have good reasons to refuse.
#[test]
fn whatever_is_asked_of_one_container_at_the_same_time() {
    const ROUNDS: usize = 8;
    let bundle = sleeping();
    bundle.create();
    bundle.start();
    let calls: &[&[&str]] = &[
        &["state", "ID"],
        &["list"],
        &["ps", "--format", "json", "ID"],
        &["events", "--stats", "ID"],
        &["kill", "ID", "0"],
        &["kill", "ID", "URG"],
        &["pause", "ID"],
        &["resume", "ID"],
        &["update", "--pids-limit", "100", "ID"],
        &["update", "--pids-limit", "200", "ID"],
        &["exec", "--ignore-paused", "--detach", "ID", "true"],
        &["exec", "ID", "true"],
        &["start", "ID"],
        &["delete", "ID"],
        &["create", "ID"],
    ];
    let refusals = [
        "container not running: it is paused already",
        "container not paused",
        "cannot exec in a paused container",
        "cannot start an already running container",
        "cannot start a container in the paused state",
        "that is not stopped: running",
        "that is not stopped: paused",
        "container with given ID already exists",
    ];
    std::thread::scope(|scope| {
        // Whoever is caught by a pause waits for the next resume: there must always be one.
        let waker = std::sync::atomic::AtomicBool::new(true);
        let waker = std::sync::Arc::new(waker);
        let on = waker.clone();
        let bundle = &bundle;
        scope.spawn(move || {
            while on.load(std::sync::atomic::Ordering::Relaxed) {
                bundle.say_in_time(&["resume", &bundle.id]);
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
        let said = at_once(calls.len(), |number| {
            let args: Vec<&str> =
                calls[number].iter().map(|word| if *word == "ID" { &*bundle.id } else { word }).collect();
            for _ in 0..ROUNDS {
                let said = bundle.say_in_time(&args);
                let refused = refusals.iter().any(|words| said.stderr.contains(words));
                assert!(said.code == 0 || refused, "{args:?}: {said:?}");
            }
            bundle.say_in_time(&["state", &bundle.id])
        });
        waker.store(false, std::sync::atomic::Ordering::Relaxed);
        all_are_well(&said);
    });
    bundle.say_in_time(&["resume", &bundle.id]);
    assert_eq!(bundle.status(), "running");
    all_are_well(&[bundle.say_in_time(&["exec", &bundle.id, "true"])]);
    // Each either removes it or finds it gone.
    all_are_well(&at_once(8, |_| bundle.say_in_time(&["delete", "--force", &bundle.id])));
    bundle.assert_nothing_is_left();
}

/// A frozen process does not die: whichever comes first, the pause must not keep a killed one.
#[test]
fn killed_while_it_is_paused() {
    for _ in 0..10 {
        let bundle = sleeping();
        bundle.create();
        bundle.start();
        let said = at_once(2, |number| {
            bundle
                .say_in_time(&[["pause", &bundle.id, ""], ["kill", &bundle.id, "KILL"]][number][..2 + number])
        });
        assert_eq!((said[1].code, said[1].stderr.as_str()), (0, ""), "kill");
        bundle.wait_for("stopped");
    }
}

/// One folder after the other with the same name.
#[test]
fn made_and_deleted_by_many() {
    let bundle = sleeping();
    at_once(8, |number| {
        for _ in 0..6 {
            let force = ["delete", "--force", &*bundle.id];
            let said = match number % 2 {
                0 => bundle.say_in_time(&["run", "--detach", &bundle.id]),
                _ => bundle.say_in_time(&force),
            };
            // One that is deleted while it is made does not come to its end; so many words has the kernel for that.
            assert!(said.code == 0 || said.stderr.lines().count() == 1, "{said:?}");
            assert!(number % 2 == 0 || said.code == 0, "delete --force: {said:?}");
        }
        bundle.say_in_time(&["list"])
    });
    all_are_well(&[bundle.say_in_time(&["delete", "--force", &bundle.id])]);
    bundle.assert_nothing_is_left();
    bundle.create();
    bundle.start();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_poststart_hook_may_call_the_runtime() {
    let bundle = sleeping();
    let call = |verb: &str| {
        let state = bundle.dir.join("state");
        format!("{:?} --root {state:?} {verb} {}", harness::runtime(), bundle.id)
    };
    let script = format!("{} && {} && {}", call("pause"), call("resume"), call("update --pids-limit 50"));
    bundle.change(|config| {
        config["hooks"] =
            serde_json::json!({"poststart": [{"path": "/bin/sh", "args": ["sh", "-c", script], "timeout": 60}]});
    });
    bundle.create();
    all_are_well(&[bundle.say_in_time(&["start", &bundle.id])]);
    assert_eq!(bundle.status(), "running");
}
