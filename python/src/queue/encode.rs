//! Objects as messages.
//!
//! A message begins with a byte that says what it is: a pickle, which itself begins with 0x80; one of the plain types; or a pickle with large
//! buffers behind it, each aligned as arrays want it:
//! `[B:1][unused:7][buffers:8][length of the pickle:8][length of each buffer:8…][pickle][buffers, aligned to 64]`.

use std::sync::{Mutex, PoisonError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString};

/// First bytes.
pub(super) const PICKLE: u8 = 0x80;
pub(super) const NONE: u8 = b'n';
pub(super) const FALSE: u8 = b'0';
pub(super) const TRUE: u8 = b'1';
pub(super) const INT: u8 = b'i';
pub(super) const FLOAT: u8 = b'f';
pub(super) const STR: u8 = b's';
pub(super) const BYTES: u8 = b'b';
pub(super) const BUFFERS: u8 = b'B';

/// Buffers of this size lie behind their pickle, and are looked at where they lie.
const OUT_OF_BAND: usize = 64 * 1024;
/// A message of this size is written straight into shared memory.
const LARGE: usize = 4096;
/// Where a buffer may begin.
pub(super) const ALIGN: usize = 64;

/// A message.
pub(super) enum Encoded<'a, 'py> {
    Short([u8; 16], usize),
    Long(Vec<u8>),
    Large(Large<'a, 'py>),
}

/// One whose parts are still where they were.
pub(super) enum Large<'a, 'py> {
    Plain(u8, &'a [u8]),
    Pickled(Pickled<'py>),
}

/// An object that was pickled: the parts of the pickle, one after the other, and the buffers that lie behind it.
pub(super) struct Pickled<'py> {
    parts: Vec<PyBuffer<u8>>,
    buffers: Vec<PyBuffer<u8>>,
    py: Python<'py>,
}

fn short<'a, 'py>(tag: u8, rest: &[u8]) -> PyResult<Encoded<'a, 'py>> {
    let mut bytes = [0; 16];
    bytes[0] = tag;
    bytes[1..=rest.len()].copy_from_slice(rest);
    Ok(Encoded::Short(bytes, 1 + rest.len()))
}

fn plain<'py>(tag: u8, bytes: &[u8]) -> PyResult<Encoded<'_, 'py>> {
    if bytes.len() >= LARGE {
        return Ok(Encoded::Large(Large::Plain(tag, bytes)));
    }
    let mut message = Vec::with_capacity(1 + bytes.len());
    message.push(tag);
    message.extend_from_slice(bytes);
    Ok(Encoded::Long(message))
}

/// Writes down an object.
#[inline]
pub(super) fn encode<'a, 'py>(object: &'a Bound<'py, PyAny>) -> PyResult<Encoded<'a, 'py>> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return plain(BYTES, bytes.as_bytes());
    }
    if let Ok(int) = object.cast_exact::<PyInt>()
        && let Ok(value) = int.extract::<i64>()
    {
        return short(INT, &value.to_le_bytes());
    }
    if let Ok(text) = object.cast_exact::<PyString>()
        && let Ok(text) = text.to_str()
    {
        return plain(STR, text.as_bytes());
    }
    if object.is_none() {
        return short(NONE, &[]);
    }
    if let Ok(value) = object.cast_exact::<PyBool>() {
        return short(if value.is_true() { TRUE } else { FALSE }, &[]);
    }
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return short(FLOAT, &float.value().to_le_bytes());
    }
    pickle(object)
}

fn pickle<'a, 'py>(object: &Bound<'py, PyAny>) -> PyResult<Encoded<'a, 'py>> {
    let py = object.py();
    let pickler = Pickler::get(py)?;
    pickler.dump.call1(py, (object,))?;
    pickler.clear.call0(py)?;
    let (parts, buffers) = pickler.sink.get().empty();
    // Not after an error: it may keep half of an object.
    pickler.put_back();
    if buffers.is_empty()
        && let [part] = &parts[..]
        && let Ok(bytes) = part.bind(py).cast_exact::<PyBytes>()
        && bytes.as_bytes().len() < LARGE
    {
        return Ok(Encoded::Long(bytes.as_bytes().to_vec()));
    }
    let parts = parts.iter().map(|part| PyBuffer::get(part.bind(py))).collect::<PyResult<_>>()?;
    Ok(Encoded::Large(Large::Pickled(Pickled { parts, buffers, py })))
}

impl Large<'_, '_> {
    /// Bytes of the message.
    pub(super) fn len(&self) -> usize {
        match self {
            Large::Plain(_, bytes) => 1 + bytes.len(),
            Large::Pickled(pickled) => pickled.len(),
        }
    }

    /// Writes the message; there is room for it.
    pub(super) fn write(&self, into: &mut [u8]) -> PyResult<()> {
        match self {
            Large::Plain(tag, bytes) => {
                into[0] = *tag;
                into[1..=bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            Large::Pickled(pickled) => pickled.write(into),
        }
    }
}

impl Pickled<'_> {
    fn pickle_len(&self) -> usize {
        self.parts.iter().map(|buffer| buffer.len_bytes()).sum()
    }

    /// Where the pickle begins.
    fn start(&self) -> usize {
        if self.buffers.is_empty() { 0 } else { start(self.buffers.len()) }
    }

    fn len(&self) -> usize {
        let end = self.start() + self.pickle_len();
        self.buffers.iter().fold(end, |end, buffer| end.next_multiple_of(ALIGN) + buffer.len_bytes())
    }

    fn write(&self, into: &mut [u8]) -> PyResult<()> {
        if !self.buffers.is_empty() {
            let lens = self.buffers.iter().map(|buffer| buffer.len_bytes());
            let numbers = [self.buffers.len(), self.pickle_len()].into_iter().chain(lens);
            into[..8].copy_from_slice(&[BUFFERS, 0, 0, 0, 0, 0, 0, 0]);
            for (number, place) in numbers.zip(into[8..].chunks_exact_mut(8)) {
                place.copy_from_slice(&(number as u64).to_le_bytes());
            }
        }
        let mut at = self.start();
        for part in &self.parts {
            part.copy_to_slice(self.py, &mut into[at..at + part.len_bytes()])?;
            at += part.len_bytes();
        }
        for buffer in &self.buffers {
            at = at.next_multiple_of(ALIGN);
            buffer.copy_to_slice(self.py, &mut into[at..at + buffer.len_bytes()])?;
            at += buffer.len_bytes();
        }
        Ok(())
    }
}

/// Where the pickle begins in a message with so many buffers.
pub(super) fn start(buffers: usize) -> usize {
    8 * (3 + buffers)
}

/// What a pickler writes to: the parts of the pickle, and the large buffers that do not become parts.
#[pyclass(frozen)]
pub(crate) struct Sink {
    taken: Mutex<Parts>,
}

type Parts = (Vec<Py<PyAny>>, Vec<PyBuffer<u8>>);

impl Sink {
    fn with<R>(&self, change: impl FnOnce(&mut Parts) -> R) -> R {
        change(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn empty(&self) -> Parts {
        self.with(std::mem::take)
    }
}

#[pymethods]
impl Sink {
    fn write(&self, part: Py<PyAny>) {
        self.with(|(parts, _)| parts.push(part));
    }

    /// Takes a buffer, or leaves it to the pickle: then it is true.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let raw = PyBuffer::get(&buffer.call_method0(pyo3::intern!(buffer.py(), "raw"))?)?;
        if raw.len_bytes() < OUT_OF_BAND {
            return Ok(true);
        }
        self.with(|(_, buffers)| buffers.push(raw));
        Ok(false)
    }
}

/// How classes are pickled that have said so: to the standard library's `ForkingPickler`, or to `copyreg`.
#[pyclass(frozen, mapping)]
pub(crate) struct Reducers {
    forking: Py<PyDict>,
    general: Py<PyDict>,
}

#[pymethods]
impl Reducers {
    fn __getitem__<'py>(&self, class: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        if let Some(reduce) = self.forking.bind(py).get_item(class)? {
            return Ok(reduce);
        }
        let found = self.general.bind(py).get_item(class)?;
        found.ok_or_else(|| PyKeyError::new_err(class.clone().unbind()))
    }
}

/// A pickler's methods, and what it writes to.
struct Pickler {
    dump: Py<PyAny>,
    clear: Py<PyAny>,
    sink: Py<Sink>,
}

/// One that nobody uses.
static SPARE: Mutex<Option<Pickler>> = Mutex::new(None);

impl Pickler {
    fn get(py: Python<'_>) -> PyResult<Pickler> {
        match SPARE.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(spare) => Ok(spare),
            None => Pickler::new(py),
        }
    }

    fn new(py: Python<'_>) -> PyResult<Pickler> {
        let sink = Py::new(py, Sink { taken: Mutex::default() })?;
        let class = py.import("_pickle")?.getattr("Pickler")?;
        let options = [("buffer_callback", &sink)].into_py_dict(py)?;
        let pickler = class.call((&sink, PROTOCOL), Some(&options))?;
        let forking = py.import("multiprocessing.reduction")?.getattr("ForkingPickler")?;
        let forking = forking.getattr("_extra_reducers")?.cast_into::<PyDict>()?.unbind();
        let general = py.import("copyreg")?.getattr("dispatch_table")?.cast_into::<PyDict>()?.unbind();
        pickler.setattr("dispatch_table", Reducers { forking, general }.into_pyobject(py)?)?;
        let method = |name: &str| pickler.getattr(name).map(Bound::unbind);
        Ok(Pickler { dump: method("dump")?, clear: method("clear_memo")?, sink })
    }

    fn put_back(self) {
        *SPARE.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
    }
}

/// The first one with buffers outside of the pickle.
const PROTOCOL: u8 = 5;
