//! Handlers and `process::fork`, in a program whose only thread is main's: the test harness would have its own.
#![allow(
    unsafe_code,
    clippy::unwrap_used,
    reason = "a test fails by a panic; each unsafe block has its own reason"
)]

use std::sync::mpsc;
use std::time::Duration;

use forkyard::signal::{self, Signal};
use forkyard::{process, thread};

fn main() {
    // The deadline: SIGALRM ends the process.
    signal::alarm(Duration::from_secs(60));
    the_librarys_own_thread_is_no_reason_to_refuse_a_fork();
    a_program_with_a_thread_of_its_own_is_refused();
    a_closure_cannot_copy_the_thread_of_main();
    println!("ok");
}

fn the_librarys_own_thread_is_no_reason_to_refuse_a_fork() {
    let (send, receive) = mpsc::channel();
    let _registration = signal::handle(Signal::USR1, move |info| send.send(info.pid()).unwrap()).unwrap();
    for _ in 0..20 {
        let child = process::fork(|| {
            // Not by the library: the handlers work before its first use here.
            // SAFETY: passes a number.
            unsafe { libc::raise(libc::SIGUSR1) };
            let sender = receive.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(sender, Some(process::current().pid()));
            receive.try_recv().is_err()
        });
        assert!(child.unwrap().join().unwrap(), "handled once, and in the child");
        assert!(receive.try_recv().is_err(), "the parent heard nothing");
        signal::raise(Signal::USR1).unwrap();
        assert_eq!(receive.recv_timeout(Duration::from_secs(30)).unwrap(), Some(process::current().pid()));
    }
}

fn a_program_with_a_thread_of_its_own_is_refused() {
    let (go, wait_go) = mpsc::channel::<()>();
    let other = thread::spawn(move || wait_go.recv().is_err(), ()).unwrap();
    assert!(process::fork(|| 1).unwrap_err().is_other_threads());
    drop(go);
    other.join().unwrap();
}

fn a_closure_cannot_copy_the_thread_of_main() {
    let (send, receive) = mpsc::channel();
    let _registration =
        signal::handle(Signal::USR2, move |_| send.send(process::fork(|| 1).unwrap_err()).unwrap()).unwrap();
    signal::raise(Signal::USR2).unwrap();
    assert!(receive.recv_timeout(Duration::from_secs(30)).unwrap().is_other_threads());
}
