//! `imagePullPolicy`: what to do about a container's image, given what is on the node. Pure.

use super::name::Name;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    IfNotPresent,
    Never,
}

impl Policy {
    /// The API server fills the field in; static pods may lack it.
    pub fn of(field: Option<&str>, image: &str) -> Self {
        match field {
            Some("Always") => Policy::Always,
            Some("Never") => Policy::Never,
            Some("IfNotPresent") => Policy::IfNotPresent,
            _ if Name::parse(image).is_ok_and(|name| name.is_latest()) => Policy::Always,
            _ => Policy::IfNotPresent,
        }
    }

    pub fn decide(self, present: bool) -> Decision {
        match (self, present) {
            (Policy::Always, _) | (Policy::IfNotPresent, false) => Decision::Pull,
            (Policy::IfNotPresent | Policy::Never, true) => Decision::Use,
            (Policy::Never, false) => Decision::Refuse,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Use,
    Pull,
    /// `ErrImageNeverPull`
    Refuse,
}

#[cfg(test)]
mod tests {
    use super::{Decision, Policy};

    #[test]
    fn policy_left_out_follows_the_tag() {
        assert_eq!(Policy::of(None, "app"), Policy::Always);
        assert_eq!(Policy::of(None, "app:v1"), Policy::IfNotPresent);
        assert_eq!(Policy::of(Some("Never"), "app"), Policy::Never);
    }

    #[test]
    fn a_present_image_is_pulled_again_only_when_always() {
        assert_eq!(Policy::Always.decide(true), Decision::Pull);
        assert_eq!(Policy::IfNotPresent.decide(true), Decision::Use);
        assert_eq!(Policy::Never.decide(false), Decision::Refuse);
    }
}
