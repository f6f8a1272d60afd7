//! The allocator, and joining and leaving the family.

use crate::stage::{B, C, Stage, Told, Who};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("object made, small", "/ make.small /", others_make),
    Case::new("object made, large", "/ make.large /", others_make),
    Case::new("object made, in a new chunk", "make.half make.half / make.half /", others_make),
    Case::new("object dropped, small", "make.small / drop /", others_make),
    Case::new("object dropped, large", "make.large / drop /", others_make),
    Case::new("object dropped, its chunk closes", "make.half make.half make.half drop / drop /", others_make),
    Case::new("all dropped at once", "make.small make.half make.large / drop drop drop /", others_make),
    Case { who: Who::Stranger, ..Case::new("joining with a first object", "", others_make) },
    Case { who: Who::Newcomer, ..Case::new("joining with handles that arrive", "", others_make) },
    Case {
        most: Some(120),
        ..Case::new("forking, the parent killed", "/ fork / reap", |stage| {
            stage.reap_orphan()?;
            others_make(stage)
        })
    },
    Case {
        who: Who::ForkOfVictim,
        most: Some(120),
        // At its next fork its parent cleans up after the one that came to nothing.
        ..Case::new("forking, the fork killed", "/ fork / reap fork reap", others_make)
    },
];

fn others_make(stage: &mut Stage) -> Told {
    for actor in [B, C] {
        stage.expect(actor, "make.small make.large make.half drop drop drop", &["ok ok ok ok ok ok"])?;
    }
    Ok(())
}
