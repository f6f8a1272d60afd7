//! What a server's children may do: user, groups, no_new_privs, resource limits.
//!
//! Applied once in the server's zygote, in this order: resource limits, no_new_privs, groups, gid, uid. Its
//! clones inherit all of it at no cost. A step that fails is reported by its name and the server does not start.

use forkyard_sys::exec::Plan;
use forkyard_sys::limits::{self, Resource, User};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// Rights of a server's children. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) groups: Option<Vec<u32>>,
    pub(super) no_new_privs: bool,
    pub(super) limits: Vec<(String, Option<u64>, Option<u64>)>,
}

impl Rights {
    /// Changes nothing.
    #[must_use]
    pub fn new() -> Rights {
        Rights::default()
    }

    /// Runs the children as this user (a name or a number), with the user's own groups.
    ///
    /// # Errors
    /// There is no such user.
    pub fn user(mut self, user: &str) -> Result<Rights> {
        let found = User::find(user).ok_or_else(|| unknown("user", user))?;
        self.user = Some(found.uid);
        if self.group.is_none() {
            self.group = Some(found.gid);
            self.groups = Some(found.groups);
        }
        Ok(self)
    }

    /// Runs the children with this group (a name or a number) and no supplementary groups.
    ///
    /// # Errors
    /// There is no such group.
    pub fn group(mut self, group: &str) -> Result<Rights> {
        let gid = limits::find_group(group).ok_or_else(|| unknown("group", group))?;
        self.group = Some(gid);
        self.groups = Some(Vec::new());
        Ok(self)
    }

    /// The soft limit of a resource that children have, if it is another one than the server's.
    pub(super) fn soft_limit(&self, name: &str) -> Option<Option<u64>> {
        self.limits.iter().rev().find(|(limited, ..)| limited == name).map(|&(_, soft, _)| soft)
    }

    /// The children, and what they execute, can never gain privileges (prctl(2), `PR_SET_NO_NEW_PRIVS`).
    #[must_use]
    pub fn no_new_privs(mut self) -> Rights {
        self.no_new_privs = true;
        self
    }

    /// Limits a resource: `nofile=256`, `as=1073741824:2147483648` (soft:hard), `core=unlimited`.
    ///
    /// # Errors
    /// The text is not `NAME=SOFT[:HARD]`, or there is no such resource.
    pub fn rlimit(mut self, text: &str) -> Result<Rights> {
        let invalid = || {
            let why =
                format!("\"{text}\" is not NAME=SOFT[:HARD]; names are {}", Resource::names().join(" "));
            Error::new("read the resource limit", Kind::Invalid(why))
        };
        let (name, values) = text.split_once('=').ok_or_else(invalid)?;
        let resource = Resource::from_name(name).ok_or_else(invalid)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (parse_limit(soft).ok_or_else(invalid)?, parse_limit(hard).ok_or_else(invalid)?);
        self.limits.push((resource.name().to_owned(), soft, hard));
        Ok(self)
    }
}

/// `Some(None)` is unlimited, `None` is no number.
fn parse_limit(text: &str) -> Option<Option<u64>> {
    match text {
        "unlimited" | "infinity" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn unknown(what: &str, name: &str) -> Error {
    Error::new(format!("find the {what}"), Kind::Invalid(format!("there is no {what} \"{name}\"")))
}

impl Rights {
    /// Drops rights for good in the zygote; a clone of it has no more than it has.
    pub(super) fn drop_in_zygote(&self) -> Result<()> {
        for (resource, soft, hard) in self.resources().filter(|(resource, ..)| *resource != Resource::CPU) {
            set_limit(resource, soft, hard)?;
        }
        let step = |what: &str, result: forkyard_sys::Result<()>| {
            result.map_err(|errno| Error::os(format!("drop rights: {what}"), errno))
        };
        if self.no_new_privs {
            step("set no_new_privs", forkyard_sys::prctl::no_new_privs())?;
        }
        if let Some(groups) = &self.groups {
            step("set the supplementary groups", limits::set_groups(groups))?;
        }
        if let Some(gid) = self.group {
            step("set the group", limits::set_gid(gid))?;
        }
        if let Some(uid) = self.user {
            step("set the user", limits::set_uid(uid))?;
        }
        if self.user.is_some() || self.group.is_some() {
            // A change of user or group cleared it.
            step("die with the master", forkyard_sys::prctl::die_with_parent())?;
        }
        Ok(())
    }

    /// The same for a program that is executed: it drops them itself, in the same order.
    pub(super) fn plan(&self, plan: &mut Plan<'_>) {
        for (resource, soft, hard) in self.resources() {
            let (soft, hard) = (limits::raw(soft), limits::raw(hard));
            plan.limit(resource.number(), soft, hard);
        }
        if self.no_new_privs {
            plan.no_new_privileges();
        }
        if let Some(groups) = &self.groups {
            plan.groups(groups.clone());
        }
        if let Some(gid) = self.group {
            plan.gid(gid);
        }
        if let Some(uid) = self.user {
            plan.uid(uid);
        }
    }

    /// What would count for the zygote's own long life, and so has to wait for the child.
    pub(super) fn drop_in_child(&self) -> Result<()> {
        for (resource, soft, hard) in self.resources().filter(|(resource, ..)| *resource == Resource::CPU) {
            set_limit(resource, soft, hard)?;
        }
        Ok(())
    }

    fn resources(&self) -> impl Iterator<Item = (Resource, Option<u64>, Option<u64>)> {
        self.limits.iter().filter_map(|(name, soft, hard)| Some((Resource::from_name(name)?, *soft, *hard)))
    }
}

fn set_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<()> {
    let what = || format!("limit resource {}", resource.name());
    resource
        .set(soft, hard)
        .map_err(|errno| Error::os_hint(what(), errno, "the hard limit can only be lowered"))
}
