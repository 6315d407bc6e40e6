//! Links the control domain as a unikernel.

fn main() {
    unikernel_rt::build::link();
}
