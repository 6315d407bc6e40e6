//! Links the image of the domain.

fn main() {
    unikernel_rt::build::link();
}
