//! What is known of one target.

use crate::config::HealthCheck;
use crate::ingress::Probed;

/// See the module. A target that nobody has looked at yet counts as up; the first look that says
/// anything decides alone, later ones as often in a row as the check wants.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// What was decided last.
    is_up: Option<bool>,
    /// Looks in a row that say the contrary.
    contrary: u32,
    /// What the last look that failed came to.
    why: String,
}

impl Standing {
    pub(super) fn is_up(&self) -> bool {
        self.is_up.unwrap_or(true)
    }

    /// Why it is down.
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// What a look came to. Says whether that changes anything for those who choose.
    pub(super) fn take(&mut self, probed: &Probed, check: &HealthCheck) -> bool {
        let is_up = match probed {
            Probed::Up => true,
            Probed::Down(why) => {
                self.why.clone_from(why);
                false
            }
            Probed::NotAsked => return false,
        };
        let Some(decided) = self.is_up else {
            self.is_up = Some(is_up);
            return !is_up;
        };
        if is_up == decided {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        if self.contrary < if is_up { check.rise } else { check.fall } {
            return false;
        }
        self.is_up = Some(is_up);
        self.contrary = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
            http: None,
        }
    }

    fn down() -> Probed {
        Probed::Down("connect_failed".to_owned())
    }

    #[test]
    fn a_target_changes_after_so_many_looks_in_a_row() {
        let mut standing = Standing::default();
        let mut see = |probed: Probed| {
            let changed = standing.take(&probed, &check());
            (standing.is_up(), changed)
        };
        assert_eq!(see(Probed::Up), (true, false));
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(Probed::NotAsked), (true, false), "says nothing");
        assert_eq!(see(Probed::Up), (true, false));
        assert_eq!(see(down()), (true, false), "it began anew");
        assert_eq!(see(down()), (true, false));
        assert_eq!(see(down()), (false, true));
        assert_eq!(see(Probed::Up), (false, false));
        assert_eq!(see(down()), (false, false));
        assert_eq!(see(Probed::Up), (false, false));
        assert_eq!(see(Probed::Up), (true, true));
    }

    #[test]
    fn the_first_look_that_says_anything_decides() {
        let mut standing = Standing::default();
        assert!(!standing.take(&Probed::NotAsked, &check()));
        assert!(standing.is_up());
        assert!(standing.take(&down(), &check()));
        assert!(!standing.is_up());
        assert_eq!(standing.why(), "connect_failed");
    }
}
