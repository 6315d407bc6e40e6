//! A proportional-integral-derivative controller in fixed point, and a plant for it to control: a body that follows what drives it with a time
//! constant of 50 turns. All values are in 65536ths.

/// One, as a value.
pub const ONE: i32 = 1 << 16;
/// What the actuator can do, either way.
const STRONGEST: i64 = 4 * ONE as i64;
/// Gains, in 65536ths: 2, 1/32 a turn, 1/2 of a turn's change.
const PROPORTIONAL: i64 = 2 << 16;
const INTEGRAL: i64 = (1 << 16) / 32;
const DERIVATIVE: i64 = (1 << 16) / 2;
/// Turns in which the plant would reach what drives it if it went on as it began.
const INERTIA: i64 = 50;
/// Turns between two changes of what is wanted.
const STEP: u32 = 1000;

/// The controller.
#[derive(Clone, Debug, Default)]
pub struct Controller {
    /// The sum of the errors, times [`INTEGRAL`].
    sum: i64,
    last: i64,
}

impl Controller {
    /// What the actuator shall do, given what is wanted and what was measured.
    pub fn step(&mut self, wanted: i32, measured: i32) -> i32 {
        let measured = i64::from(measured);
        let error = i64::from(wanted) - measured;
        // On the measured value, so that a change of what is wanted makes no jolt.
        let change = self.last - measured;
        self.last = measured;
        let direct = (PROPORTIONAL * error + DERIVATIVE * change) >> 16;
        let sum = self.sum + ((INTEGRAL * error) >> 16);
        let wished = direct + sum;
        let output = wished.clamp(-STRONGEST, STRONGEST);
        // While the actuator does all it can, a growing sum would only have to shrink again.
        if output == wished {
            self.sum = sum.clamp(-STRONGEST, STRONGEST);
        }
        output as i32
    }
}

/// What is controlled, where there is nothing real at the other end of the cable.
#[derive(Clone, Debug, Default)]
pub struct Plant {
    state: i64,
}

impl Plant {
    /// A turn with the actuator at this; what the sensor says then.
    pub fn step(&mut self, actuator: i32) -> i32 {
        let actuator = i64::from(actuator).clamp(-STRONGEST, STRONGEST);
        self.state += (actuator - self.state) / INERTIA;
        self.state as i32
    }
}

/// What is wanted in a turn: one, and minus one, by turns of a second each.
pub fn wanted(sequence: u32) -> i32 {
    if (sequence / STEP).is_multiple_of(2) {
        ONE
    } else {
        -ONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_plant_follows_what_is_wanted() {
        let (mut controller, mut plant) = (Controller::default(), Plant::default());
        let mut measured = 0;
        for sequence in 0..6 * STEP {
            measured = plant.step(controller.step(wanted(sequence), measured));
            if sequence % STEP > STEP - 300 {
                assert!(
                    (measured - wanted(sequence)).abs() < ONE / 100,
                    "turn {sequence}: {measured}"
                );
            }
            assert!(measured.abs() < ONE * 3 / 2, "turn {sequence}: {measured}");
        }
        assert!(measured < 0);
    }

    proptest! {
        #[test]
        fn nothing_that_is_measured_overflows(measured in prop::collection::vec(any::<i32>(), 1..500), wanted in any::<i32>()) {
            let (mut controller, mut plant) = (Controller::default(), Plant::default());
            for measured in measured {
                let output = controller.step(wanted, measured);
                prop_assert!(i64::from(output).abs() <= STRONGEST);
                plant.step(measured);
            }
        }
    }
}
