//! Where a program's standard streams lead.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Where a standard stream of a program leads.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stdio {
    /// Where this process's leads.
    Inherit,
    /// Nowhere: `/dev/null`.
    #[doc(alias = "DEVNULL")]
    Null,
    /// Into a pipe, whose other end is in the [`Popen`](super::Popen).
    Pipe,
    /// Where the program's standard output leads (`2>&1`); for standard error only.
    Stdout,
    /// To this open file, pipe or socket. This process's copy is closed when the program has been started.
    Fd(OwnedFd),
}

impl Stdio {
    /// The program's descriptor for reading, if it does not inherit one, and our end of the pipe, if it is
    /// one.
    pub(super) fn open_input(self) -> io::Result<(Option<OwnedFd>, Option<PipeWriter>)> {
        Ok(match self {
            Stdio::Inherit | Stdio::Stdout => (None, None),
            Stdio::Null => (Some(File::open("/dev/null")?.into()), None),
            Stdio::Fd(fd) => (Some(fd), None),
            Stdio::Pipe => {
                let (read, write) = pipe()?;
                (Some(read.into()), Some(write))
            }
        })
    }

    /// The same for writing. `stdout` is the program's standard output, if it does not inherit that.
    pub(super) fn open_output(
        self,
        stdout: Option<&OwnedFd>,
    ) -> io::Result<(Option<OwnedFd>, Option<PipeReader>)> {
        Ok(match self {
            Stdio::Inherit => (None, None),
            Stdio::Null => (Some(File::options().write(true).open("/dev/null")?.into()), None),
            Stdio::Fd(fd) => (Some(fd), None),
            Stdio::Pipe => {
                let (read, write) = pipe()?;
                (Some(write.into()), Some(read))
            }
            Stdio::Stdout => {
                let own = io::stdout();
                (Some(stdout.map_or(own.as_fd(), OwnedFd::as_fd).try_clone_to_owned()?), None)
            }
        })
    }
}

impl From<OwnedFd> for Stdio {
    fn from(fd: OwnedFd) -> Stdio {
        Stdio::Fd(fd)
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Stdio {
        Stdio::Fd(file.into())
    }
}

impl From<PipeReader> for Stdio {
    fn from(pipe: PipeReader) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}

impl From<PipeWriter> for Stdio {
    fn from(pipe: PipeWriter) -> Stdio {
        Stdio::Fd(pipe.into())
    }
}

impl From<TcpStream> for Stdio {
    fn from(socket: TcpStream) -> Stdio {
        Stdio::Fd(socket.into())
    }
}

impl From<UnixStream> for Stdio {
    fn from(socket: UnixStream) -> Stdio {
        Stdio::Fd(socket.into())
    }
}
