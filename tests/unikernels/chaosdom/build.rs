//! Has the image linked at its place.

fn main() {
    unikernel_rt::build::link();
}
