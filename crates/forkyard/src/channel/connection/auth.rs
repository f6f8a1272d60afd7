//! Showing one another that both know the key: the challenge and response of Python's `multiprocessing.connection`
//! (CPython 3.12 and later, `Lib/multiprocessing/connection.py`; HMAC: RFC 2104).
//!
//! A state machine without input and output: frames in, frames out. Nothing of a peer is decoded before it is through, and no frame of it is longer than
//! [`LONGEST`].

use std::fmt;

use hmac::{Hmac, Mac};
use md5::Md5;
use sha2::{Sha256, Sha384};

/// Longest frame of a handshake.
pub(super) const LONGEST: u64 = 256;
const CHALLENGE: &[u8] = b"#CHALLENGE#";
const WELCOME: &[u8] = b"#WELCOME#";
const FAILURE: &[u8] = b"#FAILURE#";
/// Random bytes of a challenge of ours.
const RANDOM: usize = 40;
/// Bytes of a challenge, and of a response, of peers that know MD5 only (Python before 3.12).
const OLD_CHALLENGE: usize = 20;
const OLD_RESPONSE: usize = 16;

/// A secret that both sides of a connection know. It is never printed, nor put into an environment or a log.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthKey(Vec<u8>);

impl AuthKey {
    /// A key of these bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> AuthKey {
        AuthKey(bytes.into())
    }

    /// A key that nobody else has: 32 random bytes.
    ///
    /// # Errors
    /// As getrandom(2).
    pub fn random() -> crate::Result<AuthKey> {
        random::<32>().map(AuthKey)
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(…)")
    }
}

fn random<const N: usize>() -> crate::Result<Vec<u8>> {
    let bytes = forkyard_sys::random::bytes::<N>();
    bytes.map(Vec::from).map_err(|errno| crate::Error::os("get random bytes", errno))
}

/// Why a peer was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not know the key.
    WrongKey,
    /// It did not believe us.
    NotBelieved,
    /// It knows MD5 only, which is not allowed here.
    Md5,
    /// It sent something else than what comes next.
    Nonsense,
}

impl Refusal {
    pub(super) fn text(self) -> &'static str {
        match self {
            Refusal::WrongKey => "the peer does not know the key",
            Refusal::NotBelieved => "the peer says that our key is not its own",
            Refusal::Md5 => "the peer knows MD5 only, as Python before 3.12 does; allow it by allow_md5",
            Refusal::Nonsense => "the peer sent something else than an answer",
        }
    }
}

/// What is sent as one message.
pub(super) type Frame = Vec<u8>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digest {
    Md5,
    Sha256,
    Sha384,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Our challenge is out.
    Response(Vec<u8>),
    /// The peer's is to come.
    Challenge,
    /// Our response is out.
    Verdict,
    Done,
    /// Something was wrong: nothing makes it right.
    Refused,
}

/// One side of a handshake.
pub(super) struct Handshake {
    key: AuthKey,
    allow_md5: bool,
    /// Whether this side challenges first.
    first: bool,
    state: State,
}

impl Handshake {
    /// The side that accepts, and the frame that it begins with.
    pub(super) fn accepting(key: AuthKey, allow_md5: bool) -> crate::Result<(Handshake, Vec<u8>)> {
        let (state, frame) = challenge()?;
        Ok((Handshake { key, allow_md5, first: true, state }, frame))
    }

    /// The side that connects.
    pub(super) fn connecting(key: AuthKey, allow_md5: bool) -> Handshake {
        Handshake { key, allow_md5, first: false, state: State::Challenge }
    }

    /// True when both sides believe each other.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// True if the peer has shown that it knows the key: of a side that challenges first.
    pub(super) fn believes(&self) -> bool {
        !matches!(self.state, State::Response(_) | State::Refused)
    }

    /// A frame has come: what is to be sent. With a refusal, what is to be sent before hanging up.
    pub(super) fn received(&mut self, frame: &[u8]) -> Result<Vec<Frame>, (Refusal, Option<Frame>)> {
        let state = std::mem::replace(&mut self.state, State::Refused);
        match state {
            State::Response(challenge) => {
                self.verify(&challenge, frame).map_err(|refusal| (refusal, Some(FAILURE.to_vec())))?;
                self.state = if self.first { State::Challenge } else { State::Done };
                Ok(vec![WELCOME.to_vec()])
            }
            State::Challenge => {
                let message = frame.strip_prefix(CHALLENGE).filter(|message| message.len() >= OLD_CHALLENGE);
                let response =
                    self.respond(message.ok_or((Refusal::Nonsense, None))?).map_err(|r| (r, None))?;
                self.state = State::Verdict;
                Ok(vec![response])
            }
            State::Verdict if frame == WELCOME && self.first => {
                self.state = State::Done;
                Ok(Vec::new())
            }
            State::Verdict if frame == WELCOME => {
                let (state, frame) = challenge().map_err(|_| (Refusal::Nonsense, None))?;
                self.state = state;
                Ok(vec![frame])
            }
            State::Verdict if frame == FAILURE => Err((Refusal::NotBelieved, None)),
            State::Verdict | State::Done | State::Refused => Err((Refusal::Nonsense, None)),
        }
    }

    fn verify(&self, challenge: &[u8], response: &[u8]) -> Result<(), Refusal> {
        let (digest, mac) = digest_of(response, OLD_RESPONSE)?;
        if digest == Digest::Md5 && !self.allow_md5 {
            return Err(Refusal::Md5);
        }
        // In constant time.
        let right = match digest {
            Digest::Md5 => mac_of::<Hmac<Md5>>(&self.key, challenge).map(|m| m.verify_slice(mac).is_ok()),
            Digest::Sha256 => {
                mac_of::<Hmac<Sha256>>(&self.key, challenge).map(|m| m.verify_slice(mac).is_ok())
            }
            Digest::Sha384 => {
                mac_of::<Hmac<Sha384>>(&self.key, challenge).map(|m| m.verify_slice(mac).is_ok())
            }
        };
        if right == Some(true) { Ok(()) } else { Err(Refusal::WrongKey) }
    }

    fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (digest, _) = digest_of(challenge, OLD_CHALLENGE)?;
        let named = |name: &[u8], mac: Vec<u8>| [name, &mac].concat();
        let response = match digest {
            Digest::Md5 if !self.allow_md5 => return Err(Refusal::Md5),
            Digest::Md5 => {
                let mac =
                    mac_of::<Hmac<Md5>>(&self.key, challenge).map(|m| m.finalize().into_bytes().to_vec());
                // Who does not name it does not expect a name.
                let old = challenge.len() == OLD_CHALLENGE;
                mac.map(|mac| named(if old { b"" } else { b"{md5}" }, mac))
            }
            Digest::Sha256 => mac_of::<Hmac<Sha256>>(&self.key, challenge)
                .map(|m| named(b"{sha256}", m.finalize().into_bytes().to_vec())),
            Digest::Sha384 => mac_of::<Hmac<Sha384>>(&self.key, challenge)
                .map(|m| named(b"{sha384}", m.finalize().into_bytes().to_vec())),
        };
        response.ok_or(Refusal::Nonsense)
    }
}

fn mac_of<M: Mac + hmac::digest::KeyInit>(key: &AuthKey, message: &[u8]) -> Option<M> {
    // HMAC takes keys of every length.
    let mut mac = <M as hmac::digest::KeyInit>::new_from_slice(&key.0).ok()?;
    mac.update(message);
    Some(mac)
}

fn challenge() -> crate::Result<(State, Vec<u8>)> {
    let message = [&b"{sha256}"[..], &random::<RANDOM>()?].concat();
    let frame = [CHALLENGE, &message].concat();
    Ok((State::Response(message), frame))
}

/// Which digest is meant, and what stands behind its name. What has the length of an old peer's has none.
fn digest_of(message: &[u8], old: usize) -> Result<(Digest, &[u8]), Refusal> {
    if message.len() == old {
        return Ok((Digest::Md5, message));
    }
    let names = [(&b"{sha256}"[..], Digest::Sha256), (b"{sha384}", Digest::Sha384), (b"{md5}", Digest::Md5)];
    let found = names.into_iter().find_map(|(name, digest)| Some((digest, message.strip_prefix(name)?)));
    found.ok_or(Refusal::Nonsense)
}

#[cfg(test)]
mod tests {
    use super::{AuthKey, Handshake, Refusal};

    fn key(text: &str) -> AuthKey {
        AuthKey::new(text)
    }

    /// Both sides' ends.
    fn meet(server: &str, client: &str) -> (Result<(), Refusal>, Result<(), Refusal>) {
        let (mut accepting, first) = Handshake::accepting(key(server), false).unwrap();
        let mut connecting = Handshake::connecting(key(client), false);
        let (mut to_client, mut to_server) = (vec![first], Vec::new());
        let (mut at_server, mut at_client) = (Ok(()), Ok(()));
        for _ in 0..10 {
            for frame in std::mem::take(&mut to_client) {
                match connecting.received(&frame) {
                    Ok(frames) => to_server.extend(frames),
                    Err((refusal, _)) => at_client = Err(refusal),
                }
            }
            for frame in std::mem::take(&mut to_server) {
                match accepting.received(&frame) {
                    Ok(frames) => to_client.extend(frames),
                    Err((refusal, last)) => {
                        at_server = Err(refusal);
                        to_client.extend(last);
                    }
                }
            }
        }
        assert_eq!(accepting.is_done() && at_server.is_ok(), at_client.is_ok());
        (at_server, at_client)
    }

    #[test]
    fn who_knows_the_key_is_believed() {
        assert_eq!(meet("secret", "secret"), (Ok(()), Ok(())));
        assert_eq!(meet("", ""), (Ok(()), Ok(())));
        assert_eq!(meet("secret", "Secret"), (Err(Refusal::WrongKey), Err(Refusal::NotBelieved)));
    }

    #[test]
    fn md5_is_refused_unless_it_is_allowed() {
        let old = [&b"#CHALLENGE#"[..], &[7; 20]].concat();
        let refused = Handshake::connecting(key("k"), false).received(&old);
        assert_eq!(refused.unwrap_err().0, Refusal::Md5);
        let answer = Handshake::connecting(key("k"), true).received(&old).unwrap();
        assert_eq!(answer[0].len(), 16);
    }

    #[test]
    fn nonsense_is_refused_at_every_step() {
        for frame in [&b""[..], b"#CHALLENGE#", b"#WELCOME#", b"{sha256}", &[0; 256]] {
            assert!(Handshake::accepting(key("k"), true).unwrap().0.received(frame).is_err());
            assert!(Handshake::connecting(key("k"), true).received(frame).is_err());
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert!(!format!("{:?}", key("secret")).contains("secret"));
    }
}
