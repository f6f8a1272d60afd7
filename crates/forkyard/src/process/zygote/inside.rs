//! Inside the zygote: one thread, one loop, a clone for every request; and what its clones do before their task.
//!
//! It ends when the requester says so, and when the requester dies; in the second case it first sweeps.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

use forkyard_sys::clone::{self, Side};
use forkyard_sys::{Errno, Pid, inherit, pidfd, poll, prctl};

use super::entry::{self, Marker};
use super::message::{self, Ask, Fault, Hello, Reply, Request};
use super::sweep::sweep;
use crate::global::Global;
use crate::process::board::{Slot, State};
use crate::process::builder::Attributes;
use crate::process::child::{self, Post};
use crate::process::context::Parent;
use crate::process::spares;
use crate::process::swarm::{self, Swarm};
use crate::process::{exit, panic, task};
use crate::shm::{self, Table};
use crate::sync;

/// What the zygote and all its children share.
struct World {
    table: Table<Slot>,
    parcels: OwnedFd,
    requester: Pid,
    requester_name: String,
    requester_pidfd: OwnedFd,
    /// What guarded children write to the marker's place.
    token: String,
    marker: Marker,
}

static WORLD: Global<World> = Global::new();

const SIGKILL: i32 = 9;

/// What a zygote is called in process lists.
pub(crate) const NAME: &str = "forkyard-zygote";

/// The zygote's whole life.
pub(super) fn main(socket: OwnedFd, once: bool, marker: Marker) -> ! {
    // The name is decoration.
    let _ = prctl::set_name(NAME);
    let (world, rehearsal) = match prepare(&socket, once, marker) {
        Ok(prepared) => prepared,
        Err(why) => {
            // If the requester is gone there is nobody to tell.
            let _ = answer(&socket, &Reply::Unfit(why), None);
            clone::exit_now(1)
        }
    };
    let mut ahead = Ahead::default();
    let served = match answer(&socket, &Reply::Ready, None) {
        Ok(()) if once => become_child(world, socket),
        Ok(()) => serve(world, socket, rehearsal, &mut ahead),
        Err(fault) => Err(fault),
    };
    let Err(fault) = served;
    match fault {
        Fault::Gone => {}
        // What the requester sent makes no sense: serving on would guess. The requester sees this end.
        fault => eprintln!("forkyard: zygote: {fault:?}"),
    }
    if !once && requester_died(world) {
        ahead.end(world);
        sweep(&world.token);
        // What it held, names among it, is this process's to clean up if nobody else of the family is left.
        sync::reap();
    }
    clone::exit_now(0)
}

/// The request socket is closed: did the requester end (or become another program), or only let go of it? Its end
/// follows the closing of its descriptors at once, so this waits for that.
fn requester_died(world: &World) -> bool {
    let soon = std::time::Instant::now() + Duration::from_millis(500);
    pidfd::wait_readable(world.requester_pidfd.as_fd(), Some(soon)).unwrap_or(true)
}

fn prepare(
    socket: &OwnedFd,
    once: bool,
    marker: Marker,
) -> Result<(&'static World, Option<OwnedFd>), String> {
    let packet = message::receive(socket, false).map_err(|fault| format!("no greeting: {fault:?}"))?;
    let hello: Hello<'_> = packet.decode().map_err(|fault| format!("greeting: {fault:?}"))?;
    let image = task::image_hash();
    if hello.image != image {
        return Err(format!("requester is build {:016x}, zygote is build {image:016x}", hello.image));
    }
    let requester =
        i32::try_from(hello.requester).ok().and_then(Pid::from_raw).ok_or("requester without a pid")?;
    if hello.token.len() != entry::TOKEN {
        return Err("greeting without a token".to_owned());
    }
    let token = hello.token.to_owned();
    let arena = hello.arena.clone();
    let (name, preload) =
        (hello.name.to_owned(), hello.preload.map(|(name, args)| (name.to_owned(), args.to_owned())));
    let mut fds = packet.fds.into_iter();
    let (Some(board), Some(parcels), Some(requester_pidfd)) = (fds.next(), fds.next(), fds.next()) else {
        return Err("greeting without its descriptors".to_owned());
    };
    let mut table = Table::attach(board, true).map_err(|errno| format!("map the outcome board: {errno}"))?;
    table.close_fd();
    let attached = arena.and_then(|()| {
        let fd = fds.next().ok_or("its descriptor did not arrive")?;
        shm::attach(fd).map_err(|error| error.to_string())
    });
    if let Err(why) = attached {
        shm::refuse(why);
    }

    // As Rust's own main does, which does not run here: a broken pipe is an error and not a death.
    forkyard_sys::mask::ignore_sigpipe();
    exit::arm();
    panic::install();
    let world =
        WORLD.set(World { table, parcels, requester, requester_name: name, requester_pidfd, token, marker });
    // One that becomes its only child itself has nobody to inherit anything.
    let rehearsal = (!once).then(|| {
        let rehearsal = inherit::forget_code();
        rehearse(world);
        rehearsal
    });
    if let Some((name, args)) = preload {
        run_preload(&name, &args, fds.collect())?;
    }
    Ok((world, rehearsal.and_then(inherit::keep_code)))
}

/// Does what a child does that gets a task, so that the code and data for it are in place: each page that is there is
/// one that no child has to fault in.
fn rehearse(world: &'static World) {
    static STAGE: Slot = Slot::new();
    let request = Request {
        slot: 0,
        attributes: Attributes::default(),
        mask: forkyard_sys::mask::current(),
        directory: false,
        parent_name: None,
        environment: None,
        task: nothing.name(),
        args: &[],
    };
    STAGE.call(&postcard::to_stdvec(&request).unwrap_or_default());
    task::touch_all();
    task::touch(wait_for_task as *const u8);
    drop(std::thread::current());
    if let Ok(fd) = world.requester_pidfd.try_clone() {
        let_go(fd, Ahead::default(), None);
    }
    touch();
    let request = STAGE.wait_for_call(world.requester).unwrap_or_default();
    if let Ok(request) = postcard::from_bytes::<Request<'_>>(&request) {
        let (task, args) = (request.task, request.args);
        if take_up(world, &STAGE, request, &mut Vec::new()).is_ok() {
            child::call(task, args, Vec::new());
        }
    }
    prctl::outlive_parent();
    child::forget();
    // What the above has leaked a child allocates again. Freed chunks wait in the allocator's cache of this thread,
    // close together, where it finds them without touching more.
    for size in [24, 40, 56, 72, 88, 104, 120, 136] {
        drop([(); 5].map(|()| Vec::<u8>::with_capacity(size)));
    }
    // The name is decoration.
    let _ = prctl::set_name(NAME);
}

/// What a rehearsal calls.
#[crate::task]
fn nothing() {}

/// Touches what every task touches.
fn touch() {
    crate::fd::incoming(Vec::new(), || crate::fd::outgoing(|| ()));
    let _ = panic::catch(|| ());
    exit::rehearse();
    drop(Vec::<u8>::with_capacity(64));
}

fn run_preload(name: &str, args: &[u8], fds: Vec<OwnedFd>) -> Result<(), String> {
    let call = || task::find(name).and_then(|invoke| crate::fd::incoming(fds, || invoke(args)));
    match panic::catch(call) {
        // A preload that can fail returns `Result<(), String>`; the encoding of `()` is empty.
        Ok(Ok(result)) if result.bytes.is_empty() => Ok(()),
        Ok(Ok(result)) => postcard::from_bytes(&result.bytes).map_err(|e| e.to_string())?,
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

fn answer(socket: &OwnedFd, reply: &Reply, fd: Option<&OwnedFd>) -> Result<(), Fault> {
    let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
    message::send(socket, &message::encode(reply)?, &fds, false)
}

/// The spares that were made last, as many as a requester has at a time: the slot where each waits, and who it is.
#[derive(Default)]
struct Ahead {
    made: [Option<(u32, OwnedFd)>; spares::MOST],
    next: usize,
}

impl Ahead {
    fn keep(&mut self, slot: u32, pidfd: OwnedFd) {
        self.made[self.next] = Some((slot, pidfd));
        self.next = (self.next + 1) % self.made.len();
    }

    /// Ends the dead requester's spares. The kernel has, unless the requester had given up the rights to signal them.
    fn end(&self, world: &'static World) {
        let waits = |index| slot(world, index).is_ok_and(|slot| slot.state() == Some(State::Offered));
        for (_, pidfd) in self.made.iter().flatten().filter(|&&(index, _)| waits(index)) {
            // ESRCH: it has ended.
            let _ = pidfd::send_signal(pidfd.as_fd(), SIGKILL);
        }
    }
}

/// Serves requests until the requester is gone. The first one belongs to the rehearsal.
fn serve(
    world: &'static World,
    socket: OwnedFd,
    mut rehearsal: Option<OwnedFd>,
    ahead: &mut Ahead,
) -> Result<Infallible, Fault> {
    let template = clone::Template::of_this_thread();
    let mut buffer = [0; size_of::<message::Buffer>()];
    loop {
        wait_for_request(world, &socket)?;
        let mut packet = message::receive_into(&mut buffer, &socket, true)?;
        let fds = std::mem::take(&mut packet.fds);
        match packet.decode()? {
            Ask::Sweep => {
                sweep(&world.token);
                clone::exit_now(0)
            }
            Ask::Many(births) => {
                *ahead = Ahead::default();
                // What is written between two clones is a page to copy: only a count, and that on the stack.
                let mut done = 0;
                let mut refused = None;
                let swarm = swarm::enlisted().ok_or_else(|| Fault::Garbled("no swarm".to_owned()))?;
                for &(index, number) in &births {
                    let slot = slot(world, index)?;
                    match clone_one_of(swarm, slot, template) {
                        Ok(None) => {
                            let_go(socket, Ahead::default(), rehearsal);
                            become_one_of(world, swarm, slot, index, number)
                        }
                        Ok(Some(_)) => done += 1,
                        Err(errno) => {
                            refused = Some(errno.raw_os_error());
                            break;
                        }
                    }
                }
                let born = births[..done]
                    .iter()
                    .map(|&(index, _)| slot(world, index).map(|slot| slot.born.load(Ordering::Acquire)));
                answer(&socket, &Reply::BornMany(born.collect::<Result<_, _>>()?, refused), None)?;
            }
            Ask::Start(_) if packet.received.fds_lost => {
                answer(&socket, &Reply::Refused(Errno::MFILE.raw_os_error()), None)?;
            }
            Ask::Start(request) => {
                let slot = slot(world, request.slot)?;
                match clone_for(slot, template) {
                    Ok(Side::Child) => {
                        let_go(socket, std::mem::take(ahead), rehearsal);
                        run(world, slot, request, fds)
                    }
                    made => drop(tell(&socket, made)?),
                }
            }
            Ask::Spare(index) => {
                let slot = slot(world, index)?;
                match clone_for(slot, template) {
                    Ok(Side::Child) => {
                        let_go(socket, std::mem::take(ahead), rehearsal);
                        wait_for_task(world, slot, index)
                    }
                    made => {
                        if let Some(pidfd) = tell(&socket, made)? {
                            ahead.keep(index, pidfd);
                        }
                    }
                }
            }
        }
        drop((packet, rehearsal.take()));
    }
}

/// Closes, in a clone, what belongs to its zygote alone.
#[inline(never)]
fn let_go(socket: OwnedFd, ahead: Ahead, rehearsal: Option<OwnedFd>) {
    drop((socket, ahead, rehearsal));
}

/// `None` in the child.
fn clone_one_of(
    swarm: Swarm,
    slot: &Slot,
    template: forkyard_sys::Result<clone::Template>,
) -> forkyard_sys::Result<Option<Pid>> {
    if swarm.bare {
        // SAFETY: a zygote has one thread, and a bare child starts none and uses no lock of pthreads.
        #[allow(unsafe_code)]
        return template.and_then(|template| unsafe { template.clone_bare_sibling(&slot.born) });
    }
    clone_for(slot, template).map(|side| match side {
        Side::Child => None,
        Side::Caller { pid, .. } => Some(pid),
    })
}

fn become_one_of(world: &'static World, swarm: Swarm, slot: &'static Slot, index: u32, number: u64) -> ! {
    if swarm.bare {
        swarm::become_bare(swarm, number, world.requester)
    }
    swarm::become_one(swarm, number, world.requester, || {
        world.marker.write(&world.token);
        let post = Post { slot, index, parcels: world.parcels.as_fd() };
        (post, Parent::new(world.requester, &world.requester_name, world.requester_pidfd.as_fd()))
    })
}

fn slot(world: &'static World, index: u32) -> Result<&'static Slot, Fault> {
    world.table.get(index as usize).ok_or_else(|| Fault::Garbled(format!("there is no slot {index}")))
}

fn clone_for(slot: &Slot, template: forkyard_sys::Result<clone::Template>) -> forkyard_sys::Result<Side> {
    // SAFETY: a zygote has one thread.
    #[allow(unsafe_code)]
    template.and_then(|template| unsafe { template.clone_sibling(&slot.born) })
}

/// Answers with the child's pidfd, which it gives back, or with the kernel's refusal.
fn tell(socket: &OwnedFd, made: forkyard_sys::Result<Side>) -> Result<Option<OwnedFd>, Fault> {
    match made {
        Ok(Side::Caller { pid, pidfd }) => {
            let reply = Reply::Born(pid.as_raw_nonzero().get().unsigned_abs());
            message::send_short(socket, &reply, &[pidfd.as_fd()])?;
            Ok(Some(pidfd))
        }
        Err(errno) => answer(socket, &Reply::Refused(errno.raw_os_error()), None).map(|()| None),
        Ok(Side::Child) => Ok(None),
    }
}

/// A spare's life: it waits for its one request, and ends when the requester does; one that has its request lives on.
fn wait_for_task(world: &'static World, slot: &'static Slot, index: u32) -> ! {
    // The name is decoration.
    let _ = prctl::set_name("forkyard-spare");
    // A clone of a page is better made while it waits than when it has something to do.
    touch();
    let request = slot.wait_for_call(world.requester).unwrap_or_default();
    match postcard::from_bytes::<Request<'_>>(&request) {
        Ok(request) if request.slot == index => {
            if !request.attributes.guarded {
                prctl::outlive_parent();
            }
            run(world, slot, request, Vec::new())
        }
        // Somebody scribbled. The requester sees that this ended before its task.
        _ => clone::exit_now(1),
    }
}

fn wait_for_request(world: &World, socket: &OwnedFd) -> Result<(), Fault> {
    let ready = poll::readable([socket.as_fd(), world.requester_pidfd.as_fd()], None)?;
    // A request of a requester that has died meanwhile is not served: nobody could own the child.
    if ready[1] { Err(Fault::Gone) } else { Ok(()) }
}

/// Runs one request in this process itself.
fn become_child(world: &'static World, socket: OwnedFd) -> Result<Infallible, Fault> {
    wait_for_request(world, &socket)?;
    let mut packet = message::receive(&socket, true)?;
    let fds = std::mem::take(&mut packet.fds);
    let Ask::Start(request) = packet.decode()? else { return Err(Fault::Gone) };
    let slot = slot(world, request.slot)?;
    drop(socket);
    run(world, slot, request, fds)
}

fn run(world: &'static World, slot: &'static Slot, request: Request<'_>, mut fds: Vec<OwnedFd>) -> ! {
    let (task, args) = (request.task, request.args);
    match take_up(world, slot, request, &mut fds) {
        Ok(()) => exit::end_of_task(child::call(task, args, fds)),
        Err(error) => child::fail(&error),
    }
}

/// Becomes what the request says, but for its task.
fn take_up(
    world: &'static World,
    slot: &'static Slot,
    request: Request<'_>,
    fds: &mut Vec<OwnedFd>,
) -> crate::error::Result<()> {
    let guarded = request.attributes.guarded;
    let post = Post { slot, index: request.slot, parcels: world.parcels.as_fd() };
    let name = request.parent_name.map_or(&*world.requester_name, |name| name.to_owned().leak());
    let parent = Parent::new(world.requester, name, world.requester_pidfd.as_fd());
    child::begin(post, request.attributes, parent, || child::die_with(world.requester));
    if guarded {
        world.marker.write(&world.token);
    }
    if let Some(variables) = &request.environment {
        entry::replace_variables(variables, &world.marker.line());
    }
    let directory = if request.directory { fds.pop() } else { None };
    child::surround(directory, request.mask)
}
