//! Other programs: what they get, what they give, and what remains of them.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forkyard::process::{Pipeline, PopenMode, Program, Stdio, exec, popen, popen2, system};
use forkyard::signal::Signal;
use forkyard_sys::Errno;

/// One test at a time, because they count descriptors and children; one that hangs is named; and at the end
/// there is nothing more than at the start.
struct Alone {
    name: &'static str,
    before: BTreeSet<i32>,
    _turn: MutexGuard<'static, ()>,
    _done: Sender<()>,
}

fn alone(name: &'static str) -> Alone {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, over) = channel::<()>();
    std::thread::spawn(move || {
        if over.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    // Whatever the library opens once, it has opened now.
    drop(popen("cat", PopenMode::Write).unwrap());
    until_no_children_are_left();
    Alone { name, before: open_descriptors(), _turn: turn, _done: done }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            until_no_children_are_left();
            // The keeper closes a child's descriptor after the child has gone.
            let end = Instant::now() + Duration::from_secs(20);
            while !open_descriptors().is_subset(&self.before) {
                let (before, now) = (&self.before, open_descriptors());
                assert!(Instant::now() < end, "{} leaves descriptors: {before:?}, now {now:?}", self.name);
                std::thread::yield_now();
            }
        }
    }
}

fn open_descriptors() -> BTreeSet<i32> {
    let list = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers: Vec<i32> =
        list.filter_map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().ok()).collect();
    // The descriptor of the listing itself is closed by now.
    numbers.into_iter().filter(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).is_ok()).collect()
}

/// Children of this process, zombies included.
fn children() -> Vec<String> {
    let own = std::process::id().to_string();
    let stat = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("stat")).ok();
    let is_child = |stat: &String| {
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(own.as_str())
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(stat).filter(is_child).collect()
}

/// The library reaps what was dropped, soon after its end.
fn until_no_children_are_left() {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !children().is_empty() {
        assert!(Instant::now() < deadline, "left over: {:?}", children());
        std::thread::yield_now();
    }
}

/// This test again, in a process of its own, with one variable more.
fn again(test: &str, variable: &str) -> Program {
    Program::new("/proc/self/exe").args(["--exact", test, "--nocapture"]).env(variable, "1")
}

fn is_again(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn ten_megabytes() -> Vec<u8> {
    (0..10_000_000_u32).map(|n| (n % 251) as u8).collect()
}

#[test]
fn system_returns_the_full_status() {
    let _alone = alone("system_returns_the_full_status");
    assert_eq!(system("exit 7").unwrap().code(), Some(7));
    assert_eq!(system("kill -9 $$").unwrap().signal(), Some(9));
    assert_eq!(system("no-such-command-anywhere 2>/dev/null").unwrap().code(), Some(127));
    assert!(system("-strange-name 2>/dev/null || exit 0").unwrap().success());
    assert!(system("exit 0").unwrap().usage().is_some());
}

#[test]
fn interrupt_during_system_hits_the_command_and_not_the_caller() {
    let name = "interrupt_during_system_hits_the_command_and_not_the_caller";
    if is_again("INTERRUPTED") {
        let ignored = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let lines =
                status.lines().filter(|line| line.starts_with("SigIgn") || line.starts_with("SigBlk"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let before = ignored();
        let status = system("kill -INT $PPID; kill -QUIT $PPID; kill -INT $$; exit 3").unwrap();
        let ignored_from_outside = before[1].ends_with(['2', '3', '6', '7', 'a', 'b', 'e', 'f']);
        assert!(ignored_from_outside || status.signal() == Some(2), "{status}");
        assert_eq!(ignored(), before);
        return;
    }
    let _alone = alone(name);
    let output = again(name, "INTERRUPTED").output().unwrap();
    assert!(text(output.stdout).contains("1 passed"), "{}", output.status);
}

#[test]
fn popen_reads_from_and_writes_to_a_command() {
    let _alone = alone("popen_reads_from_and_writes_to_a_command");
    let mut reader = popen("echo one; echo two; exit 4", PopenMode::Read).unwrap();
    let lines: Vec<String> =
        BufReader::new(reader.stdout.take().unwrap()).lines().map(|line| line.unwrap()).collect();
    assert_eq!(lines, ["one", "two"]);
    assert!(reader.stdin.is_none());
    assert_eq!(reader.wait().unwrap().code(), Some(4));

    let scratch = Scratch::new("popen");
    let file = scratch.0.join("out");
    let mut writer = popen(format!("cat > {}", file.display()), PopenMode::Write).unwrap();
    writer.stdin.as_mut().unwrap().write_all(b"written").unwrap();
    assert!(writer.wait().unwrap().success());
    assert_eq!(std::fs::read(file).unwrap(), b"written");
}

#[test]
fn ten_megabytes_go_both_ways() {
    let _alone = alone("ten_megabytes_go_both_ways");
    let input = ten_megabytes();
    // One that reads and writes in turns; one that writes all, on both outputs, before it reads anything.
    let output = popen2("cat").unwrap().communicate(&input).unwrap();
    assert!(output.stdout == input && output.status.success());
    let stubborn = "head -c 10000000 /dev/zero; head -c 10000000 /dev/zero >&2; wc -c";
    let program = Program::shell(stubborn).stdin(Stdio::Pipe).stdout(Stdio::Pipe).stderr(Stdio::Pipe);
    let output = program.start().unwrap().communicate(&input).unwrap();
    assert!(output.stdout.ends_with(b"10000000\n"));
    assert_eq!((output.stdout.len(), output.stderr.len()), (10_000_009, 10_000_000));
}

#[test]
fn input_that_nobody_wants_is_no_error() {
    let _alone = alone("input_that_nobody_wants_is_no_error");
    let output = popen2("echo enough").unwrap().communicate(ten_megabytes()).unwrap();
    assert_eq!(text(output.stdout), "enough\n");
    let error = popen("exit 0", PopenMode::Read).unwrap().communicate("x").unwrap_err();
    assert!(error.is_invalid(), "{error}");
}

#[test]
fn communicate_gives_up_in_time_and_kills() {
    let _alone = alone("communicate_gives_up_in_time_and_kills");
    for silent_or_busy in ["exec sleep 1000", "exec yes"] {
        let program = popen2(silent_or_busy).unwrap();
        let error = program.communicate_timeout("", Duration::from_millis(50)).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        until_no_children_are_left();
    }
    let pipeline = Program::new("yes") | Program::new("cat").stdout(Stdio::Pipe);
    let error = pipeline.start().unwrap().communicate_deadline("", Instant::now()).unwrap_err();
    assert!(error.is_timeout(), "{error}");
}

#[test]
fn waits_tell_the_status_again_and_again() {
    let _alone = alone("waits_tell_the_status_again_and_again");
    let mut program = Program::new("cat").stdin(Stdio::Pipe).start().unwrap();
    assert_eq!(program.status(), None);
    assert_eq!(program.try_wait().unwrap(), None);
    assert!(program.stdin.is_some(), "try_wait closes nothing");
    let status = program.wait().unwrap();
    assert!(status.success());
    assert_eq!(program.wait().unwrap(), status);
    assert_eq!(program.try_wait().unwrap(), Some(status));
    assert_eq!(program.wait_timeout(Duration::ZERO).unwrap(), status);
    assert_eq!(program.status(), Some(status));
    // Signals to what has ended hit nobody.
    program.kill().unwrap();
    program.signal(Signal::USR1).unwrap();
}

#[test]
fn signals_end_a_program_and_are_told() {
    let _alone = alone("signals_end_a_program_and_are_told");
    let start = || Program::new("sleep").arg("1000").start().unwrap();
    let mut program = start();
    assert!(program.wait_timeout(Duration::from_millis(20)).unwrap_err().is_timeout());
    program.terminate().unwrap();
    assert_eq!(program.wait_deadline(Instant::now() + Duration::from_secs(30)).unwrap().signal(), Some(15));
    let mut program = start();
    program.kill().unwrap();
    // The handle polls readable at the end.
    assert!(forkyard_sys::pidfd::wait_readable(program.as_fd(), None).unwrap());
    assert_eq!(program.try_wait().unwrap().unwrap().signal(), Some(9));
}

#[test]
fn a_status_taken_by_somebody_else_is_told_or_unknown() {
    let name = "a_status_taken_by_somebody_else_is_told_or_unknown";
    let _alone = alone(name);
    let mut program = Program::shell("exit 6").start().unwrap();
    forkyard_sys::wait::reap(program.as_fd()).unwrap();
    let code = program.wait().unwrap().code();
    if is_again("WITHOUT_PIDFD_INFO") {
        return assert_eq!(code, None);
    }
    assert!(matches!(code, None | Some(6)));
    let output =
        again(name, "WITHOUT_PIDFD_INFO").env("FORKYARD_TEST_FALLBACK", "pidfd-info").output().unwrap();
    assert!(text(output.stdout).contains("1 passed"));
}

#[test]
fn with_sigchld_ignored_waits_still_end() {
    let name = "with_sigchld_ignored_waits_still_end";
    if is_again("CHILDREN_IGNORED") {
        // The kernel reaps at once; whether it still tells the status depends on its age.
        assert!(matches!(system("exit 6").unwrap().code(), None | Some(6)));
        let output = popen2("cat").unwrap().communicate("text").unwrap();
        assert_eq!(output.stdout, b"text");
        let missing = Program::new("/nonexistent").start().unwrap_err();
        return assert_eq!(missing.errno(), Some(Errno::NOENT));
    }
    let _alone = alone(name);
    let this = std::env::current_exe().unwrap();
    let script = format!("trap '' CHLD; exec {} --exact {name} --nocapture", this.display());
    let output = Program::shell(script).env("CHILDREN_IGNORED", "1").output().unwrap();
    assert!(text(output.stdout).contains("1 passed"));
}

#[test]
fn programs_started_beside_system_can_be_interrupted() {
    let _alone = alone("programs_started_beside_system_can_be_interrupted");
    let ignored = || {
        let status = text(Program::new("cat").arg("/proc/self/status").output().unwrap().stdout);
        status.lines().find(|line| line.starts_with("SigIgn")).unwrap().to_owned()
    };
    let before = ignored();
    let (mut read, write) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        // Ends when this process closes its end of the pipe.
        let (gate, open) = std::io::pipe().unwrap();
        let command = format!("cat </proc/{}/fd/{}", std::process::id(), gate.as_raw_fd());
        let command = format!("echo up >/proc/{}/fd/{}; {command}", std::process::id(), write.as_raw_fd());
        let waiting = scope.spawn(|| system(command).unwrap());
        let mut up = [0; 3];
        read.read_exact(&mut up).unwrap();
        assert_eq!(ignored(), before);
        drop(open);
        assert!(waiting.join().unwrap().success());
        drop(gate);
    });
}

#[test]
fn environment_directory_and_names_arrive() {
    let _alone = alone("environment_directory_and_names_arrive");
    let script = r#"echo "$0|$1|$FRUIT|${HOME-none}|$(pwd)""#;
    let output = Program::new("sh").args(["-c", script, "zero", "one two"]).cwd("/").env("FRUIT", "pear");
    let output = output.env("FRUIT", "plum").env_remove("HOME").output().unwrap();
    assert_eq!(text(output.stdout), "zero|one two|plum|none|/\n");

    let output = Program::new("/usr/bin/env").env("LOST", "1").env_clear().envs([("A", "1"), ("B", "2")]);
    assert_eq!(text(output.output().unwrap().stdout), "A=1\nB=2\n");

    // The search follows the program's own PATH.
    let scratch = Scratch::new("path");
    std::os::unix::fs::symlink("/bin/echo", scratch.0.join("my-echo")).unwrap();
    let output = Program::new("my-echo").arg("found").env("PATH", &scratch.0).output().unwrap();
    assert_eq!(text(output.stdout), "found\n");

    // Also when that is relative and the program starts elsewhere.
    let here = std::env::current_dir().unwrap();
    let up = "../".repeat(here.components().count() - 1);
    let relative = format!("{up}{}", scratch.0.strip_prefix("/").unwrap().display());
    let output = Program::new("my-echo").arg("found").env("PATH", relative).cwd("/").output().unwrap();
    assert_eq!(text(output.stdout), "found\n");

    let output = Program::new("sh").args(["-c", "echo $0"]).arg0("renamed").output().unwrap();
    assert_eq!(text(output.stdout), "renamed\n");
    for bad in [Program::new("true").env("A=B", ""), Program::new("true").arg("a\0b")] {
        assert!(bad.start().unwrap_err().is_invalid());
    }
}

#[test]
fn streams_lead_where_they_are_told() {
    let _alone = alone("streams_lead_where_they_are_told");
    let scratch = Scratch::new("streams");
    let file = scratch.0.join("file");
    std::fs::write(&file, "from a file").unwrap();
    let both = Program::shell("cat; echo error >&2");
    let output = both.stdin(File::open(&file).unwrap()).stderr(Stdio::Stdout).output().unwrap();
    assert_eq!((text(output.stdout), text(output.stderr)), ("from a fileerror\n".into(), String::new()));
    let output =
        Program::new("cat").stdin(Stdio::Null).stdout(File::create(&file).unwrap()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(std::fs::read(&file).unwrap(), b"");
    assert!(Program::new("cat").stdout(Stdio::Stdout).start().unwrap_err().is_invalid());
}

#[test]
fn only_named_descriptors_reach_a_program() {
    let _alone = alone("only_named_descriptors_reach_a_program");
    let (read, write) = std::io::pipe().unwrap();
    let number = read.as_raw_fd();
    let lister = || Program::shell("for fd in /proc/$$/fd/*; do [ -e $fd ] && echo ${fd##*/}; done; exit 0");
    let seen = |program: Program| -> BTreeSet<i32> {
        let text = text(program.output().unwrap().stdout);
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    };
    assert_eq!(seen(lister()), BTreeSet::from([0, 1, 2]));
    let placed = lister().keep_fd(read.try_clone().unwrap()).place_fd(write.try_clone().unwrap(), 100);
    assert_eq!(seen(placed).len(), 5);
    assert_eq!(seen(lister().keep_fd(read)), BTreeSet::from([0, 1, 2, number]));
    let twice = lister().place_fd(write.try_clone().unwrap(), 100).place_fd(write, 100).start().unwrap_err();
    assert!(twice.to_string().contains("given twice"), "{twice}");
}

#[test]
fn a_pipe_ends_whatever_else_was_started_meanwhile() {
    let _alone = alone("a_pipe_ends_whatever_else_was_started_meanwhile");
    let mut reader = popen2("cat").unwrap();
    let others: Vec<_> = (0..4).map(|_| Program::new("sleep").arg("1000").start().unwrap()).collect();
    let mut foreign = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    drop(reader.stdin.take());
    let mut nothing = Vec::new();
    reader.stdout.take().unwrap().read_to_end(&mut nothing).unwrap();
    assert!(nothing.is_empty() && reader.wait().unwrap().success());
    for mut other in others {
        other.kill().unwrap();
        assert_eq!(other.wait().unwrap().signal(), Some(9));
    }
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[test]
fn a_pipeline_passes_everything_and_tells_all_statuses() {
    let _alone = alone("a_pipeline_passes_everything_and_tells_all_statuses");
    let pipeline = Program::new("cat").stdin(Stdio::Pipe) | Program::shell("cat; exit 3");
    let pipeline = pipeline | Program::shell("wc -c; kill -9 $$").stdout(Stdio::Pipe);
    let output = pipeline.start().unwrap().communicate(ten_megabytes()).unwrap();
    assert_eq!(text(output.stdout), "10000000\n");
    let told: Vec<_> = output.statuses.iter().map(|status| (status.code(), status.signal())).collect();
    assert_eq!(told, [(Some(0), None), (Some(3), None), (None, Some(9))]);
    // One that stops reading ends the others.
    let output =
        (Program::new("yes") | Program::new("cat") | Program::new("head").arg("-1")).output().unwrap();
    assert_eq!(text(output.stdout), "y\n");
    let pipe = Signal::PIPE.number();
    assert_eq!(
        output.statuses.iter().map(|s| s.signal()).collect::<Vec<_>>(),
        [Some(pipe), Some(pipe), None]
    );
    // Errors of all can be collected, and a pipeline of one is a program.
    let complain = |word: &str| Program::shell(format!("echo {word} >&2")).stderr(Stdio::Pipe);
    let output = (complain("first") | complain("second")).output().unwrap();
    assert_eq!(output.stderr, [b"first\n".to_vec(), b"second\n".to_vec()]);
    assert_eq!(Pipeline::new(Program::new("echo").arg("1")).output().unwrap().stdout, b"1\n");
}

#[test]
fn a_killed_stage_ends_its_neighbours() {
    let _alone = alone("a_killed_stage_ends_its_neighbours");
    let start =
        || (Program::new("yes") | Program::new("cat") | Program::new("wc").stdout(Stdio::Null)).start();
    for killed in 0..3 {
        let mut stages = start().unwrap();
        assert_eq!(stages.try_wait().unwrap(), None);
        stages.programs()[killed].kill().unwrap();
        let statuses = stages.wait_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(statuses[killed].signal(), Some(9));
        assert_eq!(statuses[2].success(), killed != 2, "the last reads the end");
    }
    let mut stages = start().unwrap();
    stages.terminate().unwrap();
    assert!(stages.wait().unwrap().iter().any(|status| status.signal() == Some(15)));
}

#[test]
fn a_failed_start_is_explained_and_leaves_nothing() {
    let _alone = alone("a_failed_start_is_explained_and_leaves_nothing");
    let error = |program: Program| program.stdin(Stdio::Pipe).stdout(Stdio::Pipe).start().unwrap_err();
    let scratch = Scratch::new("failed");
    let file = |name: &str, content: &str, mode| {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch.0.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let (plain, orphan) = (file("plain", "data", 0o644), file("orphan", "#!/nonexistent\n", 0o755));
    let text = file("text", "neither", 0o755);
    for (program, errno, says) in [
        (Program::new("no-such-program"), Errno::NOENT, "in no directory of PATH"),
        (Program::new("/nonexistent"), Errno::NOENT, "start program \"/nonexistent\": execute the program"),
        (Program::new(&plain), Errno::ACCESS, "execute the program"),
        (Program::new("plain").env("PATH", &scratch.0), Errno::ACCESS, "not executable"),
        (Program::new(&orphan), Errno::NOENT, "#! line"),
        (Program::new(&text), Errno::NOEXEC, "#! line"),
        (Program::new("true").arg("x".repeat(8 << 20)), Errno::TOOBIG, "too long"),
        (Program::new("true").cwd("/nonexistent"), Errno::NOENT, "working directory"),
    ] {
        let error = error(program);
        assert_eq!(error.errno(), Some(errno), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(children().is_empty());
    }
    let pipeline = Program::new("yes") | Program::new("cat") | Program::new("no-such-program");
    assert_eq!(pipeline.start().unwrap_err().errno(), Some(Errno::NOENT));
    assert!(children().is_empty());
    let pipeline = Program::new("yes").stdout(Stdio::Null) | Program::new("cat");
    assert!(pipeline.start().unwrap_err().is_invalid());
}

#[test]
fn a_dropped_program_goes_on_and_leaves_no_zombie() {
    let _alone = alone("a_dropped_program_goes_on_and_leaves_no_zombie");
    let scratch = Scratch::new("dropped");
    let file = scratch.0.join("file");
    let script = format!("cat > {0}.part; mv {0}.part {0}", file.display());
    let mut program = popen(script, PopenMode::Write).unwrap();
    program.stdin.as_mut().unwrap().write_all(b"all of it").unwrap();
    drop(program);
    // The drop was the end of its input, and not its own end.
    until_no_children_are_left();
    assert_eq!(std::fs::read(&file).unwrap(), b"all of it");
}

#[test]
fn the_standard_librarys_command_is_unharmed() {
    let _alone = alone("the_standard_librarys_command_is_unharmed");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..25 {
                    let code = thread * 25 + n;
                    let script = format!("exit {code}");
                    let mut foreign = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
                    let mut ours = Program::shell(&script).start().unwrap();
                    drop(Program::new("true").start().unwrap());
                    assert_eq!(foreign.wait().unwrap().code(), Some(code));
                    assert_eq!(ours.wait().unwrap().code(), Some(code));
                }
            });
        }
    });
}

#[test]
fn exec_keeps_the_pid_or_tells_why_not() {
    let name = "exec_keeps_the_pid_or_tells_why_not";
    if is_again("EXEC") {
        assert_eq!(exec("no-such-program", [""; 0]).errno(), Some(Errno::NOENT));
        assert!(Program::new("true").stdout(Stdio::Pipe).exec().is_invalid());
        panic!("{}", exec("sh", ["-c", "echo \"I am $$\"; exit 5"]));
    }
    let _alone = alone(name);
    let program = again(name, "EXEC").stdout(Stdio::Pipe).start().unwrap();
    let pid = program.pid().as_raw_nonzero();
    let output = program.communicate("").unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(text(output.stdout).contains(&format!("I am {pid}\n")));
}

/// A directory of this test's own, gone at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("forkyard-command-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _already_gone = std::fs::remove_dir_all(&self.0);
    }
}
