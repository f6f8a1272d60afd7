//! Links `upper` without start files and libraries.

fn main() {
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo::rustc-link-arg-bin=upper={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
