//! The front: maps of which none is both smaller and better than another.
//!
//! ```text
//! loss │ a              a dominates b: at most its bytes and at most its loss, and one of them less
//!      │   b            the front has a, c, d: bytes rise, losses fall, both strictly
//!      │     c
//!      │          d     hypervolume: what the front dominates of the rectangle below a reference point r,
//!      └──────────────    Σ (bytes of the next point, or of r, − bytes)·(loss of r − loss)
//!               bytes
//! ```
//! Of points with the same bytes and the same loss the front keeps the one with the least map, so it does not depend on the order
//! in which points come. Cost: a binary search a point, and moving the points behind.

#[cfg(test)]
mod tests;

use super::map::Candidate;

/// A map that was evaluated on all tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Exact bytes of its file.
    pub bytes: u64,
    /// Mean nats a token.
    pub loss: f64,
    /// The map.
    pub map: Candidate,
}

impl Point {
    /// Whether this one is at most as large and at most as bad, and one of them less.
    pub fn dominates(&self, other: &Point) -> bool {
        self.bytes <= other.bytes && self.loss <= other.loss && (self.bytes < other.bytes || self.loss < other.loss)
    }
}

/// Points of which none dominates another, by ascending bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Front {
    points: Vec<Point>,
}

impl Front {
    /// The points by ascending bytes, and so by descending loss.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Takes a point in, and drops those that it dominates; tells whether it is on the front now. One whose loss is not finite is not.
    pub fn insert(&mut self, point: Point) -> bool {
        if !point.loss.is_finite() {
            return false;
        }
        // The points before `at` are smaller; the last of them has their least loss.
        let at = self.points.partition_point(|other| other.bytes < point.bytes);
        if at > 0 && self.points[at - 1].loss <= point.loss {
            return false;
        }
        if let Some(other) = self.points.get(at)
            && other.bytes == point.bytes
            && (other.loss < point.loss || other.loss == point.loss && other.map <= point.map)
        {
            return false;
        }
        let worse = self.points[at..].partition_point(|other| other.loss >= point.loss);
        self.points.splice(at..at + worse, [point]);
        true
    }

    /// Whether a point of the front dominates this one.
    pub fn dominates(&self, point: &Point) -> bool {
        self.within(point.bytes).is_some_and(|best| best.dominates(point))
    }

    /// The point of the least loss that has at most so many bytes.
    pub fn within(&self, bytes: u64) -> Option<&Point> {
        let up_to = self.points.partition_point(|point| point.bytes <= bytes);
        self.points[..up_to].last()
    }

    /// The smallest point that has at most this loss.
    pub fn reaching(&self, loss: f64) -> Option<&Point> {
        let from = self.points.partition_point(|point| point.loss > loss);
        // Nothing reaches a loss that is no number.
        self.points.get(from).filter(|point| point.loss <= loss)
    }

    /// The point of the least loss.
    pub fn best(&self) -> Option<&Point> {
        self.points.last()
    }

    /// Bytes times nats of what the front dominates below (`bytes`, `loss`); points beyond that reference count as far as they reach below it.
    pub fn hypervolume(&self, bytes: u64, loss: f64) -> f64 {
        let inside = self.points.partition_point(|point| point.bytes < bytes);
        let mut volume = 0.0;
        for (i, point) in self.points[..inside].iter().enumerate() {
            let until = self.points[..inside].get(i + 1).map_or(bytes, |next| next.bytes);
            volume += (until - point.bytes) as f64 * (loss - point.loss).max(0.0);
        }
        volume
    }
}

impl FromIterator<Point> for Front {
    fn from_iter<I: IntoIterator<Item = Point>>(points: I) -> Self {
        let mut front = Front::default();
        for point in points {
            front.insert(point);
        }
        front
    }
}
