//! The doors a connection can come through: Unix sockets, IPv6, inherited listeners; and programs behind them.

use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::support::{Running, Spec, connect, exchange};

fn program(args: &[&str]) -> Spec {
    let program = args.iter().map(|arg| (*arg).to_owned()).collect();
    Spec { handler: "program".to_owned(), program, ..Spec::default() }
}

fn directory(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("forkyard-serve-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn exchange_unix(path: &std::path::Path, text: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_unix_socket_is_private_and_goes_with_its_server() {
    let directory = directory("private");
    let path = directory.join("socket");
    let server = Running::start(&Spec { bind: vec![format!("unix:{}", path.display())], ..Spec::default() });
    let found = std::fs::symlink_metadata(&path).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(exchange_unix(&path, "hello\n"), "HELLO\n");
    server.stop();
    assert!(!path.exists());
    std::fs::remove_dir(&directory).unwrap();
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_not() {
    let directory = directory("stale");
    let path = directory.join("socket");
    let spec = Spec { bind: vec![format!("unix:{}", path.display())], ..Spec::default() };
    let mut dead = Running::start(&spec);
    dead.kill_9();
    crate::support::eventually("its end", || !dead.process.is_alive());
    assert!(path.exists());
    let living = Running::start(&spec);
    assert_eq!(exchange_unix(&path, "a\n"), "A\n");
    let error = Running::try_start(&spec).err().unwrap();
    assert!(error.contains("another server"), "{error}");
    assert_eq!(exchange_unix(&path, "b\n"), "B\n");
    living.stop();
    std::fs::write(&path, "precious").unwrap();
    let error = Running::try_start(&spec).err().unwrap();
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn several_addresses_are_served_ipv6_among_them() {
    let bind = vec!["127.0.0.1:0".to_owned(), "[::1]:0".to_owned(), "127.0.0.1:0".to_owned()];
    let server = Running::start(&Spec { bind, ..Spec::default() });
    assert_eq!(server.addresses.len(), 3);
    for address in &server.addresses {
        assert_eq!(exchange(address.parse().unwrap(), "a\n"), "A\n", "{address}");
    }
    assert!(server.addresses[1].starts_with("[::1]:"));
    server.stop();
}

#[test]
fn an_address_in_use_is_an_error_that_says_so() {
    let server = Running::start(&Spec::default());
    let spec = Spec { bind: vec![server.addresses[0].clone()], ..Spec::default() };
    let error = Running::try_start(&spec).err().unwrap();
    assert!(error.contains("another server listens there"), "{error}");
    server.stop();
}

#[test]
fn a_program_gets_the_connection_and_nothing_else() {
    let script = "ls -l /proc/self/fd | sed 1d | awk '{print $9, $11}'";
    let server = Running::start(&program(&["sh", "-c", script]));
    let answer = exchange(server.address(), "");
    let fds: Vec<&str> = answer.lines().collect();
    // ls itself has its standard streams (its output is the pipe to sed) and the directory it lists.
    assert_eq!(fds.len(), 4, "{answer}");
    assert!(fds[0].starts_with("0 socket:"), "{answer}");
    server.stop();
}

#[test]
fn a_program_knows_both_ends_of_its_connection() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let script = "echo $PROTO $TCPLOCALIP $TCPLOCALPORT $TCPREMOTEIP $TCPREMOTEPORT $TCPCONNNUM; \
                      env | grep -c -e ^LISTEN_ -e ^NOTIFY_SOCKET -e ^FORKYARD_ZYGOTE";
        let server =
            Running::start(&Spec { bind: vec![address.to_owned()], ..program(&["sh", "-c", script]) });
        let mut stream = connect(server.address());
        let (here, there) = (stream.local_addr().unwrap(), server.address());
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let expected = format!("TCP {} {} {} {} 1\n0\n", there.ip(), there.port(), here.ip(), here.port());
        assert_eq!(answer, expected);
        server.stop();
    }
}

#[test]
fn a_program_behind_a_unix_socket_knows_who_is_there() {
    let directory = directory("who");
    let path = directory.join("socket");
    let bind = vec![format!("unix:{}", path.display())];
    let script = "echo $PROTO $UNIXLOCALPATH $UNIXREMOTEEUID $UNIXREMOTEEGID $UNIXREMOTEPID";
    let server = Running::start(&Spec { bind, ..program(&["sh", "-c", script]) });
    let ids = Command::new("sh").args(["-c", "echo $(id -u) $(id -g)"]).output().unwrap();
    let ids = String::from_utf8(ids.stdout).unwrap();
    let expected = format!("UNIX {} {} {}\n", path.display(), ids.trim(), std::process::id());
    assert_eq!(exchange_unix(&path, ""), expected);
    server.stop();
    std::fs::remove_dir(&directory).unwrap();
}

#[test]
fn cat_and_scripts_without_a_first_line_work() {
    let server = Running::start(&program(&["cat"]));
    assert_eq!(exchange(server.address(), "as it is\n"), "as it is\n");
    let stats = server.stop();
    assert_eq!((&stats["served"], &stats["lost"]), (&1.into(), &0.into()));

    let directory = directory("script");
    let script = directory.join("script");
    std::fs::write(&script, "read line; echo \"$1: $line\"\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = Running::start(&program(&[script.to_str().unwrap(), "said"]));
    assert_eq!(exchange(server.address(), "hello\n"), "said: hello\n");
    // A program that is gone: that connection ends, the server goes on.
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(exchange(server.address(), ""), "");
    let stats = server.stop();
    assert_eq!(stats["failed"], 1);
}

#[test]
fn a_program_that_disappears_costs_its_connection_only() {
    let directory = directory("disappears");
    let (file, aside) = (directory.join("program"), directory.join("aside"));
    std::fs::copy("/bin/cat", &file).unwrap();
    let server = Running::start(&program(&[file.to_str().unwrap()]));
    // From the second one on the server does not wait for the exec.
    for _ in 0..3 {
        assert_eq!(exchange(server.address(), "as it is\n"), "as it is\n");
    }
    std::fs::rename(&file, &aside).unwrap();
    for _ in 0..2 {
        assert_eq!(exchange(server.address(), ""), "");
    }
    std::fs::rename(&aside, &file).unwrap();
    for _ in 0..3 {
        assert_eq!(exchange(server.address(), "again\n"), "again\n");
    }
    let stats = server.stop();
    assert_eq!((&stats["served"], &stats["failed"], &stats["lost"]), (&6.into(), &2.into(), &0.into()));
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn a_program_that_does_not_exist_is_told_at_once() {
    let error = Running::try_start(&program(&["no-such-program-anywhere"])).err().unwrap();
    assert!(error.contains("no-such-program-anywhere"), "{error}");
    let error = Running::try_start(&Spec { prefork: true, ..program(&["cat"]) }).err().unwrap();
    assert!(error.contains("process mode"), "{error}");
}

#[test]
fn an_inherited_listener_serves() {
    // Python opens the listener and becomes a process that starts the server's process with it: here, in the
    // same process, the number is enough.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let spec = Spec { inherit: true, ..Spec::default() };
    let server = Running::start_with(&spec, Some(listener.into())).unwrap();
    assert_eq!(server.addresses, [address.to_string()]);
    assert_eq!(exchange(address, "a\n"), "A\n");
    server.stop();
}
