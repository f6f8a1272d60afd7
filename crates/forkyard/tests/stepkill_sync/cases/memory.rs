//! The allocator, and joining and leaving the family.

use crate::stage::{B, C, Stage, Told};
use crate::sweep::Case;

pub(crate) const CASES: &[Case] = &[
    Case::new("object made, small", "/ make.small /", others_make),
    Case::new("object made, large", "/ make.large /", others_make),
    Case::new("object made, in a new chunk", "make.half make.half / make.half /", others_make),
    Case::new("object dropped, small", "make.small / drop /", others_make),
    Case::new("object dropped, large", "make.large / drop /", others_make),
    Case::new("object dropped, its chunk closes", "make.half make.half make.half drop / drop /", others_make),
    Case::new("all dropped at once", "make.small make.half make.large / drop drop drop /", others_make),
];

fn others_make(stage: &mut Stage) -> Told {
    for actor in [B, C] {
        stage.expect(actor, "make.small make.large make.half drop drop drop", &["ok ok ok ok ok ok"])?;
    }
    Ok(())
}
