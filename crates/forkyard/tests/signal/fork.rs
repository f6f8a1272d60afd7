//! Handlers and fork(3), as foreign code calls it.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use forkyard::signal::{self, Signal};

use crate::alone::{alone, alone_blocking, me, realtime, told};

/// Runs `child` in a forked child and returns its exit code; a hanging child ends by its alarm, with 128.
fn in_child(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child ends by `_exit`, and uses what glibc and the library keep usable across fork.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::alarm(30);
            libc::_exit(child());
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 }
    }
}

#[test]
fn a_forked_child_handles_its_own_signals_and_the_parent_hears_nothing() {
    alone("fork::a_forked_child_handles_its_own_signals_and_the_parent_hears_nothing", || {
        static SUM: AtomicI32 = AtomicI32::new(0);
        let (send, receive) = mpsc::channel();
        let _registration = signal::handle(Signal::USR1, move |info| {
            SUM.fetch_add(info.value().unwrap_or(0), SeqCst);
            let _ = send.send(info.value());
        })
        .unwrap();
        signal::send_value_to_pid(me(), Signal::USR1, 1).unwrap();
        assert_eq!(told(&receive), Some(1));
        let code = in_child(|| {
            // Before the child has used the module: kept in the child's own pipe.
            signal::send_value_to_pid(me(), Signal::USR1, 10).unwrap();
            let first = signal::pause().unwrap();
            signal::send_value_to_pid(me(), Signal::USR1, 20).unwrap();
            while SUM.load(SeqCst) < 31 {
                signal::pause().unwrap();
            }
            first.value().unwrap_or(-1)
        });
        // The parent's own pause had seen nothing yet, so the child's begins with the parent's signal.
        assert!(code == 1 || code == 10, "{code}");
        signal::send_value_to_pid(me(), Signal::USR1, 2).unwrap();
        assert_eq!(told(&receive), Some(2));
        assert!(receive.try_recv().is_err(), "nothing from the child");
        assert_eq!(SUM.load(SeqCst), 3);
    });
}

#[test]
fn a_forked_child_keeps_no_fd_of_its_parents() {
    alone("fork::a_forked_child_keeps_no_fd_of_its_parents", || {
        let registration = signal::handle(Signal::USR1, |_| ()).unwrap();
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let code = in_child(|| {
            let _second = signal::handle(Signal::USR2, |_| ()).unwrap();
            let child = count();
            // And one of its own, whose first use is a signal.
            let grandchild = in_child(|| {
                signal::raise(Signal::USR2).unwrap();
                signal::pause().unwrap();
                count().try_into().unwrap()
            });
            if grandchild == i32::try_from(child).unwrap() { grandchild } else { 127 }
        });
        assert_eq!(usize::try_from(code).unwrap(), before);
        drop(registration);
    });
}

/// Forks while closures run and signals rain: no child finds a lock taken.
#[test]
fn fork_in_a_storm_of_signals_never_hangs_a_child() {
    let rain = realtime(2).into();
    alone_blocking("fork::fork_in_a_storm_of_signals_never_hangs_a_child", rain, || {
        static COUNT: std::sync::Mutex<u64> = std::sync::Mutex::new(0);
        let _rain = signal::handle(realtime(2), |_| {
            let mut count = COUNT.lock().unwrap();
            *count += 1;
            drop(vec![0_u8; 10_000]);
            std::thread::yield_now();
        })
        .unwrap();
        let _usr1 = signal::handle(Signal::USR1, |_| ()).unwrap();
        let sender = std::thread::spawn(|| {
            let _open = signal::unblock(realtime(2));
            for _ in 0..20_000 {
                signal::raise(realtime(2)).unwrap();
            }
        });
        let mut rounds = 0;
        while !sender.is_finished() || rounds < 50 {
            let code = in_child(|| {
                drop(COUNT.lock().unwrap());
                signal::raise(Signal::USR1).unwrap();
                loop {
                    match signal::pause_timeout(Duration::from_secs(20)) {
                        Ok(info) if info.signal() == Signal::USR1 => return 0,
                        Ok(_) => {}
                        Err(_) => return 1,
                    }
                }
            });
            assert_eq!(code, 0);
            rounds += 1;
        }
        sender.join().unwrap();
    });
}

/// A child that shares our memory must not touch our pipe's state.
#[test]
fn programs_start_well_while_signals_rain() {
    alone("fork::programs_start_well_while_signals_rain", || {
        let (send, receive) = mpsc::channel();
        let _registration = signal::handle(Signal::USR1, move |_| {
            let _ = send.send(());
        })
        .unwrap();
        for _ in 0..50 {
            signal::raise(Signal::USR1).unwrap();
            assert!(std::process::Command::new("true").status().unwrap().success());
            signal::raise(Signal::USR1).unwrap();
        }
        for _ in 0..100 {
            told(&receive);
        }
    });
}
