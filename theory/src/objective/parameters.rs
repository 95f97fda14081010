//! The numbers that objectives take besides batches, checked when they are made.

use super::ArithError;

fn positive(name: &'static str, value: f64) -> Result<f64, ArithError> {
    if value > 0.0 && value.is_finite() {
        Ok(value)
    } else {
        Err(ArithError::Parameter { name, value, expected: "a finite number above 0" })
    }
}

/// A parameter that is a finite number above 0, under the name its errors carry.
macro_rules! positive {
    ($(#[doc = $doc:literal])* $name:ident, $argument:literal) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name(f64);

        impl $name {
            #[doc = concat!("Checks `", $argument, "`.")]
            ///
            /// # Errors
            /// When it is not a finite number above 0.
            pub fn new(value: f64) -> Result<Self, ArithError> {
                positive($argument, value).map(Self)
            }

            /// The number.
            pub fn get(self) -> f64 {
                self.0
            }
        }
    };
}

positive! {
    /// The step size `eta` of the paper: a finite number above 0. Units: nats per unit of reward.
    Eta, "eta"
}
positive! {
    /// The inverse temperature `beta` of DPO: a finite number above 0, per nat.
    Beta, "beta"
}
positive! {
    /// The regularisation `tau` of IPO: a finite number above 0, per nat. A preferred response is to lead by
    /// $$ 1/(2\tau) $$ nats.
    Tau, "tau"
}
positive! {
    /// The temperature `lambda` of APA: a finite number above 0, units of reward per nat; the inverse of a step size.
    Lambda, "lambda"
}
positive! {
    /// How far PPO lets a quantity move before it is clipped: a finite number above 0. Of a policy the probability ratio
    /// may leave 1 by this much, of a critic the value may leave the old one by this many units of return.
    Clip, "clip"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameter_that_is_no_positive_number_is_refused_by_name() {
        assert_eq!(Eta::new(0.0).unwrap_err().to_string(), "eta: 0 is not usable (expected a finite number above 0)");
        assert!(Eta::new(f64::NAN).is_err() && Beta::new(f64::INFINITY).is_err());
        assert!(Tau::new(-1.0).is_err() && Lambda::new(0.0).is_err() && Clip::new(-0.2).is_err());
        assert_eq!(Clip::new(0.2).unwrap().get(), 0.2);
    }
}
