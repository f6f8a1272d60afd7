//! Handlers: order, siginfo, chains, removal, panics.

use std::ffi::c_void;
use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use forkyard::process::{Builder, Start};
use forkyard::signal::{self, ChildEvent, Disposition, Origin, Signal, SignalInfo, SignalSet};
use forkyard_sys::wait::Ending;

use crate::alone::{alone, alone_blocking, me, realtime, told};

fn report(signal: Signal) -> (signal::Registration, mpsc::Receiver<SignalInfo>) {
    let (send, receive) = mpsc::channel();
    (
        signal::handle(signal, move |info| {
            let _ = send.send(*info);
        })
        .unwrap(),
        receive,
    )
}

#[test]
fn a_thousand_queued_signals_keep_their_order() {
    let signals = SignalSet::from([realtime(3), realtime(4)]);
    alone_blocking("handle::a_thousand_queued_signals_keep_their_order", signals, || {
        let signals = SignalSet::from([realtime(3), realtime(4)]);
        assert!(signal::mask().contains_all(signals), "the harness starts with them blocked");
        let (send, receive) = mpsc::channel();
        let registrations: Vec<_> = signals
            .iter()
            .map(|signal| {
                let send = send.clone();
                signal::handle(signal, move |info| {
                    let _ = send.send((signal, info.value()));
                })
                .unwrap()
            })
            .collect();
        // All pending first, then one by one to a thread that is open.
        for value in 0..1000 {
            signal::send_value_to_pid(me(), realtime(3), value).unwrap();
        }
        let _mask = signal::unblock(signals);
        for value in 1000..2000 {
            let signal = if value % 2 == 0 { realtime(3) } else { realtime(4) };
            signal::send_value_to_pid(me(), signal, value).unwrap();
        }
        for value in 0..2000 {
            let signal = if value < 1000 || value % 2 == 0 { realtime(3) } else { realtime(4) };
            assert_eq!(told(&receive), (signal, Some(value)));
        }
        assert_eq!(signal::lost(), 0);
        drop(registrations);
    });
}

#[test]
fn a_handler_learns_who_sent_it_and_why() {
    alone("handle::a_handler_learns_who_sent_it_and_why", || {
        let uid = own_uid();
        let (_usr1, usr1) = report(Signal::USR1);
        signal::raise(Signal::USR1).unwrap();
        let info = told(&usr1);
        assert_eq!((info.origin(), info.pid(), info.uid()), (Origin::Thread, Some(me()), Some(uid)));
        assert_eq!((info.value(), info.child()), (None, None));

        signal::send_to_pid(me(), Signal::USR1).unwrap();
        let info = told(&usr1);
        assert_eq!((info.origin(), info.pid(), info.uid()), (Origin::Process, Some(me()), Some(uid)));

        signal::send_value_to_pid(me(), Signal::USR1, -7).unwrap();
        let info = told(&usr1);
        assert_eq!((info.origin(), info.value(), info.pid()), (Origin::Queue, Some(-7), Some(me())));

        let (_alrm, alrm) = report(Signal::ALRM);
        signal::alarm(Duration::from_micros(1));
        let info = told(&alrm);
        assert_eq!((info.origin(), info.pid(), info.signal()), (Origin::Kernel, None, Signal::ALRM));

        let (_chld, chld) = report(Signal::CHLD);
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let info = told(&chld);
        let Some(ChildEvent::Ended(status)) = info.child() else { panic!("{info:?}") };
        assert_eq!((status.ending(), info.value()), (Ending::Exited(3), None));
        assert_eq!(info.pid().unwrap().as_raw_nonzero().get(), child.id().cast_signed());
        assert_eq!(child.wait().unwrap().code(), Some(3));

        let mut child = Command::new("sh").args(["-c", "kill -STOP $$; exec sleep 1000"]).spawn().unwrap();
        assert_eq!(told(&chld).child(), Some(ChildEvent::Stopped(libc::SIGSTOP)));
        let pid = forkyard_sys::Pid::from_raw(child.id().cast_signed()).unwrap();
        signal::send_to_pid(pid, Signal::CONT).unwrap();
        assert_eq!(told(&chld).child(), Some(ChildEvent::Continued));
        signal::send_to_pid(pid, Signal::KILL).unwrap();
        let Some(ChildEvent::Ended(status)) = told(&chld).child() else { panic!("no end") };
        assert_eq!(status.ending(), Ending::Signaled { signal: libc::SIGKILL, core: false });
        child.wait().unwrap();
    });
}

fn own_uid() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::getuid() }
}

static PLAIN: AtomicUsize = AtomicUsize::new(0);
static VALUE: AtomicI32 = AtomicI32::new(0);

extern "C" fn plain(_: i32) {
    PLAIN.fetch_add(1, SeqCst);
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = libc::EXFULL };
}

extern "C" fn with_info(_: i32, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel's siginfo, passed on by the relay.
    VALUE.store(unsafe { (*info).si_value().sival_ptr } as usize as i32, SeqCst);
}

static BELOW: AtomicUsize = AtomicUsize::new(0);

/// Calls what was there before it, as a well-behaved handler does.
extern "C" fn on_top(number: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    PLAIN.fetch_add(100, SeqCst);
    let below: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) =
        // SAFETY: the handler that sigaction returned, installed with SA_SIGINFO.
        unsafe { std::mem::transmute(BELOW.load(SeqCst)) };
    below(number, info, context);
}

fn install(signal: Signal, handler: usize, flags: i32) -> usize {
    // SAFETY: a zeroed sigaction with a handler of the type that the flags tell.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        let mut old: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal.number(), &raw const action, &raw mut old), 0);
        old.sa_sigaction
    }
}

fn installed(signal: Signal) -> usize {
    // SAFETY: reads into a local sigaction.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal.number(), std::ptr::null(), &raw mut old), 0);
        old.sa_sigaction
    }
}

#[test]
fn handlers_that_were_there_before_are_called_and_come_back() {
    alone("handle::handlers_that_were_there_before_are_called_and_come_back", || {
        let plain = plain as extern "C" fn(i32) as usize;
        let with_info = with_info as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize;
        install(Signal::USR1, plain, 0);
        install(Signal::USR2, with_info, libc::SA_SIGINFO);
        let (usr1_registration, usr1) = report(Signal::USR1);
        let (usr2_registration, usr2) = report(Signal::USR2);

        // SAFETY: the address of this thread's errno.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        unsafe { *errno = libc::EDOM };
        signal::raise(Signal::USR1).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { *errno }, libc::EDOM, "errno is preserved");
        assert_eq!((told(&usr1).origin(), PLAIN.load(SeqCst)), (Origin::Thread, 1));
        signal::send_value_to_pid(me(), Signal::USR2, 77).unwrap();
        assert_eq!((told(&usr2).value(), VALUE.load(SeqCst)), (Some(77), 77));

        drop((usr1_registration, usr2_registration));
        assert_eq!((installed(Signal::USR1), installed(Signal::USR2)), (plain, with_info));
        signal::raise(Signal::USR1).unwrap();
        assert_eq!(PLAIN.load(SeqCst), 2);
        assert!(usr1.try_recv().is_err());
    });
}

#[test]
fn a_handler_installed_on_top_is_left_alone_and_never_makes_a_loop() {
    alone("handle::a_handler_installed_on_top_is_left_alone_and_never_makes_a_loop", || {
        let on_top = on_top as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize;
        let (registration, usr1) = report(Signal::USR1);
        BELOW.store(install(Signal::USR1, on_top, libc::SA_SIGINFO), SeqCst);
        signal::raise(Signal::USR1).unwrap();
        told(&usr1);
        assert_eq!(PLAIN.load(SeqCst), 100, "called through the handler on top");

        drop(registration);
        assert_eq!(installed(Signal::USR1), on_top);
        let (registration, usr1) = report(Signal::USR1);
        signal::raise(Signal::USR1).unwrap();
        told(&usr1);
        assert_eq!(PLAIN.load(SeqCst), 200, "we above him, he above us: each once");
        assert!(usr1.recv_timeout(Duration::from_millis(20)).is_err(), "told once");
        drop(registration);
        assert_eq!(installed(Signal::USR1), on_top);
    });
}

#[test]
fn dispositions_are_set_told_and_restored() {
    alone("handle::dispositions_are_set_told_and_restored", || {
        let is = |signal| signal::disposition(signal).unwrap();
        assert_eq!((is(Signal::PIPE), is(Signal::TERM)), (Disposition::Ignore, Disposition::Default));
        signal::ignore(Signal::TERM).unwrap();
        let (registration, term) = report(Signal::TERM);
        assert_eq!(is(Signal::TERM), Disposition::Handled);
        signal::raise(Signal::TERM).unwrap();
        told(&term);
        drop(registration);
        assert_eq!(is(Signal::TERM), Disposition::Ignore);
        signal::raise(Signal::TERM).unwrap();

        // Ignored for a while, then handled again: the first closure runs again too.
        let (first, one) = report(Signal::HUP);
        signal::ignore(Signal::HUP).unwrap();
        signal::raise(Signal::HUP).unwrap();
        let (second, two) = report(Signal::HUP);
        signal::raise(Signal::HUP).unwrap();
        told(&one);
        told(&two);
        assert!(one.try_recv().is_err());
        drop((first, second));
        assert_eq!(is(Signal::HUP), Disposition::Ignore);
        signal::set_default(Signal::HUP).unwrap();
        assert_eq!(is(Signal::HUP), Disposition::Default);
    });
}

#[test]
fn what_cannot_be_handled_is_refused() {
    for signal in [Signal::KILL, Signal::STOP, Signal::SEGV, Signal::new(32).unwrap()] {
        let error = signal::handle(signal, |_| ()).unwrap_err();
        assert!(error.is_invalid(), "{error}");
    }
    assert!(signal::ignore(Signal::KILL).unwrap_err().is_invalid());
    assert!(signal::set_default(Signal::STOP).unwrap_err().is_invalid());
}

#[test]
fn several_closures_run_in_order_and_a_removed_one_never_again() {
    alone("handle::several_closures_run_in_order_and_a_removed_one_never_again", || {
        let (send, receive) = mpsc::channel();
        let mut registrations: Vec<_> = (0..5)
            .map(|n| {
                let send = send.clone();
                signal::handle(Signal::USR1, move |_| {
                    let _ = send.send(n);
                })
                .unwrap()
            })
            .collect();
        signal::raise(Signal::USR1).unwrap();
        assert_eq!((0..5).map(|_| told(&receive)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        drop(registrations.remove(2));
        signal::raise(Signal::USR1).unwrap();
        assert_eq!((0..4).map(|_| told(&receive)).collect::<Vec<_>>(), [0, 1, 3, 4]);
    });
}

#[test]
fn drop_waits_for_a_running_call_but_not_for_its_own() {
    alone("handle::drop_waits_for_a_running_call_but_not_for_its_own", || {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let (entered, wait_entered) = mpsc::channel();
        let registration = signal::handle(Signal::USR1, move |_| {
            RUNNING.store(1, SeqCst);
            entered.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            RUNNING.store(2, SeqCst);
        })
        .unwrap();
        signal::raise(Signal::USR1).unwrap();
        told(&wait_entered);
        drop(registration);
        assert_eq!(RUNNING.load(SeqCst), 2);

        // A closure that removes itself.
        let (give, take) = mpsc::channel::<signal::Registration>();
        let (done, wait_done) = mpsc::channel();
        let registration = signal::handle(Signal::USR2, move |_| {
            drop(take.recv().unwrap());
            done.send(()).unwrap();
        })
        .unwrap();
        give.send(registration).unwrap();
        signal::raise(Signal::USR2).unwrap();
        told(&wait_done);
        assert_eq!(signal::disposition(Signal::USR2).unwrap(), Disposition::Default);
    });
}

#[test]
fn a_panic_in_a_closure_is_reported_and_the_next_signal_is_handled() {
    let output = alone("handle::a_panic_in_a_closure_is_reported_and_the_next_signal_is_handled", || {
        let (send, receive) = mpsc::channel();
        let _registration = signal::handle(Signal::USR1, move |info| {
            send.send(info.value()).unwrap();
            assert_ne!(info.value(), Some(1), "one is too many");
        })
        .unwrap();
        for value in [1, 2] {
            signal::send_value_to_pid(me(), Signal::USR1, value).unwrap();
            assert_eq!(told(&receive), Some(value));
        }
    });
    let Some(output) = output else { return };
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("one is too many"), "{stderr}");
    assert!(stderr.contains("the handler of SIGUSR1 panicked"), "{stderr}");
}

#[test]
fn too_many_signals_are_counted_and_block_nobody() {
    // Open in one thread only, so that every handler has run when its signal has been sent.
    let signals = SignalSet::from([realtime(0), Signal::USR2]);
    alone_blocking("handle::too_many_signals_are_counted_and_block_nobody", signals, || {
        let _open = signal::unblock([realtime(0), Signal::USR2]);
        let (go, wait_go) = mpsc::channel::<()>();
        let (send, receive) = mpsc::channel();
        let _slow = signal::handle(realtime(0), move |info| {
            let _ = wait_go.recv();
            send.send(*info).unwrap();
        })
        .unwrap();
        let (_usr2, usr2) = report(Signal::USR2);
        for value in 0..6000 {
            signal::send_value_to_pid(me(), realtime(0), value).unwrap();
        }
        signal::raise(Signal::USR2).unwrap();
        let lost = signal::lost();
        assert!(lost > 0);
        drop(go);
        assert_eq!(told(&usr2).origin(), Origin::Lost);
        let (mut whole, mut without_sender) = (0, 0);
        while whole + lost < 6001 || without_sender == 0 {
            match told(&receive).origin() {
                Origin::Lost => without_sender += 1,
                _ => whole += 1,
            }
        }
        assert_eq!((whole + lost, without_sender), (6001, 1), "each was handled or counted");
        signal::raise(Signal::USR2).unwrap();
        assert_eq!(told(&usr2).origin(), Origin::Thread, "as if nothing had been");
    });
}

#[test]
fn nothing_of_it_is_inherited_by_programs() {
    alone("handle::nothing_of_it_is_inherited_by_programs", || {
        let fds = || {
            let entries = std::fs::read_dir("/proc/self/fd").unwrap();
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<i32>().unwrap())
        };
        let before: Vec<_> = fds().collect();
        let (_usr1, _receive) = report(Signal::USR1);
        let new: Vec<_> = fds().filter(|fd| !before.contains(fd)).collect();
        assert!(!new.is_empty());
        for fd in new {
            // SAFETY: asks for the flags of a number.
            let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
            assert!(flags == -1 || flags & libc::FD_CLOEXEC != 0, "fd {fd}");
        }
    });
}

#[test]
fn a_write_that_nobody_reads_is_an_error_and_not_a_death() {
    alone("handle::a_write_that_nobody_reads_is_an_error_and_not_a_death", || {
        signal::ignore(Signal::PIPE).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(writer.write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn with_sigchld_ignored_the_kernel_reaps_and_keeps_no_status() {
    alone("handle::with_sigchld_ignored_the_kernel_reaps_and_keeps_no_status", || {
        signal::ignore(Signal::CHLD).unwrap();
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        let error = child.wait().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        // SAFETY: asks whether the number is a process.
        assert_eq!(unsafe { libc::kill(child.id().cast_signed(), 0) }, -1, "it has ended and is gone");
        signal::set_default(Signal::CHLD).unwrap();
        let mut child = Command::new("sh").args(["-c", "exit 3"]).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[forkyard::task]
fn seven() -> u8 {
    7
}

#[test]
fn with_sigchld_ignored_results_arrive_all_the_same() {
    alone("handle::with_sigchld_ignored_results_arrive_all_the_same", || {
        signal::ignore(Signal::CHLD).unwrap();
        let started =
            [Start::Zygote, Start::Spawn].map(|start| Builder::new().start(start).spawn(seven, ()).unwrap());
        for child in started {
            assert_eq!(child.join().unwrap(), 7);
            // The kernel has reaped it; a newer one tells its status all the same, without the usage.
            let status = child.exit_status().unwrap();
            assert!(matches!(status.ending(), Ending::Exited(0) | Ending::Unknown), "{status}");
        }
    });
}

#[test]
fn what_a_closure_captured_may_panic_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    alone("handle::what_a_closure_captured_may_panic_when_it_is_dropped", || {
        let (give, take) = mpsc::channel::<signal::Registration>();
        let bomb = Bomb;
        let registration = signal::handle(Signal::USR1, move |_| {
            let _captured = &bomb;
            drop(take.recv().unwrap());
        })
        .unwrap();
        give.send(registration).unwrap();
        signal::raise(Signal::USR1).unwrap();
        assert_eq!(signal::pause().unwrap().signal(), Signal::USR1);
        let (_usr2, usr2) = report(Signal::USR2);
        signal::raise(Signal::USR2).unwrap();
        told(&usr2);
    });
}
