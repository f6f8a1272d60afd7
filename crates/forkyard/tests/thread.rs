//! Threads with the interface of processes.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use forkyard::{process, thread};

#[allow(dead_code)]
#[path = "signal/alone.rs"]
mod alone;

use alone::{alone, told};

#[forkyard::task]
fn describe(name: String, times: usize) -> String {
    name.repeat(times)
}

fn plain(a: u8, b: u8) -> u8 {
    a + b
}

#[test]
fn tasks_functions_and_closures_return_their_values() {
    assert_eq!(thread::spawn(describe, ("ab".to_owned(), 3)).unwrap().join().unwrap(), "ababab");
    assert_eq!(thread::spawn(plain, (1, 2)).unwrap().join().unwrap(), 3);
    let captured = vec![1, 2, 3];
    assert_eq!(thread::spawn(move || captured, ()).unwrap().join().unwrap(), [1, 2, 3]);
    let eight = |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| a + b + c + d + e + f + g + h;
    assert_eq!(thread::spawn(eight, (1, 2, 3, 4, 5, 6, 7, 8)).unwrap().join().unwrap(), 36);
}

/// One program text for both.
macro_rules! describe_in {
    ($module:ident) => {{
        let child =
            $module::Builder::new().name("worker").daemon(true).spawn(describe, ("x".to_owned(), 2))?;
        assert!(child.is_daemon());
        assert_eq!(child.name(), "worker");
        let listed: Vec<_> = $module::children().iter().map(|child| child.name().to_owned()).collect();
        let joined = child.join_timeout(Duration::from_secs(60))?;
        assert!(!child.is_alive() && child.join().unwrap_err().is_already_joined());
        assert!(!$module::current().is_daemon());
        drop(listed);
        joined
    }};
}

#[test]
fn one_word_makes_processes_of_threads() -> forkyard::Result<()> {
    assert_eq!(describe_in!(thread), describe_in!(process));
    Ok(())
}

#[test]
fn a_thread_knows_its_name_its_number_and_its_kind() {
    let (go, wait_go) = mpsc::channel::<()>();
    let child = thread::Builder::new()
        .name("a name longer than the kernel's")
        .daemon(true)
        .spawn(
            move || {
                let me = thread::current();
                let _ = wait_go.recv();
                let inherits = thread::spawn(|| thread::current().is_daemon(), ()).unwrap().join().unwrap();
                let comm = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                me.set_name("other").unwrap();
                let renamed = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
                (me.tid(), comm, me.name(), renamed, me.is_daemon(), inherits)
            },
            (),
        )
        .unwrap();
    assert!(child.is_alive());
    assert_eq!(child.try_join().unwrap(), None);
    assert!(thread::children().iter().any(|other| other.tid() == child.tid()));
    drop(go);
    let (tid, comm, name, renamed, daemon, inherits) = child.join().unwrap();
    assert_eq!((tid, comm.as_str()), (child.tid(), "a name longer t\n"));
    assert_eq!((name.as_str(), renamed.as_str()), ("other", "other\n"));
    assert_eq!((daemon, inherits), (true, true));
    assert!(!child.is_alive() && child.name().starts_with("a name longer"));
    assert!(thread::children().iter().all(|other| other.tid() != child.tid()));
    let names: BTreeSet<_> =
        (0..3).map(|_| thread::spawn(|| thread::current().name(), ()).unwrap().join().unwrap()).collect();
    assert!(names.len() == 3 && names.iter().all(|name| name.starts_with("Thread-")), "{names:?}");
    let error = thread::Builder::new().name("a\0b").spawn(|| (), ()).unwrap_err();
    assert!(error.is_invalid());
}

#[test]
fn a_panic_arrives_with_message_location_and_backtrace() {
    let child =
        thread::Builder::new().name("clumsy").spawn(|n: u32| panic!("dropped {n} cups"), (3,)).unwrap();
    let error = child.join().unwrap_err();
    let panic = error.panic().unwrap();
    assert!(error.is_panic() && panic.message == "dropped 3 cups");
    assert!(panic.location.as_ref().unwrap().contains("tests/thread.rs"), "{panic:?}");
    assert!(panic.backtrace.as_ref().unwrap().contains("thread"), "{panic:?}");
    assert!(error.to_string().contains("join thread \"clumsy\""), "{error}");
    assert_eq!(error.exit_status(), None);
    assert!(child.join().unwrap_err().is_already_joined());
}

#[test]
fn a_result_nobody_takes_may_panic_when_it_is_dropped() {
    struct Bomb(mpsc::Sender<()>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            panic!("dropped");
        }
    }
    let (send, receive) = mpsc::channel();
    let (go, wait_go) = mpsc::channel::<()>();
    let thread = thread::spawn(
        move || {
            let _ = wait_go.recv();
            Bomb(send)
        },
        (),
    )
    .unwrap();
    let child = thread.child();
    drop(thread);
    drop(go);
    told(&receive);
    child.wait_ended().unwrap();
    assert!(thread::children().iter().all(|other| other.tid() != child.tid()));
}

#[test]
fn a_thread_that_joins_itself_is_told() {
    let handle = Arc::new(Mutex::new(None::<thread::Thread<()>>));
    let (send, receive) = mpsc::channel();
    let (go, wait_go) = mpsc::channel::<()>();
    let own = Arc::clone(&handle);
    let started = thread::spawn(
        move || {
            wait_go.recv().unwrap();
            let own = own.lock().unwrap().take().unwrap();
            let child = own.child();
            send.send((own.join().unwrap_err(), child.wait_ended().unwrap_err(), own.try_join().unwrap()))
                .unwrap();
        },
        (),
    )
    .unwrap();
    *handle.lock().unwrap() = Some(started);
    go.send(()).unwrap();
    let (join, wait, tried) = told(&receive);
    assert!(join.is_join_self() && wait.is_join_self() && tried.is_none(), "{join} {wait}");
}

#[test]
fn timed_joins_honour_their_time_and_take_nothing() {
    let (go, wait_go) = mpsc::channel::<u32>();
    let child = thread::spawn(move || wait_go.recv().unwrap(), ()).unwrap();
    let started = Instant::now();
    let time = Duration::from_millis(20);
    assert!(child.join_timeout(time).unwrap_err().is_timeout());
    assert!(child.join_deadline(Instant::now() + time).unwrap_err().is_timeout());
    assert!(child.wait_ended_timeout(time).unwrap_err().is_timeout());
    assert!(started.elapsed() >= 3 * time);
    go.send(7).unwrap();
    child.wait_ended().unwrap();
    assert_eq!(child.try_join().unwrap(), Some(7));
}

#[test]
fn join_waits_for_thread_local_values_too() {
    struct Slow;
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(30));
            DROPPED.store(1, SeqCst);
        }
    }
    thread_local!(static LOCAL: Slow = const { Slow });
    thread::spawn(|| LOCAL.with(|_| ()), ()).unwrap().join().unwrap();
    assert_eq!(DROPPED.load(SeqCst), 1);
}

#[test]
fn the_end_of_main_joins_threads_and_not_daemonic_ones() {
    let output = alone("the_end_of_main_joins_threads_and_not_daemonic_ones", || {
        process::at_exit(|| eprintln!("hook"));
        let daemonic = thread::Builder::new().daemon(true);
        let _daemonic = daemonic
            .spawn(
                || {
                    loop {
                        std::thread::park();
                    }
                },
                (),
            )
            .unwrap();
        let _first = thread::spawn(
            || {
                std::thread::sleep(Duration::from_millis(100));
                eprintln!("first");
                let _second = thread::spawn(
                    || {
                        std::thread::sleep(Duration::from_millis(100));
                        eprintln!("second");
                    },
                    (),
                );
            },
            (),
        )
        .unwrap();
        eprintln!("body");
    });
    let Some(output) = output else { return };
    let lines = String::from_utf8(output.stderr).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), ["body", "first", "second", "hook"]);
}

#[test]
fn an_exiting_thread_waits_for_the_others_and_not_for_itself() {
    if std::env::var_os("FORKYARD_TEST_EXIT").is_some() {
        let _other = thread::spawn(
            || {
                std::thread::sleep(Duration::from_millis(100));
                eprintln!("other");
            },
            (),
        )
        .unwrap();
        let _ending = thread::spawn(|| process::exit(9), ()).unwrap();
        loop {
            std::thread::park();
        }
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["an_exiting_thread_waits_for_the_others_and_not_for_itself", "--exact", "--nocapture"])
        .env("FORKYARD_TEST_EXIT", "1")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "other\n");
}

#[test]
fn handles_in_a_forked_child_say_whose_they_are() {
    alone("handles_in_a_forked_child_say_whose_they_are", || {
        let (go, wait_go) = mpsc::channel::<()>();
        let child = thread::spawn(move || wait_go.recv().is_err(), ()).unwrap();
        // SAFETY: the child uses handles, whose locks nobody holds, and ends by `_exit`.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let strange = child.join().is_err_and(|error| error.is_not_a_child());
                let gone = !child.is_alive() && thread::children().is_empty();
                let own = thread::spawn(|| 5, ()).is_ok_and(|own| own.join().is_ok_and(|five| five == 5));
                libc::_exit(i32::from(strange) + 2 * i32::from(gone) + 4 * i32::from(own));
            }
            let mut status = 0;
            assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
            assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 7));
        }
        drop(go);
        assert!(child.join().unwrap());
    });
}

#[test]
fn many_threads_start_and_join_and_leave_nothing() {
    alone("many_threads_start_and_join_and_leave_nothing", || {
        let sum: u64 = (0..500_u64)
            .map(|n| thread::spawn(move |m: u64| n * m, (2,)).unwrap())
            .collect::<Vec<_>>()
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        assert_eq!(sum, 2 * (0..500).sum::<u64>());
        assert!(thread::children().is_empty());
    });
}
