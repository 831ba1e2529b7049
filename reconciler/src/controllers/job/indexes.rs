//! Sets of completion indexes as a Job's status writes them: `1,3-5,7`. Intervals are in order, disjoint and not
//! adjacent, so that a set has one form and its text grows with the gaps, not with the indexes.

use std::fmt;

/// A set of indexes below a job's completions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a status field; what lies at or above `completions` (the job was made smaller) or is no number is left
    /// out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut set = Self::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            set.push(first, last.min(completions - 1));
        }
        set
    }

    /// Adds an interval that starts after all others do.
    fn push(&mut self, first: i32, last: i32) {
        match self.0.last_mut() {
            _ if first > last => {}
            Some(tail) if first <= tail.1 + 1 => tail.1 = tail.1.max(last),
            _ => self.0.push((first, last)),
        }
    }

    pub fn union(&self, other: &Self) -> Self {
        let mut intervals: Vec<(i32, i32)> = self.0.iter().chain(&other.0).copied().collect();
        intervals.sort_unstable();
        let mut set = Self::default();
        intervals.into_iter().for_each(|(first, last)| set.push(first, last));
        set
    }

    pub fn has(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    pub fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// How many indexes both sets have.
    pub fn common(&self, other: &Self) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        let (mut mine, mut theirs, mut count) = (self.0.iter().peekable(), other.0.iter().peekable(), 0);
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            count += overlap(a, b);
            // The one that ends first meets nothing more.
            if a.1 <= b.1 {
                mine.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub fn gaps(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut gaps = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            let free = next..first.min(completions);
            gaps.extend(free.take(count - gaps.len()));
            next = next.max(last + 1);
        }
        gaps
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        let mut sorted: Vec<i32> = indexes.into_iter().collect();
        sorted.sort_unstable();
        let mut set = Self::default();
        sorted.into_iter().for_each(|index| set.push(index, index));
        set
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (first, last)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                // Two neighbours are no shorter as an interval.
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, completions: i32, expected: &str) {
        assert_eq!(Indexes::parse(text, completions).to_string(), expected);
    }

    #[test]
    fn texts() {
        check("", 5, "");
        check("1,3-5,7", 10, "1,3-5,7");
        check("1,2,3", 10, "1-3");
        check("1,2", 10, "1,2");
        check("0-3,x,5-9", 7, "0-3,5,6");
        check("3,8", 4, "3");
        assert_eq!([5, 1, 2, 9].into_iter().collect::<Indexes>().to_string(), "1,2,5,9");
    }

    #[test]
    fn sets() {
        let a = Indexes::parse("0-3,6,9-12", 20);
        let b = Indexes::parse("2-7,12", 20);
        assert_eq!(a.union(&b).to_string(), "0-7,9-12");
        assert_eq!((a.count(), a.common(&b), b.common(&a)), (9, 4, 4));
        assert!(a.has(3) && a.has(6) && !a.has(4) && !a.has(13));
        assert_eq!(a.gaps(3, 20), [4, 5, 7]);
        assert_eq!(a.gaps(50, 14), [4, 5, 7, 8, 13]);
        assert_eq!(Indexes::default().gaps(2, 1), [0]);
        assert!(a.gaps(5, 2).is_empty());
    }
}
