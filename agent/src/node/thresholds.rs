//! Thresholds below which the node tells a pressure, in the kubelet's notation for `--eviction-hard`.
//!
//! A signal that is not named keeps the kubelet's default (its `mergeDefaultEvictionSettings`): who only cares about
//! the disk does not lose the rest.

use std::{fmt, str::FromStr};

use api::quantity::Quantity;

/// The least that must be available, of each resource the node watches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    pub memory: Amount,
    /// Of the file system with the agent's state.
    pub disk: Amount,
    /// Process ids.
    pub pids: Amount,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Bytes, or a count of processes.
    Absolute(u64),
    /// Share of all there is, from 0 to 1.
    Share(f64),
}

impl Default for Thresholds {
    /// Memory and disk as the kubelet's; it has none for process ids.
    fn default() -> Self {
        Self { memory: Amount::Absolute(100 << 20), disk: Amount::Share(0.10), pids: Amount::Absolute(200) }
    }
}

impl Amount {
    /// What this is of `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            Self::Share(share) => (total as f64 * share) as u64,
        }
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    #[error("{0:?} is not of the form SIGNAL<AMOUNT, such as nodefs.available<10%")]
    Form(String),
    #[error("signal {0:?} is not watched: memory.available, nodefs.available and pid.available are")]
    Signal(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("{amount:?} of {signal} is neither a quantity such as 1Gi nor a percentage from 0% to 100%")]
    Amount { signal: String, amount: String },
}

impl FromStr for Thresholds {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut thresholds = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, amount) = part.split_once('<').ok_or_else(|| Error::Form(part.into()))?;
            let (signal, amount) = (signal.trim(), amount.trim());
            let place = match signal {
                "memory.available" => &mut thresholds.memory,
                "nodefs.available" => &mut thresholds.disk,
                "pid.available" => &mut thresholds.pids,
                _ => return Err(Error::Signal(signal.into())),
            };
            if seen.contains(&signal) {
                return Err(Error::Twice(signal.into()));
            }
            seen.push(signal);
            *place = parse(amount).ok_or_else(|| Error::Amount { signal: signal.into(), amount: amount.into() })?;
        }
        Ok(thresholds)
    }
}

fn parse(text: &str) -> Option<Amount> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().ok()?;
        return (0.0..=100.0).contains(&percent).then_some(Amount::Share(percent / 100.0));
    }
    let quantity = Quantity::parse(text).ok()?;
    u64::try_from(quantity.value()).ok().map(Amount::Absolute)
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absolute(amount) => write!(out, "{amount}"),
            Self::Share(share) => write!(out, "{}%", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Amount, Thresholds};

    fn check(text: &str, expected: Result<(Amount, Amount, Amount), &str>) {
        let parsed: Result<Thresholds, _> = text.parse();
        let parsed = parsed.map(|t| (t.memory, t.disk, t.pids)).map_err(|error| error.to_string());
        assert_eq!(parsed, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn the_kubelets_notation() {
        let (memory, disk, pids) = (Amount::Absolute(100 << 20), Amount::Share(0.1), Amount::Absolute(200));
        check("", Ok((memory, disk, pids)));
        check("nodefs.available<5%", Ok((memory, Amount::Share(0.05), pids)));
        check("memory.available<1Gi, pid.available<1k", Ok((Amount::Absolute(1 << 30), disk, Amount::Absolute(1000))));
        check("nodefs.available<0%", Ok((memory, Amount::Share(0.0), pids)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(
            "nodefs.available>5%",
            Err("\"nodefs.available>5%\" is not of the form SIGNAL<AMOUNT, such as nodefs.available<10%"),
        );
        check(
            "disk<5%",
            Err("signal \"disk\" is not watched: memory.available, nodefs.available and pid.available are"),
        );
        check("pid.available<1,pid.available<2", Err("\"pid.available\" is given twice"));
        let bad = "of nodefs.available is neither a quantity such as 1Gi nor a percentage from 0% to 100%";
        check("nodefs.available<101%", Err(&format!("\"101%\" {bad}")));
        check("nodefs.available<-1", Err(&format!("\"-1\" {bad}")));
    }
}
