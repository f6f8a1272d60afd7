//! Libraries: ipc-channel, iceoryx2 and, between threads, crossbeam.

use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, bytes_channel};

use super::{Get, Page, Put, Work, capacity, consume, one_way, produce, there_and_back};

struct Crossbeam<T>(T);

impl Put for Crossbeam<crossbeam_channel::Sender<Box<[u8]>>> {
    fn put(&mut self, message: &[u8]) {
        self.0.send(message.into()).expect("send");
    }
}

impl Get for Crossbeam<crossbeam_channel::Receiver<Box<[u8]>>> {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        self.0.recv().map(|message| look(&message)).is_ok()
    }
}

/// Boxes between threads: what a queue in one process may cost.
pub(super) fn crossbeam(size: usize, work: Work) -> Result<f64, String> {
    let page = Page::new();
    let (sender, receiver) = crossbeam_channel::bounded(capacity(size));
    if let Work::RoundTrip(length) = work {
        let (back, returned) = crossbeam_channel::bounded::<Box<[u8]>>(1);
        std::thread::scope(|scope| {
            scope.spawn(move || receiver.iter().for_each(|message| _ = back.send(message)));
            let (mut put, mut get) = (Crossbeam(sender), Crossbeam(returned));
            let (message, mut seen, mut count) = (vec![7; size], 0, 0);
            let began = std::time::Instant::now();
            while began.elapsed() < length {
                put.put(&message);
                get.get(&mut |got| seen += super::look_at(got));
                count += 1;
            }
            std::hint::black_box(seen);
            page.note(0, count, began.elapsed());
        });
        return Ok(1e6 / page.rate());
    }
    let (producers, consumers) = if let Work::OneWay(parties, _) = work { parties } else { (1, 1) };
    std::thread::scope(|scope| {
        for number in 0..consumers {
            let (receiver, page) = (receiver.clone(), &page);
            scope.spawn(move || consume(&mut Crossbeam(receiver), page, number));
        }
        for _ in 0..producers {
            let sender = sender.clone();
            scope.spawn(move || produce(&mut Crossbeam(sender), size, work));
        }
        drop(sender);
    });
    Ok(page.rate())
}

impl Put for IpcBytesSender {
    fn put(&mut self, message: &[u8]) {
        self.send(message).expect("send");
    }
}

/// An empty message is the end.
impl Get for IpcBytesReceiver {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        match self.recv() {
            Ok(message) if !message.is_empty() => {
                look(&message);
                true
            }
            _ => false,
        }
    }
}

pub(super) fn ipc_channel(size: usize, work: Work) -> Result<f64, String> {
    if matches!(work, Work::OneWay(parties, _) if parties.1 > 1) {
        return Err("it has one receiver".into());
    }
    let channel = || bytes_channel().map_err(|error| error.to_string());
    let (sender, receiver) = channel()?;
    let receiver = std::cell::Cell::new(Some(receiver));
    let take = || receiver.take().expect("one receiver");
    if let Work::RoundTrip(length) = work {
        let (sender_back, receiver_back) = channel()?;
        let first = |_: &dyn Fn()| (sender.clone(), receiver_back);
        return Ok(there_and_back(size, length, first, |_| (sender_back.clone(), take()), true));
    }
    Ok(one_way(size, work, || sender.clone(), take, |_| sender.send(&[]).expect("send")))
}

/// A service of iceoryx2 for messages of one size. Every subscriber gets what is published, so there is one.
struct Service {
    name: String,
    size: usize,
    with_event: bool,
    /// 1: the subscriber is connected; 2: it has seen the end.
    seen: Page,
}

type Ipc = iceoryx2::prelude::ipc::Service;

struct IceoryxPut<'a> {
    publisher: Publisher<Ipc, [u8], ()>,
    notifier: Option<Notifier<Ipc>>,
    is_connected: bool,
    service: &'a Service,
    _node: Node<Ipc>,
}

struct IceoryxGet<'a> {
    subscriber: Subscriber<Ipc, [u8], ()>,
    listener: Option<Listener<Ipc>>,
    service: &'a Service,
    _node: Node<Ipc>,
}

type Failure = Box<dyn std::error::Error>;

impl Service {
    fn new(name: &str, size: usize, with_event: bool) -> Service {
        set_log_level(LogLevel::Error);
        let name = format!("forkyard-peers-{}-{name}", std::process::id());
        Service { name, size, with_event, seen: Page::new() }
    }

    fn putter(&self) -> Result<IceoryxPut<'_>, Failure> {
        let node = NodeBuilder::new().create::<Ipc>()?;
        let name: ServiceName = self.name.as_str().try_into()?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(capacity(self.size))
            .open_or_create()?;
        let publisher = service
            .publisher_builder()
            .initial_max_slice_len(self.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        let notifier = match self.with_event {
            true => Some(node.service_builder(&name).event().open_or_create()?.notifier_builder().create()?),
            false => None,
        };
        Ok(IceoryxPut { publisher, notifier, is_connected: false, service: self, _node: node })
    }

    fn getter(&self) -> Result<IceoryxGet<'_>, Failure> {
        let node = NodeBuilder::new().create::<Ipc>()?;
        let name: ServiceName = self.name.as_str().try_into()?;
        let service = node
            .service_builder(&name)
            .publish_subscribe::<[u8]>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(capacity(self.size))
            .open_or_create()?;
        let subscriber = service.subscriber_builder().create()?;
        let listener = match self.with_event {
            true => Some(node.service_builder(&name).event().open_or_create()?.listener_builder().create()?),
            false => None,
        };
        Ok(IceoryxGet { subscriber, listener, service: self, _node: node })
    }
}

impl IceoryxPut<'_> {
    fn publish(&self, message: &[u8]) {
        let sample = self.publisher.loan_slice_uninit(message.len()).expect("loan");
        sample.write_from_slice(message).send().expect("send");
        if let Some(notifier) = &self.notifier {
            notifier.notify().expect("notify");
        }
    }
}

impl Put for IceoryxPut<'_> {
    fn put(&mut self, message: &[u8]) {
        if !self.is_connected {
            // What finds no room before the subscriber has looked for the first time is discarded.
            self.publish(&[0; 2]);
            self.service.seen.wait_for(1);
            self.is_connected = true;
        }
        self.publish(message);
    }
}

impl Drop for IceoryxPut<'_> {
    fn drop(&mut self) {
        // One byte is the end; what it lies in is the publisher's.
        self.put(&[0]);
        self.service.seen.wait_for(2);
    }
}

impl Get for IceoryxGet<'_> {
    fn get(&mut self, look: &mut impl FnMut(&[u8])) -> bool {
        let mut spins = 0;
        loop {
            if let Some(sample) = self.subscriber.receive().expect("receive") {
                match sample.payload() {
                    [_] => {
                        self.service.seen.arrive();
                        return false;
                    }
                    [_, _] => self.service.seen.arrive(),
                    message => {
                        look(message);
                        return true;
                    }
                }
                continue;
            }
            match &self.listener {
                Some(listener) => _ = listener.blocking_wait_one().expect("wait"),
                None => super::pause(&mut spins),
            }
        }
    }
}

pub(super) fn iceoryx_spinning(size: usize, work: Work) -> Result<f64, String> {
    iceoryx(size, work, false)
}

pub(super) fn iceoryx_event(size: usize, work: Work) -> Result<f64, String> {
    iceoryx(size, work, true)
}

fn iceoryx(size: usize, work: Work, with_event: bool) -> Result<f64, String> {
    if matches!(work, Work::OneWay(parties, _) if parties != (1, 1)) {
        return Err("every subscriber gets every message".into());
    }
    let there = Service::new("there", size, with_event);
    let put = |service: &'static Service| service.putter().expect("a publisher");
    let get = |service: &'static Service| service.getter().expect("a subscriber");
    // The processes that use it end first; a few bytes for each measurement.
    let there: &'static Service = Box::leak(Box::new(there));
    if let Work::RoundTrip(length) = work {
        let back: &'static Service = Box::leak(Box::new(Service::new("back", size, with_event)));
        let first = |meet: &dyn Fn()| {
            let get = get(back);
            meet();
            (put(there), get)
        };
        let second = |meet: &dyn Fn()| {
            let get = get(there);
            meet();
            (put(back), get)
        };
        return Ok(there_and_back(size, length, first, second, false));
    }
    Ok(one_way(size, work, || put(there), || get(there), |_| ()))
}
