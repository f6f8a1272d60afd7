//! What lies where in a queue's block.
//!
//! The header is the block's payload: four numbers that are written before anybody else has the queue and never change, and the counters. Behind it
//! lie the cells, and then the places: each a word, a length, a position, and room for the message's bytes or for its parcel's name. A segment of a queue
//! without a bound (segment.rs) is laid out alike.
//!
//! # Safety
//! A [`Layout`] is made of numbers that were checked against the length of the tail, and kept in private memory; so a cell of any position
//! and a place below the count lie in the block. Whoever makes one sees that the queue is held while it is used. A place's bytes are written by who
//! claimed it and read by who took its message; the exchanges on its word make that one at a time.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use super::bell::Bell;
use super::chain::Chain;
use super::ring::{Counters, Known, Ring, Words};
use super::shelf::Shelf;
use super::word::Cell;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};
use crate::shm::{Kind, Parcel, ParcelName, Payload};

/// The numbers of a ring, in shared memory.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    cells: AtomicU64,
    places: AtomicU64,
    stride: AtomicU64,
    capacity: AtomicU64,
    /// The most bytes, or 0.
    bytes: AtomicU64,
}

/// The start of a queue.
#[repr(C, align(64))]
pub(crate) struct Header {
    numbers: Numbers,
    /// Rung when a message is finished that stayed in its place until then.
    pub(super) finished: Bell,
    unused: [AtomicU32; 5],
    pub(super) chain: Chain,
    /// Parcels for the next messages.
    pub(super) shelf: Shelf,
    pub(super) counters: Counters,
}

// SAFETY: `repr(C)`, atomics and unused bytes.
unsafe impl Payload for Header {
    const KIND: Kind = Kind::Queue;
}
const _: () = assert!(size_of::<Header>() == 128 + 256 + 3 * 128);

/// Bytes of a place before its message.
const PLACE_HEADER: usize = 24;
/// Bytes of a message that lies in its place, unless its queue says otherwise.
pub(crate) const INLINE: usize = 128 - PLACE_HEADER;
/// In a place's length: the message lies in a parcel, whose name is here.
const IN_PARCEL: u64 = 1 << 63;

/// Bytes of a place behind its message: how many were put before it, where they are counted.
const fn trailer(bytes: u64) -> usize {
    if bytes == 0 { 0 } else { 8 }
}

/// The numbers of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    cells_log2: u32,
    places: u32,
    stride: usize,
    capacity: u64,
    /// The most bytes, or 0 if they are not counted.
    bytes: u64,
}

impl Shape {
    /// The most messages that a queue can hold.
    pub(crate) const MOST: u64 = (Cell::MOST_PLACES - 128) as u64;

    /// A queue for so many messages, of which those of so many bytes lie in their places. `None`: that is too many, or none.
    pub(crate) fn new(capacity: usize, inline: usize) -> Option<Shape> {
        Shape::counting(capacity, inline, 0)
    }

    /// The same for at most so many bytes, if that is not 0.
    pub(crate) fn counting(capacity: usize, inline: usize, bytes: u64) -> Option<Shape> {
        let capacity = u64::try_from(capacity).ok().filter(|&most| (1..=Shape::MOST).contains(&most))?;
        let around = PLACE_HEADER + trailer(bytes);
        let stride = inline.max(PLACE_HEADER).checked_add(around)?.checked_next_multiple_of(64)?;
        // Spare places are for writers that are stopped, and for consumers that are reading.
        let places = (capacity + (capacity / 4).clamp(4, 64)) as u32;
        let cells_log2 = (capacity + 1).next_power_of_two().max(8).ilog2();
        Some(Shape { cells_log2, places, stride, capacity, bytes })
    }

    /// Bytes of the tail; `None` if nobody has so many.
    pub(crate) fn tail(&self) -> Option<usize> {
        (self.places as usize).checked_mul(self.stride)?.checked_add(self.cells())
    }

    /// Bytes of the cells.
    fn cells(&self) -> usize {
        8 << self.cells_log2
    }

    /// Bytes of the largest message that lies in its place.
    pub(crate) fn inline(&self) -> usize {
        self.stride - PLACE_HEADER - trailer(self.bytes)
    }

    /// How many bytes there may be, if that is bounded.
    pub(crate) fn most_bytes(&self) -> Option<u64> {
        (self.bytes != 0).then_some(self.bytes)
    }

    /// How many messages there may be.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    fn write(&self, numbers: &Numbers) {
        numbers.cells.store(self.cells_log2.into(), Ordering::Relaxed);
        numbers.places.store(self.places.into(), Ordering::Relaxed);
        numbers.stride.store(self.stride as u64, Ordering::Relaxed);
        numbers.capacity.store(self.capacity, Ordering::Relaxed);
        numbers.bytes.store(self.bytes, Ordering::Relaxed);
    }

    /// The shape that these numbers tell of, if it fits into such a tail.
    fn read(numbers: &Numbers, tail: usize) -> Option<Shape> {
        let stride = usize::try_from(numbers.stride.load(Ordering::Relaxed)).ok()?;
        let capacity = usize::try_from(numbers.capacity.load(Ordering::Relaxed)).ok()?;
        let bytes = numbers.bytes.load(Ordering::Relaxed);
        let shape = Shape::counting(capacity, stride.checked_sub(PLACE_HEADER + trailer(bytes))?, bytes)?;
        let told = (numbers.cells.load(Ordering::Relaxed), numbers.places.load(Ordering::Relaxed));
        let fits = shape.stride == stride && told == (shape.cells_log2.into(), shape.places.into());
        (fits && shape.tail()? <= tail).then_some(shape)
    }
}

/// The words and places of a queue, or of one segment of it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Layout {
    counters: NonNull<Counters>,
    cells: NonNull<AtomicU64>,
    places: NonNull<u8>,
    shape: Shape,
    known: Known,
}

// SAFETY: what it points to is shared memory that is never unmapped, of atomics, and of bytes that are handed over by them.
unsafe impl Send for Layout {}
// SAFETY: as above.
unsafe impl Sync for Layout {}

impl Clone for Layout {
    fn clone(&self) -> Layout {
        Layout {
            counters: self.counters,
            cells: self.cells,
            places: self.places,
            shape: self.shape,
            known: Known::default(),
        }
    }
}

impl Header {
    /// Writes the first words of a queue of this shape, with a bound or without.
    pub(crate) fn make(&self, shape: Shape, is_bounded: bool, tail: NonNull<u8>) {
        Layout::make(shape, &self.numbers, &self.counters, tail);
        self.finished.calm();
        if !is_bounded {
            self.chain.begin();
        }
    }
}

impl Layout {
    /// Writes the first words of a ring of this shape.
    pub(crate) fn make(shape: Shape, numbers: &Numbers, counters: &Counters, tail: NonNull<u8>) {
        shape.write(numbers);
        Ring(Layout::over(shape, counters, tail)).init();
    }

    /// The layout of a queue whose tail begins there; `None` if its header is none of ours.
    pub(crate) fn of(header: &Header, tail: (NonNull<u8>, usize)) -> Option<Layout> {
        Layout::told(&header.numbers, &header.counters, tail)
    }

    /// The same of anything that has these numbers and counters.
    pub(super) fn told(
        numbers: &Numbers,
        counters: &Counters,
        (tail, len): (NonNull<u8>, usize),
    ) -> Option<Layout> {
        Some(Layout::over(Shape::read(numbers, len)?, counters, tail))
    }

    fn over(shape: Shape, counters: &Counters, tail: NonNull<u8>) -> Layout {
        Layout {
            counters: NonNull::from(counters),
            cells: tail.cast(),
            // SAFETY: the cells lie in the tail.
            places: unsafe { tail.add(shape.cells()) },
            shape,
            known: Known::default(),
        }
    }

    /// What the queue's maker decided.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// A place, if there is one of this number.
    fn at(&self, number: u32) -> Option<NonNull<u8>> {
        // SAFETY: below the count: inside the tail.
        (number < self.shape.places).then(|| unsafe { self.places.add(number as usize * self.shape.stride) })
    }

    /// A word of a place behind its first.
    fn field(&self, number: u32, index: usize) -> Option<&AtomicU64> {
        // SAFETY: a place has room for eight words at least, and nobody asks for one behind its last.
        Some(unsafe { self.at(number)?.cast::<AtomicU64>().add(index).as_ref() })
    }

    /// Writes a message into a place that the caller has claimed. It must fit.
    #[inline]
    pub(crate) fn write(&self, number: u32, bytes: &[u8]) {
        let (Some(place), Some(len)) = (self.at(number), self.field(number, 1)) else { return };
        let count = bytes.len().min(self.shape.inline());
        len.store(count as u64, Ordering::Relaxed);
        // SAFETY: so many bytes lie in the place, which is the caller's.
        unsafe { place.add(PLACE_HEADER).copy_from_nonoverlapping(NonNull::from(bytes).cast(), count) };
    }

    /// Notes in a place that the caller has claimed that its message is this parcel.
    pub(crate) fn write_parcel(&self, number: u32, parcel: &Parcel) {
        let name = parcel.name();
        let fields =
            [(1, parcel.bytes().len() as u64 | IN_PARCEL), (3, name.offset), (4, name.generation.into())];
        for (index, value) in fields {
            if let Some(field) = self.field(number, index) {
                field.store(value, Ordering::Relaxed);
            }
        }
    }

    /// The parcel of a place, and its length, if its message is one.
    pub(crate) fn parcel(&self, number: u32) -> Option<(ParcelName, u64)> {
        let field = |index| Some(self.field(number, index)?.load(Ordering::Relaxed));
        let len = field(1)?;
        let name = ParcelName { offset: field(3)?, generation: field(4)? as u32 };
        (len & IN_PARCEL != 0).then_some((name, len & !IN_PARCEL))
    }

    /// The length of the message in a place, at most what fits.
    #[inline]
    pub(crate) fn len(&self, number: u32) -> usize {
        let len = self.field(number, 1).map_or(0, |len| len.load(Ordering::Relaxed));
        usize::try_from(len).unwrap_or(usize::MAX).min(self.shape.inline())
    }

    /// Reads a message of so many bytes, which fit, of a place that the caller has taken; and perhaps some bytes behind it.
    #[inline]
    pub(crate) fn read_short(&self, number: u32, len: usize, into: &mut [u8; INLINE]) {
        // All that lies in the first line of a place.
        const LINE: usize = 64 - PLACE_HEADER;
        match self.at(number) {
            // SAFETY: a place has 64 bytes at least, and is the caller's. A copy of a known length is a few moves.
            Some(place) if len <= LINE => unsafe {
                place.add(PLACE_HEADER).copy_to_nonoverlapping(NonNull::from(into).cast(), LINE);
            },
            _ => self.read(number, &mut into[..len]),
        }
    }

    /// Reads a message of a place that the caller has taken: as much of it as there is room for.
    #[inline]
    pub(crate) fn read(&self, number: u32, into: &mut [u8]) {
        let Some(place) = self.at(number) else { return };
        let count = into.len().min(self.shape.inline());
        // SAFETY: so many bytes lie in the place, which is the caller's.
        unsafe { place.add(PLACE_HEADER).copy_to_nonoverlapping(NonNull::from(into).cast(), count) };
    }
}

impl Words for Layout {
    #[inline]
    fn counters(&self) -> &Counters {
        // SAFETY: in the header: see the heading.
        unsafe { self.counters.as_ref() }
    }

    #[inline]
    fn cell(&self, position: u64) -> &AtomicU64 {
        // SAFETY: the count of cells is a power of two, and they lie in the tail.
        unsafe { self.cells.add((position & !(u64::MAX << self.shape.cells_log2)) as usize).as_ref() }
    }

    #[inline]
    fn cells_log2(&self) -> u32 {
        self.shape.cells_log2
    }

    #[inline]
    fn place(&self, number: u32) -> Option<&AtomicU64> {
        // SAFETY: a place begins with its word.
        Some(unsafe { self.at(number)?.cast::<AtomicU64>().as_ref() })
    }

    #[inline]
    fn places(&self) -> u32 {
        self.shape.places
    }

    #[inline]
    fn capacity(&self) -> u64 {
        self.shape.capacity
    }

    #[inline]
    fn most_bytes(&self) -> Option<u64> {
        self.shape.most_bytes()
    }

    fn start(&self, number: u32) -> Option<&AtomicU64> {
        self.shape.most_bytes()?;
        self.field(number, self.shape.stride / 8 - 1)
    }

    #[inline]
    fn position(&self, number: u32) -> Option<&AtomicU64> {
        self.field(number, 2)
    }

    fn size(&self, number: u32) -> u64 {
        self.field(number, 1).map_or(0, |len| len.load(Ordering::Relaxed) & !IN_PARCEL)
    }

    #[inline]
    fn prefetch(&self, number: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(place) = self.at(number) {
            // SAFETY: a hint, which changes nothing.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) place.as_ptr(), options(nostack, preserves_flags))
            };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = number;
    }

    #[inline]
    fn known(&self) -> &Known {
        &self.known
    }
}
